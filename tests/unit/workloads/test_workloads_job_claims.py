"""Pods that Jobs adopt and let go (upstream: "should adopt matching orphans and release non-matching pods")."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from workloads_stage import Stage, events, stage, until

from glebe.kube.objects import Object, controller_of
from glebe.kube.resources import JOBS, PODS
from glebe.workloads.job.controller import build
from glebe.workloads.job.pods import FINALIZER


def job(name: str, **spec: Any) -> Object:
    template = {"spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}}
    body = {"parallelism": 2, "completions": 4, "template": template, **spec}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "default"}, "spec": body}


@asynccontextmanager
async def running(name: str = "adopt", **spec: Any) -> AsyncIterator[tuple[Stage, list[Object]]]:
    async with stage([build]) as here:
        await here.root.create(JOBS, job(name, **spec))
        yield here, await until(lambda: active(here, 2))


async def active(here: Stage, count: int) -> list[Object]:
    pods = (await here.root.list(PODS, "default")).items
    mine = [p for p in pods if controller_of(p) and (p.get("status") or {}).get("phase") == "Running"]
    return mine if len(mine) == count else []


async def change(here: Stage, pod: Object, **meta: Any) -> None:
    await here.root.patch(PODS, pod["metadata"]["name"], {"metadata": meta}, "default")


async def fetch(here: Stage, pod: Object) -> Object:
    return await here.root.get(PODS, pod["metadata"]["name"], "default")


async def test_an_orphan_that_matches_is_adopted_and_one_that_does_not_is_let_go() -> None:
    async with running() as (here, pods):
        owner = (await here.root.get(JOBS, "adopt", "default"))["metadata"]["uid"]
        await change(here, pods[0], ownerReferences=None)

        async def adopted() -> bool:
            return bool((controller_of(await fetch(here, pods[0])) or {}).get("uid") == owner)

        await until(adopted)
        assert len((await here.root.list(PODS, "default")).items) == 2  # nobody was put in its place
        assert (await fetch(here, pods[0]))["metadata"]["finalizers"] == [FINALIZER]
        await change(here, pods[0], labels=None)

        async def released() -> bool:
            return controller_of(await fetch(here, pods[0])) is None

        await until(released)
        assert "finalizers" not in (await fetch(here, pods[0]))["metadata"]
        # Its name is not free: the one in its place has another.
        names = {p["metadata"]["name"] for p in await until(lambda: active(here, 2))}
        assert pods[0]["metadata"]["name"] not in names


async def test_a_strange_pod_that_matches_is_adopted_with_the_finalizer_and_counted() -> None:
    async with running(manualSelector=True, selector={"matchLabels": {"a": "b"}}, template=labelled()) as (here, pods):
        for pod in pods:
            await finish(here, pod)
        await until(lambda: active(here, 2))
        strange = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "strange", "namespace": "default", "labels": {"a": "b"}},
            "spec": labelled()["spec"],
        }
        await here.root.create(PODS, strange)

        async def succeeded(count: int) -> bool:
            return bool((await here.root.get(JOBS, "adopt", "default"))["status"].get("succeeded") == count)

        await until(lambda: active(here, 2))  # three are one too many
        for pod in await until(lambda: active(here, 2)):
            await finish(here, pod)
        await until(lambda: succeeded(4))


async def test_a_job_that_another_controller_manages_adopts_nothing() -> None:
    async with stage([build]) as here:
        spec = {"manualSelector": True, "selector": {"matchLabels": {"a": "b"}}, "template": labelled()}
        await here.root.create(JOBS, job("theirs", managedBy="example.com/other", **spec))
        await here.root.create(
            PODS,
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "orphan", "namespace": "default", "labels": {"a": "b"}},
                "spec": labelled()["spec"],
            },
        )
        await here.root.create(JOBS, job("ours"))  # something that is done after it
        await until(lambda: active(here, 2))
        orphan = await here.root.get(PODS, "orphan", "default")
        assert controller_of(orphan) is None


async def test_what_lost_its_job_its_label_and_not_the_finalizer_is_freed() -> None:
    async with stage([build], "b") as here:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "left", "namespace": "default", "finalizers": [FINALIZER]},
            "spec": labelled()["spec"],
        }
        await here["b"].create(PODS, pod)

        async def free() -> bool:
            return "finalizers" not in (await here["b"].get(PODS, "left", "default"))["metadata"]

        await until(free)


async def test_a_name_that_somebody_else_has_is_passed_over_whatever_the_mode() -> None:
    for spec in ({}, {"completionMode": "Indexed"}):
        async with running(**spec) as (here, pods):
            await change(here, pods[0], labels=None)

            async def replaced(left: str = pods[0]["metadata"]["name"]) -> list[Object]:
                found = await active(here, 2)
                return [] if left in {p["metadata"]["name"] for p in found} else found

            again = await until(replaced)
            assert pods[0]["metadata"]["name"] not in {p["metadata"]["name"] for p in again}
            assert not [e for e in await events(here.root) if e[0] == "FailedCreate"]


def labelled() -> Object:
    return {
        "metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"},
    }


async def finish(here: Stage, pod: Object) -> None:
    body = {"status": {"phase": "Succeeded"}}
    await here.root.patch(PODS, pod["metadata"]["name"], body, "default", subresource="status")

"""Our Job controller and Kubernetes' own, side by side on a real API server: the same statuses, word for word.

Pods never run: the test ends them. Needs kube-controller-manager beside kube-apiserver.
"""

from __future__ import annotations

import asyncio
import copy
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from kube_peer import real_kubernetes, upstream

from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, condition_is_true
from glebe.kube.resources import EVENTS, JOBS, NAMESPACES, PODS
from glebe.workloads.job import controller as job_controller
from glebe.workloads.job.pods import index_of

pytestmark = [pytest.mark.cluster, pytest.mark.realtime]

OURS, THEIRS = "glebe.dev/ours", "kubernetes.io/job-controller"
UPSTREAM = ("kube-controller-manager", "--controllers=job-controller")


class Script:
    """One Job's story in one namespace. ``managedBy`` keeps the other controller away."""

    def __init__(self, client: Client, namespace: str, ours: bool) -> None:
        self.client, self.namespace, self.ours = client, namespace, ours

    async def create(self, **spec: Any) -> None:
        await self.client.create(
            NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        )
        container = {"name": "main", "image": "x"}
        template = {"spec": {"containers": [container], "restartPolicy": "Never"}}
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": self.namespace}}
        job["spec"] = {"template": template, **({"managedBy": OURS} if self.ours else {}), **spec}
        await self.client.create(JOBS, job)

    async def pods(self) -> list[Object]:
        return (await self.client.list(PODS, self.namespace)).items

    async def active(self, count: int) -> list[Object]:
        async def look() -> list[Object] | None:
            found = [
                p
                for p in await self.pods()
                if p["status"].get("phase") in ("Pending", "Running") and "deletionTimestamp" not in p["metadata"]
            ]
            return found if len(found) == count else None

        found = await until(look)
        return sorted(found, key=lambda p: (index_of(p) or 0, p["metadata"]["name"]))

    async def end(self, pod: Object, code: int = 0) -> None:
        stamp = format_time(Env.system().clock.now())
        terminated = {"exitCode": code, "finishedAt": stamp, "startedAt": stamp}
        state = {"name": "main", "ready": False, "image": "x", "imageID": "", "restartCount": 0}
        status = {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [{**state, "state": {"terminated": terminated}}],
        }
        await self.client.patch(PODS, pod["metadata"]["name"], {"status": status}, self.namespace, subresource="status")

    async def suspend(self, value: bool) -> None:
        await self.client.patch(JOBS, "j", {"spec": {"suspend": value}}, self.namespace)

    async def job(self) -> Object:
        return await self.client.get(JOBS, "j", self.namespace)

    async def condition(self, kind: str) -> Object:
        async def look() -> Object | None:
            job = await self.job()
            return job if condition_is_true(job, kind) else None

        found: Object = await until(look)
        return found

    async def settled(self) -> Object:
        """The status when it has not changed for a while, with what differs by nature made equal."""
        last, same = None, 0
        while same < 8:
            await asyncio.sleep(0.3)
            now = normal((await self.job()).get("status") or {}, self.namespace)
            same = same + 1 if now == last else 0
            last = now
        assert last is not None
        return last

    async def events(self) -> list[tuple[str, str]]:
        found = (await self.client.list(EVENTS, self.namespace)).items
        return sorted({(e["type"], e["reason"]) for e in found if e["involvedObject"]["kind"] == "Job"})


def normal(status: Object, namespace: str) -> Object:
    status = copy.deepcopy(status)
    for key in ("startTime", "completionTime"):
        if key in status:
            status[key] = "T"
    for condition in status.get("conditions") or ():
        for key in ("lastProbeTime", "lastTransitionTime"):
            condition.pop(key, None)
        text = condition.get("message", "").replace(namespace, "NS")
        condition["message"] = re.sub(r"NS/j(-\d+)?-[a-z0-9]{5}", r"NS/j\1-x", text)
    return status


async def until(what: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(40):
        while True:
            if value := await what():
                return value
            await asyncio.sleep(0.1)


# --- stories


async def indexed_success(s: Script) -> None:
    await s.create(parallelism=2, completions=3, completionMode="Indexed")
    for pod in await s.active(2):
        await s.end(pod)
    await s.end((await s.active(1))[0])
    await s.condition("Complete")


async def plain_half_way(s: Script) -> None:
    await s.create(parallelism=2, completions=4)
    await s.end((await s.active(2))[0])
    await s.active(2)


async def backoff_limit(s: Script) -> None:
    await s.create(parallelism=2, completions=2, backoffLimit=0)
    await s.end((await s.active(2))[0], 1)
    await s.condition("Failed")


async def suspended_from_the_start(s: Script) -> None:
    await s.create(suspend=True)
    await s.condition("Suspended")


async def suspended_in_the_middle(s: Script) -> None:
    await s.create(parallelism=3, completions=3, completionMode="Indexed")
    await s.end((await s.active(3))[1])
    await s.active(2)
    await s.suspend(True)
    await s.active(0)
    await s.condition("Suspended")


async def resumed(s: Script) -> None:
    await s.create(suspend=True, parallelism=2, completions=2)
    await s.condition("Suspended")
    await s.suspend(False)
    await s.active(2)


async def pod_failure_policy(s: Script) -> None:
    rules = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42], "containerName": "main"}},
    ]
    await s.create(parallelism=2, completions=2, completionMode="Indexed", podFailurePolicy={"rules": rules})
    await s.end((await s.active(2))[0], 42)
    # Pods that still run are deleted, and the Job waits for them: nobody else ends them here.
    await s.condition("FailureTarget")
    await s.condition("Failed")


async def deadline(s: Script) -> None:
    await s.create(activeDeadlineSeconds=2)
    await s.condition("Failed")


async def per_index(s: Script) -> None:
    rules = [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [7]}}]
    spec: Any = {"parallelism": 3, "completions": 3, "completionMode": "Indexed", "backoffLimitPerIndex": 1}
    await s.create(**spec, podFailurePolicy={"rules": rules})
    pods = await s.active(3)
    await s.end(pods[0])
    await s.end(pods[1], 7)
    await s.end(pods[2])
    await s.condition("Failed")


async def success_policy(s: Script) -> None:
    policy = {"rules": [{"succeededIndexes": "0", "succeededCount": 1}]}
    await s.create(parallelism=3, completions=3, completionMode="Indexed", successPolicy=policy)
    await s.end((await s.active(3))[0])
    await s.condition("Complete")


async def work_queue(s: Script) -> None:
    await s.create(parallelism=2, completions=None)
    for pod in await s.active(2):
        await s.end(pod)
    await s.condition("Complete")


async def deleted_pod(s: Script) -> None:
    await s.create(parallelism=2, completions=2, completionMode="Indexed")
    pod = (await s.active(2))[1]
    await s.client.delete(PODS, pod["metadata"]["name"], s.namespace)
    await asyncio.sleep(12)  # the replacement backs off for 10 s
    await s.active(2)


async def nothing_to_do(s: Script) -> None:
    await s.create(parallelism=1, completions=0)
    await s.condition("Complete")


STORIES = (
    indexed_success, plain_half_way, backoff_limit, suspended_from_the_start, suspended_in_the_middle, resumed,
    pod_failure_policy, deadline, per_index, success_policy, work_queue, deleted_pod, nothing_to_do,
)  # fmt: skip


async def test_both_tell_the_same_story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from glebe.workloads.job import reconcile

    monkeypatch.setattr(reconcile, "MANAGED_BY", OURS)
    env = Env.system()
    with real_kubernetes(tmp_path) as peer:
        client = peer.client()
        await peer.ready(client)
        with upstream(peer, tmp_path, UPSTREAM):
            informers = Informers(client, env)
            ours = job_controller.build(client, informers, env)
            tasks = [asyncio.create_task(informers.run()), asyncio.create_task(ours.run())]
            try:
                results = await asyncio.gather(*(_both(client, story) for story in STORIES))
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await client.close()
    different = [text for text in results if text]
    assert not different, "\n\n".join(different)


async def _both(client: Client, story: Callable[[Script], Awaitable[None]]) -> str:
    """Empty, or what differs."""

    scripts = [Script(client, f"{story.__name__.replace('_', '-')}-{who}", who == "ours") for who in ("ours", "theirs")]

    async def tell(script: Script) -> Any:
        try:
            await story(script)
        except TimeoutError:
            return "timed out", await script.settled()
        return await script.settled()

    mine, upstreams = await asyncio.gather(*(tell(s) for s in scripts))
    events: Any = ()
    for _ in range(30):  # upstream's recorder holds events back when there are many
        events = await asyncio.gather(*(s.events() for s in scripts))
        if events[0] == events[1]:
            break
        await asyncio.sleep(0.5)
    if mine == upstreams and events[0] == events[1]:
        return ""
    return f"{story.__name__}:\n  ours:   {mine} {events[0]}\n  theirs: {upstreams} {events[1]}"

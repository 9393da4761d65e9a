"""Each shipped kind with a suspend switch: submitted, admitted, started, evicted, started again, finished."""

from __future__ import annotations

import asyncio
import copy
from dataclasses import dataclass, field
from typing import Any

import pytest
from jobkindworlds import (
    POOL,
    TOLERATION,
    KindWorld,
    admitted,
    container,
    crd,
    finished,
    job,
    kind_world,
    template,
)

from glebe.kube import resources as r
from glebe.kube.objects import Object, condition_is_true, get_condition
from glebe.kube.resources import Resource
from glebe.queueing.jobkinds.paths import parse_path, read
from glebe.queueing.jobkinds.registry import shipped

KINDS = {kind.resource.kind: kind for kind in shipped()}


def condition(kind: str, message: str = "") -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": "True", "message": message, "reason": "x"}]}


@dataclass(frozen=True)
class Case:
    """One kind: what a user writes, and what its operator would write."""

    kind: str
    spec: dict[str, Any]
    sets: dict[str, int]  # pod sets and their counts
    gpus: int
    templates: tuple[str, ...]  # where their pod templates are, in order
    running: dict[str, Any]
    done: dict[str, Any]  # empty: it never ends by itself
    gone: dict[str, Any] = field(default_factory=dict)
    reason: str = "Succeeded"
    suspend: str = "spec.suspend"


def replicas(**kinds: int) -> dict[str, Any]:
    return {kind: {"replicas": count, "template": template(1)} for kind, count in kinds.items()}


def kubeflow(kind: str, place: str, **kinds: int) -> Case:
    spec = {place: replicas(**kinds), "runPolicy": {"cleanPodPolicy": "None"}}
    return Case(
        kind,
        spec,
        {name.lower(): count for name, count in kinds.items()},
        sum(kinds.values()),
        tuple(f"spec.{place}.{name}.template" for name in kinds),
        {"replicaStatuses": {name: {"active": count} for name, count in kinds.items()}, **condition("Running")},
        {"replicaStatuses": {}, **condition("Succeeded", "all good")},
        suspend="spec.runPolicy.suspend",
    )


RAY = {
    "headGroupSpec": {"template": {"spec": {"containers": [container(0, image="ray:2")]}}},
    "workerGroupSpecs": [
        {"groupName": "small", "replicas": 2, "template": template(1)},
        {"groupName": "big", "replicas": 1, "numOfHosts": 2, "template": template(4)},
    ],
}
CASES = (
    Case(
        "JobSet",
        {
            "replicatedJobs": [
                {"name": "driver", "replicas": 1, "template": {"spec": {"template": template(1)}}},
                {
                    "name": "workers",
                    "replicas": 2,
                    "template": {"spec": {"parallelism": 4, "completions": 3, "template": template(2)}},
                },
            ]
        },
        {"driver": 1, "workers": 6},
        13,
        (
            "spec.replicatedJobs.0.template.spec.template",
            "spec.replicatedJobs.1.template.spec.template",
        ),
        {
            "replicatedJobsStatus": [
                {"name": "driver", "active": 1, "ready": 1, "succeeded": 0},
                {"name": "workers", "active": 2, "ready": 2, "succeeded": 0},
            ]
        },
        condition("Completed", "jobset completed"),
        {"replicatedJobsStatus": [{"name": "driver", "active": 0}, {"name": "workers", "active": 0}]},
    ),
    kubeflow("PyTorchJob", "pytorchReplicaSpecs", Master=1, Worker=3),
    kubeflow("TFJob", "tfReplicaSpecs", Chief=1, PS=2, Worker=3),
    kubeflow("XGBoostJob", "xgbReplicaSpecs", Master=1, Worker=1),
    kubeflow("PaddleJob", "paddleReplicaSpecs", Worker=2),
    kubeflow("JAXJob", "jaxReplicaSpecs", Worker=2),
    kubeflow("MPIJob", "mpiReplicaSpecs", Launcher=1, Worker=4),
    Case(
        "RayJob",
        {"entrypoint": "python", "rayClusterSpec": copy.deepcopy(RAY)},
        {"head": 1, "small": 2, "big": 2, "submitter": 1},
        10,
        (
            "spec.rayClusterSpec.headGroupSpec.template",
            "spec.rayClusterSpec.workerGroupSpecs.0.template",
            "spec.rayClusterSpec.workerGroupSpecs.1.template",
            "spec.submitterPodTemplate",
        ),
        {"jobDeploymentStatus": "Running", "rayClusterStatus": {"state": "ready"}},
        {"jobDeploymentStatus": "Complete", "jobStatus": "FAILED", "message": "exit 1"},
        {"jobDeploymentStatus": "Suspended"},
        reason="Failed",
    ),
    Case(
        "RayCluster",
        copy.deepcopy(RAY),
        {"head": 1, "small": 2, "big": 2},
        10,
        ("spec.headGroupSpec.template", "spec.workerGroupSpecs.0.template", "spec.workerGroupSpecs.1.template"),
        {"state": "ready"},
        {},
        {"state": "suspended"},
    ),
    Case(
        "RayService",
        {"rayClusterConfig": copy.deepcopy(RAY)},
        {"head": 1, "small": 2, "big": 2},
        10,
        ("spec.rayClusterConfig.headGroupSpec.template",),
        condition("Ready"),
        {},
        {"conditions": []},
        suspend="spec.rayClusterConfig.suspend",
    ),
)


def place(path: str) -> tuple[str | int, ...]:
    return tuple(int(part) if part.isdecimal() else part for part in path.split("."))


def check_started(case: Case, obj: Object, workload: str) -> None:
    assert read(obj, parse_path(case.suspend)) is False
    for path, name in zip(case.templates, case.sets, strict=False):
        found = read(obj, place(path), {})
        assert found["spec"]["nodeSelector"] == POOL, path
        assert TOLERATION in found["spec"]["tolerations"], path
        assert found["metadata"]["labels"]["kueue.x-k8s.io/podset"] == name
        assert found["metadata"]["labels"]["kueue.x-k8s.io/local-queue-name"] == "main"
        assert found["metadata"]["annotations"]["kueue.x-k8s.io/workload"] == workload
        assert "schedulingGates" not in found["spec"]  # no topology: nothing to wait for


def check_restored(case: Case, obj: Object) -> None:
    assert read(obj, parse_path(case.suspend)) is True
    for path in case.templates:
        given, found = read(case.spec, place(path)[1:]), read(obj, place(path))
        if given is not None:  # else it was derived: it stays, without what the admission added
            assert found == given, path
        assert "nodeSelector" not in found["spec"]


async def life(w: KindWorld, case: Case, resource: Resource) -> None:
    """Everything that befalls one job."""
    made = await w.apply(resource, job(resource, "one", copy.deepcopy(case.spec)))
    assert read(made, parse_path(case.suspend)) is True  # from birth
    first = await w.workload(admitted)
    name = first["metadata"]["name"]
    assert name.startswith(f"{case.kind.lower()}-one-")
    assert {p["name"]: p["count"] for p in first["spec"]["podSets"]} == case.sets
    await w.holds(case.gpus)

    running = await w.get(resource, "one", lambda o: read(o, parse_path(case.suspend)) is False)
    check_started(case, running, name)
    await w.set_status(resource, "one", case.running)
    await w.workload(lambda o: condition_is_true(o, "PodsReady"))

    await w.evict(first)
    stopped = await w.get(resource, "one", lambda o: read(o, parse_path(case.suspend)) is True)
    check_restored(case, stopped)
    await asyncio.sleep(5)
    assert (await w.workload())["status"]["admission"]  # its pods are not gone yet
    await w.set_status(resource, "one", case.gone)
    await w.free()
    released = await w.workload(lambda o: not (o.get("status") or {}).get("admission"))

    await w.activate(released)
    await w.workload(admitted)
    again = await w.get(resource, "one", lambda o: read(o, parse_path(case.suspend)) is False)
    check_started(case, again, name)
    if case.done:
        await w.set_status(resource, "one", case.done)
        ended = await w.workload(finished)
        end = get_condition(ended, "Finished") or {}
        assert end["reason"] == case.reason
        assert end["message"]
    else:
        await w.client.delete(resource, "one", NAMESPACE_OF)
    await w.free()


NAMESPACE_OF = "team-a"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)
async def test_the_life_of_a_job(case: Case) -> None:
    resource = KINDS[case.kind].resource
    async with kind_world() as w:
        await w.apply(r.CUSTOM_RESOURCE_DEFINITIONS, crd(resource))
        await life(w, case, resource)

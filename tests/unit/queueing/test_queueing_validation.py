"""Kueue's webhook rules, in Python for the embedded server and in CEL for others: both refuse the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import Object
from glebe.kube.transport import User
from glebe.platform import bootstrap
from glebe.queueing.gatekeeping import kindpolicy, policy
from glebe.queueing.gatekeeping.kindadmission import KindAdmission
from glebe.queueing.gatekeeping.validation import faults

PERSON = User("alice", ("system:masters", "system:authenticated"))


def flavor(name: str, *resources: str) -> dict[str, Any]:
    return {"name": name, "resources": [{"name": x, "nominalQuota": 4} for x in resources]}


def group(*flavors: dict[str, Any]) -> dict[str, Any]:
    return {"coveredResources": [q["name"] for q in flavors[0]["resources"]], "flavors": list(flavors)}


def queue(**spec: Any) -> Object:
    base = {"cohortName": "c", "resourceGroups": [group(flavor("a", "cpu", "memory"), flavor("b", "cpu", "memory"))]}
    return {
        "apiVersion": r.CLUSTER_QUEUES.api_version,
        "kind": "ClusterQueue",
        "metadata": {"name": "q"},
        "spec": {**base, **spec},
    }


def lending(amount: str) -> Object:
    made = queue()
    made["spec"]["resourceGroups"][0]["flavors"][0]["resources"][0]["lendingLimit"] = amount
    return made


def swapped() -> Object:
    made = queue()
    made["spec"]["resourceGroups"][0]["flavors"][1]["resources"].reverse()
    return made


def cohort(**spec: Any) -> Object:
    return {"apiVersion": r.COHORTS.api_version, "kind": "Cohort", "metadata": {"name": "c"}, "spec": spec}


def taints(*marks: tuple[str, str]) -> Object:
    spec = {"nodeTaints": [{"key": key, "effect": effect} for key, effect in marks]}
    return {
        "apiVersion": r.RESOURCE_FLAVORS.api_version,
        "kind": "ResourceFlavor",
        "metadata": {"name": "f"},
        "spec": spec,
    }


def checks(*names: str) -> dict[str, Any]:
    return {"admissionChecks": [{"name": "check", "onFlavors": list(names)}]}


GOOD = [
    queue(),
    queue(fairSharing={"weight": "2n"}),
    queue(fairSharing={"weight": "0"}),
    queue(admissionChecksStrategy=checks("a", "b")),
    queue(resourceGroups=[group(flavor("a", "cpu")), group(flavor("b", "nvidia.com/gpu"))]),
    lending("4"),
    cohort(parentName="p", resourceGroups=[group(flavor("a", "cpu"))]),
    taints(("k", "NoSchedule"), ("k", "NoExecute")),
]
BAD: list[tuple[Object, str]] = [
    (queue(resourceGroups=[group(flavor("a", "cpu")), group(flavor("b", "cpu"))]), "coveredResources[0]"),
    (queue(resourceGroups=[group(flavor("a", "cpu")), group(flavor("a", "memory"))]), "flavors[0].name"),
    (swapped(), "resources[0].name"),
    (lending("5"), "lendingLimit"),
    (queue(fairSharing={"weight": "1n"}), "spec.fairSharing"),
    (queue(admissionChecksStrategy=checks("a", "z")), "onFlavors[1]"),
    (
        queue(resourceGroups=[group(*(flavor(f"{p}{i}", f"r{p}") for i in range(64))) for p in "abcde"]),
        "spec.resourceGroups",
    ),
    (queue(resourceGroups=[group(*(flavor(f"f{i}", *(f"r{k}" for k in range(9))) for i in range(60)))]), "[0]"),
    (cohort(resourceGroups=[group(flavor("a", "cpu")), group(flavor("a", "memory"))]), "flavors[0].name"),
    (taints(("k", "NoSchedule"), ("k", "NoSchedule")), "nodeTaints[1]"),
]
RESOURCES = {x.kind: x for x in (r.CLUSTER_QUEUES, r.COHORTS, r.RESOURCE_FLAVORS)}


@pytest.mark.parametrize("obj", GOOD, ids=str)
def test_what_is_right_is_let_through(obj: Object) -> None:
    assert faults(obj["kind"], obj, None) == []


@pytest.mark.parametrize(("obj", "field"), BAD, ids=lambda x: x if isinstance(x, str) else "")
def test_what_is_wrong_is_named(obj: Object, field: str) -> None:
    found = faults(obj["kind"], obj, None)
    assert found
    assert any(cause.field.endswith(field) for cause in found), found


async def served(*, by_policy: bool) -> Client:
    plugins = () if by_policy else (KindAdmission(),)
    server = ApiServer(MemoryStore(), Env.seeded(1), TypeRegistry(), admission=plugins)
    await server.start()
    platform = Client(InProcessTransport(server.handle))
    await bootstrap.install_crds(platform)
    if by_policy:
        kinds = {x.kind: x for x in (policy.VALIDATING_POLICIES, policy.VALIDATING_BINDINGS)}
        for obj in kindpolicy.objects():
            await platform.create(kinds[obj["kind"]], obj)
    return Client(InProcessTransport(server.handle, PERSON))


@pytest.mark.parametrize("by_policy", [False, True])
async def test_plugin_and_policies_say_the_same(by_policy: bool) -> None:
    client = await served(by_policy=by_policy)
    for obj in GOOD:
        await client.create(RESOURCES[obj["kind"]], copy.deepcopy(obj))
        await client.delete(RESOURCES[obj["kind"]], obj["metadata"]["name"])
    for obj, field in BAD:
        with pytest.raises(ApiError) as refused:
            await client.create(RESOURCES[obj["kind"]], copy.deepcopy(obj))
        assert refused.value.code in (403, 422), field


def workload(**spec: Any) -> Object:
    template = {"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}}
    sets = [{"name": "a", "count": 3, "template": template}, {"name": "b", "count": 1, "template": template}]
    return {"kind": "Workload", "metadata": {"name": "w"}, "spec": {"podSets": sets, "queueName": "q", **spec}}


def reserved(obj: Object) -> Object:
    obj["status"] = {"conditions": [{"type": "QuotaReserved", "status": "True"}]}
    return obj


def changed(change: Callable[[Object], None]) -> list[str]:
    old, new = reserved(workload()), reserved(workload())
    change(new)
    return [cause.field for cause in faults("Workload", new, old)]


def test_workloads() -> None:
    assert faults("Workload", workload(), None) == []
    two = workload()
    two["spec"]["podSets"][0]["minCount"] = two["spec"]["podSets"][1]["minCount"] = 1
    assert [c.field for c in faults("Workload", two, None)] == ["spec.podSets"]
    less = workload()
    less["spec"]["podSets"][0]["template"]["spec"]["containers"][0]["resources"]["requests"] = {"cpu": "-1", "pods": 1}
    assert len(faults("Workload", less, None)) == 4, "the template is shared by both sets"
    half = workload()
    half["spec"]["podSets"][0]["topologyRequest"] = {"podSetSliceRequiredTopology": "rack"}
    assert faults("Workload", half, None)[0].reason == "FieldValueRequired"


def test_what_holds_quota_keeps_its_shape() -> None:
    assert changed(lambda w: w["spec"].update(queueName="other")) == ["spec.queueName"]
    assert changed(lambda w: w["spec"]["podSets"].pop()) == ["spec.podSets"]
    assert changed(lambda w: w["spec"]["podSets"][0].update(count=4)) == ["spec.podSets[0]"]
    assert changed(lambda w: w["spec"]["podSets"][0].update(count=2)) == [], "an elastic job gives pods back"
    assert changed(lambda w: w["spec"].update(active=False)) == []
    done = {"reclaimablePods": [{"name": "a", "count": 4}, {"name": "z", "count": 1}]}
    fields = changed(lambda w: w["status"].update(done))
    assert fields == ["status.reclaimablePods[0].count", "status.reclaimablePods[1].name"]

"""Past use of LocalQueues: sampled, halved, charged once for every admission, whatever is lost in between."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time
from glebe.kube.informer import Informers
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import CLUSTER, Object, ObjectKey
from glebe.kube.quantity import parse
from glebe.kube.resources import Resource
from glebe.platform import bootstrap
from glebe.queueing.configuration import AdmissionFairSharing, parsed
from glebe.queueing.telling import queuestatus
from glebe.queueing.telling.localshares import PastUse
from glebe.scheduling.cycle.turns import entry_penalty
from glebe.scheduling.model import PodSet

T0 = 1_700_000_000.0
CONFIG = AdmissionFairSharing(
    usage_half_life_time="10m", usage_sampling_interval="5m", resource_weights={"memory": 0.0}
)
ALPHA = 1 - 0.5**0.5  # of one sampling interval


PODS = {
    "name": "main",
    "count": 1,
    "template": {"spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}},
}


def made(kind: Resource, name: str, spec: dict[str, Any], **meta: Any) -> Object:
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name, **meta}, "spec": spec}


def local(name: str = "lq", weight: str | None = None, **status: Any) -> Object:
    spec: dict[str, Any] = {"clusterQueue": "cq"} | ({"fairSharing": {"weight": weight}} if weight else {})
    return {"metadata": {"name": name, "namespace": "ns"}, "spec": spec, "status": {"fairSharing": status}}


def workload(name: str, at: float, cpu: str = "4", *, admitted: bool = True, finished: bool = False) -> Object:
    kinds = {"QuotaReserved": True, "Admitted": admitted, "Finished": finished}
    return {
        "metadata": {"name": name, "namespace": "ns", "uid": name},
        "spec": {"queueName": "lq", "podSets": []},
        "status": {
            "admission": {
                "clusterQueue": "cq",
                "podSetAssignments": [
                    {"name": "main", "count": 1, "flavors": {"cpu": "f"}, "resourceUsage": {"cpu": cpu}}
                ],
            },
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": format_time(at), "reason": "R", "message": ""}
                for kind, on in kinds.items()
                if on
            ],
        },
    }


def key(name: str) -> ObjectKey:
    return ObjectKey("", "ns", name)


def told(sample: dict[str, Any] | None) -> dict[str, Any]:
    assert sample is not None
    found: dict[str, Any] = sample["admissionFairSharingStatus"]
    return found


def test_without_configuration_nothing_is_told_and_nothing_is_remembered() -> None:
    past = PastUse(None)
    past.see(key("w"), workload("w", T0))
    assert past.sample(local(), T0) is None
    assert past.due_in(local(), T0) is None
    assert past.afs(lambda: [local()]) is None


def test_the_first_sample_starts_the_clock_and_the_next_ones_halve() -> None:
    past = PastUse(CONFIG)
    queue = local()
    assert past.due_in(queue, T0 + 0.4) == 0
    first = past.sample(queue, T0 + 0.4)
    assert told(first) == {"consumedResources": {}, "lastUpdate": format_time(T0)}
    queue["status"]["fairSharing"] = first
    past.see(key("w"), workload("w", T0 - 100))  # before the clock: it only runs
    assert past.sample(queue, T0 + 299) is None
    assert past.due_in(queue, T0 + 299) == 1
    queue["status"]["fairSharing"] = past.sample(queue, T0 + 300)
    assert told(queue["status"]["fairSharing"])["consumedResources"] == {"cpu": f"{round(4000 * ALPHA)}m"}
    past.see(key("w"), None)
    later = told(past.sample(queue, T0 + 900))["consumedResources"]
    assert later == {"cpu": f"{round(4000 * ALPHA / 2)}m"}, "one half-life later, with nothing running"


def test_an_admission_costs_at_once_and_is_folded_in_exactly_once() -> None:
    past = PastUse(CONFIG)
    queue = local(admissionFairSharingStatus={"consumedResources": {"cpu": "1"}, "lastUpdate": format_time(T0)})

    def use() -> float:
        afs = past.afs(lambda: [queue])
        assert afs is not None
        return afs.usage["ns/lq"].get("cpu", 0.0)

    assert use() == 1.0
    past.see(key("w"), workload("w", T0 + 10))
    assert use() == pytest.approx(1 + 4 * ALPHA)
    past.see(key("w"), workload("w", T0 + 10, finished=True))
    assert use() == pytest.approx(1 + 4 * ALPHA), "it has cost what it cost"
    queue["status"]["fairSharing"] = past.sample(queue, T0 + 300.7)
    past.touch()
    folded = 0.5**0.5 + 4 * ALPHA
    assert use() == pytest.approx(folded, abs=1e-3)
    again = PastUse(CONFIG)  # another process: all is in the objects
    again.see(key("w"), workload("w", T0 + 10, finished=True))
    found = again.afs(lambda: [queue])
    assert found is not None
    assert found.usage["ns/lq"]["cpu"] == pytest.approx(folded, abs=1e-3)
    queue["status"]["fairSharing"] = again.sample(queue, T0 + 600)
    final = told(queue["status"]["fairSharing"])["consumedResources"]["cpu"]
    assert float(parse(final)) == pytest.approx(folded * 0.5**0.5, abs=2e-3)


def test_what_is_admitted_in_the_second_of_a_sample_is_neither_lost_nor_counted_twice() -> None:
    past = PastUse(CONFIG)
    queue = local(admissionFairSharingStatus={"consumedResources": {}, "lastUpdate": format_time(T0)})
    past.see(key("w"), workload("w", T0 + 300))
    queue["status"]["fairSharing"] = past.sample(queue, T0 + 300.2)
    assert told(queue["status"]["fairSharing"])["consumedResources"] == {}
    afs = past.afs(lambda: [queue])
    assert afs is not None
    assert afs.usage["ns/lq"]["cpu"] == pytest.approx(4 * ALPHA)
    assert told(past.sample(queue, T0 + 600))["consumedResources"] == {"cpu": f"{round(4000 * ALPHA)}m"}


def test_queues_of_one_name_in_two_clusters_are_two() -> None:
    past = PastUse(CONFIG)
    known = {"consumedResources": {}, "lastUpdate": format_time(T0)}
    mine, theirs = local(admissionFairSharingStatus=known), local(admissionFairSharingStatus=known)
    other = workload("w", T0 + 1)
    for obj in (theirs, other):
        obj["metadata"][CLUSTER] = "tenant"
    past.see(key("mine"), workload("mine", T0 + 1, "1"))
    past.see(ObjectKey("tenant", "ns", "w"), other)
    assert past.figure(mine) == pytest.approx(ALPHA)
    assert past.figure(theirs) == pytest.approx(4 * ALPHA)


def test_without_a_half_life_nothing_is_kept() -> None:
    past = PastUse(AdmissionFairSharing())
    queue = local(admissionFairSharingStatus={"consumedResources": {"cpu": "9"}, "lastUpdate": format_time(T0)})
    past.see(key("w"), workload("w", T0 + 1))
    assert told(past.sample(queue, T0 + 300))["consumedResources"] == {}


def test_weights_of_queues_and_resources_make_one_figure() -> None:
    past = PastUse(CONFIG)
    known = {"consumedResources": {"cpu": "8", "memory": "9Gi"}, "lastUpdate": format_time(T0)}
    assert past.figure(local(admissionFairSharingStatus=known)) == 8
    assert past.figure(local(weight="2", admissionFairSharingStatus=known)) == 4
    assert past.figure(local(weight="0", admissionFairSharingStatus=known)) == math.inf


def test_the_cores_entry_penalty_is_the_one_of_the_shell() -> None:
    found = entry_penalty((PodSet("main", 2, {"cpu": 2000}),), 600.0, 300.0)
    assert found == {"cpu": pytest.approx(4 * ALPHA)}


async def test_the_status_is_written_when_a_sample_is_due() -> None:
    env = Env.seeded(1)
    server = ApiServer(MemoryStore(), env, TypeRegistry())
    await server.start()
    client = Client(InProcessTransport(server.handle))
    await bootstrap.install_crds(client)
    config = parsed({"admissionFairSharing": {"usageHalfLifeTime": "10m", "usageSamplingInterval": "5m"}})
    flavors = [{"name": "f", "resources": [{"name": "cpu", "nominalQuota": 9}]}]
    spec = {"resourceGroups": [{"coveredResources": ["cpu"], "flavors": flavors}]}
    await client.create(r.CLUSTER_QUEUES, made(r.CLUSTER_QUEUES, "cq", spec))
    await client.create(r.LOCAL_QUEUES, made(r.LOCAL_QUEUES, "lq", {"clusterQueue": "cq"}, namespace="default"))
    waiting = made(r.WORKLOADS, "w", {"queueName": "lq", "podSets": [PODS]}, namespace="default")
    created = await client.create(r.WORKLOADS, waiting)
    await client.update_status(r.WORKLOADS, {**created, "status": workload("w", env.clock.now() - 60)["status"]})

    async def consumed() -> dict[str, Any]:
        found = await client.get(r.LOCAL_QUEUES, "lq", "default")
        status: dict[str, Any] = found["status"]["fairSharing"]["admissionFairSharingStatus"]
        return status

    informers = Informers(client, env)
    running = [informers.run(), *(c.run() for c in queuestatus.build(client, informers, env, config))]
    tasks = [asyncio.create_task(each) for each in running]
    await asyncio.sleep(2)
    first = await consumed()
    assert first["consumedResources"] == {}
    await asyncio.sleep(290)
    assert await consumed() == first
    await asyncio.sleep(15)
    assert float(parse((await consumed())["consumedResources"]["cpu"])) == pytest.approx(4 * ALPHA, abs=0.01)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await server.close()

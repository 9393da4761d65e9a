"""Fair shares and turns end to end: who gives way, who goes next, and that it comes to rest."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from test_queueing_story import Cluster, admitted, cluster, job, obj

from glebe.apiserver.metrics.families import Families
from glebe.kube import resources as r
from glebe.kube.clock import parse_time
from glebe.kube.objects import Object, condition_is_true, get_condition
from glebe.queueing import labels
from glebe.queueing.configuration import DEFAULT, Configuration, parsed
from glebe.queueing.measures.standing import Standing
from glebe.queueing.picture import convert, queueobjects
from glebe.queueing.picture.corepolicies import policies
from glebe.queueing.telling.localshares import PastUse
from glebe.scheduling.model import FairSharing, FairStrategy

FAIR = parsed({"fairSharing": {}})
TURNS = parsed({"admissionFairSharing": {"usageHalfLifeTime": "1h", "resourceWeights": {"cpu": 0.0, "memory": 0.0}}})


async def share_everything(c: Cluster, gpus: int, **annotations: str) -> None:
    """All quota is the cohort's; both queues borrow it, and may take it from one another."""
    quotas = [{"name": "nvidia.com/gpu", "nominalQuota": gpus}, {"name": "cpu", "nominalQuota": 1000}]
    none = [{**quota, "nominalQuota": 0} for quota in quotas]

    def groups(of: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"coveredResources": ["nvidia.com/gpu", "cpu"], "flavors": [{"name": "gpu", "resources": of}]}]

    cohort = obj("Cohort", "all", {"resourceGroups": groups(quotas)})
    cohort["metadata"]["annotations"] = annotations
    await c.client.create(r.COHORTS, cohort)
    for team in ("team-a", "team-b"):
        spec = {"resourceGroups": groups(none), "preemption": {"reclaimWithinCohort": "Any"}}
        await c.client.patch(r.CLUSTER_QUEUES, team, {"spec": spec})


async def running(c: Cluster, namespace: str) -> list[Object]:
    found = await c.client.list(r.WORKLOADS, namespace)
    return [w for w in found.items if admitted(w) and not condition_is_true(w, "Evicted")]


@pytest.mark.parametrize(("config", "annotations"), [(FAIR, {}), (DEFAULT, {labels.FAIR_SHARING: "Enabled"})])
async def test_who_has_borrowed_most_gives_way_until_shares_are_equal(
    config: Configuration, annotations: dict[str, str]
) -> None:
    async with cluster(nodes=4, config=config) as c:
        await share_everything(c, 32, **annotations)
        for i in range(4):
            await c.client.create(r.JOBS, job(f"b{i}", "team-b", 1, 8, 3000))
        for i in range(4):
            await c.wait_workload(f"b{i}", "team-b", admitted)
        for i in range(4):
            await c.client.create(r.JOBS, job(f"a{i}", "team-a", 1, 8, 3000))

        async def equal() -> bool:
            return len(await running(c, "team-a")) == len(await running(c, "team-b")) == 2

        await c.until(equal)
        await asyncio.sleep(60)
        assert await equal(), "and nobody moves any more"
        stopped = [w for w in (await c.client.list(r.WORKLOADS, "team-b")).items if not admitted(w)]
        assert {(get_condition(w, "Preempted") or {})["reason"] for w in stopped} == {"InCohortFairSharing"}
        assert all(w["status"]["schedulingStats"]["evictions"][0]["count"] == 1 for w in stopped)
        assert not any(get_condition(w, "Evicted") for w in await running(c, "team-a"))


async def test_without_fair_sharing_nobody_takes_from_a_borrower_to_borrow_himself() -> None:
    async with cluster(nodes=4, config=FAIR) as c:
        await share_everything(c, 32, **{labels.FAIR_SHARING: "Disabled"})
        for i in range(4):
            await c.client.create(r.JOBS, job(f"b{i}", "team-b", 1, 8, 3000))
        for i in range(4):
            await c.wait_workload(f"b{i}", "team-b", admitted)
        await c.client.create(r.JOBS, job("a", "team-a", 1, 8, 3000))
        await asyncio.sleep(20)
        assert len(await running(c, "team-b")) == 4
        assert not admitted(await c.workload("a", "team-a"))


async def test_local_queues_take_turns_by_what_they_have_used() -> None:
    async with cluster(nodes=1, config=TURNS) as c:
        await c.client.delete(r.CLUSTER_QUEUES, "team-b")
        quotas = [{"name": "nvidia.com/gpu", "nominalQuota": 8}, {"name": "cpu", "nominalQuota": 1000}]
        flavors = [{"name": "gpu", "resources": quotas}]
        groups = [{"coveredResources": ["nvidia.com/gpu", "cpu"], "flavors": flavors}]
        turns = {"admissionMode": "UsageBasedAdmissionFairSharing"}
        spec = {"resourceGroups": groups, "admissionScope": turns}
        await c.client.patch(r.CLUSTER_QUEUES, "team-a", {"spec": spec})
        for name in ("busy", "quiet"):
            local = obj("LocalQueue", name, {"clusterQueue": "team-a"})
            local["metadata"]["namespace"] = "team-a"
            await c.client.create(r.LOCAL_QUEUES, local)
        for i in range(3):
            await c.client.create(r.JOBS, job(f"busy-{i}", "team-a", 1, 8, 10, **{labels.QUEUE_NAME: "busy"}))
        await c.wait_workload("busy-0", "team-a", admitted)
        await asyncio.sleep(2)
        await c.client.create(r.JOBS, job("quiet", "team-a", 1, 8, 10, **{labels.QUEUE_NAME: "quiet"}))
        names = ["busy-0", "busy-1", "busy-2", "quiet"]
        done = [await c.wait_workload(n, "team-a", lambda w: condition_is_true(w, "Finished")) for n in names]
        at = {
            n: (get_condition(w, "QuotaReserved") or {})["lastTransitionTime"] for n, w in zip(names, done, strict=True)
        }
        assert sorted(names, key=lambda n: at[n]) == ["busy-0", "quiet", "busy-1", "busy-2"]


def condition(kind: str, status: str, reason: str, message: str) -> dict[str, str]:
    at = "2026-01-01T00:00:00Z"
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at}


def test_what_the_core_reads_of_preemption_in_a_workload() -> None:
    def workload(*conditions: dict[str, str]) -> Object:
        return {"metadata": {"name": "w"}, "spec": {}, "status": {"conditions": list(conditions)}}

    said = "Preempted to accommodate a workload (UID: u-1, JobUID: UNKNOWN) due to reclamation within the cohort"
    at = parse_time("2026-01-01T00:00:00Z")
    assert convert.preempted_by(workload(condition("Preempted", "True", "InCohortReclamation", said))) == (("u-1", at),)
    again = condition("Preempted", "False", "QuotaReserved", f"Previously: {said}")
    assert convert.preempted_by(workload(again)) == (("u-1", at),)
    assert convert.preempted_by(workload()) == ()
    waits = condition("QuotaReserved", "False", "WaitingForPreemptedWorkloads", "waits until x has left for it")
    assert convert.is_preempting(workload(waits))
    assert not convert.is_preempting(workload({**waits, "reason": "WaitingForQuota"}))
    assert not convert.is_preempting(workload({**waits, "status": "True"}))


@pytest.mark.parametrize(("written", "meant"), [("Enabled", True), ("Disabled", False), (None, None), ("maybe", None)])
def test_the_switch_of_a_cohort(written: str | None, meant: bool | None) -> None:
    cohort = obj("Cohort", "root", {})
    cohort["metadata"]["annotations"] = {} if written is None else {labels.FAIR_SHARING: written}
    assert queueobjects.cohort(cohort).fair_sharing is meant


def test_the_configuration_reaches_the_core() -> None:
    plain = policies(DEFAULT)
    assert plain["fair_sharing"] is None
    assert plain["least_lost"] is False
    one = ["LessThanInitialShare"]
    asked = policies(parsed({"fairSharing": {"preemptionStrategies": one}, "glebe": {"victims": "LeastLostWork"}}))
    assert asked["fair_sharing"] == FairSharing((FairStrategy.INITIAL_SHARE,))
    assert asked["least_lost"] is True


def test_past_use_is_measured_where_it_decides() -> None:
    class Store:
        def __init__(self, *objects: Object) -> None:
            self.store = dict(enumerate(objects))

    class Caches:
        def get(self, resource: r.Resource) -> Store:
            return Store(queue) if resource == r.LOCAL_QUEUES else Store()

    known = {"consumedResources": {"nvidia.com/gpu": "3"}, "lastUpdate": "2026-01-01T00:00:00Z"}
    queue = obj("LocalQueue", "busy", {"clusterQueue": "cq", "fairSharing": {"weight": "2"}})
    queue["metadata"]["namespace"] = "team-a"
    queue["status"] = {"fairSharing": {"admissionFairSharingStatus": known}}
    caches: Any = Caches()
    for config, lines in ((TURNS, 1), (DEFAULT, 0)):
        families = Families()
        Standing(families, caches, "standalone", "", PastUse(config.admission_fair_sharing))
        name = "kueue_local_queue_admission_fair_sharing_usage{"
        told = [line for line in families.text().decode().splitlines() if line.startswith(name)]
        assert len(told) == lines
        assert all('name="busy"' in line and line.endswith(" 1.5") for line in told)

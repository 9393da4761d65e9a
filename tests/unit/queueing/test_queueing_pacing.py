"""What the configuration changes end to end: ready pods first, retention, boosts, what requests count as."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from test_queueing_story import admitted, cluster, job

from glebe.kube import resources as r
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object, condition_is_true, get_condition
from glebe.queueing.configuration import parsed
from glebe.queueing.picture import convert, requests


async def test_nobody_is_admitted_while_pods_of_another_one_are_not_ready() -> None:
    config = parsed({"waitForPodsReady": {"timeout": "5m", "blockAdmission": True}})
    async with cluster(nodes=2, config=config) as c:
        first, second = job("first", "team-a", 1, 1, 60), job("second", "team-b", 1, 1, 60)
        first["spec"]["template"]["metadata"]["annotations"]["sim.glebe.dev/start-delay"] = "20s"
        for each in (first, second):
            await c.client.create(r.JOBS, each)

        def told(w: Object) -> bool:
            return (get_condition(w, "QuotaReserved") or {}).get("reason") == "WaitingForPodsReady"

        async def one_waits() -> bool:
            both = [await c.workload("first", "team-a"), await c.workload("second", "team-b")]
            return sum(map(admitted, filter(None, both))) == 1 and any(w and told(w) for w in both)

        await c.until(one_waits)
        for name, team in (("first", "team-a"), ("second", "team-b")):
            await c.wait_workload(name, team, lambda w: condition_is_true(w, "PodsReady"))


async def test_a_job_that_the_queue_has_stopped_is_removed_after_its_time() -> None:
    config = parsed({"objectRetentionPolicies": {"workloads": {"afterDeactivatedByKueue": "1m"}}})
    async with cluster(nodes=1, config=config) as c:
        limited = job("long", "team-a", 1, 1, 500, **{"kueue.x-k8s.io/max-exec-time-seconds": "20"})
        await c.client.create(r.JOBS, limited)
        await c.wait_workload("long", "team-a", lambda w: w["spec"].get("active") is False)
        await asyncio.sleep(30)
        assert (await c.client.get(r.JOBS, "long", "team-a"))["spec"]["suspend"] is True
        await asyncio.sleep(60)
        with pytest.raises(ApiError, match="not found"):
            await c.client.get(r.JOBS, "long", "team-a")


async def test_a_limit_range_forbids_and_a_default_counts() -> None:
    async with cluster(nodes=2) as c:
        limits = [{"type": "Container", "max": {"nvidia.com/gpu": "4"}, "defaultRequest": {"cpu": "3"}}]
        made = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l", "namespace": "team-a"}}
        await c.client.create(r.LIMIT_RANGES, {**made, "spec": {"limits": limits}})
        await c.client.create(r.JOBS, job("big", "team-a", 1, 8, 60))
        bad = await c.wait_workload("big", "team-a", lambda w: get_condition(w, "QuotaReserved"))
        condition = get_condition(bad, "QuotaReserved") or {}
        assert (condition["status"], condition["reason"]) == ("False", "Misconfigured")
        assert "requests must not be above the limitRange max" in condition["message"]
        small = job("small", "team-a", 1, 1, 60)
        small["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"].pop("cpu")
        await c.client.create(r.JOBS, small)
        runs = await c.wait_workload("small", "team-a", admitted)
        assert runs["status"]["admission"]["podSetAssignments"][0]["resourceUsage"]["cpu"] == "3"


def spec(**resources: Any) -> dict[str, Any]:
    return {"containers": [{"name": "m", "resources": resources}]}


def test_resources_are_turned_into_others_as_the_configuration_says() -> None:
    config = parsed(
        {
            "resources": {
                "excludeResourcePrefixes": ["example.org/"],
                "transformations": [
                    {
                        "input": "nvidia.com/mig-1g.5gb",
                        "strategy": "Replace",
                        "outputs": {"example.com/gpu-memory": "5Gi", "example.com/credits": "0.5"},
                    },
                    {"input": "cpu", "outputs": {"example.com/credits": "2"}},
                ],
            }
        }
    )
    around = requests.Surroundings(resources=config.resources)
    asked = spec(requests={"nvidia.com/mig-1g.5gb": "2", "cpu": "500m", "example.org/dust": "7", "memory": "1Gi"})
    assert requests.counted(asked, around) == {
        "cpu": 500,
        "example.com/credits": 2,
        "example.com/gpu-memory": 10 << 30,
        "memory": 1 << 30,
    }
    assert requests.on_node(asked, around)["nvidia.com/mig-1g.5gb"] == 2


def test_a_factor_may_be_multiplied_and_does_not_go_below_zero() -> None:
    rules = [
        {"input": "a/x", "strategy": "Replace", "multiplyBy": "a/n", "outputs": {"a/y": "3"}},
        {"input": "a/z", "outputs": {"a/y": "-100"}},
    ]
    around = requests.Surroundings(resources=parsed({"resources": {"transformations": rules}}).resources)
    assert requests.counted(spec(requests={"a/x": "2", "a/n": "4"}), around) == {"a/n": 4, "a/y": 24}
    assert requests.counted(spec(requests={"a/z": "1"}), around) == {"a/y": 0, "a/z": 1}


def test_overhead_and_limits_count() -> None:
    around = requests.Surroundings(overhead=lambda name: {"cpu": "250m"} if name == "vm" else {})
    assert requests.counted({**spec(limits={"cpu": "1"}), "runtimeClassName": "vm"}, around) == {"cpu": 1250}
    assert requests.counted({**spec(limits={"cpu": "1"}), "runtimeClassName": "other"}, around) == {"cpu": 1000}


def test_requests_above_limits_can_never_be_met() -> None:
    pod_sets = [{"template": {"spec": spec(requests={"cpu": "2"}, limits={"cpu": "1"})}}]
    assert "requests must not exceed its limits" in requests.problem(pod_sets)
    assert requests.problem([{"template": {"spec": spec(requests={"cpu": "1"}, limits={"cpu": "1"})}}]) == ""


@pytest.mark.parametrize(("text", "boost"), [("5", 5), ("-3", -3), ("much", 0), ("", 0)])
def test_a_priority_can_be_boosted_where_the_gate_is_open(text: str, boost: int) -> None:
    note = {"annotations": {"kueue.x-k8s.io/priority-boost": text}}
    workload: Object = {"metadata": {"name": "w", **note}, "spec": {"priority": 10}}
    assert convert.priority(workload) == 10
    assert convert.priority(workload, parsed({"featureGates": {"PriorityBoost": True}})) == 10 + boost

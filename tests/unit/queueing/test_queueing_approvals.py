"""Admission checks end to end: a person decides, an autoscaler brings nodes, and what that means for the job."""

from __future__ import annotations

import asyncio
from typing import Any

from test_queueing_story import Cluster, admitted, cluster, job, obj

from glebe.kube import resources as r
from glebe.kube.objects import Object, condition_is_true, get_condition
from glebe.queueing import labels
from glebe.queueing.admissionchecks import provreqs
from glebe.queueing.admissionchecks.approvals import decided, undecided
from glebe.queueing.life import checks

PROVISIONING = "kueue.x-k8s.io/provisioning-request"


async def ask(c: Cluster, check: str, controller: str, **parameters: Any) -> None:
    """Team-a's jobs need this check."""
    spec: dict[str, Any] = {"controllerName": controller}
    if parameters:
        spec["parameters"] = parameters
    await c.client.create(r.ADMISSION_CHECKS, obj("AdmissionCheck", check, spec))
    strategy = {"admissionChecksStrategy": {"admissionChecks": [{"name": check}]}}
    await c.client.patch(r.CLUSTER_QUEUES, "team-a", {"spec": strategy})


def state(name: str, *states: str) -> Any:
    return lambda w: any(x["name"] == name and x["state"] in states for x in checks.listed(w))


def reserved(workload: Object) -> bool:
    return condition_is_true(workload, "QuotaReserved")


async def decide(c: Cluster, workload: Object, name: str, yes: bool) -> None:
    current = await c.client.get(r.WORKLOADS, workload["metadata"]["name"], "team-a")
    answered = decided(current, [name], yes, "alice", "as agreed", c.env.clock.now())
    await c.client.update_status(r.WORKLOADS, answered)


async def test_a_person_lets_a_job_start_and_is_not_asked_again() -> None:
    async with cluster(nodes=2) as c:
        await ask(c, "boss", "glebe.dev/approval")
        await c.client.create(r.JOBS, job("train", "team-a", 1, 8, 300))
        waits = await c.wait_workload("train", "team-a", lambda w: reserved(w) and undecided(w, ["boss"]))
        await asyncio.sleep(30)
        waits = await c.workload("train", "team-a")
        assert not admitted(waits)
        condition = get_condition(waits, "Admitted") or {}
        assert (condition["status"], condition["reason"]) == ("False", "UnsatisfiedAdmissionChecks")
        assert (await c.client.get(r.JOBS, "train", "team-a"))["spec"]["suspend"] is True
        await decide(c, waits, "boss", True)
        runs = await c.wait_workload("train", "team-a", lambda w: condition_is_true(w, "PodsReady"))
        assert checks.listed(runs)[0]["message"] == "approved by alice: as agreed"
        drain = {"spec": {"stopPolicy": "HoldAndDrain"}}
        await c.client.patch(r.CLUSTER_QUEUES, "team-a", drain)
        await c.wait_workload("train", "team-a", lambda w: not reserved(w))
        await c.client.patch(r.CLUSTER_QUEUES, "team-a", {"spec": {"stopPolicy": "None"}})
        again = await c.wait_workload("train", "team-a", lambda w: condition_is_true(w, "PodsReady"))
        assert checks.listed(again)[0]["message"] == "approved by alice: as agreed"


async def test_a_person_stops_a_job() -> None:
    async with cluster(nodes=2) as c:
        await ask(c, "boss", "glebe.dev/approval")
        await c.client.create(r.JOBS, job("train", "team-a", 1, 8, 300))
        waits = await c.wait_workload("train", "team-a", lambda w: reserved(w) and undecided(w, ["boss"]))
        await decide(c, waits, "boss", False)
        off = await c.wait_workload("train", "team-a", lambda w: not reserved(w))
        evicted = get_condition(off, "Evicted") or {}
        assert evicted["reason"] == "DeactivatedDueToAdmissionCheck"
        assert "denied by alice: as agreed" in evicted["message"]
        assert off["spec"]["active"] is False


async def test_a_class_can_ask_for_a_person_where_its_queue_does_not() -> None:
    async with cluster(nodes=2) as c:
        await c.client.create(
            r.ADMISSION_CHECKS, obj("AdmissionCheck", "boss", {"controllerName": "glebe.dev/approval"})
        )
        huge = {"apiVersion": "glebe.dev/v1alpha1", "kind": "WorkloadClass", "metadata": {"name": "huge"}}
        await c.client.create(r.WORKLOAD_CLASSES, {**huge, "spec": {"admissionChecks": ["boss"]}})
        await c.client.create(r.JOBS, job("big", "team-a", 1, 8, 60, **{labels.CLASS: "huge"}))
        await c.client.create(r.JOBS, job("small", "team-a", 1, 1, 60))
        await c.wait_workload("small", "team-a", admitted)
        big = await c.wait_workload("big", "team-a", lambda w: reserved(w) and undecided(w, ["boss"]))
        assert not admitted(big)
        await decide(c, big, "boss", True)
        await c.wait_workload("big", "team-a", admitted)


async def test_a_queue_takes_nothing_while_its_check_is_not_there() -> None:
    async with cluster(nodes=2) as c:
        strategy = {"admissionChecksStrategy": {"admissionChecks": [{"name": "later"}]}}
        await c.client.patch(r.CLUSTER_QUEUES, "team-a", {"spec": strategy})
        await c.client.create(r.JOBS, job("train", "team-a", 1, 8, 60))
        await c.wait_workload("train", "team-a", lambda w: get_condition(w, "QuotaReserved"))
        await asyncio.sleep(20)
        assert not reserved(await c.workload("train", "team-a"))
        await c.client.create(
            r.ADMISSION_CHECKS, obj("AdmissionCheck", "later", {"controllerName": "glebe.dev/approval"})
        )
        await c.wait_workload("train", "team-a", reserved)


async def test_a_check_in_use_stays_until_no_queue_asks_for_it() -> None:
    async with cluster(nodes=1) as c:
        await ask(c, "boss", "glebe.dev/approval")

        async def active() -> bool:
            found = await c.client.get(r.ADMISSION_CHECKS, "boss")
            return condition_is_true(found, "Active") and labels.IN_USE in found["metadata"].get("finalizers", [])

        async def names() -> list[str]:
            return [x["metadata"]["name"] for x in (await c.client.list(r.ADMISSION_CHECKS)).items]

        async def gone() -> bool:
            return not await names()

        await c.until(active)
        await c.client.delete(r.ADMISSION_CHECKS, "boss")
        await asyncio.sleep(10)
        assert await names() == ["boss"]
        await c.client.patch(r.CLUSTER_QUEUES, "team-a", {"spec": {"admissionChecksStrategy": None}})
        await c.until(gone)


CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "provisioningrequests.autoscaling.x-k8s.io"},
    "spec": {
        "group": "autoscaling.x-k8s.io",
        "names": {
            "kind": "ProvisioningRequest",
            "plural": "provisioningrequests",
            "listKind": "ProvisioningRequestList",
            "singular": "provisioningrequest",
        },
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            }
        ],
    },
}


async def autoscaler(c: Cluster) -> None:
    """The kind of requests, and a check that makes them; two tries, ten seconds apart."""
    await c.client.create(r.CUSTOM_RESOURCE_DEFINITIONS, CRD)
    spec = {
        "provisioningClassName": "check-capacity.autoscaling.x-k8s.io",
        "parameters": {"zone": "a"},
        "managedResources": ["nvidia.com/gpu"],
        "retryStrategy": {"backoffLimitCount": 1, "backoffBaseSeconds": 10, "backoffMaxSeconds": 60},
        "podSetUpdates": {"nodeSelector": [{"key": "glebe.dev/pool", "valueFromProvisioningClassDetail": "pool"}]},
    }
    await c.client.create(r.PROVISIONING_REQUEST_CONFIGS, obj("ProvisioningRequestConfig", "fast", spec))
    reference = {"apiGroup": "kueue.x-k8s.io", "kind": "ProvisioningRequestConfig", "name": "fast"}
    await ask(c, "nodes", PROVISIONING, **reference)


async def requests(c: Cluster) -> list[Object]:
    return sorted((await c.client.list(provreqs.REQUESTS, "team-a")).items, key=lambda o: str(o["metadata"]["name"]))


async def say(c: Cluster, request: Object, kind: str, message: str, **details: str) -> None:
    """What the autoscaler writes."""
    when = {"lastTransitionTime": "2026-01-01T00:00:00Z", "reason": kind, "message": message}
    status = {"conditions": [{"type": kind, "status": "True", **when}], "provisioningClassDetails": details}
    await c.client.update_status(provreqs.REQUESTS, {**request, "status": status})


async def test_nodes_are_asked_for_and_pods_go_to_them() -> None:
    async with cluster(nodes=2) as c:
        await autoscaler(c)
        train = job("train", "team-a", 1, 8, 60)
        await c.client.create(r.JOBS, train)
        (request,) = await c.until(lambda: requests(c))
        workload = await c.workload("train", "team-a")
        assert request["metadata"]["name"] == f"{workload['metadata']['name']}-nodes-1"
        assert request["spec"]["parameters"] == {"zone": "a"}
        (part,) = request["spec"]["podSets"]
        template = await c.client.get(provreqs.POD_TEMPLATES, part["podTemplateRef"]["name"], "team-a")
        assert part["count"] == 1
        assert template["template"]["spec"]["nodeSelector"] == {"glebe.dev/pool": "gpu"}
        assert not admitted(workload)
        await say(c, request, "Provisioned", "nodes are there", pool="gpu")
        await c.wait_workload("train", "team-a", admitted)
        ready = await c.wait_workload("train", "team-a", lambda w: condition_is_true(w, "PodsReady"))
        (check,) = checks.listed(ready)
        assert check["podSetUpdates"][0]["nodeSelector"] == {"glebe.dev/pool": "gpu"}
        await c.wait_workload("train", "team-a", lambda w: condition_is_true(w, "Finished"))

        async def cleared() -> bool:
            return not await requests(c)

        await c.until(cleared)


async def test_a_failed_request_is_repeated_and_at_last_given_up() -> None:
    async with cluster(nodes=2) as c:
        await autoscaler(c)
        await c.client.create(r.JOBS, job("train", "team-a", 1, 8, 60))
        (first,) = await c.until(lambda: requests(c))
        await say(c, first, "Failed", "no capacity")
        began = c.env.clock.now()
        evicted = await c.wait_workload("train", "team-a", lambda w: not reserved(w) and get_condition(w, "Evicted"))
        assert (get_condition(evicted, "Evicted") or {})["reason"] == "AdmissionCheck"
        assert "Retrying after failure: no capacity" in (get_condition(evicted, "Evicted") or {})["message"]

        async def second() -> Object | None:
            return next((o for o in await requests(c) if o["metadata"]["name"].endswith("-2")), None)

        again = await c.until(second)
        assert c.env.clock.now() >= began + 9
        await say(c, again, "Failed", "no capacity")
        off = await c.wait_workload("train", "team-a", lambda w: w["spec"].get("active") is False)
        off = await c.wait_workload("train", "team-a", lambda w: not reserved(w))
        assert (get_condition(off, "Evicted") or {})["reason"] == "DeactivatedDueToAdmissionCheck"


async def test_without_an_autoscaler_the_check_says_so() -> None:
    async with cluster(nodes=2) as c:
        reference = {"apiGroup": "kueue.x-k8s.io", "kind": "ProvisioningRequestConfig", "name": "fast"}
        spec = {"provisioningClassName": "x"}
        await c.client.create(r.PROVISIONING_REQUEST_CONFIGS, obj("ProvisioningRequestConfig", "fast", spec))
        await ask(c, "nodes", PROVISIONING, **reference)
        await c.client.create(r.JOBS, job("train", "team-a", 1, 8, 60))
        waits = await c.wait_workload("train", "team-a", lambda w: reserved(w) and checks.listed(w)[0].get("message"))
        assert "no autoscaler is installed" in checks.listed(waits)[0]["message"]

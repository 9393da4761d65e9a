"""v1beta1 of Kueue's kinds on the embedded platform, as its clients use it."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
import yaml
from test_platform_embedded import job, platform

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.errors import ApiError

BASE = "/apis/kueue.x-k8s.io"
QUEUE = """\
apiVersion: kueue.x-k8s.io/v1beta1
kind: ClusterQueue
metadata: {name: team}
spec:
  cohort: all
  namespaceSelector: {}
  admissionChecks: [approved]
  flavorFungibility: {whenCanBorrow: Borrow, whenCanPreempt: TryNextFlavor}
  preemption: {withinClusterQueue: LowerPriority}
  resourceGroups:
  - coveredResources: [cpu, memory]
    flavors:
    - name: default-flavor
      resources:
      - {name: cpu, nominalQuota: 9, borrowingLimit: 1}
      - {name: memory, nominalQuota: 36Gi}
"""


async def get(client: Client, version: str, what: str) -> Any:
    return orjson.loads((await client.raw("GET", f"{BASE}/{version}/{what}")).body)


async def apply(client: Client, version: str, what: str, text: str, **query: str) -> Any:
    options = [("fieldManager", "kubectl"), ("fieldValidation", "Strict"), *query.items()]
    path, kind = f"{BASE}/{version}/{what}", "application/apply-patch+yaml"
    answer = await client.raw("PATCH", path, query=options, body=text.encode(), content_type=kind)
    return orjson.loads(answer.body)


async def test_a_manifest_of_v1beta1_is_applied_and_read_in_both_versions() -> None:
    async with platform(count=1) as p:
        first = await apply(p.client, "v1beta1", "clusterqueues/team", QUEUE)
        assert first["spec"]["cohort"] == "all"
        await asyncio.sleep(2)  # its controllers have written finalizer and status by now
        stored = await get(p.client, "v1beta2", "clusterqueues/team")
        assert stored["spec"]["cohortName"] == "all"
        assert stored["spec"]["admissionChecksStrategy"] == {"admissionChecks": [{"name": "approved"}]}
        assert stored["spec"]["flavorFungibility"]["whenCanBorrow"] == "MayStopSearch"
        seen = await get(p.client, "v1beta1", "clusterqueues/team")
        wanted = yaml.safe_load(QUEUE)["spec"]
        assert {k: seen["spec"][k] for k in wanted if k != "preemption"} == {
            k: v for k, v in wanted.items() if k != "preemption"
        }, "as its writer wrote it, so that GitOps finds no difference"
        assert seen["status"]["conditions"][0]["type"] == "Active"
        again = await apply(p.client, "v1beta1", "clusterqueues/team", QUEUE)
        assert again["metadata"]["resourceVersion"] == seen["metadata"]["resourceVersion"], "nothing changes"


async def test_a_client_of_v1beta1_changes_what_it_knows_and_keeps_the_rest() -> None:
    async with platform(count=1) as p:
        spec = {"concurrentAdmissionPolicy": {"migration": {"mode": "RetainFirstAdmission"}}, "cohortName": "all"}
        queue = {"apiVersion": r.CLUSTER_QUEUES.api_version, "kind": "ClusterQueue", "metadata": {"name": "q"}}
        await p.client.create(r.CLUSTER_QUEUES, {**queue, "spec": spec})
        await asyncio.sleep(2)
        seen = await get(p.client, "v1beta1", "clusterqueues/q")
        assert "concurrentAdmissionPolicy" not in seen["spec"]
        seen["spec"]["cohort"] = "other"
        await p.client.raw("PUT", f"{BASE}/v1beta1/clusterqueues/q", body=seen)
        await p.client.raw(
            "PATCH",
            f"{BASE}/v1beta1/clusterqueues/q",
            body=orjson.dumps({"spec": {"queueingStrategy": "StrictFIFO"}}),
            content_type="application/merge-patch+json",
        )
        stored = await p.client.get(r.CLUSTER_QUEUES, "q")
        assert stored["spec"]["cohortName"] == "other"
        assert stored["spec"]["queueingStrategy"] == "StrictFIFO"
        assert stored["spec"]["concurrentAdmissionPolicy"] == spec["concurrentAdmissionPolicy"]
        assert "annotations" not in stored["metadata"]


async def test_a_running_workload_is_seen_in_v1beta1_by_lists_and_watches() -> None:
    async with platform(count=2) as p:
        await asyncio.sleep(3)
        await p.client.create(r.JOBS, job("first", 2))
        await asyncio.sleep(5)
        [workload] = (await get(p.client, "v1beta1", "workloads"))["items"]
        assert workload["apiVersion"] == "kueue.x-k8s.io/v1beta1"
        assigned = workload["status"]["admission"]["podSetAssignments"][0]["topologyAssignment"]
        assert [d["count"] for d in assigned["domains"]] == [1, 1]
        workload["spec"]["active"] = False
        path = f"{BASE}/v1beta1/namespaces/default/workloads/{workload['metadata']['name']}"
        fresh = orjson.loads((await p.client.raw("GET", path)).body)
        fresh["spec"]["active"] = False
        changed = orjson.loads((await p.client.raw("PUT", path, body=fresh)).body)
        assert changed["spec"]["active"] is False
        stored = await p.client.get(r.WORKLOADS, workload["metadata"]["name"], "default")
        assert "slices" in stored["status"]["admission"]["podSetAssignments"][0]["topologyAssignment"]


async def test_multikueue_is_refused_with_a_reason() -> None:
    async with platform(count=1) as p:
        check = {"apiVersion": r.ADMISSION_CHECKS.api_version, "kind": "AdmissionCheck", "metadata": {"name": "m"}}
        with pytest.raises(ApiError, match="MultiKueue is not served by Glebe"):
            await p.client.create(
                r.ADMISSION_CHECKS, {**check, "spec": {"controllerName": "kueue.x-k8s.io/multikueue"}}
            )
        cluster = {"apiVersion": r.ADMISSION_CHECKS.api_version, "kind": "MultiKueueCluster", "metadata": {"name": "m"}}
        with pytest.raises(ApiError, match="MultiKueue is not served by Glebe"):
            await p.client.create(r.MULTIKUEUE_CLUSTERS, {**cluster, "spec": {"kubeConfig": {"location": "x"}}})

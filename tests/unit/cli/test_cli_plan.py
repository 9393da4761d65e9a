"""``glebe plan`` on a fleet where one job in the way keeps another from starting."""

from __future__ import annotations

import json
import time
from typing import Any

from glebe.kube import resources as r
from glebe.kube.clock import format_time
from glebe.queueing.picture import topology
from glebe.scheduling.model import GPU

HOST = "kubernetes.io/hostname"


def workload(name: str, gpus: int) -> dict[str, Any]:
    container = {"name": "c", "image": "i", "resources": {"requests": {GPU: str(gpus)}, "limits": {GPU: str(gpus)}}}
    pod_set = {"name": "main", "count": 1, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
    return {
        "apiVersion": r.WORKLOADS.api_version,
        "kind": "Workload",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"queueName": "q", "podSets": [{**pod_set, "topologyRequest": {"preferred": HOST}}]},
    }


def running(api: Any, name: str, gpus: int, node: str) -> None:
    given = {
        "name": "main",
        "count": 1,
        "flavors": {GPU: "gpu"},
        "resourceUsage": {GPU: str(gpus)},
        "topologyAssignment": topology.encode(((node, 1),)),
    }
    since = format_time(time.time() - 60)
    conditions = [
        {"type": kind, "status": "True", "reason": kind, "message": "", "lastTransitionTime": since}
        for kind in ("QuotaReserved", "Admitted")
    ]
    status = {"conditions": conditions, "admission": {"clusterQueue": "q", "podSetAssignments": [given]}}
    api.create(r.WORKLOADS, workload(name, gpus), status)


def fleet(api: Any) -> None:
    for name in ("n0", "n1"):
        meta = {"name": name, "labels": {HOST: name, "pool": "gpu"}}
        conditions = [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}]
        status = {"allocatable": {GPU: "8", "cpu": "64", "memory": "1Ti", "pods": "110"}, "conditions": conditions}
        node = api.create(r.NODES, {"apiVersion": "v1", "kind": "Node", "metadata": meta})
        api.change(r.NODES, {**node, "spec": {"taints": []}}, status)
    spec: dict[str, Any] = {"levels": [{"nodeLabel": HOST}]}
    api.create(r.TOPOLOGIES, made(r.TOPOLOGIES, "hosts", spec))
    api.create(
        r.RESOURCE_FLAVORS, made(r.RESOURCE_FLAVORS, "gpu", {"topologyName": "hosts", "nodeLabels": {"pool": "gpu"}})
    )
    quotas = [{"name": GPU, "nominalQuota": "16"}]
    groups = [{"coveredResources": [GPU], "flavors": [{"name": "gpu", "resources": quotas}]}]
    spec = {"namespaceSelector": {}, "resourceGroups": groups}
    api.create(r.CLUSTER_QUEUES, made(r.CLUSTER_QUEUES, "q", spec))
    local = made(r.LOCAL_QUEUES, "q", {"clusterQueue": "q"})
    api.create(r.LOCAL_QUEUES, {**local, "metadata": {"name": "q", "namespace": "default"}})


def made(resource: r.Resource, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}, "spec": spec}


def test_a_plan_names_who_moves_where_and_what_is_lost(api: Any, glebe: Any) -> None:
    fleet(api)
    running(api, "left", 4, "n0")
    running(api, "right", 4, "n1")
    api.create(r.WORKLOADS, workload("big", 8))
    told = glebe("plan").stdout.splitlines()
    assert len(told) == 2
    assert "big (8 GPUs, queue q) starts on n" in told[0]
    assert "if 1 job moves" in told[0]
    assert told[1].startswith("  1. ")
    assert "(4 GPUs, queue q) from n" in told[1]
    (plan,) = json.loads(glebe("plan", "-o", "json").stdout)
    assert plan["moves"][0]["before"] == plan["nodes"]
    assert 200 < plan["lost"] < 4000
    assert "nobody" in glebe("plan", "--lost", "0").stdout


def test_nothing_to_move(api: Any, glebe: Any) -> None:
    fleet(api)
    assert glebe("plan").stdout == "nobody who waits would start if others moved, within these bounds\n"

"""Kueue's scheduling scenarios (plain data) as snapshots of the production core's model."""

from __future__ import annotations

import gzip
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

from glebe.kube.quantity import parse
from glebe.queueing.configuration import DEFAULT, parsed
from glebe.queueing.jobs.lonepods import owned_by_pod
from glebe.queueing.picture import podsets, queueobjects, topology
from glebe.queueing.picture.corepolicies import configured
from glebe.queueing.picture.requests import PLAIN, Surroundings, problem, summarize
from glebe.scheduling.model import (
    Admitted,
    Afs,
    ClusterQueue,
    Cohort,
    FairSharing,
    FairStrategy,
    Flavor,
    FlavorQuotas,
    Gates,
    Node,
    Pending,
    PodSet,
    PodSetAssignment,
    Quota,
    QuotaCheck,
    ResourceGroup,
    RunTime,
    Snapshot,
    Strategy,
    Taint,
    Toleration,
    Topology,
)

Case = dict[str, Any]
HOST = "kubernetes.io/hostname"
SUFFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18} | {
    u + "i": 1 << (10 * (i + 1)) for i, u in enumerate("KMGTPE")
}


def load(data: Path, family: str) -> list[Case]:
    with gzip.open(data / "kueue-scenarios" / f"{family}.jsonl.gz", "rt") as lines:
        cases: list[Case] = [json.loads(line) for line in lines]
    return cases


def quantity(text: str | int, resource: str) -> int:
    """Base units: millicores for cpu, rounded up."""
    body = str(text)
    scale = Fraction(1)
    if body.endswith("m"):
        body, scale = body[:-1], Fraction(1, 1000)
    else:
        unit = body.lstrip("+-0123456789.")
        body, scale = body[: len(body) - len(unit)], Fraction(SUFFIXES[unit])
    return math.ceil(Fraction(body) * scale * (1000 if resource == "cpu" else 1))


def amounts(values: Mapping[str, Any] | None) -> dict[str, int]:
    return {r: quantity(q, r) for r, q in (values or {}).items()}


def objects(case: Case, kind: str) -> list[dict[str, Any]]:
    return [*case.get("base", {}).get(kind, []), *case["input"].get(kind, [])]


def groups(spec: Mapping[str, Any]) -> tuple[ResourceGroup, ...]:
    def one(r: Mapping[str, Any]) -> Quota:
        limit = {
            k: quantity(r[k], r["name"]) if r.get(k) is not None else None for k in ("borrowingLimit", "lendingLimit")
        }
        return Quota(quantity(r["nominalQuota"], r["name"]), limit["borrowingLimit"], limit["lendingLimit"])

    return tuple(
        ResourceGroup(
            tuple(g["coveredResources"]),
            tuple(FlavorQuotas(f["name"], {r["name"]: one(r) for r in f["resources"]}) for f in g["flavors"]),
        )
        for g in spec.get("resourceGroups", [])
    )


def weight(spec: Mapping[str, Any]) -> Fraction:
    return parse(spec.get("fairSharing", {}).get("weight", 1))


def tolerations(items: list[Mapping[str, Any]] | None) -> tuple[Toleration, ...]:
    return tuple(
        Toleration(t.get("key", ""), t.get("operator", "Equal"), t.get("value", ""), t.get("effect", ""))
        for t in items or []
    )


def taints(items: list[Mapping[str, Any]] | None) -> tuple[Taint, ...]:
    return tuple(Taint(t["key"], t.get("value", ""), t["effect"]) for t in items or [])


def flavor(obj: Mapping[str, Any]) -> Flavor:
    s = obj["spec"]
    return Flavor(
        obj["metadata"]["name"],
        s.get("nodeLabels", {}),
        taints(s.get("nodeTaints")),
        tolerations(s.get("tolerations")),
        s.get("topologyName"),
    )


def pod_requests(spec: Mapping[str, Any]) -> dict[str, int]:
    """Sum over containers, at least the largest init container, plus overhead."""
    total: Counter[str] = Counter()
    for container in spec.get("containers", []):
        resources = container.get("resources", {})
        total.update(amounts({**resources.get("limits", {}), **resources.get("requests", {})}))
    for container in spec.get("initContainers", []):
        for r, n in amounts(container.get("resources", {}).get("requests")).items():
            total[r] = max(total[r], n)
    total.update(amounts(spec.get("overhead")))
    return dict(total)


def node(obj: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> Node:
    name, spec, status = obj["metadata"]["name"], obj.get("spec", {}), obj["status"]
    other: Counter[str] = Counter()
    for pod in pods:
        if pod["spec"].get("nodeName") == name and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            other.update({**pod_requests(pod["spec"]), "pods": 1})
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", []))
    return Node(
        name,
        obj["metadata"].get("labels", {}),
        {"pods": 0, **amounts(status.get("allocatable"))},
        taints(spec.get("taints")),
        ready and not spec.get("unschedulable", False),
        dict(other),
    )


def pod_set(p: Mapping[str, Any], around: Surroundings = PLAIN) -> PodSet:
    """By the queue's own conversion."""
    (found,) = podsets.pod_sets({"spec": {"podSets": [p]}}, around)
    return found


def surroundings(case: Case, namespace: str) -> Surroundings:
    """What of a namespace and of the configuration matters to requests, by the queue's own reading."""
    ranges = [r for r in objects(case, "limitRanges") if r["metadata"].get("namespace") == namespace]
    resources = parsed(
        {"resources": {"transformations": case["config"].get("resourceTransformations") or []}}
    ).resources
    limits = [summarize(ranges, kind) for kind in ("Container", "Pod")]
    return Surroundings(*limits, resources=resources)


def time(text: str | None) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else 0.0


def base_snapshot(case: Case) -> Snapshot:
    pods = objects(case, "pods")
    return Snapshot(
        nodes=tuple(node(n, pods) for n in objects(case, "nodes")),
        topologies=tuple(
            Topology(t["metadata"]["name"], tuple(level["nodeLabel"] for level in t["spec"]["levels"]))
            for t in objects(case, "topologies")
        ),
        flavors=tuple(flavor(f) for f in objects(case, "resourceFlavors")),
        queues=tuple(
            ClusterQueue(
                q["metadata"]["name"],
                groups(q["spec"]),
                q["spec"].get("cohortName") or None,
                Strategy(q["spec"]["queueingStrategy"]),
                q["spec"].get("stopPolicy", "None") != "None",
                weight(q["spec"]),
                queueobjects.preemption(q["spec"].get("preemption")),
                queueobjects.fungibility(q["spec"].get("flavorFungibility")),
                afs=q["spec"].get("admissionScope", {}).get("admissionMode") == "UsageBasedAdmissionFairSharing",
                checks=checks(q["spec"]),
                migrate_from=q["spec"]
                .get("concurrentAdmissionPolicy", {})
                .get("migration", {})
                .get("constraints", {})
                .get("lastAcceptableFlavorName", ""),
            )
            for q in objects(case, "clusterQueues")
        ),
        cohorts=tuple(
            Cohort(c["metadata"]["name"], c["spec"].get("parentName") or None, groups(c["spec"]), weight(c["spec"]))
            for c in objects(case, "cohorts")
        ),
    )


def checks(spec: Mapping[str, Any]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    listed = spec.get("admissionChecksStrategy", {}).get("admissionChecks", [])
    return tuple((c["name"], tuple(c.get("onFlavors", []))) for c in listed)


GATES = {  # Kueue's name: the model's
    "ConcurrentAdmission": "concurrent_admission",
    "ElasticJobsViaWorkloadSlicesWithTAS": "elastic_with_topology",
    "MultiKueueOrchestratedPreemption": "orchestrated_preemption",
    "RecomputeAssignmentUponPreemptionTargetsOverlap": "recompute_overlapping",
    "SkipReassignmentForPodOwnedWorkloads": "skip_reassignment_of_pods",
    "TASBalancedPlacement": "balanced_placement",
    "TASFailedNodeReplacementFailFast": "fail_fast",
    "TASRecomputeAssignmentWithinSchedulingCycle": "recompute_placement",
    "TASRespectNodeAffinityPreferred": "preferred_affinity",
    "TopologyAwareScheduling": "topology_aware",
}


def gates(case: Case) -> Gates:
    return Gates(**{GATES[name]: on for name, on in case["featureGates"].items() if name in GATES})


def duration(text: str) -> float:
    return float(text.removesuffix("s"))


def policies(case: Case) -> dict[str, Any]:
    """What holds for the whole system, as fields of the snapshot."""
    config = case.get("config") or {}
    fair, afs = config.get("fairSharing"), config.get("admissionFairSharing")
    result: dict[str, Any] = {
        "gates": gates(case),
        "quota_check": QuotaCheck(config.get("quotaCheckStrategy", "BlockUndeclared")),
    }
    if fair is not None:
        result["fair_sharing"] = FairSharing(tuple(FairStrategy(s) for s in fair["preemptionStrategies"]))
    if afs is not None:
        used = {
            queue: {r: float(parse(q)) for r, q in by_resource.items()}
            for queue, by_resource in case["input"].get("localQueueUsage", {}).items()
        }
        weights = {
            f"{q['metadata']['namespace']}/{q['metadata']['name']}": weight(q["spec"])
            for q in objects(case, "localQueues")
        }
        result["afs"] = Afs(used, duration(afs["usageHalfLifeTime"]), duration(afs["usageSamplingInterval"]), weights)
    return result


def condition(w: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """The condition, if it is True."""
    found = (c for c in w.get("status", {}).get("conditions", []) if c["type"] == kind and c["status"] == "True")
    return next(found, None)


def queued_at(w: Mapping[str, Any]) -> float:
    """Creation, or the eviction after which it was queued again."""
    evicted = condition(w, "Evicted")
    if evicted is not None and evicted["reason"] in ("PodsReadyTimeout", "AdmissionCheck"):
        return time(evicted["lastTransitionTime"])
    return time(w["metadata"].get("creationTimestamp"))


def allowed_flavors(meta: Mapping[str, Any]) -> tuple[str, ...]:
    names = meta.get("annotations", {}).get("kueue.x-k8s.io/workload-allowed-resource-flavors", "")
    return tuple(n for n in names.split(",") if n)


def parent(meta: Mapping[str, Any], kind: str) -> str:
    """The name of the owner of that kind."""
    return next((o["name"] for o in meta.get("ownerReferences", []) if o["kind"] == kind), "")


def holder(key: str, w: Mapping[str, Any], hosts: Mapping[str, str], second_pass: Sequence[str] = ()) -> Admitted:
    """A workload that holds quota."""
    meta, spec, status = w["metadata"], w["spec"], w["status"]
    reserved = condition(w, "QuotaReserved")
    at = time(reserved["lastTransitionTime"]) if reserved else 0.0
    return Admitted(
        key,
        status["admission"]["clusterQueue"],
        spec.get("priority", 0),
        at,
        tuple(pod_set(p) for p in spec["podSets"]),
        tuple(assignment(p, hosts) for p in status["admission"]["podSetAssignments"]),
        RunTime(1, 1),
        f"{meta.get('namespace', '')}/{spec.get('queueName', '')}",
        meta.get("uid", ""),
        time(meta.get("creationTimestamp")),
        queued_at(w),
        reserved_at=at,
        evicted=condition(w, "Evicted") is not None,
        unhealthy=tuple(hosts.get(n["name"], n["name"]) for n in status.get("unhealthyNodes", [])),
        second_pass=key in second_pass,
        flavors=allowed_flavors(meta),
        variant_of=parent(meta, "Workload"),
        owned_by_pod=owned_by_pod(w),
    )


def waiter(key: str, w: Mapping[str, Any], queue: str, around: Surroundings = PLAIN) -> Pending:
    """A workload that waits for quota."""
    meta, spec, status = w["metadata"], w["spec"], w.get("status", {})
    open_gates = {g["name"] for g in status.get("preemptionGates", []) if g.get("position", g.get("state")) == "Open"}
    return Pending(
        key,
        queue,
        spec.get("priority", 0),
        queued_at(w),
        tuple(pod_set(p, around) for p in spec["podSets"]),
        RunTime(1, 1),
        f"{meta.get('namespace', '')}/{spec.get('queueName', '')}",
        time(meta.get("creationTimestamp")),
        meta.get("uid", ""),
        any(g["name"] not in open_gates for g in spec.get("preemptionGates", [])),
        meta.get("annotations", {}).get("kueue.x-k8s.io/workload-slice-replacement-for", ""),
        flavors=allowed_flavors(meta),
        variant_of=parent(meta, "Workload"),
        invalid=problem(spec["podSets"], around),
        failed_checks=any(c["state"] in ("Retry", "Rejected") for c in status.get("admissionChecks", [])),
    )


def cycle_snapshot(case: Case) -> Snapshot:
    base = base_snapshot(case)
    local = {
        (q["metadata"]["namespace"], q["metadata"]["name"]): q["spec"]["clusterQueue"]
        for q in objects(case, "localQueues")
    }
    admitted, waiting = [], []
    hosts = {n.labels.get(HOST, n.name): n.name for n in base.nodes}
    again = case["input"].get("secondPass", [])
    for w in case["input"]["workloads"]:
        meta, spec = w["metadata"], w["spec"]
        key = f"{meta['namespace']}/{meta['name']}"
        if w.get("status", {}).get("admission"):
            admitted.append(holder(key, w, hosts, again))
            continue
        queue = local.get((meta["namespace"], spec.get("queueName", "")))
        if queue and spec.get("active", True) and condition(w, "Finished") is None:
            waiting.append(waiter(key, w, queue, surroundings(case, meta["namespace"])))
    known = {c["metadata"]["name"]: c for c in objects(case, "admissionChecks")}
    queues = tuple(configured(q, known, DEFAULT) for q in base.queues)
    return replace(base, queues=queues, admitted=tuple(admitted), pending=tuple(waiting), **policies(case))


def assignment(a: Mapping[str, Any], hosts: Mapping[str, str]) -> PodSetAssignment:
    placed = topology.domains(a.get("topologyAssignment") or {})
    nodes = [(hosts.get(values[-1], values[-1]), pods) for values, pods in placed]
    return PodSetAssignment(
        a["name"],
        a["count"],
        a.get("flavors", {}),
        amounts(a.get("resourceUsage")),
        tuple(nodes),
        a.get("delayedTopologyRequest") or "",
    )


def preemption_snapshot(case: Case) -> tuple[Snapshot, Pending]:
    """Kind ``preemption``: who holds quota, and the workload that wants to enter."""
    given = case["input"]
    admitted = tuple(holder(f"/{w['metadata']['name']}", w, {}) for w in given["admitted"])
    incoming = waiter(f"/{given['incoming']['metadata']['name']}", given["incoming"], given["targetClusterQueue"])
    return replace(base_snapshot(case), admitted=admitted, **policies(case)), incoming


def flavor_snapshot(case: Case) -> Snapshot:
    """Kind ``flavorAssignment``: one workload, and what each queue uses as one running workload per entry."""
    base, given = base_snapshot(case), case["input"]
    pod_sets = tuple(pod_set(p) for p in given["podSets"])
    running = []
    for i, u in enumerate(given["usage"]):
        used = {u["resource"]: quantity(u["quantity"], u["resource"])}
        held = PodSetAssignment("main", 1, {u["resource"]: u["flavor"]}, used)
        running.append(Admitted(f"running-{i}", u["clusterQueue"], 0, 0.0, (), (held,), RunTime(1, 1)))
    replaces = ""
    if old := given.get("replacedSlice"):
        replaces = "old"
        held_by = tuple(
            PodSetAssignment(p["name"], p.get("count", 1), p["flavors"], amounts(p["requests"])) for p in old["podSets"]
        )
        running.append(Admitted(replaces, given["targetClusterQueue"], 0, 0.0, (), held_by, RunTime(1, 1)))
    reclaimed = {p["name"]: p["count"] for p in given.get("reclaimablePods") or []}
    pod_sets = tuple(replace(p, count=p.count - reclaimed.get(p.name, 0)) for p in pod_sets)
    waiting = Pending("w", given["targetClusterQueue"], 0, 0.0, pod_sets, RunTime(1, 1), replaces=replaces)
    return replace(base, admitted=tuple(running), pending=(waiting,), **policies(case))

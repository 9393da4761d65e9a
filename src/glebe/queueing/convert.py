"""From API objects to what the scheduling core sees: pure, one object at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from glebe.kube.clock import parse_time
from glebe.kube.objects import Object, annotations_of, condition_is_true, get_condition, labels_of
from glebe.kube.pods import requests_of
from glebe.kube.quantity import parse, to_int
from glebe.queueing import labels, runtimes, topology
from glebe.queueing.integrations import read
from glebe.scheduling import model as m

#: Finds a WorkloadClass by name.
ClassOf = Callable[[str], Object | None]


def amounts(resources: Mapping[str, Any] | None) -> dict[str, int]:
    return {name: to_int(value, name) for name, value in (resources or {}).items()}


def node_facts(obj: Object) -> tuple[Any, ...]:
    """What of a Node decides anything; heartbeats leave it as it is."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    ready = condition_is_true(obj, "Ready"), spec.get("unschedulable"), "deletionTimestamp" in obj["metadata"]
    return obj["metadata"]["uid"], labels_of(obj), status.get("allocatable"), spec.get("taints"), ready


def taints(items: list[dict[str, Any]] | None) -> tuple[m.Taint, ...]:
    return tuple(m.Taint(t["key"], t.get("value", ""), t["effect"]) for t in items or ())


def tolerations(items: list[dict[str, Any]] | None) -> tuple[m.Toleration, ...]:
    return tuple(
        m.Toleration(t.get("key", ""), t.get("operator") or "Equal", t.get("value", ""), t.get("effect") or "")
        for t in items or ()
    )


def node(obj: Object, other_use: Mapping[str, int]) -> m.Node:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    return m.Node(
        name=obj["metadata"]["name"],
        labels=labels_of(obj),
        allocatable=amounts(status.get("allocatable")),
        taints=taints(spec.get("taints")),
        ready=condition_is_true(obj, "Ready")
        and not spec.get("unschedulable")
        and "deletionTimestamp" not in obj["metadata"],
        other_use={k: v for k, v in sorted(other_use.items()) if v},
    )


def topology_levels(obj: Object) -> m.Topology:
    levels = read(obj, ("spec", "levels"), ())
    return m.Topology(obj["metadata"]["name"], tuple(level["nodeLabel"] for level in levels))


def flavor(obj: Object) -> m.Flavor:
    spec = obj.get("spec") or {}
    return m.Flavor(
        name=obj["metadata"]["name"],
        node_labels=spec.get("nodeLabels") or {},
        node_taints=taints(spec.get("nodeTaints")),
        tolerations=tolerations(spec.get("tolerations")),
        topology=spec.get("topologyName"),
    )


def resource_groups(items: list[dict[str, Any]] | None) -> tuple[m.ResourceGroup, ...]:
    return tuple(
        m.ResourceGroup(
            tuple(group["coveredResources"]),
            tuple(m.FlavorQuotas(f["name"], {r["name"]: _quota(r) for r in f["resources"]}) for f in group["flavors"]),
        )
        for group in items or ()
    )


def _quota(item: dict[str, Any]) -> m.Quota:
    def limit(name: str) -> int | None:
        return None if item.get(name) is None else to_int(item[name], item["name"])

    return m.Quota(to_int(item["nominalQuota"], item["name"]), limit("borrowingLimit"), limit("lendingLimit"))


def cluster_queue(obj: Object) -> m.ClusterQueue:
    spec = obj.get("spec") or {}
    return m.ClusterQueue(
        name=obj["metadata"]["name"],
        resource_groups=resource_groups(spec.get("resourceGroups")),
        cohort=spec.get("cohortName"),
        strategy=m.Strategy(spec.get("queueingStrategy") or "BestEffortFIFO"),
        stopped=(spec.get("stopPolicy") or "None") != "None" or "deletionTimestamp" in obj["metadata"],
        weight=_weight(spec),
        preemption=preemption(spec.get("preemption")),
        fungibility=fungibility(spec.get("flavorFungibility")),
        afs=(spec.get("admissionScope") or {}).get("admissionMode") == "UsageBasedAdmissionFairSharing",
    )


def preemption(spec: Mapping[str, Any] | None) -> m.Preemption:
    """``spec.preemption`` of a ClusterQueue; what is missing is Never."""
    given = spec or {}
    borrowing = given.get("borrowWithinCohort") or {}
    return m.Preemption(
        within=m.PreemptionPolicy(given.get("withinClusterQueue") or "Never"),
        reclaim=m.PreemptionPolicy(given.get("reclaimWithinCohort") or "Never"),
        borrow_within=m.PreemptionPolicy(borrowing.get("policy") or "Never"),
        max_priority=borrowing.get("maxPriorityThreshold"),
    )


def fungibility(spec: Mapping[str, Any] | None) -> m.Fungibility:
    """``spec.flavorFungibility`` of a ClusterQueue. v1beta1's names of the first choice are understood, too."""
    given = spec or {}
    return m.Fungibility(
        when_can_borrow=m.TryNext.NEXT if given.get("whenCanBorrow") == "TryNextFlavor" else m.TryNext.STOP,
        when_can_preempt=m.TryNext.NEXT
        if given.get("whenCanPreempt", "TryNextFlavor") == "TryNextFlavor"
        else m.TryNext.STOP,
        preference=m.Preference(given.get("preference") or "BorrowingOverPreemption"),
    )


def cohort(obj: Object) -> m.Cohort:
    spec = obj.get("spec") or {}
    groups = resource_groups(spec.get("resourceGroups"))
    return m.Cohort(obj["metadata"]["name"], spec.get("parentName"), groups, _weight(spec))


def _weight(spec: Mapping[str, Any]) -> Fraction:
    weight = (spec.get("fairSharing") or {}).get("weight")
    return m.EVEN if weight is None else parse(weight)


def pod_sets(workload: Object) -> tuple[m.PodSet, ...]:
    return tuple(_pod_set(p) for p in workload["spec"]["podSets"])


def _pod_set(item: dict[str, Any]) -> m.PodSet:
    spec = item["template"].get("spec") or {}
    return m.PodSet(
        name=item.get("name", labels.DEFAULT_POD_SET),
        count=int(item.get("count", 1)),
        requests=requests_of(spec, zeros=True),  # they get a flavor, too
        node_selector=spec.get("nodeSelector") or {},
        affinity=_affinity(spec),
        tolerations=tolerations(spec.get("tolerations")),
        topology=_topology_request(item.get("topologyRequest") or {}),
        min_count=item.get("minCount"),
    )


def _topology_request(request: Mapping[str, Any]) -> m.TopologyRequest | None:
    slices = tuple(
        m.Slice(s["topology"], int(s["size"])) for s in request.get("podsetSliceRequiredTopologyConstraints") or ()
    )
    if not slices and (level := request.get("podSetSliceRequiredTopology")):
        slices = (m.Slice(level, int(request.get("podSetSliceSize") or 0)),)
    group = request.get("podSetGroupName") or ""
    if level := request.get("required"):
        return m.TopologyRequest(m.TopologyMode.REQUIRED, level, slices, group)
    if level := request.get("preferred"):
        return m.TopologyRequest(m.TopologyMode.PREFERRED, level, slices, group)
    if request.get("unconstrained") or slices:
        return m.TopologyRequest(m.TopologyMode.UNCONSTRAINED, "", slices, group)
    return None


def _affinity(spec: Mapping[str, Any]) -> tuple[tuple[m.Expression, ...], ...]:
    """The terms of the required node affinity; what a term says of node fields is left to the scheduler of pods."""
    path = ("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
    return tuple(
        tuple(
            m.Expression(e["key"], e["operator"], tuple(e.get("values") or ()))
            for e in term.get("matchExpressions") or ()
        )
        for term in read(spec, path, ())
    )


def run_time(workload: Object, class_of: ClassOf) -> m.RunTime:
    expected = annotations_of(workload).get(labels.EXPECTED_RUN_TIME)
    name = labels_of(workload).get(labels.CLASS)
    known = read(class_of(name), ("spec", "expectedRunTime"), {}) if name else {}
    bound = workload["spec"].get("maximumExecutionTimeSeconds")
    return runtimes.predict(expected, known.get("p50Seconds"), known.get("p90Seconds"), bound)


def pending(key: str, workload: Object, queue: str, class_of: ClassOf) -> m.Pending:
    return m.Pending(
        key=key,
        queue=queue,
        priority=int(workload["spec"].get("priority") or 0),
        queued_at=queued_at(workload),
        pod_sets=pod_sets(workload),
        run_time=run_time(workload, class_of),
    )


def admitted(key: str, workload: Object, class_of: ClassOf) -> m.Admitted:
    admission = workload["status"]["admission"]
    return m.Admitted(
        key=key,
        queue=admission["clusterQueue"],
        priority=int(workload["spec"].get("priority") or 0),
        started_at=started_at(workload),
        pod_sets=pod_sets(workload),
        assignments=assignments(workload),
        run_time=run_time(workload, class_of),
    )


def assignments(workload: Object) -> tuple[m.PodSetAssignment, ...]:
    return tuple(
        m.PodSetAssignment(
            pod_set=a.get("name", labels.DEFAULT_POD_SET),
            count=int(a.get("count", 0)),
            flavors=a.get("flavors") or {},
            usage=amounts(a.get("resourceUsage")),
            nodes=topology.decode(a.get("topologyAssignment")),
            delayed=a.get("delayedTopologyRequest") or "",
        )
        for a in workload["status"]["admission"].get("podSetAssignments") or ()
    )


def queued_at(workload: Object) -> float:
    """When the workload joined its queue: its own note of it (microseconds) or its creation (seconds)."""
    note = annotations_of(workload).get(labels.SUBMITTED_AT)
    if note:
        with contextlib.suppress(ValueError):
            return parse_time(note)
    return parse_time(workload["metadata"].get("creationTimestamp", "1970-01-01T00:00:00Z"))


def started_at(workload: Object) -> float:
    """When its pods were ready; until then, when it was admitted."""
    for kind in (labels.PODS_READY, labels.ADMITTED, labels.QUOTA_RESERVED):
        condition = get_condition(workload, kind)
        if condition is not None and condition["status"] == "True":
            return parse_time(condition["lastTransitionTime"])
    return queued_at(workload)


def holds_quota(workload: Object) -> bool:
    """Admitted in the queue's books: from the write of ``status.admission`` until it is finished or taken back."""
    return bool(read(workload, ("status", "admission"))) and not is_finished(workload)


def is_finished(workload: Object) -> bool:
    return condition_is_true(workload, labels.FINISHED)


def is_active(workload: Object) -> bool:
    return workload["spec"].get("active") is not False

"""From API objects to what the scheduling core sees: pure, one object at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from glebe.kube.clock import parse_time
from glebe.kube.duration import parse_duration
from glebe.kube.objects import Object, annotations_of, condition_is_true, get_condition, labels_of
from glebe.kube.quantity import parse, to_int
from glebe.queueing import labels
from glebe.queueing.configuration import DEFAULT, Configuration
from glebe.queueing.jobs.integrations import read
from glebe.queueing.jobs.lonepods import owned_by_pod
from glebe.queueing.life import checks
from glebe.queueing.picture import requests, runtimes, topology
from glebe.queueing.picture.requests import PLAIN, Surroundings
from glebe.queueing.tenants import tenancy
from glebe.scheduling import model as m

_GPU = "nvidia.com/gpu"
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


def host_of(node: Object) -> str:
    """What assignments and node selectors call a node: its label, which may differ from its name."""
    return labels_of(node).get(labels.HOSTNAME) or str(node["metadata"]["name"])


def node(obj: Object, other_use: Mapping[str, int]) -> m.Node:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    return m.Node(
        name=host_of(obj),
        labels=labels_of(obj),
        allocatable=with_gpu_shares(amounts(status.get("allocatable"))),
        taints=taints(spec.get("taints")),
        ready=condition_is_true(obj, "Ready")
        and not spec.get("unschedulable")
        and "deletionTimestamp" not in obj["metadata"],
        other_use={k: v for k, v in sorted(other_use.items()) if v},
    )


def with_gpu_shares(allocatable: dict[str, int]) -> dict[str, int]:
    """GPUs also in thousandths, for pods that ask for fractions: counted, not enforced (see docs/job-kinds.md)."""
    if gpus := allocatable.get(_GPU):
        allocatable.setdefault(labels.GPU_SHARE, 1000 * gpus)
    return allocatable


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
        min_run_time=_seconds(annotations_of(obj).get(labels.MINIMUM_RUN_TIME)),
        checks=tuple(sorted(checks.of_queue(obj).items())),
        afs=(spec.get("admissionScope") or {}).get("admissionMode") == "UsageBasedAdmissionFairSharing",
        backfill=_backfill(annotations_of(obj).get(labels.BACKFILL)),
    )


def _backfill(text: str | None) -> m.Backfill:
    """What is not understood counts as missing."""
    known = {str(mode): mode for mode in m.Backfill}
    return known.get(text or "", m.Backfill.GREEDY)


def _seconds(text: str | None) -> float:
    """A duration in an annotation.

    :raises ValueError: when it is none.
    """
    return max(0.0, parse_duration(text)) if text else 0.0


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


_PREEMPTOR = re.compile(r"\(UID: ([^,)]+)")
_SWITCH = {"Enabled": True, "Disabled": False}


def cohort(obj: Object) -> m.Cohort:
    spec = obj.get("spec") or {}
    groups = resource_groups(spec.get("resourceGroups"))
    switch = _SWITCH.get(annotations_of(obj).get(labels.FAIR_SHARING, ""))
    return m.Cohort(obj["metadata"]["name"], spec.get("parentName"), groups, _weight(spec), switch)


def _weight(spec: Mapping[str, Any]) -> Fraction:
    weight = (spec.get("fairSharing") or {}).get("weight")
    return m.EVEN if weight is None else parse(weight)


def pod_sets(workload: Object, around: Surroundings = PLAIN) -> tuple[m.PodSet, ...]:
    """The pods that are still needed: those whose resources were given back (``reclaimablePods``) are left out."""
    gone = dict(reclaimable(workload))
    return tuple(_pod_set(_updated(p, workload), gone, around) for p in workload["spec"]["podSets"])


def _updated(item: dict[str, Any], workload: Object) -> dict[str, Any]:
    """The pod set with what its admission checks add (``podSetUpdates``), by which its pods are placed."""
    name = item.get("name", labels.DEFAULT_POD_SET)
    updates = [
        u
        for check in checks.in_state(workload, checks.READY)
        for u in check.get("podSetUpdates") or ()
        if u.get("name") == name
    ]
    if not updates:
        return item
    spec = dict(item["template"].get("spec") or {})
    for update in updates:
        if selector := update.get("nodeSelector"):
            spec["nodeSelector"] = {**(spec.get("nodeSelector") or {}), **selector}
        if more := update.get("tolerations"):
            spec["tolerations"] = [*(spec.get("tolerations") or ()), *more]
    return {**item, "template": {**item["template"], "spec": spec}}


def reclaimable(workload: Object) -> tuple[tuple[str, int], ...]:
    """Pods that are no longer needed, by pod set."""
    listed = read(workload, ("status", "reclaimablePods"), ())
    return tuple((p["name"], int(p.get("count") or 0)) for p in listed if p.get("count"))


def _pod_set(item: dict[str, Any], gone: Mapping[str, int], around: Surroundings) -> m.PodSet:
    spec = item["template"].get("spec") or {}
    name, count = item.get("name", labels.DEFAULT_POD_SET), int(item.get("count", 1))
    taken, counted = requests.on_node(spec, around), requests.counted(spec, around)
    return m.PodSet(
        name=name,
        count=count - min(gone.get(name, 0), count),
        requests=taken,  # zeros, too: they get a flavor
        charged=None if counted == taken else counted,
        node_selector=spec.get("nodeSelector") or {},
        affinity=_affinity(spec),
        preferred=_preferred(spec),
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
    return tuple(_expressions(term) for term in read(spec, path, ()))


def _preferred(spec: Mapping[str, Any]) -> tuple[m.Preferred, ...]:
    """The terms of the preferred node affinity, but for those that speak of node fields."""
    terms = read(spec, ("affinity", "nodeAffinity", "preferredDuringSchedulingIgnoredDuringExecution"), ())
    return tuple(
        m.Preferred(int(t.get("weight", 1)), _expressions(t["preference"]))
        for t in terms
        if not t["preference"].get("matchFields")
    )


def _expressions(term: Mapping[str, Any]) -> tuple[m.Expression, ...]:
    return tuple(
        m.Expression(e["key"], e["operator"], tuple(e.get("values") or ())) for e in term.get("matchExpressions") or ()
    )


def run_time(workload: Object, class_of: ClassOf) -> m.RunTime:
    expected = annotations_of(workload).get(labels.EXPECTED_RUN_TIME)
    name = labels_of(workload).get(labels.CLASS)
    known = read(class_of(name), ("spec", "expectedRunTime"), {}) if name else {}
    bound = workload["spec"].get("maximumExecutionTimeSeconds")
    said = runtimes.predict(expected, known.get("p50Seconds"), known.get("p90Seconds"), bound)
    return said if bound is None else dataclasses.replace(said, bound=float(bound))


def declares_run_time(workload: Object, class_of: ClassOf) -> bool:
    """Whether its owner or its class says how long it runs; else history is asked."""
    if annotations_of(workload).get(labels.EXPECTED_RUN_TIME):
        return True
    name = labels_of(workload).get(labels.CLASS)
    return name is not None and "p50Seconds" in read(class_of(name), ("spec", "expectedRunTime"), {})


def pending(
    key: str,
    workload: Object,
    queue: str,
    class_of: ClassOf,
    config: Configuration = DEFAULT,
    around: Surroundings = PLAIN,
) -> m.Pending:
    meta, failed = workload["metadata"], (checks.RETRY, checks.REJECTED)
    return m.Pending(
        key=key,
        queue=queue,
        priority=priority(workload, config),
        queued_at=queued_at(workload, config),
        pod_sets=pod_sets(workload, around),
        run_time=run_time(workload, class_of),
        local_queue=local_queue(workload),
        created_at=_created_at(workload),
        uid=meta.get("uid", ""),
        gated=_closed_gate(workload),
        replaces=_replaced(key, workload),
        reclaimable=reclaimable(workload),
        invalid=requests.problem(workload["spec"]["podSets"], around),
        failed_checks=any(c.get("state") in failed for c in checks.listed(workload)),
        preempting=is_preempting(workload),
        preempted_by=preempted_by(workload),
    )


def admitted(
    key: str,
    workload: Object,
    class_of: ClassOf,
    config: Configuration = DEFAULT,
    around: Surroundings = PLAIN,
) -> m.Admitted:
    admission = workload["status"]["admission"]
    evicted = condition_is_true(workload, labels.EVICTED)
    unhealthy = tuple(n["name"] for n in read(workload, ("status", "unhealthyNodes"), ()))
    return m.Admitted(
        key=key,
        queue=admission["clusterQueue"],
        priority=priority(workload, config),
        started_at=started_at(workload),
        pod_sets=pod_sets(workload, around),
        assignments=assignments(workload),
        run_time=run_time(workload, class_of),
        local_queue=local_queue(workload),
        uid=workload["metadata"].get("uid", ""),
        created_at=_created_at(workload),
        queued_at=queued_at(workload, config),
        reserved_at=since(workload, labels.QUOTA_RESERVED),
        evicted=evicted,
        unhealthy=unhealthy,
        second_pass=not evicted and (_may_be_placed(workload) or _uses(workload, unhealthy)),
        owned_by_pod=owned_by_pod(workload),
        preempted_by=preempted_by(workload),
    )


def is_preempting(workload: Object) -> bool:
    """Whether others were told to leave for it."""
    condition = get_condition(workload, labels.QUOTA_RESERVED) or {}
    return condition.get("status") == "False" and condition.get("reason") == m.Reason.WAITING_FOR_PREEMPTED


def preempted_by(workload: Object) -> tuple[tuple[str, float], ...]:
    """For whom it had to leave last, as the condition ``Preempted`` says (also after it has started again)."""
    condition = get_condition(workload, labels.PREEMPTED)
    found = _PREEMPTOR.search(condition["message"]) if condition is not None else None
    return ((found[1], since(workload, labels.PREEMPTED)),) if found is not None else ()


def _may_be_placed(workload: Object) -> bool:
    """Its nodes were left open until its checks have passed, and now they have."""
    if condition_is_true(workload, labels.ADMITTED) or not (listed := checks.listed(workload)):
        return False
    items = read(workload, ("status", "admission", "podSetAssignments"), ())
    waits = any(a.get("delayedTopologyRequest") == "Pending" and not a.get("topologyAssignment") for a in items)
    return waits and checks.all_ready(listed)


def _uses(workload: Object, nodes: tuple[str, ...]) -> bool:
    return bool(nodes) and any(name in nodes for a in assignments(workload) for name, _ in a.nodes)


def _closed_gate(workload: Object) -> bool:
    """Whether a preemption gate keeps it from preempting: a gate is closed until somebody opens it."""
    states = {g["name"]: g.get("position") for g in read(workload, ("status", "preemptionGates"), ())}
    return any(states.get(g["name"]) != "Open" for g in read(workload, ("spec", "preemptionGates"), ()))


def _replaced(key: str, workload: Object) -> str:
    """The key of the slice that it replaces (``namespace/name`` in the annotation)."""
    name = annotations_of(workload).get(labels.REPLACEMENT_FOR, "")
    return f"{key.rpartition('/')[0]}/{name.rpartition('/')[2]}" if name else ""


def local_queue(workload: Object) -> str:
    return tenancy.door(workload, workload["spec"].get("queueName") or labels.DEFAULT_QUEUE)


def priority(workload: Object, config: Configuration = DEFAULT) -> int:
    """Its priority, boost included."""
    return int(workload["spec"].get("priority") or 0) + priority_boost(workload, config)


def priority_boost(workload: Object, config: Configuration = DEFAULT) -> int:
    """What is added to its priority by annotation, where the feature gate PriorityBoost is on."""
    text = annotations_of(workload).get(labels.PRIORITY_BOOST, "")
    if not text or not config.gate("PriorityBoost", False):
        return 0
    with contextlib.suppress(ValueError):
        return int(text)
    return 0


def assignments(workload: Object) -> tuple[m.PodSetAssignment, ...]:
    """What it was given; what it has given back since (``reclaimablePods``) is out of the usage."""
    gone = dict(reclaimable(workload))
    listed = read(workload, ("spec", "podSets"), ())
    wanted = {p.get("name", labels.DEFAULT_POD_SET): int(p.get("count", 1)) for p in listed}
    items = workload["status"]["admission"].get("podSetAssignments") or ()
    return tuple(_assigned(a, wanted, gone) for a in items)


def _assigned(item: Mapping[str, Any], wanted: Mapping[str, int], gone: Mapping[str, int]) -> m.PodSetAssignment:
    name = item.get("name", labels.DEFAULT_POD_SET)
    given = int(item["count"]) if item.get("count") is not None else wanted.get(name, 0)
    usage = amounts(item.get("resourceUsage"))
    left = max(0, wanted.get(name, given) - gone.get(name, 0))
    if left < given:
        usage = {resource: amount // given * left for resource, amount in usage.items()}
    return m.PodSetAssignment(
        pod_set=name,
        count=min(left, given),
        flavors=item.get("flavors") or {},
        usage=usage,
        nodes=topology.decode(item.get("topologyAssignment")),
        delayed=item.get("delayedTopologyRequest") or "",
    )


def queued_at(workload: Object, config: Configuration = DEFAULT) -> float:
    """What orders it among workloads of its priority.

    When it joined its queue: its own note of it (microseconds) or its creation (seconds). After an eviction by an
    admission check, or because its pods were not ready in time, the time of that.
    """
    condition = get_condition(workload, labels.EVICTED)
    if condition is not None and condition["status"] == "True":
        ready = config.wait_for_pods_ready
        late = condition["reason"] == "PodsReadyTimeout"
        if condition["reason"] == "AdmissionCheck" or (
            late and ready is not None and ready.requeuing_strategy.timestamp == "Eviction"
        ):
            return parse_time(condition["lastTransitionTime"])
    note = annotations_of(workload).get(labels.SUBMITTED_AT)
    if note:
        with contextlib.suppress(ValueError):
            return parse_time(note)
    return _created_at(workload)


def _created_at(workload: Object) -> float:
    return parse_time(workload["metadata"].get("creationTimestamp", "1970-01-01T00:00:00Z"))


def queued_since(workload: Object) -> float:
    """Since when it has waited this time: for messages and metrics."""
    return since(workload, labels.REQUEUED) or queued_at(workload)


def since(workload: Object, kind: str) -> float:
    """When a condition last changed; 0 without it."""
    condition = get_condition(workload, kind)
    return parse_time(condition["lastTransitionTime"]) if condition is not None else 0.0


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


def may_run(workload: Object) -> bool:
    """It has quota, its checks have passed, and nothing has stopped it since."""
    return holds_quota(workload) and condition_is_true(workload, labels.ADMITTED)


def is_active(workload: Object) -> bool:
    return workload["spec"].get("active") is not False


def is_on_hold(workload: Object) -> bool:
    """Its job asks for nothing as it is: it stands in no line."""
    return (get_condition(workload, labels.QUOTA_RESERVED) or {}).get("reason") == labels.ON_HOLD

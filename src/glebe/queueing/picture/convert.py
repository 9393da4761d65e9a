"""Workloads as what the scheduling core sees: pure, one object at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from glebe.kube.clock import parse_time
from glebe.kube.objects import Object, annotations_of, condition_is_true, get_condition, labels_of
from glebe.queueing import labels
from glebe.queueing.configuration import DEFAULT, Configuration
from glebe.queueing.jobs.integrations import read
from glebe.queueing.jobs.lonepods import owned_by_pod
from glebe.queueing.life import checks
from glebe.queueing.picture import requests, runtimes, topology
from glebe.queueing.picture.fleetobjects import amounts
from glebe.queueing.picture.podsets import pod_sets, reclaimable
from glebe.queueing.picture.requests import PLAIN, Surroundings
from glebe.queueing.tenants import tenancy
from glebe.scheduling import model as m

#: Finds a WorkloadClass by name.
ClassOf = Callable[[str], Object | None]
_PREEMPTOR = re.compile(r"\(UID: ([^,)]+)")


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

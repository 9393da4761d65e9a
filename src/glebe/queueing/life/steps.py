"""The life of one workload as a table of steps, each a pure function: what to write now, or when to look again.

The first step that has something to say decides; what it writes brings the workload back here. So every write is one
step, and whoever dies between two of them resumes at the right one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from glebe.kube.clock import parse_time
from glebe.kube.objects import Object, condition_is_true, get_condition, is_deleting, labels_of
from glebe.queueing import labels
from glebe.queueing.configuration import Configuration
from glebe.queueing.jobs.integrations import read
from glebe.queueing.life import checks, evictions, transitions
from glebe.queueing.picture import convert

Event = tuple[str, str, str]  # type, reason, message


@dataclass(frozen=True, slots=True)
class Facts:
    """What surrounds a workload. ``None`` for an object that is not there; ``failed``: nodes that failed it."""

    now: float
    config: Configuration
    local: Object | None = None
    queue: Object | None = None
    classes: tuple[Object | None, ...] = ()
    failed: tuple[str, ...] = ()
    look_again: float | None = None  # seconds, for its nodes


@dataclass(frozen=True, slots=True)
class Step:
    """What to do: write ``status`` (the object with its next one), patch the spec, delete; else wait ``after``."""

    status: Object | None = None
    spec: Mapping[str, Any] = field(default_factory=dict)
    delete: bool = False
    delete_owner: bool = False  # the job
    events: tuple[Event, ...] = ()
    after: float | None = None
    halt: bool = False  # nothing else is to be looked at

    @property
    def acts(self) -> bool:
        return self.status is not None or bool(self.spec) or self.delete or self.delete_owner or self.halt


NOTHING = Step()
#: More nodes than that cannot be named in ``status.unhealthyNodes``.
MOST_FAILED = 8
HALT = Step(halt=True)
Rule = Callable[[Object, Facts], Step]


def next_step(workload: Object, facts: Facts) -> Step:
    """The first rule that acts; else the soonest time at which one of them wants to look again."""
    waits: list[float] = []
    for rule in RULES:
        step = rule(workload, facts)
        if step.acts:
            return replace(step, after=min([*waits, step.after], key=_soonest))
        if step.after is not None:
            waits.append(step.after)
    return Step(after=min(waits, default=None))


def _soonest(value: float | None) -> float:
    return float("inf") if value is None else value


def _finished(workload: Object, facts: Facts) -> Step:
    if not convert.is_finished(workload):
        return NOTHING
    kept = facts.config.object_retention_policies.workloads.after_finished_seconds
    condition = get_condition(workload, labels.FINISHED)
    if kept is None or condition is None:
        return HALT
    left = parse_time(condition["lastTransitionTime"]) + kept - facts.now
    if left > 0:
        return Step(after=left, halt=True)
    return Step(delete=True, events=(("Normal", "Deleted", "Deleted finished workload due to elapsed retention"),))


def _retry_time(workload: Object, facts: Facts) -> Step:
    """A check asks for a time before which it should not come back."""
    until = checks.retry_at(workload)
    if until is None or until <= facts.now or (evictions.requeue_at(workload) or 0.0) >= until:
        return NOTHING
    state = evictions.requeue_after(workload, until, count=False)
    return Step(transitions.with_status(workload, facts.now, requeueState=state))


def _switched_off(workload: Object, facts: Facts) -> Step:
    """``spec.active`` is false."""
    if convert.is_active(workload):
        return NOTHING
    if convert.holds_quota(workload) and not transitions.is_evicted(workload):
        stopped = evictions.deactivate(workload, facts.now)
        target = get_condition(workload, labels.DEACTIVATION_TARGET)
        return Step(stopped, events=(_evicted(stopped, transitions.DEACTIVATED, target["reason"] if target else ""),))
    if convert.holds_quota(workload):
        return NOTHING
    if evictions.is_settled_off(workload):
        return _retained(workload, facts)
    return Step(evictions.settled_off(workload, facts.now))


def _retained(workload: Object, facts: Facts) -> Step:
    """Who was switched off by the queue, and stays so, is removed after a while, if that is wanted."""
    kept = facts.config.object_retention_policies.workloads.after_deactivated_seconds
    condition = get_condition(workload, labels.EVICTED) or {}
    ours = condition.get("status") == "True" and str(condition.get("reason")).startswith(
        f"{transitions.DEACTIVATED}Due"
    )
    if kept is None or not ours:
        return HALT
    left = parse_time(condition["lastTransitionTime"]) + kept - facts.now
    if left > 0:
        return Step(after=left, halt=True)
    event = ("Normal", "Deleted", "Deleted job: deactivation retention period expired")
    return Step(delete_owner=True, events=(event,))


def _target(workload: Object, facts: Facts) -> Step:
    """It is to be switched off, for a reason that is written down."""
    if convert.is_active(workload) and condition_is_true(workload, labels.DEACTIVATION_TARGET):
        return Step(spec={"active": False})
    return NOTHING


def _waits(workload: Object, facts: Facts) -> Step:
    """It waits until some time, and for what kept it out of its line."""
    if convert.holds_quota(workload):
        return NOTHING
    until, reason = evictions.requeue_at(workload), evictions.kept_out(workload)
    if until is not None and until > facts.now:
        return Step(after=until - facts.now, halt=True)
    if reason in (evictions.PODS_READY_TIMEOUT, evictions.ADMISSION_CHECK) or reason.startswith(
        transitions.DEACTIVATED
    ):
        return Step(evictions.let_back(workload, facts.now))
    if reason == evictions.LOCAL_QUEUE_STOPPED and facts.local is not None and not stop_policy(facts.local):
        return Step(evictions.let_back(workload, facts.now))
    if reason == evictions.CLUSTER_QUEUE_STOPPED and facts.queue is not None and not stop_policy(facts.queue):
        return Step(evictions.let_back(workload, facts.now))
    return Step(evictions.waited(workload, facts.now)) if until is not None else NOTHING


def _evicted_already(workload: Object, facts: Facts) -> Step:
    if not (convert.holds_quota(workload) and transitions.is_evicted(workload)):
        return NOTHING
    if not workload["metadata"].get("ownerReferences"):  # nobody's: there are no pods to wait for
        return Step(transitions.release(workload, facts.now))
    return HALT  # its job's controller stops the pods and gives the quota back


def _checks(workload: Object, facts: Facts) -> Step:
    """It has exactly the checks that its queue and its class ask for."""
    if facts.queue is None:
        return NOTHING
    assignments = read(workload, ("status", "admission", "podSetAssignments"), None)
    names = checks.required(facts.queue, facts.classes, assignments)
    listed = checks.listed(workload)
    wanted = checks.synced(listed, names, facts.now)
    if [c["name"] for c in listed] == [c["name"] for c in wanted]:
        return NOTHING
    return Step(transitions.with_status(workload, facts.now, admissionChecks=wanted or None))


def _admission(workload: Object, facts: Facts) -> Step:
    """With quota and all checks passed it is admitted."""
    if not convert.holds_quota(workload) or condition_is_true(workload, labels.ADMITTED):
        return NOTHING
    settled = transitions.settle(workload, facts.now)
    before, after = (get_condition(o, labels.ADMITTED) or {} for o in (workload, settled))
    if [before.get(k) for k in ("status", "reason")] == [after.get(k) for k in ("status", "reason")]:
        return NOTHING
    events = (admitted_event(settled, facts.now),) if after["status"] == "True" else ()
    return Step(settled, events=events)


def _check_verdicts(workload: Object, facts: Facts) -> Step:
    """A check was rejected: it is switched off. One asks for a retry: the quota is given back until then."""
    if rejected := checks.in_state(workload, checks.REJECTED):
        message = checks.describe(rejected, checks.REJECTED)
        event = ("Warning", "AdmissionCheckRejected", f"Deactivated due to {message}")
        target = evictions.intend_deactivation(workload, evictions.ADMISSION_CHECK, message, facts.now)
        return Step(target, events=(event,))
    if again := checks.in_state(workload, checks.RETRY):
        if not convert.holds_quota(workload):  # it has waited: the check is judged anew
            judged = checks.reset(checks.listed(workload), facts.now)
            return Step(transitions.with_status(workload, facts.now, admissionChecks=judged))
        message = f"Evicted due to {checks.describe(again, checks.RETRY)}"
        stopped = evictions.evict(workload, evictions.ADMISSION_CHECK, message, facts.now)
        return Step(stopped, events=(_evicted(stopped, evictions.ADMISSION_CHECK),))
    return NOTHING


def _queues(workload: Object, facts: Facts) -> Step:
    """Its queues: drained ones stop what runs; stopped ones also take back what was not admitted yet."""
    if not convert.holds_quota(workload):
        return NOTHING
    name, queue = workload["spec"].get("queueName", ""), workload["status"]["admission"]["clusterQueue"]
    places = (
        ("LocalQueue", name, facts.local, evictions.LOCAL_QUEUE_STOPPED),
        ("ClusterQueue", queue, facts.queue, evictions.CLUSTER_QUEUE_STOPPED),
    )
    for kind, called, found, reason in places:
        policy = stop_policy(found) if found is not None else ""
        if condition_is_true(workload, labels.ADMITTED):
            if policy == "HoldAndDrain":
                stopped = evictions.evict(workload, reason, f"The {kind} is stopped", facts.now)
                return Step(stopped, events=(_evicted(stopped, reason),))
        elif found is None or is_deleting(found):
            text = f"{kind} {called} is terminating or missing"
            return Step(evictions.unreserve(workload, "Misconfigured", text, facts.now))
        elif policy:
            return Step(evictions.unreserve(workload, "Suspended", f"{kind} {called} is stopped", facts.now))
    return NOTHING


def _pods_ready(workload: Object, facts: Facts) -> Step:
    """Its pods were not ready in time, at the start or after one was lost."""
    ready = facts.config.wait_for_pods_ready
    condition = get_condition(workload, labels.PODS_READY) or {}
    running = convert.holds_quota(workload) and condition_is_true(workload, labels.ADMITTED)
    if ready is None or not ready.enable or not running or condition.get("status") == "True":
        return NOTHING
    if condition.get("reason") == "WaitForRecovery":
        cause, limit, since = "WaitForRecovery", ready.recovery_seconds, condition["lastTransitionTime"]
    else:
        admitted = get_condition(workload, labels.ADMITTED) or {}
        cause, limit, since = "WaitForStart", ready.timeout_seconds, admitted["lastTransitionTime"]
    if limit is None:
        return NOTHING
    left = parse_time(since) + limit - facts.now
    if left > 0:
        return Step(after=left)
    strategy = ready.requeuing_strategy
    count = int(read(workload, ("status", "requeueState", "count"), 0))
    if strategy.backoff_limit_count is not None and count + 1 > strategy.backoff_limit_count:
        text = "exceeding the maximum number of re-queuing retries"
        return Step(evictions.intend_deactivation(workload, evictions.REQUEUING_LIMIT, text, facts.now))
    pause = checks.backoff(count + 1, strategy.backoff_base_seconds, strategy.backoff_max_seconds)
    meta = workload["metadata"]
    message = f"Exceeded the PodsReady timeout {meta['namespace']}/{meta['name']}"
    state = evictions.requeue_after(workload, facts.now + pause, count=True)
    reason = evictions.PODS_READY_TIMEOUT
    stopped = evictions.evict(workload, reason, message, facts.now, cause, requeueState=state)
    return Step(stopped, events=(_evicted(stopped, reason),))


def _time_limit(workload: Object, facts: Facts) -> Step:
    """Its maximum execution time, all runs added up, is over."""
    limit = workload["spec"].get("maximumExecutionTimeSeconds")
    if limit is None or not convert.holds_quota(workload) or not condition_is_true(workload, labels.ADMITTED):
        return NOTHING
    past = int(read(workload, ("status", "accumulatedPastExecutionTimeSeconds"), 0))
    began = parse_time((get_condition(workload, labels.ADMITTED) or {})["lastTransitionTime"])
    left = began + limit - past - facts.now
    if left > 0:
        return Step(after=left)
    target = evictions.intend_deactivation(
        workload,
        transitions.TIME_LIMIT,
        "exceeding the maximum execution time",
        facts.now,
        accumulatedPastExecutionTimeSeconds=None,
    )
    event = ("Warning", transitions.TIME_LIMIT, f"The maximum execution time ({limit}s) exceeded")
    return Step(target, events=(event,))


def _nodes(workload: Object, facts: Facts) -> Step:
    """Failed nodes are named, so that the next cycle finds others for their pods; too many of them end the run."""
    if not convert.holds_quota(workload):
        return NOTHING
    why = _beyond_repair(facts)
    if why:
        stopped = evictions.evict(workload, evictions.NODE_FAILURES, why, facts.now)
        return Step(stopped, events=(_evicted(stopped, evictions.NODE_FAILURES),))
    listed = tuple(n["name"] for n in read(workload, ("status", "unhealthyNodes"), ()))
    if set(listed) == set(facts.failed):
        return Step(after=facts.look_again)
    named = [{"name": name} for name in facts.failed]
    return Step(transitions.with_status(workload, facts.now, unhealthyNodes=named or None))


def _beyond_repair(facts: Facts) -> str:
    """Why no other nodes are looked for."""
    if not facts.failed:
        return ""
    names = ", ".join(facts.failed[:MOST_FAILED])
    if not facts.config.gate("TASFailedNodeReplacement", True):
        return f"{names} failed; the gang starts anew as a whole"
    return f"{len(facts.failed)} nodes failed, among them {names}" if len(facts.failed) > MOST_FAILED else ""


#: In this order.
RULES: tuple[Rule, ...] = (
    _finished,
    _retry_time,
    _switched_off,
    _target,
    _waits,
    _evicted_already,
    _checks,
    _admission,
    _check_verdicts,
    _queues,
    _pods_ready,
    _time_limit,
    _nodes,
)


def stop_policy(queue: Object) -> str:
    """``Hold``, ``HoldAndDrain``, or empty."""
    policy = str(read(queue, ("spec", "stopPolicy"), "None"))
    return "" if policy == "None" else policy


def class_names(workload: Object) -> Iterable[tuple[str, str]]:
    """(kind, name) of the classes that may ask for checks."""
    if name := labels_of(workload).get(labels.CLASS):
        yield "WorkloadClass", name
    ref = workload["spec"].get("priorityClassRef") or {}
    if ref.get("kind") == "WorkloadPriorityClass":
        yield "WorkloadPriorityClass", ref["name"]


def _evicted(stopped: Object, reason: str, cause: str = "") -> Event:
    message = (get_condition(stopped, labels.EVICTED) or {}).get("message", "")
    return "Normal", evictions.event_reason(reason, cause), message


def admitted_event(workload: Object, now: float) -> Event:
    """What is said when a workload with quota may run."""
    reserved = get_condition(workload, labels.QUOTA_RESERVED) or {}
    waited = now - parse_time(reserved["lastTransitionTime"]) if reserved else 0.0
    queue = workload["status"]["admission"]["clusterQueue"]
    return "Normal", "Admitted", f"Admitted by ClusterQueue {queue}, wait time since reservation was {waited:.0f}s"

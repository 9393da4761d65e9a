"""How many replicas a metric asks for (``pkg/controller/podautoscaler/replica_calculator.go``). Pure.

All amounts are integers in thousandths (milli-cores, milli-bytes, milli-requests), as upstream computes with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from glebe.kube.clock import parse_time
from glebe.kube.objects import Object, get_condition, is_deleting
from glebe.kube.pods import phase_of, requests_of
from glebe.kube.quantity import ceil, parse

CPU_INITIALIZATION = 300.0
"""Seconds after a pod's start in which its CPU usage counts only when it was ready while it was measured."""
INITIAL_READINESS = 30.0
"""Seconds after its start within which a pod that became unready counts as never having been ready."""
TOLERANCE = 0.1
MOST = 2**31 - 1


class Uncountable(Exception):
    """It cannot be said how many replicas there should be; the message is upstream's.

    :param prefix: what the event of the whole computation says before the message, and the metric's own does not.
    """

    def __init__(self, message: str, prefix: str = "") -> None:
        super().__init__(message)
        self.prefix = prefix


@dataclass(frozen=True, slots=True)
class Reading:
    """What one pod used: ``value`` in thousandths, at ``time``, over ``window`` seconds."""

    value: int
    time: float
    window: float = 60.0


@dataclass(frozen=True, slots=True)
class Tolerances:
    """By how much the usage may be off the target without consequence."""

    down: float = TOLERANCE
    up: float = TOLERANCE

    def hold(self, ratio: float) -> bool:
        return 1.0 - self.down <= ratio <= 1.0 + self.up


@dataclass(frozen=True, slots=True)
class Proposal:
    """``usage``: what was measured, per pod or in all; ``utilization``: in percent of the requests."""

    replicas: int
    usage: int
    utilization: int | None = None


@dataclass(slots=True)
class Groups:
    """Pods' names by what their readings are worth."""

    ready: int = 0
    unready: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def group(pods: Sequence[Object], readings: Mapping[str, Reading], resource: str, now: float) -> Groups:
    """Which pods count, which do so once they are ready, and which have no reading."""
    out = Groups()
    for pod in pods:
        name, phase = pod["metadata"]["name"], phase_of(pod)
        if is_deleting(pod) or phase == "Failed":
            out.ignored.append(name)
        elif phase == "Pending":
            out.unready.append(name)
        elif (reading := readings.get(name)) is None:
            out.missing.append(name)
        elif resource == "cpu" and _starts(pod, reading, now):
            out.unready.append(name)
        else:
            out.ready += 1
    return out


def _starts(pod: Object, reading: Reading, now: float) -> bool:
    """Whether what a pod used is the work of starting it."""
    ready = get_condition(pod, "Ready")
    started = (pod.get("status") or {}).get("startTime")
    if ready is None or not started:
        return True
    start, changed = parse_time(started), parse_time(ready.get("lastTransitionTime") or started)
    unready = ready.get("status") == "False"
    if start + CPU_INITIALIZATION > now:
        return unready or reading.time < changed + reading.window
    return unready and start + INITIAL_READINESS > changed


def by_utilization(
    current: int,
    target: int,
    pods: Sequence[Object],
    readings: Mapping[str, Reading],
    resource: str,
    tolerances: Tolerances,
    now: float,
    container: str = "",
) -> Proposal:
    """For a target in percent of what the pods request.

    :raises Uncountable: no pod, no reading that counts, or no request.
    """
    groups, values = _counting(pods, readings, resource, now)
    requests = {p["metadata"]["name"]: request(p, container, resource) for p in pods}
    ratio, utilization, average = _utilization(values, requests, target)
    # Who has no reading uses all of its request when replicas would go, nothing when they would come.
    absent = {name: requests[name] * max(100, target) // 100 for name in groups.missing}
    replicas = _settle(
        current, groups, values, ratio, absent, tolerances, lambda v: _utilization(v, requests, target)[0]
    )
    return Proposal(replicas, average, utilization)


def by_value(
    current: int,
    target: int,
    pods: Sequence[Object],
    readings: Mapping[str, Reading],
    resource: str,
    tolerances: Tolerances,
    now: float,
) -> Proposal:
    """For a target in absolute usage per pod; ``resource`` is ``""`` for metrics that are no resource.

    :raises Uncountable: no pod, or no reading that counts.
    """
    groups, values = _counting(pods, readings, resource, now)

    def average(of: Mapping[str, int]) -> int:
        return _quotient(sum(of.values()), len(of))

    absent = dict.fromkeys(groups.missing, target)
    ratio = average(values) / target
    replicas = _settle(current, groups, values, ratio, absent, tolerances, lambda v: average(v) / target)
    return Proposal(replicas, average(values))


def _counting(
    pods: Sequence[Object], readings: Mapping[str, Reading], resource: str, now: float
) -> tuple[Groups, dict[str, int]]:
    if not pods:
        raise Uncountable("no pods returned by selector while calculating replica count")
    groups = group(pods, readings, resource, now)
    out = {*groups.ignored, *groups.unready}
    values = {name: reading.value for name, reading in readings.items() if name not in out}
    if not values:
        raise Uncountable("did not receive metrics for targeted pods (pods might be unready)")
    return groups, values


def _settle(
    current: int,
    groups: Groups,
    values: Mapping[str, int],
    ratio: float,
    absent: Mapping[str, int],
    tolerances: Tolerances,
    measure: Any,
) -> int:
    """The replicas for ``ratio``; what is not known pulls against the change and never turns it round."""
    rising = ratio > 1.0 and bool(groups.unready)
    if not rising and not groups.missing:
        return current if tolerances.hold(ratio) else _up(ratio * groups.ready)
    full = dict(values)
    if groups.missing and ratio < 1.0:
        full.update(absent)
    elif groups.missing and ratio > 1.0:
        full.update(dict.fromkeys(groups.missing, 0))
    if rising:
        full.update(dict.fromkeys(groups.unready, 0))
    again = measure(full)
    if tolerances.hold(again) or (ratio < 1.0 < again) or (again < 1.0 < ratio):
        return current
    replicas = _up(again * len(full))
    turned = (again < 1.0 and replicas > current) or (again > 1.0 and replicas < current)
    return current if turned else replicas


def _utilization(values: Mapping[str, int], requests: Mapping[str, int], target: int) -> tuple[float, int, int]:
    known = [name for name in values if name in requests]
    requested = sum(requests[name] for name in known)
    if requested == 0:
        raise Uncountable("no metrics returned matched known pods")
    used = sum(values[name] for name in known)
    percent = _quotient(used * 100, requested)
    return percent / target, percent, _quotient(used, len(known))


def by_ratio(current: int, usage: int, target: int, pods: Sequence[Object], tolerances: Tolerances) -> Proposal:
    """For one number that tells of all pods together (objects' and external metrics).

    :raises Uncountable: there are no pods.
    """
    ratio = usage / target
    if current == 0:
        return Proposal(_up(ratio), usage)
    if tolerances.hold(ratio):
        return Proposal(current, usage)
    if not pods:
        why = "no pods returned by selector while calculating replica count"
        raise Uncountable(f"unable to calculate ready pods: {why}")
    ready = sum(
        1 for p in pods if phase_of(p) == "Running" and (get_condition(p, "Ready") or {}).get("status") == "True"
    )
    return Proposal(_up(ratio * ready), usage)


def by_share(status_replicas: int, usage: int, target: int, tolerances: Tolerances) -> Proposal:
    """For one number that is divided among the pods there are."""
    if status_replicas == 0:
        return Proposal(_up(usage / target), usage)
    replicas = status_replicas
    if not tolerances.hold(usage / (target * replicas)):
        replicas = _up(usage / target)
    return Proposal(replicas, math.ceil(usage / status_replicas))


def request(pod: Object, container: str, resource: str) -> int:
    """What a pod, or one of its containers, asks for, in thousandths.

    :raises Uncountable: a container that counts asks for none.
    """
    spec, name = pod.get("spec") or {}, pod["metadata"]["name"]
    if not container and ((spec.get("resources") or {}).get("requests")):
        whole = requests_of(spec, resource)
        if resource not in whole:
            raise Uncountable(f"missing pod-level request for {resource} in Pod {name}")
        return whole[resource] * (1 if resource == "cpu" else 1000)
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    total = 0
    for each in [*(spec.get("containers") or ()), *sidecars]:
        if container and each["name"] != container:
            continue
        amount = ((each.get("resources") or {}).get("requests") or {}).get(resource)
        if amount is None:
            raise Uncountable(f"missing request for {resource} in container {each['name']} of Pod {name}")
        total += ceil(parse(amount) * 1000)
        if container:
            return total
    if container:
        raise Uncountable(f"container {container} not found in Pod {name}")
    return total


def _quotient(total: int, count: int) -> int:
    """Towards zero, as Go divides."""
    return total // count if total >= 0 else -(-total // count)


def _up(value: float) -> int:
    return MOST if value > MOST else math.ceil(value)

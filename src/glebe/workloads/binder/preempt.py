"""Which pods of lower priority would have to leave so that a pod fits. Pure; upstream's ``DefaultPreemption``.

On each node that others' leaving can help, all pods of lower priority are taken away; those that fit again beside the
pod come back, the most important first, and before all others those whose disruption budget allows no more. Of the
nodes the one is taken that breaks the fewest budgets, then by the victims' priorities, their number and their age.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from glebe.kube.clock import parse_time
from glebe.kube.objects import Object, get_condition, is_deleting, labels_of
from glebe.kube.selectors import LabelSelector, SelectorError
from glebe.workloads.binder.choose import sentence
from glebe.workloads.binder.filters import Diagnosis, Rivals, diagnose, fits, is_plain, lacking
from glebe.workloads.binder.fleet import Fleet, Hold
from glebe.workloads.binder.needs import Needs

DISRUPTED: Final = "DisruptionTarget"
PREEMPTED: Final = "PreemptionByScheduler"
NO_VICTIMS: Final = "No preemption victims found for incoming pod"
NO_HELP: Final = "Preemption is not helpful for scheduling"
_LEAST, _SHARE = 100, 0.1  # candidates that are enough: upstream's minCandidateNodes{Absolute,Percentage}
_FOREVER: Final = float("inf")

Bound = Callable[[str], Object | None]
"""A pod that is known to be bound, by uid."""


@dataclass(frozen=True, slots=True)
class Victims:
    """Who has to leave ``node``, the most important first; ``violations``: of disruption budgets."""

    node: str
    pods: tuple[Object, ...]
    violations: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """Victims, or why there are none. ``eligible``: whether the pod was allowed to look for some."""

    victims: Victims | None
    text: str = ""
    eligible: bool = True


def preempt(
    fleet: Fleet, needs: Needs, uid: str, found: Diagnosis, bound: Bound, budgets: Sequence[Object], offset: int = 0
) -> Outcome:
    """:param found: why the pod fits nowhere.
    :param budgets: all PodDisruptionBudgets.
    :param offset: at which of the nodes to begin.
    """
    steps = search(fleet, needs, uid, found, bound, budgets, offset)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            outcome: Outcome = done.value
            return outcome


def search(
    fleet: Fleet, needs: Needs, uid: str, found: Diagnosis, bound: Bound, budgets: Sequence[Object], offset: int = 0
) -> Generator[None, None, Outcome]:
    """:func:`preempt` in steps, one node each: between them the fleet is as it was. Give it up when rows change."""
    if (text := _ineligible(fleet, needs, uid, found, bound)) is not None:
        return Outcome(None, f"preemption: {text}", eligible=False)
    rivals = fleet.rivals(needs, uid)
    rows = [int(r) for r in np.flatnonzero(found.curable)]
    start = offset % len(rows) if rows else 0
    enough = max(_LEAST, int(len(rows) * _SHARE))
    candidates: list[Victims] = []
    reasons: dict[str, int] = {}
    if rows and not fleet.has_below(needs.priority):
        reasons[NO_VICTIMS] = len(rows)
        candidate_rows: list[int] = []
    else:
        candidate_rows = [*rows[start:], *rows[:start]]
    for row in candidate_rows:
        yield
        judged = _on_node(fleet, needs, row, rivals, bound, budgets)
        if isinstance(judged, Victims):
            candidates.append(judged)
            if len(candidates) >= enough and any(not c.violations for c in candidates):
                break
        else:
            for reason in judged:
                reasons[reason] = reasons.get(reason, 0) + 1
    if candidates:
        return Outcome(min(candidates, key=_badness))
    if len(rows) < len(fleet.names):
        reasons[NO_HELP] = reasons.get(NO_HELP, 0) + len(fleet.names) - len(rows)
    return Outcome(None, f"preemption: {sentence(len(fleet.names), reasons)}")


def _ineligible(fleet: Fleet, needs: Needs, uid: str, found: Diagnosis, bound: Bound) -> str | None:
    if not needs.may_preempt:
        return "not eligible due to preemptionPolicy=Never."
    nominated = fleet.nomination(uid)
    row = fleet.row(nominated.node) if nominated is not None else None
    if nominated is None or row is None or not (found.curable[row] or found.left[row]):
        return None
    for other in fleet.on(nominated.node):
        hold, pod = fleet.holder(other), bound(other)
        if hold is not None and pod is not None and hold.needs.priority < needs.priority and _is_leaving(pod):
            return "not eligible due to a terminating pod on the nominated node."
    return None


def _is_leaving(pod: Object) -> bool:
    condition = get_condition(pod, DISRUPTED)
    return is_deleting(pod) and condition is not None and condition.get("reason") == PREEMPTED


def _badness(victims: Victims) -> tuple[float, ...]:
    priorities = [_priority(pod) for pod in victims.pods]
    eldest = min(_started(pod) for pod in victims.pods if _priority(pod) == max(priorities))
    return victims.violations, max(priorities), sum(p + 2**31 for p in priorities), len(priorities), -eldest


def _on_node(
    fleet: Fleet, needs: Needs, row: int, rivals: Rivals, bound: Bound, budgets: Sequence[Object]
) -> Victims | list[str]:
    """The smallest set found on one node, or the reasons why leaving does not help there."""
    name = fleet.names[row]
    there = [(uid, fleet.holder(uid), bound(uid)) for uid in fleet.on(name)]
    lower = [(u, h, p) for u, h, p in there if h is not None and p is not None and h.needs.priority < needs.priority]
    if not lower:
        return [NO_VICTIMS]
    lower.sort(key=lambda each: _importance(each[2]))
    away: dict[str, Hold] = {uid: hold for uid, hold, _ in lower}
    for uid in away:
        fleet.release(uid)
    try:
        if not _fits(fleet, needs, row, rivals):
            return _why_not(fleet, needs, row)
        broken = _violating([pod for _, _, pod in lower], budgets)
        victims: list[Object] = []
        violations = 0
        order = [each for each, bad in zip(lower, broken, strict=True) if bad]
        guarded = len(order)
        order += [each for each, bad in zip(lower, broken, strict=True) if not bad]
        for place, (uid, hold, pod) in enumerate(order):
            fleet.restore(uid, hold)
            if _fits(fleet, needs, row, rivals):
                del away[uid]
                continue
            fleet.release(uid)
            victims.append(pod)
            violations += place < guarded
        victims.sort(key=_importance)
        return Victims(name, tuple(victims), violations) if victims else [NO_VICTIMS]
    finally:
        for uid, hold in away.items():
            fleet.restore(uid, hold)


def _fits(fleet: Fleet, needs: Needs, row: int, rivals: Rivals) -> bool:
    """Beside those nominated there and, where company can help, without them, too."""
    here = rivals.get(fleet.names[row])
    if not here:
        return fits(fleet, needs, row)
    if needs.relations.company_helps and not fits(fleet, needs, row):
        return False
    with fleet.assuming(here):
        return fits(fleet, needs, row)


def _why_not(fleet: Fleet, needs: Needs, row: int) -> list[str]:
    if is_plain(fleet, needs):
        short = lacking(fleet, needs, row)
        return ["Too many pods" if r == "pods" else f"Insufficient {r}" for r in short] or [NO_HELP]
    only = diagnose(fleet, needs, {}, row)
    return sorted(only.reasons) or [NO_HELP]


def _priority(pod: Object) -> int:
    return int((pod.get("spec") or {}).get("priority") or 0)


def _started(pod: Object) -> float:
    since = (pod.get("status") or {}).get("startTime")
    return parse_time(since) if since else _FOREVER


def _importance(pod: Object) -> tuple[float, float, str]:
    """Sorts the most important first: higher priority, then started earlier."""
    return -_priority(pod), _started(pod), pod["metadata"]["name"]


def _violating(pods: Sequence[Object], budgets: Sequence[Object]) -> list[bool]:
    """By pod: whether its leaving breaks a budget, if those before it leave, too."""
    guards: list[tuple[str, LabelSelector, Any]] = []
    left: list[int] = []
    for budget in budgets:
        try:
            selector = LabelSelector.from_object((budget.get("spec") or {}).get("selector"))
        except SelectorError:
            continue
        status = budget.get("status") or {}
        if not selector.empty and not selector.nothing:
            guards.append((budget["metadata"]["namespace"], selector, status.get("disruptedPods") or {}))
            left.append(int(status.get("disruptionsAllowed") or 0))
    found = []
    for pod in pods:
        breaks = False
        labels = labels_of(pod)
        for i, (namespace, selector, disrupted) in enumerate(guards):
            if not labels or namespace != pod["metadata"].get("namespace") or not selector.matches(labels):
                continue
            if pod["metadata"]["name"] in disrupted:
                continue
            left[i] -= 1
            breaks = breaks or left[i] < 0
        found.append(breaks)
    return found

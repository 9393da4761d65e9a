"""Admission checks of a workload, as data: which it needs, in which states they are, when a retry is due. Pure.

A check is Pending until its controller says Ready, Retry (give the quota back, come again later) or Rejected (stop for
good). A workload with quota is admitted when all of its checks are Ready.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from glebe.kube.clock import format_time, parse_time
from glebe.kube.objects import Object, annotations_of
from glebe.queueing import labels
from glebe.queueing.jobs.integrations import read

PENDING, READY, RETRY, REJECTED = "Pending", "Ready", "Retry", "Rejected"
#: Backoff between retries doubles from its base.
_DOUBLINGS = 30


def of_queue(queue: Object | None) -> dict[str, tuple[str, ...]]:
    """The checks of a ClusterQueue by name, each with the flavors that it is for (none given: all)."""
    listed = read(queue, ("spec", "admissionChecksStrategy", "admissionChecks"), ())
    return {item["name"]: tuple(item.get("onFlavors") or ()) for item in listed}


def of_class(found: Object | None) -> tuple[str, ...]:
    """The checks that a class asks for: a field of WorkloadClasses, an annotation of WorkloadPriorityClasses."""
    if found is None:
        return ()
    listed = read(found, ("spec", "admissionChecks"), None)
    if listed is not None:
        return tuple(listed)
    text = annotations_of(found).get(labels.ADMISSION_CHECKS, "")
    return tuple(name for part in text.split(",") if (name := part.strip()))


def required(
    queue: Object | None, classes: Iterable[Object | None], assignments: Sequence[Mapping[str, Any]] | None
) -> tuple[str, ...]:
    """Names of the checks that a workload needs, in order.

    :param assignments: pod set assignments of its admission; ``None`` while it has none: then only checks that are
        for all flavors of the queue are known to be needed.
    """
    every = {f["name"] for group in read(queue, ("spec", "resourceGroups"), ()) for f in group["flavors"]}
    names: set[str] = set()
    for name, flavors in of_queue(queue).items():
        if assignments is None:
            needed = not flavors or every <= set(flavors)
        else:
            used = {flavor for a in assignments for flavor in (a.get("flavors") or {}).values()}
            needed = bool(used) if not flavors else bool(used & set(flavors))
        if needed:
            names.add(name)
    for found in classes:
        names.update(of_class(found))
    return tuple(sorted(names))


def listed(workload: Object) -> list[dict[str, Any]]:
    """``status.admissionChecks``."""
    return list(read(workload, ("status", "admissionChecks"), ()))


def in_state(workload: Object, state: str) -> list[dict[str, Any]]:
    return [c for c in listed(workload) if c.get("state") == state]


def all_ready(items: Iterable[Mapping[str, Any]]) -> bool:
    return all(c.get("state") == READY for c in items)


def synced(items: Sequence[dict[str, Any]], names: Iterable[str], now: float) -> list[dict[str, Any]]:
    """``items`` with exactly the checks ``names``: new ones are Pending, the states of others stay; by name."""
    known = {c["name"]: c for c in items}
    fresh = {"state": PENDING, "message": "", "lastTransitionTime": format_time(now)}
    return [known.get(name) or {"name": name, **fresh} for name in sorted(names)]


def with_state(
    items: Sequence[dict[str, Any]], name: str, state: str, message: str, now: float, **fields: Any
) -> list[dict[str, Any]]:
    """``items`` with one check in another state; the time is that of the last change of state."""
    out = []
    for item in items:
        if item["name"] == name:
            changed = item.get("state") != state
            since = format_time(now) if changed else item.get("lastTransitionTime") or format_time(now)
            item = {**item, "state": state, "message": message[:32768], "lastTransitionTime": since}
            for field, value in fields.items():
                if value is None:
                    item.pop(field, None)
                else:
                    item[field] = value
        out.append(item)
    return out


def reset(items: Sequence[dict[str, Any]], now: float) -> list[dict[str, Any]]:
    """After an eviction every check is judged anew; retries are counted, the wait between them stays known."""
    out: list[dict[str, Any]] = []
    for item in items:
        if item.get("state") == PENDING:
            out.append(item)
            continue
        fresh: dict[str, Any] = {
            "name": item["name"],
            "state": PENDING,
            "message": f"Reset to Pending after eviction. Previously: {item.get('state')}",
            "lastTransitionTime": format_time(now),
        }
        if item.get("requeueAfterSeconds") is not None:
            fresh["requeueAfterSeconds"] = item["requeueAfterSeconds"]
        if item.get("state") == RETRY:
            fresh["retryCount"] = int(item.get("retryCount") or 0) + 1
        elif item.get("retryCount") is not None:
            fresh["retryCount"] = item["retryCount"]  # Kueue forgets it here, and then retries without a limit
        out.append(fresh)
    return out


def retry_at(workload: Object) -> float | None:
    """The latest time that a check in state Retry asks to wait for."""
    times = [
        parse_time(c["lastTransitionTime"]) + int(c["requeueAfterSeconds"])
        for c in in_state(workload, RETRY)
        if c.get("requeueAfterSeconds") is not None and c.get("lastTransitionTime")
    ]
    return max(times, default=None)


def describe(items: Sequence[Mapping[str, Any]], state: str) -> str:
    """The checks in one state, for a message."""
    parts = []
    for item in sorted(items, key=lambda c: str(c["name"])):
        message = item.get("message")
        parts.append(f'"{item["name"]}" ({message})' if message else f'"{item["name"]}"')
    return f"AdmissionCheck{'s' if len(parts) > 1 else ''} in {state} state: {'; '.join(parts)}"


def backoff(count: int, base: float, maximum: float) -> float:
    """Seconds before the ``count``-th retry (from 1): the base, doubled each time, at most the maximum."""
    return float(min(base * 2 ** min(max(count, 1) - 1, _DOUBLINGS), maximum))

"""Proportional scaling: a Deployment that is resized amid a rollout resizes all its sets alike."""

from __future__ import annotations

from collections.abc import Sequence

from glebe.kube.objects import Object, annotations_of
from glebe.workloads.deployment.annotate import MAX, number
from glebe.workloads.deployment.sets import age_rank, name_of, size, total
from glebe.workloads.deployment.strategy import max_surge, wanted


def proportional(deployment: Object, active: Sequence[Object]) -> dict[str, int]:
    """New sizes by name. The largest set takes what rounding leaves over; equal ones grow newest first and shrink
    oldest first."""
    count = wanted(deployment)
    allowed = count + max_surge(deployment) if count > 0 else 0
    more = allowed - total(active)
    ordered = sorted(active, key=age_rank, reverse=more > 0)
    ordered.sort(key=size, reverse=True)
    out: dict[str, int] = {}
    added = 0
    for one in ordered:
        part = _part(deployment, one, more, more - added)
        out[name_of(one)] = size(one) + part
        added += part
    if ordered and more:
        largest = name_of(ordered[0])
        out[largest] = max(0, out[largest] + more - added)
    return out


def _part(deployment: Object, replica_set: Object, more: int, left: int) -> int:
    """What one set gets of ``more`` replicas, of which ``left`` are not given out yet."""
    if size(replica_set) == 0 or more == 0 or left == 0:
        return 0
    share = _share(deployment, replica_set)
    return min(share, left) if more > 0 else max(share, left)


def _share(deployment: Object, replica_set: Object) -> int:
    count, own = wanted(deployment), size(replica_set)
    if count == 0:
        return -own
    before = number(annotations_of(replica_set).get(MAX)) or int((deployment.get("status") or {}).get("replicas") or 0)
    if before == 0:
        return 0
    return int(own * (count + max_surge(deployment)) / before + 0.5) - own

"""Admission fair sharing between LocalQueues: what each has used, in its status, and what its admissions cost since.

``status.fairSharing.admissionFairSharingStatus`` is the whole memory: use that halves with every half-life, sampled
every so often. What was admitted since the last sample counts by its entry penalty, found in the workloads
themselves, and is folded into the next sample exactly once: times have whole seconds, and a sample takes those before
its own. (Kueue KEP-4136.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from glebe.kube.clock import format_time, parse_time
from glebe.kube.duration import parse_duration
from glebe.kube.objects import Object, ObjectKey, cluster_of, condition_is_true
from glebe.kube.quantity import format_decimal, is_bytes, parse
from glebe.queueing import labels
from glebe.queueing.configuration import AdmissionFairSharing
from glebe.queueing.picture import convert
from glebe.queueing.tenants import tenancy
from glebe.scheduling import model as m
from glebe.scheduling.cycle.turns import alpha, decayed, weighed

Amounts = dict[str, float]
_MILLI = 1000


@dataclass(frozen=True, slots=True)
class _Record:
    """A workload that was admitted: in the API's units (cores, bytes, units). ``holds``: and has not ended."""

    local_queue: str
    at: float
    amounts: Mapping[str, float]
    holds: bool


class PastUse:
    """Follows the workloads (:meth:`see`); the rest is read from the LocalQueues that are asked about."""

    def __init__(self, config: AdmissionFairSharing | None) -> None:
        self._config = config
        self.half_life = parse_duration(config.usage_half_life_time) if config else 0.0
        self.sampling = parse_duration(config.usage_sampling_interval) if config else 0.0
        self._known: dict[ObjectKey, _Record] = {}
        self._of: dict[str, dict[ObjectKey, _Record]] = {}
        self._afs: m.Afs | None = None

    @property
    def on(self) -> bool:
        return self._config is not None

    def see(self, key: ObjectKey, workload: Object | None) -> None:
        """A workload appeared, changed or vanished."""
        if self._config is None:
            return
        before, after = self._known.get(key), None if workload is None else _record(workload)
        if before == after:
            return
        self._afs = None
        if before is not None:
            del self._known[key]
            self._of[before.local_queue].pop(key, None)
        if after is not None:
            self._known[key] = after
            self._of.setdefault(after.local_queue, {})[key] = after

    def touch(self) -> None:
        """A LocalQueue has changed."""
        self._afs = None

    def sample(self, local: Object, now: float) -> dict[str, Any] | None:
        """``status.fairSharing`` of a LocalQueue as of now; ``None`` while the last sample is young, or all is off."""
        if self._config is None or (self.due_in(local, now) or 0.0) > 0:
            return None
        until = float(math.floor(now))
        consumed, last = _past(local)
        if last is not None:
            records = self._of.get(_name(local), {}).values()
            live = _sum((r.amounts for r in records if r.holds and r.at < last), 1.0)
            cost = self._penalty(r for r in records if last <= r.at < until)
            consumed = _added(decayed(consumed, live, until - last, self.half_life), cost)
        told = {r: _text(amount, r) for r, amount in sorted(consumed.items()) if amount > 0}
        status = {"consumedResources": told, "lastUpdate": format_time(until)}
        return {"weightedShare": 0, "admissionFairSharingStatus": status}

    def due_in(self, local: Object, now: float) -> float | None:
        """Seconds until the next sample of a LocalQueue, at least 0; ``None`` if there are none."""
        if self._config is None:
            return None
        _, last = _past(local)
        return 0.0 if last is None else max(0.0, math.ceil(last + max(1.0, self.sampling)) - now)

    def afs(self, local_queues: Callable[[], Iterable[Object]]) -> m.Afs | None:
        """For the core: use as of each queue's last sample, with the penalties of what was admitted since."""
        if self._config is None:
            return None
        if self._afs is None:
            usage, weights = {}, {}
            for local in local_queues():
                name = _name(local)
                usage[name] = self._used(local)
                weights[name] = _weight(local)
            self._afs = m.Afs(usage, self.half_life, self.sampling, weights, dict(self._config.resource_weights))
        return self._afs

    def figure(self, local: Object) -> float:
        """The weighed use that orders a LocalQueue among others; ``inf`` for a weight of 0."""
        if self._config is None:
            return 0.0
        return weighed(self._used(local), float(_weight(local)), self._config.resource_weights)

    def _used(self, local: Object) -> Amounts:
        """As of the last sample, with the penalties of what was admitted since."""
        consumed, last = _past(local)
        records = self._of.get(_name(local), {}).values()
        return _added(consumed, self._penalty(r for r in records if last is None or r.at >= last))

    def _penalty(self, records: Iterable[_Record]) -> Amounts:
        return _sum((r.amounts for r in records), alpha(self.sampling, self.half_life))


def _record(workload: Object) -> _Record | None:
    """What was given to the workload, as long as that is written in it."""
    if not convert.holds_quota(workload) and not convert.is_finished(workload):
        return None
    if not condition_is_true(workload, labels.QUOTA_RESERVED) or "admission" not in (workload.get("status") or {}):
        return None
    amounts: Amounts = {}
    for a in convert.assignments(workload):
        for resource, amount in a.usage.items():
            amounts[resource] = amounts.get(resource, 0.0) + (amount / _MILLI if resource == "cpu" else amount)
    holds = not convert.is_finished(workload) and condition_is_true(workload, labels.ADMITTED)
    return _Record(convert.local_queue(workload), convert.since(workload, labels.QUOTA_RESERVED), amounts, holds)


def _name(local: Object) -> str:
    return tenancy.door(local, local["metadata"]["name"])


def _past(local: Object) -> tuple[Amounts, float | None]:
    """What the status says: consumed by resource, and when that was."""
    shares = (local.get("status") or {}).get("fairSharing") or {}
    known = shares.get("admissionFairSharingStatus") or {}
    if not known.get("lastUpdate"):
        return {}, None
    consumed = {r: float(parse(q)) for r, q in (known.get("consumedResources") or {}).items()}
    return consumed, parse_time(known["lastUpdate"])


def _weight(local: Object) -> Fraction:
    if tenancy.is_foreign(cluster_of(local)):
        return m.EVEN  # a tenant writes it himself
    weight = (local["spec"].get("fairSharing") or {}).get("weight")
    return m.EVEN if weight is None else parse(weight)


def _sum(amounts: Iterable[Mapping[str, float]], factor: float) -> Amounts:
    total: Amounts = {}
    for one in amounts:
        for resource, amount in one.items():
            total[resource] = total.get(resource, 0.0) + amount * factor
    return total


def _added(left: Mapping[str, float], right: Mapping[str, float]) -> Amounts:
    return {r: left.get(r, 0.0) + right.get(r, 0.0) for r in sorted({*left, *right})}


def _text(amount: float, resource: str) -> str:
    """Bytes to the whole one, anything else to the thousandth."""
    if is_bytes(resource):
        return str(round(amount))
    return format_decimal(Fraction(round(amount * _MILLI), _MILLI))

"""The sums: per quota what is stored, and what was promised to writes that are on their way.

A sum is counted once from the store and then follows every change, whoever makes it, at the moment when it becomes
visible. A promise (:class:`Reservation`) is made in the same step as the check and ends when its object becomes visible
or its request ends, whichever is first. So what a quota has given away is known exactly at every moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from glebe.apiserver.admission.quota import podusage
from glebe.apiserver.admission.quota.amounts import Amounts, of
from glebe.apiserver.admission.quota.usage import Evaluator, counted_resources, evaluator_of
from glebe.apiserver.store import Store
from glebe.apiserver.store.base import EVERY_CLUSTER, Event
from glebe.apiserver.store.subscription import Follower
from glebe.kube.clock import Clock
from glebe.kube.objects import Object

QUOTAS = "resourcequotas"


class Address(NamedTuple):
    """Where a quota is."""

    cluster: str
    namespace: str
    name: str


class Reservation:
    """What was promised to one write."""

    __slots__ = ("amounts", "key")

    def __init__(self, key: tuple[str, str], amounts: Amounts) -> None:
        self.key = key
        self.amounts = amounts


class Scope(NamedTuple):
    name: str
    operator: str
    values: list[str]


@dataclass(slots=True, eq=False)
class Quota:
    """One ResourceQuota: what it limits and what is used of it."""

    address: Address
    hard: dict[str, Any]
    scopes: tuple[Scope, ...]
    used: Amounts = field(default_factory=dict)
    """Of everything stored, by the names of ``hard``."""
    reserved: list[Reservation] = field(default_factory=list)
    recount_at: float = float("inf")
    """When a pod that will not go ceases to count."""
    names: frozenset[str] = frozenset()
    counted_at: int = 0
    """The revision up to which changes are in the sum."""

    def covers(self, evaluator: Evaluator, obj: Object) -> bool:
        """Does the quota count this object?"""
        if not any(evaluator.concerns(name) for name in self.names):
            return False
        return all(evaluator.in_scope(obj, s.name, s.operator, s.values) for s in self.scopes)

    def limits(self) -> Amounts:
        return {name: of(value) for name, value in self.hard.items()}

    def taken(self) -> Amounts:
        """Used and promised."""
        out = dict(self.used)
        for reservation in self.reserved:
            for name, amount in reservation.amounts.items():
                if name in out:
                    out[name] += amount
        return out

    def release(self, reservation: Reservation) -> None:
        if reservation in self.reserved:
            self.reserved.remove(reservation)


def scopes_of(spec: Object) -> tuple[Scope, ...]:
    plain = [Scope(name, "Exists", []) for name in spec.get("scopes") or ()]
    for expression in (spec.get("scopeSelector") or {}).get("matchExpressions") or ():
        values = [str(v) for v in expression.get("values") or ()]
        plain.append(Scope(str(expression.get("scopeName", "")), str(expression.get("operator", "")), values))
    return tuple(plain)


class Ledger:
    """All quotas of all clusters of one server.

    :param changed: called with the address of a quota whose sums or limits changed.
    """

    def __init__(self, store: Store, clock: Clock, changed: Callable[[Address], None]) -> None:
        self._store = store
        self._clock = clock
        self._changed = changed
        self._quotas: dict[str, dict[str, dict[str, Quota]]] = {}
        self._following: dict[str, tuple[Follower, set[Address]]] = {}
        self._loaded = False

    def of(self, cluster: str, namespace: str) -> dict[str, Quota] | None:
        """The quotas of a namespace by name; None when it has none."""
        if not self._loaded:
            self._load()
        namespaces = self._quotas.get(cluster)
        return None if namespaces is None else namespaces.get(namespace)

    def find(self, address: Address) -> Quota | None:
        return (self.of(address.cluster, address.namespace) or {}).get(address.name)

    def current(self, quota: Quota) -> Quota:
        """The same, with pods that have overstayed left out."""
        if quota.recount_at <= self._clock.now():
            self._count(quota, self._store.revision)
        return quota

    def _load(self) -> None:
        self._loaded = True
        self._store.follow(QUOTAS, self._quota_changed)
        page = self._store.range(QUOTAS, EVERY_CLUSTER)
        for cluster, entry in zip(page.clusters or (), page.entries, strict=True):
            obj = entry.view()
            meta = obj["metadata"]
            self._take(Address(cluster, meta["namespace"], meta["name"]), obj, page.revision)

    def _quota_changed(self, event: Event) -> None:
        if not event.name:
            for quotas in list(self._quotas.get(event.cluster, {}).values()):
                for quota in list(quotas.values()):
                    self._drop(quota.address)
            return
        address = Address(event.cluster, event.namespace, event.name)
        if event.deleted:
            self._drop(address)
        else:
            self._take(address, event.entry.view(), event.revision)

    def _take(self, address: Address, obj: Object, revision: int) -> None:
        spec = obj.get("spec") or {}
        hard, scopes = dict(spec.get("hard") or {}), scopes_of(spec)
        quotas = self._quotas.setdefault(address.cluster, {}).setdefault(address.namespace, {})
        quota = quotas.get(address.name)
        if quota is None:
            quota = quotas[address.name] = Quota(address, {}, ())
        elif quota.hard == hard and quota.scopes == scopes:
            self._changed(address)  # somebody may have written its status
            return
        recount = quota.scopes != scopes or quota.names != frozenset(hard)
        quota.hard, quota.scopes, quota.names = hard, scopes, frozenset(hard)
        self._follow(address, counted_resources(quota.names))
        if recount:
            self._count(quota, revision)
        self._changed(address)

    def _drop(self, address: Address) -> None:
        namespaces = self._quotas.get(address.cluster, {})
        quotas = namespaces.get(address.namespace, {})
        quotas.pop(address.name, None)
        if not quotas:
            namespaces.pop(address.namespace, None)
        if not namespaces:
            self._quotas.pop(address.cluster, None)
        self._follow(address, frozenset())

    def _follow(self, address: Address, resources: frozenset[str]) -> None:
        """From now on hear of changes of ``resources`` (and of no others) for this quota's sake."""
        for resource in sorted(resources):
            if resource not in self._following:
                follower = self._store.follow(resource, partial(self._object_changed, resource))
                self._following[resource] = (follower, set())
            self._following[resource][1].add(address)
        for resource in [r for r, (_, who) in self._following.items() if address in who and r not in resources]:
            follower, who = self._following[resource]
            who.discard(address)
            if not who:
                follower.close()
                del self._following[resource]

    def _count(self, quota: Quota, revision: int) -> None:
        """The sum anew, from everything that is stored at ``revision``."""
        quota.used = {}
        quota.counted_at = revision
        quota.recount_at = float("inf")
        now = self._clock.now()
        counted = [(r, e) for r in sorted(counted_resources(quota.names)) if (e := evaluator_of(r)) is not None]
        for _, evaluator in counted:
            quota.used.update(dict.fromkeys(filter(evaluator.concerns, quota.names), 0))
        for resource, evaluator in counted:
            for entry in self._store.range(resource, quota.address.cluster, quota.address.namespace).entries:
                self._post(quota, resource, evaluator, entry.view(), now, 1)

    def _post(self, quota: Quota, resource: str, evaluator: Evaluator, obj: Object, now: float, sign: int) -> None:
        if not quota.covers(evaluator, obj):
            return
        for name, amount in evaluator.usage(obj, now).items():
            if name in quota.used:
                quota.used[name] += sign * amount
        if resource == "pods" and sign > 0:
            overdue = podusage.overdue_at(obj)
            if now < overdue < quota.recount_at:
                quota.recount_at = overdue

    def _object_changed(self, resource: str, event: Event) -> None:
        namespaces = self._quotas.get(event.cluster)
        quotas = None if namespaces is None else namespaces.get(event.namespace)
        evaluator = evaluator_of(resource)
        if not quotas or evaluator is None:
            return
        before = event.previous.view() if event.previous is not None else None
        after = None if event.deleted else event.entry.view()
        if before is not None and after is not None and not _matters(resource, before, after):
            self._settle(quotas, (resource, event.name))
            return
        now = self._clock.now()
        for quota in quotas.values():
            if event.revision <= quota.counted_at:
                continue
            if quota.recount_at <= now:
                self._count(quota, event.revision)
                self._changed(quota.address)
                continue
            had = dict(quota.used)
            if before is not None:
                self._post(quota, resource, evaluator, before, now, -1)
            if after is not None:
                self._post(quota, resource, evaluator, after, now, 1)
            if quota.used != had:
                self._changed(quota.address)
        self._settle(quotas, (resource, event.name))

    @staticmethod
    def _settle(quotas: dict[str, Quota], key: tuple[str, str]) -> None:
        """The object is visible: it is in the sum, what was promised for it no longer is."""
        for quota in quotas.values():
            for reservation in [r for r in quota.reserved if r.key == key]:
                quota.reserved.remove(reservation)

    def addresses(self) -> Iterator[Address]:
        for namespaces in self._quotas.values():
            for quotas in namespaces.values():
                for quota in quotas.values():
                    yield quota.address


def _matters(resource: str, before: Object, after: Object) -> bool:
    """Can the change have changed what the object uses? Status changes of pods mostly do not."""
    if before.get("spec") != after.get("spec"):
        return True
    if resource == "pods":
        old, new = before.get("status") or {}, after.get("status") or {}
        parts = ("phase", "containerStatuses", "initContainerStatuses", "conditions")
        marks = ("deletionTimestamp", "deletionGracePeriodSeconds")
        return any(old.get(p) != new.get(p) for p in parts) or any(
            before["metadata"].get(m) != after["metadata"].get(m) for m in marks
        )
    return before != after

"""How much a logical cluster may hold: exact under concurrency, and nothing to pay where nobody has set a budget."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from glebe.apiserver.admission.base import AdmissionAttributes
from glebe.kube import errors, quantity
from glebe.kube.objects import Object
from glebe.kube.transport import PLATFORM

if TYPE_CHECKING:
    from glebe.apiserver.clusters.logical import LogicalCluster

_STAMP = 64
"""What the store may add to an object's bytes (its resource version)."""
_PATIENCE, _MOMENT = 200, 0.005
"""How often and how long (seconds) a write waits for others to settle before it is refused."""
_FIELDS = ("objects", "bytes", "requests", "burst", "watches")
_FASTEST = 1e6
_CREATES, _GROWS = "CREATE", "UPDATE"


@dataclass(frozen=True, slots=True)
class Budget:
    """``None`` is without limit."""

    objects: int | None = None
    bytes: int | None = None
    requests: float | None = None
    """Per second."""
    burst: int | None = None
    """Requests that may come at once; twice :attr:`requests` when not given."""
    watches: int | None = None
    """Open at once."""


class Usage(Protocol):
    """``Store.usage``: (objects, bytes) that a cluster holds."""

    def __call__(self, cluster: str, /) -> tuple[int, int]: ...


def budget_of(obj: Object) -> Budget | None:
    """``spec.budget`` of a LogicalCluster: ``objects``, ``burst`` and ``watches`` are whole numbers, ``bytes`` is a
    quantity, ``requests`` (per second) a quantity such as 50 or 500m.

    :raises ValueError: it makes no sense.
    """
    budget = (obj.get("spec") or {}).get("budget")
    if not budget:
        return None
    if not isinstance(budget, dict) or set(budget) - set(_FIELDS):
        raise ValueError("a budget has objects, bytes, requests, burst and watches")
    whole = {field: _number(field, budget.get(field)) for field in _FIELDS if field != "requests"}
    if budget.get("burst") is not None and budget.get("requests") is None:
        raise ValueError("burst needs requests")
    if whole["burst"] == 0:
        raise ValueError("burst must be at least 1")
    return Budget(**whole, requests=_rate(budget.get("requests")))


def _rate(value: Any) -> float | None:
    if value is None:
        return None
    try:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError
        rate = float(quantity.parse(value))
    except ValueError:
        raise ValueError(f"requests must be a number per second such as 50 or 500m, not {value!r}") from None
    if not 0 < rate <= _FASTEST:
        raise ValueError(f"requests must be more than 0 and at most {_FASTEST:g} per second, not {value!r}")
    return rate


def _number(field: str, value: Any) -> int | None:
    if value is None:
        return None
    try:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError
        amount = quantity.parse(value)
    except ValueError:
        raise ValueError(f"{field} must be a whole number or a quantity such as 64Mi, not {value!r}") from None
    if amount < 0 or amount.denominator != 1:
        raise ValueError(f"{field} must be a whole number that is not negative, not {value!r}")
    return int(amount)


class BudgetCheck:
    """Refuses what would not fit. What is on its way to the store counts until it is there, so that a crowd of
    simultaneous creations cannot pass together. Deletions are always allowed, and so are changes that do not grow and
    those of the platform's own controllers (a Job at its limit must be able to end)."""

    name = "LogicalClusterBudget"

    def __init__(self, find: Callable[[str], LogicalCluster | None], usage: Usage) -> None:
        self._find = find
        self._usage = usage

    async def validate(self, a: AdmissionAttributes) -> None:
        cluster = self._find(a.cluster)
        if cluster is None or cluster.budget is None or a.obj is None or a.dry_run:
            return
        if a.operation == _CREATES and not a.subresource:
            await self._take(a, cluster, cluster.budget, 1, len(orjson.dumps(a.obj)) + _STAMP)
        elif (
            a.operation == _GROWS and a.old is not None and a.user is not PLATFORM and cluster.budget.bytes is not None
        ):
            growth = len(orjson.dumps(a.obj)) - len(orjson.dumps(a.old))
            if growth > 0:
                await self._take(a, cluster, cluster.budget, 0, growth)

    async def _take(
        self, a: AdmissionAttributes, cluster: LogicalCluster, budget: Budget, objects: int, size: int
    ) -> None:
        """Reserve what a write needs.

        :raises ApiError: 403: it does not fit.
        """
        patience = _PATIENCE
        while (refusal := self._refusal(a, cluster, budget, objects, size)) is not None:
            if not cluster.reserved_bytes or not patience:
                raise refusal
            # Others are on their way to the store: some may fail, and those that have just arrived count twice.
            patience -= 1
            await asyncio.sleep(_MOMENT)
        cluster.reserved_objects += objects
        cluster.reserved_bytes += size

        def give_back(stored: bool) -> None:
            cluster.reserved_objects -= objects
            cluster.reserved_bytes -= size

        a.afterwards.append(give_back)

    def _refusal(
        self, a: AdmissionAttributes, cluster: LogicalCluster, budget: Budget, objects: int, size: int
    ) -> errors.ApiError | None:
        used, used_bytes = self._usage(cluster.name)
        used += cluster.reserved_objects
        used_bytes += cluster.reserved_bytes
        if objects and budget.objects is not None and used + objects > budget.objects:
            return _over(a, cluster.name, "objects", used, objects, budget.objects)
        if budget.bytes is not None and used_bytes + size > budget.bytes:
            return _over(a, cluster.name, "bytes", used_bytes, size, budget.bytes)
        return None


def _over(a: AdmissionAttributes, cluster: str, what: str, used: int, asked: int, limit: int) -> errors.ApiError:
    return a.refusal(
        f'exceeded the budget of logical cluster "{cluster}": requested: {what}={asked}, used: {what}={used}, '
        f"limited: {what}={limit}; delete something, or have spec.budget.{what} of the LogicalCluster raised"
    )

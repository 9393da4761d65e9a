"""Which devices are given away, by what claims say. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from glebe.kube import quantity
from glebe.workloads.claims.pools import DeviceId

Results = list[Mapping[str, Any]]


def results_of(allocation: Mapping[str, Any] | None) -> Results:
    """``devices.results`` of an AllocationResult."""
    return list(((allocation or {}).get("devices") or {}).get("results") or ())


class Taken:
    """Devices of allocations, each allocation under a name (its claim's uid)."""

    def __init__(self) -> None:
        self._held: dict[str, Results] = {}
        self.whole: dict[DeviceId, int] = {}
        """How often each is given away as a whole: never more than once, unless claims were written by hand."""
        self.parts: dict[DeviceId, dict[str, Fraction]] = {}
        """Of devices that are shared: how much of each capacity is gone."""
        self._shares: dict[DeviceId, int] = {}

    def put(self, name: str, allocation: Mapping[str, Any] | None) -> bool:
        """What ``name`` has now (``None``: nothing); whether something became free."""
        old, new = self._held.get(name, []), results_of(allocation)
        if old == new:
            return False
        for result in old:
            self._count(result, -1)
        self._held.pop(name, None)
        if new:
            self._held[name] = new
        for result in new:
            self._count(result, 1)
        return bool(old)

    def __contains__(self, device: DeviceId) -> bool:
        return device in self.whole or device in self._shares

    def __iter__(self) -> Iterator[DeviceId]:
        return iter(self.whole)

    def results(self, name: str) -> Results:
        """What ``name`` has."""
        return self._held.get(name, [])

    def _count(self, result: Mapping[str, Any], sign: int) -> None:
        if result.get("adminAccess"):
            return  # beside whoever has it
        device = DeviceId(result["driver"], result["pool"], result["device"])
        if not result.get("shareID"):
            _add(self.whole, device, sign)
            return
        _add(self._shares, device, sign)
        used = self.parts.setdefault(device, {})
        for capacity, amount in (result.get("consumedCapacity") or {}).items():
            used[capacity] = used.get(capacity, Fraction(0)) + sign * quantity.parse(amount)
        if device not in self._shares:
            del self.parts[device]


def _add(counts: dict[DeviceId, int], device: DeviceId, sign: int) -> None:
    counts[device] = counts.get(device, 0) + sign
    if not counts[device]:
        del counts[device]

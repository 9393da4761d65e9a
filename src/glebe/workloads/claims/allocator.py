"""Chooses devices of one node for claims that have none: a complete search, within a budget of steps. Pure.

As upstream's structured allocator (KEP-4381) does: claims, requests and devices in their order, the first choice that
everything else can be built on. Devices of one request are tried in rising order only, so that no set is tried twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from glebe.kube.objects import Object
from glebe.workloads.claims import capacity
from glebe.workloads.claims.constraints import Constraint
from glebe.workloads.claims.pools import Counter, Device, DeviceId, Pool
from glebe.workloads.claims.requests import MOST_RESULTS, AllocationError, Alternative, Classes, read, tolerated
from glebe.workloads.claims.results import Chosen, allocation
from glebe.workloads.claims.taken import Taken

STEPS = 50_000
"""Devices that are tried on one node before it is given up (upstream: 10 s)."""
_MOST_CHOICES = 8


@dataclass(frozen=True, slots=True)
class Found:
    """``allocations`` for the claims in their order; ``score``: higher for alternatives that were wanted more."""

    allocations: tuple[dict[str, Any], ...]
    score: int


class _OutOfSteps(Exception):
    pass


def allocate(
    claims: Sequence[Object],
    node: Object,
    pools: Sequence[Pool],
    taken: Taken,
    classes: Classes,
    new_id: Callable[[], str],
    *,
    steps: int = STEPS,
) -> Found | None:
    """Devices for all claims, or ``None`` when that cannot be.

    :param new_id: makes the ids of shares of devices that several claims have at once.
    :raises AllocationError: it could not be tried, or not to the end.
    """
    search = _Search(claims, node, pools, taken, classes, steps)
    try:
        if not search.request(0, 0):
            bad = next((p for p in pools if p.invalid), None)
            if bad is not None:
                raise AllocationError("invalid resource pools were encountered")
            return None
    except _OutOfSteps:
        name = node["metadata"]["name"]
        raise AllocationError(f"node {name}: timed out trying to allocate devices") from None
    results = tuple(
        allocation(claim, chosen, node, new_id) for claim, chosen in zip(claims, search.chosen, strict=True)
    )
    return Found(results, search.score())


@dataclass(slots=True)
class _Search:
    claims: Sequence[Object]
    node: Object
    pools: Sequence[Pool]
    taken: Taken
    classes: Classes
    steps: int
    chosen: list[list[Chosen]] = field(default_factory=list)
    asked: list[list[list[Alternative]]] = field(default_factory=list)
    constraints: list[list[Constraint]] = field(default_factory=list)
    using: dict[DeviceId, list[int]] = field(default_factory=dict)
    parts: dict[DeviceId, dict[str, Fraction]] = field(default_factory=dict)
    left: dict[tuple[str, str], dict[Counter, Fraction]] = field(default_factory=dict)
    picked: dict[tuple[int, int], Alternative] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for claim in self.claims:
            self.asked.append(read(claim, self.node, self.pools, self.classes))
            made = [Constraint(c) for c in (claim["spec"].get("devices") or {}).get("constraints") or ()]
            for i, constraint in enumerate(made):
                if not constraint.known:
                    path = f"{claim['metadata']['namespace']}/{claim['metadata']['name']}"
                    raise AllocationError(
                        f"claim {path}, constraint #{i}: empty constraint (unsupported constraint type?)"
                    )
            self.constraints.append(made)
            self.chosen.append([])
        for pool in self.pools:
            if pool.usable and pool.counters:
                self.left[pool.driver, pool.name] = _left(pool, self.taken)

    # --- the order of things

    def request(self, claim: int, number: int) -> bool:
        """Serve request ``number`` of a claim and all that come after it."""
        if claim == len(self.claims):
            return True
        if number == len(self.asked[claim]):
            return self.request(claim + 1, 0)
        for alternative in self.asked[claim][number]:
            if alternative.every and not alternative.devices:
                continue
            if len(self.chosen[claim]) + alternative.count > MOST_RESULTS:
                continue
            self.picked[claim, number] = alternative
            if self.device(claim, number, alternative, 0, 0):
                return True
        return False

    def device(self, claim: int, number: int, alternative: Alternative, have: int, start: int) -> bool:
        """One more device for an alternative, from place ``start`` of its devices on, and all that comes after it."""
        if have == alternative.count:
            return self.request(claim, number + 1)
        devices = alternative.devices
        last = start + 1 if alternative.every else len(devices) - (alternative.count - have) + 1
        for place in range(start, last):
            self.steps -= 1
            if self.steps < 0:
                raise _OutOfSteps
            if not self.take(claim, alternative, devices[place]):
                if alternative.every:
                    return False
                continue
            if self.device(claim, number, alternative, have + 1, place + 1):
                return True
            self.put_back(claim, alternative, devices[place])
        return False

    # --- one device

    def take(self, claim: int, alternative: Alternative, device: Device) -> bool:
        """Choose the device if nothing forbids it."""
        amounts = self._amounts(alternative, device)
        if not self._is_free(claim, alternative, device) or amounts is None:
            return False
        if alternative.every and not tolerated(device, alternative):
            return False
        if not self._take_counters(device):
            return False
        added: list[Constraint] = []
        for constraint in self._concerned(claim, alternative):
            if not constraint.add(device):
                for each in added:
                    each.remove()
                self._give_counters(device)
                return False
            added.append(constraint)
        self.using.setdefault(device.id, []).append(claim)
        if device.shared:
            used = self.parts.setdefault(device.id, {})
            for name, amount in amounts.items():
                used[name] = used.get(name, Fraction(0)) + amount
        self.chosen[claim].append(Chosen(alternative, device, amounts if device.shared else {}))
        return True

    def put_back(self, claim: int, alternative: Alternative, device: Device) -> None:
        chosen = self.chosen[claim].pop()
        self.using[device.id].pop()
        if not self.using[device.id]:
            del self.using[device.id]
        for name, amount in chosen.consumed.items():
            self.parts[device.id][name] -= amount
        for constraint in self._concerned(claim, alternative):
            constraint.remove()
        self._give_counters(device)

    def _concerned(self, claim: int, alternative: Alternative) -> list[Constraint]:
        return [c for c in self.constraints[claim] if c.concerns(alternative.request, alternative.choice)]

    def _is_free(self, claim: int, alternative: Alternative, device: Device) -> bool:
        if device.shared:
            return True
        users = self.using.get(device.id, ())
        if alternative.admin:
            return claim not in users
        return device.id not in self.taken and not users

    def _amounts(self, alternative: Alternative, device: Device) -> dict[str, Fraction] | None:
        """What it takes of the device's capacity; ``None``: that is not left."""
        amounts = capacity.consumed(alternative.spec, device.body.get("capacity") or {})
        if amounts is None:
            return None
        used = dict(self.parts.get(device.id, {}))
        for name, amount in self.taken.parts.get(device.id, {}).items():
            used[name] = used.get(name, Fraction(0)) + amount
        return amounts if capacity.fits(amounts, used, device.capacity) else None

    def _take_counters(self, device: Device) -> bool:
        """Counters are consumed once by a device, however many have it."""
        if not device.consumes or self._is_running(device):
            return True
        left = self.left[device.id.driver, device.id.pool]
        if any(left[counter] < amount for counter, amount in device.consumes.items()):
            return False
        for counter, amount in device.consumes.items():
            left[counter] -= amount
        return True

    def _give_counters(self, device: Device) -> None:
        if device.consumes and not self._is_running(device):
            left = self.left[device.id.driver, device.id.pool]
            for counter, amount in device.consumes.items():
                left[counter] += amount

    def _is_running(self, device: Device) -> bool:
        return device.id in self.using or device.id in self.taken

    def score(self) -> int:
        return sum(_MOST_CHOICES - a.rank for a in self.picked.values() if a.rank >= 0)


def _left(pool: Pool, taken: Taken) -> dict[Counter, Fraction]:
    """What the devices that are in use leave of the pool's counters."""
    left = dict(pool.counters)
    for device in (*pool.devices, *pool.elsewhere):
        if device.consumes and device.id in taken:
            for counter, amount in device.consumes.items():
                left[counter] -= amount
    return left

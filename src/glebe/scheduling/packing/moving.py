"""Making room: when a pod fits nowhere, a few others are moved so that it does, if they all find another place.

Nobody is ever left without a place: a plan is carried out whole or not at all. Which pods may move is the caller's
business; here all that were placed may, at a cost of what they hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from glebe.scheduling.packing.demand import WHOLE, Ask
from glebe.scheduling.packing.machines import Spot
from glebe.scheduling.packing.packer import Packer

#: Pods moved for one that is blocked, and plans that are tried for it.
MOST_MOVES = 3
_TRIES = 40


class Placed(NamedTuple):
    number: int
    ask: Ask
    spot: Spot


class Way(NamedTuple):
    """Who would have to leave for a pod to have ``spot``; the cheapest is tried first."""

    cost: tuple[int, int, int]  # thousandths moved, pods moved, millicores moved
    spot: Spot
    leaving: tuple[Placed, ...]


class Mover:
    """Places pods, and remembers where they are.

    :param budget: thousandths of GPUs that may be moved for one pod, as a multiple of what it asks for.
    """

    def __init__(self, packer: Packer, budget: float = 1.0) -> None:
        self.packer = packer
        self.moved = 0
        self._budget = budget
        self._on: list[dict[int, Placed]] = [{} for _ in packer.machines.machines]
        self._numbers = 0

    def arrive(self, ask: Ask) -> Spot | None:
        """As :meth:`Packer.arrive`, but moves others if that is what it takes."""
        spot = self.packer.arrive(ask)
        if spot is None and ask.gpus:
            spot = self.make_room(ask)
        if spot is not None:
            self._put(ask, spot)
        return spot

    def make_room(self, ask: Ask) -> Spot | None:
        """Move others; the spot is then taken for ``ask``. ``None``: nothing has changed."""
        ways = sorted(self._ways(ask), key=lambda way: way[0])
        for way in ways[:_TRIES]:
            if self._try(ask, way):
                return way.spot
        return None

    def _put(self, ask: Ask, spot: Spot) -> None:
        self._numbers += 1
        self._on[spot.machine][self._numbers] = Placed(self._numbers, ask, spot)

    def _try(self, ask: Ask, way: Way) -> bool:
        """Carry the plan out if everybody finds a place."""
        packer = self.packer
        for one in way.leaving:
            packer.release(one.ask, one.spot)
        packer.take(ask, way.spot)
        found: list[tuple[Placed, Spot]] = []
        for one in sorted(way.leaving, key=lambda each: (-each.ask.milli, -each.ask.cpu)):
            spot = packer.place(one.ask)
            if spot is None:
                break
            found.append((one, spot))
        if len(found) == len(way.leaving):
            for one, spot in found:
                del self._on[one.spot.machine][one.number]
                self._on[spot.machine][one.number] = one._replace(spot=spot)
            self.moved += len(found)
            return True
        for one, spot in found:
            packer.release(one.ask, spot)
        packer.release(ask, way.spot)
        for one in way.leaving:
            packer.take(one.ask, one.spot)
        return False

    def _ways(self, ask: Ask) -> Iterator[Way]:
        machines = self.packer.machines
        for row in np.flatnonzero(machines.allowed(ask)):
            if machines.machines[row].gpus >= ask.gpus:
                yield from self._ways_on(ask, int(row))

    def _ways_on(self, ask: Ask, row: int) -> Iterator[Way]:
        """One way per machine for several GPUs; for one GPU (or a share) one per GPU."""
        here = self._on[row].values()
        sharers: dict[int, list[Placed]] = {}
        for one in here:
            if one.ask.gpus == 1:
                sharers.setdefault(one.spot.gpus[0], []).append(one)
        free = self.packer.machines.free[row]
        options: list[tuple[int, int, tuple[Placed, ...]]] = []
        for gpu in range(self.packer.machines.machines[row].gpus):
            leaving = _enough(ask.share - int(free[gpu]), sharers.get(gpu, []))
            if leaving is not None:
                options.append((sum(one.ask.milli for one in leaving), gpu, leaving))
        options.sort(key=lambda option: option[:2])
        if ask.gpus > 1:
            if len(options) < ask.gpus:
                return
            chosen = options[: ask.gpus]
            gpus = tuple(sorted(gpu for _, gpu, _ in chosen))
            yield from self._with_the_rest(ask, Spot(row, gpus), tuple(one for _, _, each in chosen for one in each))
            return
        for _, gpu, leaving in options:
            yield from self._with_the_rest(ask, Spot(row, (gpu,)), leaving)

    def _with_the_rest(self, ask: Ask, spot: Spot, leaving: tuple[Placed, ...]) -> Iterator[Way]:
        """CPUs and memory must do, too: if they do not, one more leaves."""
        machines = self.packer.machines
        cpu = ask.cpu - int(machines.cpu[spot.machine]) - sum(one.ask.cpu for one in leaving)
        memory = ask.memory - int(machines.memory[spot.machine]) - sum(one.ask.memory for one in leaving)
        if cpu > 0 or memory > 0:
            others = [
                one
                for one in self._on[spot.machine].values()
                if one.ask.gpus <= 1 and one not in leaving and one.ask.cpu >= cpu and one.ask.memory >= memory
            ]
            if not others:
                return
            leaving = (*leaving, min(others, key=lambda one: (one.ask.milli, one.ask.cpu, one.number)))
        milli = sum(one.ask.milli for one in leaving)
        if len(leaving) > MOST_MOVES or milli > self._budget * ask.milli:
            return
        yield Way((milli, len(leaving), sum(one.ask.cpu for one in leaving)), spot, leaving)


def _enough(missing: int, sharers: list[Placed]) -> tuple[Placed, ...] | None:
    """Who leaves one GPU so that ``missing`` thousandths more are free: one if one does, else from the largest on."""
    if missing <= 0:
        return ()
    ordered = sorted(sharers, key=lambda one: (one.ask.milli, one.number))
    if ordered and ordered[0].ask.share == WHOLE:
        return None  # it would only change places
    for one in ordered:
        if one.ask.milli >= missing:
            return (one,)
    out: list[Placed] = []
    for one in reversed(ordered):
        out.append(one)
        missing -= one.ask.milli
        if missing <= 0:
            return tuple(out)
    return None

"""Places pods one after the other. Costs are kept by kind of pod; a placement spoils them for one machine only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glebe.scheduling.packing import score
from glebe.scheduling.packing.demand import WHOLE, Ask, Demand, Floats, Tables
from glebe.scheduling.packing.machines import Ints, Machines, Spot

#: The distribution of arrivals is taken anew after so many, and whenever so many times more have arrived.
_FIRST, _GROWTH = 4, 1.4
#: Kinds of pods whose costs are kept.
_KINDS = 512


@dataclass(slots=True)
class _Kind:
    """Costs of one kind of pod on every machine, and up to which change of the machines they hold."""

    allowed: NDArray[np.bool_]
    cost: Floats
    gpu: Ints
    seen: int


class Packer:
    """Chooses machines and GPUs, and learns from what arrives.

    :param machines: changed by :meth:`place` and :meth:`release`.
    :param demand: what is known of arrivals before the first.
    """

    def __init__(self, machines: Machines, demand: Demand | None = None) -> None:
        self.machines = machines
        self.demand = demand or Demand()
        self._next = max(_FIRST, int(self.demand.total * _GROWTH))
        self._kinds: dict[Ask, _Kind] = {}
        self._changes: list[int] = []  # machines, in the order of their changes
        self._learn()

    def arrive(self, ask: Ask) -> Spot | None:
        """A pod arrives: it counts for what will come, and is placed if there is room."""
        self.demand.add(ask)
        if self.demand.total >= self._next:
            self._learn()
        return self.place(ask)

    def place(self, ask: Ask) -> Spot | None:
        """Take the best spot there is."""
        spot = self.best(ask)
        if spot is not None:
            self.take(ask, spot)
        return spot

    def best(self, ask: Ask) -> Spot | None:
        """The best spot, without taking it."""
        kind = self._costs(ask)
        row = int(np.argmin(kind.cost))
        if not np.isfinite(kind.cost[row]):
            return None
        return Spot(row, self._gpus(ask, row, int(kind.gpu[row])))

    def take(self, ask: Ask, spot: Spot) -> None:
        self.machines.take(ask, spot)
        self._changed(spot.machine)

    def release(self, ask: Ask, spot: Spot) -> None:
        self.machines.give(ask, spot)
        self._changed(spot.machine)

    def _gpus(self, ask: Ask, row: int, gpu: int) -> tuple[int, ...]:
        if not ask.gpus:
            return ()
        if gpu >= 0:
            return (gpu,)
        found = np.flatnonzero(self.machines.free[row] == WHOLE)[: ask.gpus]
        return tuple(int(g) for g in found)

    def _changed(self, row: int) -> None:
        rows = np.array([row], np.int64)
        self._loss[row] = score.loss(score.states(self.machines, rows, self._tables), self._tables)[0]
        self._changes.append(row)

    def _learn(self) -> None:
        """Take the distribution as it is now: every cost is new."""
        self._tables: Tables = self.demand.tables()
        self._next = max(self._next, int(self.demand.total * _GROWTH))
        rows = np.arange(len(self.machines))
        self._loss: Floats = score.loss(score.states(self.machines, rows, self._tables), self._tables)
        self._kinds.clear()
        self._changes.clear()

    def _costs(self, ask: Ask) -> _Kind:
        kind = self._kinds.pop(ask, None)
        size = len(self.machines)
        if kind is None:
            kind = _Kind(self.machines.allowed(ask), np.full(size, np.inf), np.full(size, -1, np.int64), 0)
            rows = np.flatnonzero(kind.allowed)
            if len(self._kinds) >= _KINDS:
                del self._kinds[next(iter(self._kinds))]  # the one that has not been asked for longest
        else:
            rows = np.unique(np.array(self._changes[kind.seen :], np.int64))
            rows = rows[kind.allowed[rows]]
        if len(rows):
            found = score.choices(ask, self.machines, rows, self._loss[rows], self._tables)
            kind.cost[rows], kind.gpu[rows] = found
        kind.seen = len(self._changes)
        self._kinds[ask] = kind
        return kind

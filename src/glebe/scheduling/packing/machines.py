"""Machines with GPUs that may be shared, as arrays: what is free now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from glebe.scheduling.packing.demand import WHOLE, Ask

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Machine:
    name: str
    cpu: int  # millicores
    memory: int
    gpus: int
    model: str = ""


class Spot(NamedTuple):
    """A machine (its index) and the GPUs on it."""

    machine: int
    gpus: tuple[int, ...] = ()


class Machines:
    """What is free. GPU columns that a machine does not have count as taken."""

    def __init__(self, machines: Sequence[Machine]) -> None:
        self.machines = tuple(machines)
        width = max((m.gpus for m in machines), default=0) or 1
        self.cpu: Ints = np.array([m.cpu for m in machines], np.int64)
        self.memory: Ints = np.array([m.memory for m in machines], np.int64)
        self.free: Ints = np.zeros((len(machines), width), np.int64)
        for row, machine in enumerate(machines):
            self.free[row, : machine.gpus] = WHOLE
        self.models = np.array([m.model for m in machines], dtype=object)
        self.capacity = int(self.free.sum())

    def __len__(self) -> int:
        return len(self.machines)

    def allowed(self, ask: Ask) -> NDArray[np.bool_]:
        """Machines of the models that ``ask`` accepts."""
        if not ask.models:
            return np.ones(len(self), np.bool_)
        return np.isin(self.models, list(ask.models))

    def holds(self, ask: Ask, spot: Spot) -> bool:
        """Is there room for ``ask`` exactly there?"""
        row = spot.machine
        if self.cpu[row] < ask.cpu or self.memory[row] < ask.memory or len(spot.gpus) != ask.gpus:
            return False
        return all(self.free[row, gpu] >= ask.share for gpu in spot.gpus)

    def take(self, ask: Ask, spot: Spot) -> None:
        self._add(ask, spot, -1)

    def give(self, ask: Ask, spot: Spot) -> None:
        self._add(ask, spot, 1)

    def _add(self, ask: Ask, spot: Spot, sign: int) -> None:
        row = spot.machine
        self.cpu[row] += sign * ask.cpu
        self.memory[row] += sign * ask.memory
        for gpu in spot.gpus:
            self.free[row, gpu] += sign * ask.share

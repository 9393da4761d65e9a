"""What a machine is still good for, in thousandths of GPUs; the less of it a pod destroys, the better its place.

The loss of a machine in a state is the sum of

- fragmentation: thousandths that a pod like those that have arrived cannot use, on average over them: all that is free
  where the pod does not fit at all, else the pieces that are too small for it;
- stranding: thousandths that are free, times the part of the GPU demand that wants more CPU (memory) per GPU than
  is free per GPU there. Fragmentation sees CPUs that are short only when nothing fits any more; this sees it coming.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from glebe.scheduling.packing.demand import WHOLE, Ask, Floats, Tables
from glebe.scheduling.packing.machines import Ints, Machines

#: Weights of stranding beside fragmentation, found on openb's default mix and kept for the others.
CPU_WEIGHT = 0.3
MEMORY_WEIGHT = 0.09
_TIE = 1e-6  # per millicore left: among equals the machine with the fewest CPUs


class States(NamedTuple):
    """n machines as they are, or as they would be."""

    cpu: Ints
    memory: Ints
    idle: Floats  # thousandths free in all
    whole: Ints  # GPUs that are free whole
    piece: Ints  # thousandths free on the GPU with most; while a whole one is free, anything
    pieces: Floats  # (n x K): thousandths in pieces that a pattern cannot use


def states(machines: Machines, rows: Ints, tables: Tables) -> States:
    free = machines.free[rows]
    return States(
        machines.cpu[rows],
        machines.memory[rows],
        free.sum(1).astype(np.float64),
        (free == WHOLE).sum(1),
        np.where(free == WHOLE, 0, free).max(1),
        tables.useless[free].sum(1),
    )


def loss(states: States, tables: Tables) -> Floats:
    """(n): as the module says."""
    idle = states.idle[:, None]
    whole = states.whole[:, None] >= tables.gpus
    fits = np.where(tables.share < WHOLE, whole | (states.piece[:, None] >= tables.share), whole)
    unusable = np.where(fits, states.pieces, idle)
    below = tables.fitting(states.cpu, states.memory)
    total: Floats = (below * unusable + (tables.part - below) * idle).sum(1)
    return total + stranded(states, tables)


def stranded(states: States, tables: Tables) -> Floats:
    """(n): the second part of the loss."""
    busy = np.maximum(states.idle, 1.0)
    out = np.zeros(len(states.idle))
    for weight, left, (grid, parts) in zip(
        (CPU_WEIGHT, MEMORY_WEIGHT), (states.cpu, states.memory), tables.per_gpu, strict=True
    ):
        out += weight * states.idle * (1.0 - np.interp(left * float(WHOLE) / busy, grid, parts))
    return out


class Choice(NamedTuple):
    """(n) each: the cost of the best way on each machine (infinite: there is none), and the GPU if it is a share."""

    cost: Floats
    gpu: Ints


def choices(ask: Ask, machines: Machines, rows: Ints, before: Floats, tables: Tables) -> Choice:
    """The cost of ``ask`` on machines ``rows`` whose loss is ``before``. (Their models are not looked at.)"""
    cost = np.full(len(rows), np.inf)
    gpu = np.full(len(rows), -1, np.int64)
    fits = (machines.cpu[rows] >= ask.cpu) & (machines.memory[rows] >= ask.memory)
    if ask.gpus:
        enough = machines.free[rows] >= ask.share
        fits &= enough.sum(1) >= ask.gpus
    some = np.flatnonzero(fits)
    if not len(some):
        return Choice(cost, gpu)
    now = states(machines, rows[some], tables)
    left = now._replace(cpu=now.cpu - ask.cpu, memory=now.memory - ask.memory)
    if ask.gpus == 1 and ask.share < WHOLE:
        found, gpu[some] = _shares(ask, left, machines.free[rows[some]], tables)
    else:
        found = loss(_whole(ask, left), tables)
    cost[some] = found - before[some] + _TIE * left.cpu
    return Choice(cost, gpu)


def _whole(ask: Ask, left: States) -> States:
    """After ``ask.gpus`` whole GPUs are taken."""
    if not ask.gpus:
        return left
    return left._replace(idle=left.idle - ask.milli, whole=left.whole - ask.gpus)


def _shares(ask: Ask, left: States, free: Ints, tables: Tables) -> tuple[Floats, Ints]:
    """Cost and GPU of the best GPU of each machine."""
    rows, columns = np.nonzero(~_seen_before(free) & (free >= ask.share))
    room = free[rows, columns]
    after = room - ask.share
    others = free[rows]
    others[np.arange(len(rows)), columns] = after
    would = States(
        left.cpu[rows],
        left.memory[rows],
        left.idle[rows] - ask.share,
        left.whole[rows] - (room == WHOLE),
        others.max(1),
        left.pieces[rows] - tables.useless[room] + tables.useless[after],
    )
    cost = np.full(free.shape, np.inf)
    cost[rows, columns] = loss(would, tables)
    where = cost.argmin(1)
    return cost[np.arange(len(free)), where], where


def _seen_before(free: Ints) -> NDArray[np.bool_]:
    """GPUs with as much free as one before them on the same machine: only the first of equals is looked at."""
    equal = free[:, :, None] == free[:, None, :]
    found: NDArray[np.bool_] = (equal & np.tri(free.shape[1], k=-1, dtype=np.bool_)).any(2)
    return found

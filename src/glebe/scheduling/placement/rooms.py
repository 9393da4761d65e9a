"""How much fits in each domain of each level, in pods and in whole slices, alone and beside a leader.

Room is counted in whole slices from the nodes upwards, beside the leader too where there is one: the domain that loses
least to it is taken to hold it. Source: KEP-2724 (topology aware scheduling).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from glebe.scheduling.placement.capacity import NodeState, Shape, SlotTable
from glebe.scheduling.placement.fleet import Ints, PodKind
from glebe.scheduling.placement.topology import NOTHING, Ask


class Lead(NamedTuple):
    """The one leader pod, by the position of nodes: does it fit, and how many workers fit beside it (else: at all)?"""

    fits: Ints  # 0 or 1
    beside: Ints


class Cut(NamedTuple):
    """How pods are cut into slices: at ``level`` into ``size`` pods, below it by level."""

    level: int
    size: int
    inner: dict[int, int]


class Level(NamedTuple):
    """Room of every domain of one level, in pods and (down to the slices' level) in slices; ``*_beside`` the leader."""

    pods: Ints
    slices: Ints
    leader: Ints
    pods_beside: Ints
    slices_beside: Ints
    scores: Ints | None = None  # how much the pods prefer a domain


def lead(nodes: NodeState, workers: PodKind, shape: Shape, leader: PodKind, its: Shape) -> Lead:
    """Room for a leader of kind ``leader`` and shape ``its`` on the nodes of ``workers``, of shape ``shape``."""
    fleet = nodes.fleet
    beside = nodes.table(fleet.number((workers, shape, its)), workers, shape, its)
    alone = nodes.table(fleet.number((workers, its)), workers, its)
    plain = nodes.table(fleet.number((workers, shape)), workers, shape)
    last = plain.levels - 1
    fits = np.asarray(alone.rooms(last)) > 0
    if leader != workers:
        fits &= fleet.arrangement(leader).position[plain.arrangement.nodes] >= 0
    return Lead(fits.astype(np.int64), np.where(fits, beside.rooms(last), plain.rooms(last)))


def cut_of(ask: Ask, levels: int) -> Cut:
    """The slices of an ask; single pods on single nodes if it names none."""
    if not ask.layers:
        return Cut(levels - 1, 1, {})
    (level, size), inner = ask.layers[0], {}
    above = level
    for at, pods in ask.layers[1:]:
        inner.update(dict.fromkeys(range(above + 1, at + 1), pods))
        above = at
    return Cut(level, size, inner)


def levels_of(table: SlotTable, cut: Cut, lead: Lead | None, inside: Ints | None) -> list[Level]:
    """Room of every domain, widest level first; only on nodes whose position is 1 in ``inside`` if that is given."""
    last = table.levels - 1
    pods = np.asarray(table.rooms(last), dtype=np.int64)
    fits, beside = lead if lead is not None else (np.ones_like(pods), pods)
    if inside is not None:
        pods, fits, beside = pods * inside, fits * inside, beside * inside
    starts = [child[:-1] for child in table.arrangement.child]
    return climb(Level(pods, np.zeros_like(pods), fits, beside, np.zeros_like(pods)), starts, cut, last)


def climb(nodes: Level, starts: list[Ints], cut: Cut, last: int) -> list[Level]:
    """From single nodes, which are at level ``last``, upwards; ``starts`` by level: each domain's first child."""
    here = nodes
    found: list[Level] = []
    top = last - len(starts)
    for level in range(last, top - 1, -1):
        if level < last:
            here = _above(here, starts[level - top], cut.inner.get(level + 1, 1), level >= cut.level)
        if level == cut.level:
            here = here._replace(slices=here.pods // cut.size, slices_beside=here.pods_beside // cut.size)
        found.append(here)
    return found[::-1]


def _above(below: Level, starts: Ints, step: int, in_slices: bool) -> Level:
    """One level from the one below, each of whose domains counts in multiples of ``step`` pods."""
    leader = np.maximum.reduceat(below.leader, starts)
    pods, beside = _beside(below.pods // step * step, below.pods_beside // step * step, below.leader, starts)
    if in_slices:
        nothing = np.zeros_like(pods)
        return Level(pods, nothing, leader, beside, nothing)
    slices, slices_beside = _beside(below.slices, below.slices_beside, below.leader, starts)
    return Level(pods, slices, leader, beside, slices_beside)


def _beside(room: Ints, beside: Ints, leader: Ints, starts: Ints) -> tuple[Ints, Ints]:
    """Sums of room, without the leader and with it where it costs least (0 where it fits nowhere)."""
    total = np.add.reduceat(room, starts)
    loss = np.minimum.reduceat(np.where(leader > 0, room - beside, NOTHING), starts)
    return total, np.where(loss < NOTHING, total - loss, 0)

"""Placement in slices, and of a leader with its workers, by Kueue's rules. One pod set alone goes the shorter way.

A slice is a number of pods that must run within one domain of its level; slices may be nested. Room is counted in whole
slices from the nodes upwards, beside the leader too where there is one: the domain that loses least to it is taken to
hold it. Then domains are chosen from the requested level downwards: above the slices' level greedily over all that were
reached, below it within each domain for what it was given. Source: KEP-2724 (topology aware scheduling).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from glebe.scheduling.capacity import NodeState, Shape, SlotTable, Spot
from glebe.scheduling.fleet import PLENTY, Arrangement, Ints
from glebe.scheduling.topology import NOTHING, Ask


class Lead(NamedTuple):
    """The one leader pod, by the position of nodes: does it fit, and how many workers fit beside it (else: at all)?"""

    fits: Ints  # 0 or 1
    beside: Ints


class Placed(NamedTuple):
    """Nodes of the pods in rank order, and the leader's node (-1 without a leader)."""

    spots: tuple[Spot, ...]
    leader: int = -1


class _Cut(NamedTuple):
    """How pods are cut into slices: at ``level`` into ``size`` pods, below it by level."""

    level: int
    size: int
    inner: dict[int, int]


class _Level(NamedTuple):
    """Room of every domain of one level, in pods and (down to the slices' level) in slices; ``*_beside`` the leader."""

    pods: Ints
    slices: Ints
    leader: Ints
    pods_beside: Ints
    slices_beside: Ints


@dataclass(slots=True)
class _Domain:
    """One candidate: room in the units that are shared out, and what it is given in pods."""

    at: int
    room: int
    beside: int
    leader: int
    taken: int = 0
    led: int = 0


def lead(nodes: NodeState, arrangement: Arrangement, workers: Shape, leader: Shape, allowed: Arrangement) -> Lead:
    """Room for a leader of shape ``leader``, which may run on the nodes of ``allowed``, beside ``workers``."""
    at = arrangement.nodes.tolist()
    rows = np.array([nodes.free[n] for n in at], dtype=np.int64).reshape(len(at), nodes.width)
    may = allowed.position[arrangement.nodes] >= 0
    fits = may & (_room(rows, leader) > 0)
    rest = rows - np.where(fits[:, None], np.array(leader, dtype=np.int64)[None, :], 0)
    return Lead(fits.astype(np.int64), _room(rest, workers))


def _room(rows: Ints, shape: Shape) -> Ints:
    room = np.full(len(rows), PLENTY, dtype=np.int64)
    for column, amount in enumerate(shape):
        if amount > 0:
            np.minimum(room, rows[:, column] // amount, out=room)
    return np.maximum(room, 0)


def room(table: SlotTable, ask: Ask) -> int:
    """How many pods fit in whole slices: in one domain of the requested level if it is required, else together."""
    if not len(table.arrangement.nodes):
        return 0
    level = _levels(table, ask, None, None)[ask.level if ask.required else 0]
    return int(level.slices.max() if ask.required else level.slices.sum()) * _cut(ask, table.levels).size


def holds(table: SlotTable, ask: Ask, count: int) -> bool:
    """Can ``count`` pods be placed in their slices? Exactly when ``choose`` succeeds."""
    return table.total >= count and room(table, ask) >= count


def choose(
    table: SlotTable, ask: Ask, count: int, leader: Lead | None = None, within: tuple[int, int] | None = None
) -> Placed | None:
    """Nodes for ``count`` pods and their leader, or ``None``; only between two positions if ``within`` is given.

    Where ``count`` is no multiple of the slice the last slice is given the room of a whole one.
    """
    if not len(table.arrangement.nodes):
        return None
    cut = _cut(ask, table.levels)
    levels = _levels(table, ask, leader, within)
    slices, leaders = -(-count // cut.size), int(leader is not None)
    found = _top(levels, ask, slices, leaders)
    if found is None:
        return None
    level, chosen = found
    shared = _share(chosen, slices, leaders, cut.size, ask.scattered)
    for lower in range(level + 1, table.levels):
        if shared is None:
            return None
        below = [_children(table.arrangement, lower, d.at) for d in shared]
        if lower <= cut.level:
            domains = _in_order(levels[lower], [at for ats in below for at in ats], ask.scattered)
            shared = _share(domains, slices, leaders, cut.size, ask.scattered)
        else:
            shared = _share_each(levels[lower], shared, below, cut.inner.get(lower, 1), ask.scattered)
    return None if shared is None else _placed(table.arrangement, shared, count)


def _placed(arrangement: Arrangement, domains: list[_Domain], count: int) -> Placed:
    nodes = arrangement.nodes
    spots: list[Spot] = []
    for d in sorted(domains, key=lambda d: d.at):
        pods = min(d.taken, count)
        if pods:
            spots.append((nodes.item(d.at), pods))
            count -= pods
    return Placed(tuple(spots), next((nodes.item(d.at) for d in domains if d.led), -1))


def _cut(ask: Ask, levels: int) -> _Cut:
    if not ask.layers:
        return _Cut(levels - 1, 1, {})
    (level, size), inner = ask.layers[0], {}
    above = level
    for at, pods in ask.layers[1:]:
        inner.update(dict.fromkeys(range(above + 1, at + 1), pods))
        above = at
    return _Cut(level, size, inner)


def _levels(table: SlotTable, ask: Ask, leader: Lead | None, within: tuple[int, int] | None) -> list[_Level]:
    """Room of every domain, widest level first."""
    cut, last = _cut(ask, table.levels), table.levels - 1
    pods = np.asarray(table.rooms(last), dtype=np.int64)
    fits, beside = leader if leader is not None else (np.ones_like(pods), pods)
    if within is not None:
        inside = np.zeros_like(pods)
        inside[within[0] : within[1]] = 1
        pods, fits, beside = pods * inside, fits * inside, beside * inside
    nothing = np.zeros_like(pods)
    here = _Level(pods, nothing, fits, beside, nothing)
    found: list[_Level] = []
    for level in range(last, -1, -1):
        if level < last:
            starts = table.arrangement.child[level][:-1]
            here = _above(here, starts, cut.inner.get(level + 1, 1), level >= cut.level)
        if level == cut.level:
            here = here._replace(slices=here.pods // cut.size, slices_beside=here.pods_beside // cut.size)
        found.append(here)
    return found[::-1]


def _above(below: _Level, starts: Ints, step: int, in_slices: bool) -> _Level:
    """One level from the one below, each of whose domains counts in multiples of ``step`` pods."""
    leader = np.maximum.reduceat(below.leader, starts)
    pods, beside = _beside(below.pods // step * step, below.pods_beside // step * step, below.leader, starts)
    if in_slices:
        nothing = np.zeros_like(pods)
        return _Level(pods, nothing, leader, beside, nothing)
    slices, slices_beside = _beside(below.slices, below.slices_beside, below.leader, starts)
    return _Level(pods, slices, leader, beside, slices_beside)


def _beside(room: Ints, beside: Ints, leader: Ints, starts: Ints) -> tuple[Ints, Ints]:
    """Sums of room, without the leader and with it where it costs least (0 where it fits nowhere)."""
    total = np.add.reduceat(room, starts)
    loss = np.minimum.reduceat(np.where(leader > 0, room - beside, NOTHING), starts)
    return total, np.where(loss < NOTHING, total - loss, 0)


def _top(levels: list[_Level], ask: Ask, slices: int, leaders: int) -> tuple[int, list[_Domain]] | None:
    """The level where the search ends, and the domains there that hold everything together."""
    level = ask.level
    while True:
        domains = _with_leader_first(levels[level], ask.scattered, leaders)
        fitting = [d for d in domains if d.beside >= slices and d.leader >= leaders]
        if fitting:
            return level, [fitting[0] if ask.scattered else min(fitting, key=lambda d: d.beside)]
        if ask.required:
            return None
        if level == 0 or ask.scattered:
            return _together(levels[level], level, domains, slices, leaders, ask.scattered)
        level -= 1


def _together(
    level: _Level, number: int, domains: list[_Domain], slices: int, leaders: int, scattered: bool
) -> tuple[int, list[_Domain]] | None:
    """Several domains: the leader's first, then as many as it takes."""
    used: list[_Domain] = []
    if leaders:
        if not domains[0].leader:
            return None
        host = domains[0]
        everything = sum(d.room for d in domains)
        if everything - host.room + host.beside < slices:  # it costs too much there: where it costs least, then
            host = min((d for d in domains if d.leader), key=lambda d: d.room - d.beside)
        used.append(host)
        slices -= host.beside
    taken = {d.at for d in used}
    rest = _in_order(level, [d.at for d in domains if d.at not in taken], scattered)
    for i, d in enumerate(rest):
        if slices <= 0:
            break
        this = d if scattered or d.room < slices else _tightest(rest, i, slices, False)
        used.append(this)
        slices -= this.room
    return (number, used) if slices <= 0 else None


def _with_leader_first(level: _Level, scattered: bool, leaders: int) -> list[_Domain]:
    sign = 1 if scattered else -1
    if not leaders:
        order = np.lexsort((level.pods, sign * level.slices)).tolist()
    else:
        order = np.lexsort((level.pods_beside, sign * level.slices_beside, -level.leader)).tolist()
    return _domains(level, order)


def _in_order(level: _Level, ats: list[int], scattered: bool) -> list[_Domain]:
    """By room in slices, fullest use last (least room first if scattered), then by what would be left over."""
    sign = 1 if scattered else -1
    slices, pods = level.slices[ats].tolist(), level.pods[ats].tolist()
    order = sorted(range(len(ats)), key=lambda i: (sign * slices[i], pods[i], ats[i]))
    return _domains(level, [ats[i] for i in order])


def _domains(level: _Level, ats: list[int]) -> list[_Domain]:
    rows = zip(
        ats, level.slices[ats].tolist(), level.slices_beside[ats].tolist(), level.leader[ats].tolist(), strict=True
    )
    return [_Domain(*row) for row in rows]


def _children(arrangement: Arrangement, level: int, parent: int) -> list[int]:
    bounds = arrangement.child[level - 1]
    return list(range(bounds.item(parent), bounds.item(parent + 1)))


def _share_each(
    level: _Level, parents: list[_Domain], below: list[list[int]], step: int, scattered: bool
) -> list[_Domain] | None:
    """What each domain was given goes to its children, in multiples of ``step`` pods; least room first."""
    found: list[_Domain] = []
    for parent, ats in zip(parents, below, strict=True):
        pods, beside, leader = level.pods[ats].tolist(), level.pods_beside[ats].tolist(), level.leader[ats].tolist()
        order = sorted(range(len(ats)), key=lambda i, pods=pods: (pods[i], i))  # type: ignore[misc]
        children = [_Domain(ats[i], pods[i] // step, beside[i] // step, leader[i]) for i in order]
        shared = _share(children, parent.taken // step, parent.led, step, scattered)
        if shared is None:
            return None
        found += shared
    return found


def _share(domains: list[_Domain], units: int, leaders: int, size: int, scattered: bool) -> list[_Domain] | None:
    """Give ``units`` of ``size`` pods and the leader to ``domains`` in turn; those that were needed."""
    shared = _share_in_turn(domains, units, leaders, size, scattered)
    if shared is None and leaders:  # the leader came to sit where it costs too much: where it costs least, then
        host = min((d for d in domains if d.leader), key=lambda d: d.room - d.beside, default=None)
        if host is not None:
            others = [d for d in domains if d is not host]
            shared = _share_in_turn([host, *others], units, leaders, size, scattered)
    return shared


def _share_in_turn(
    domains: list[_Domain], units: int, leaders: int, size: int, scattered: bool
) -> list[_Domain] | None:
    used: list[_Domain] = []
    for i, first in enumerate(domains):
        room = first.beside if leaders else first.room
        if room >= units and first.leader >= leaders:  # the last one: the tightest that completes it
            last = first if scattered else _tightest(domains, i, units, bool(leaders))
            last.taken, last.led = units * size, leaders
            return [*used, last]
        first.led = min(leaders, first.leader)
        given = min(first.beside if first.led else first.room, units)
        first.taken = given * size
        units -= given
        leaders -= first.led
        used.append(first)
    return None


def _tightest(domains: list[_Domain], start: int, units: int, beside: bool) -> _Domain:
    """Of the domains from ``start`` on, of which the first fits: the first with the least room that fits."""
    best = domains[start]
    for i in range(start + 1, len(domains)):
        d = domains[i]
        if beside:
            if d.leader and units <= d.beside < best.beside:
                best = d
        elif units <= d.room < best.room:
            best = d
    return best

"""Placement in slices, of a leader with its workers, and by preference. One pod set alone goes the shorter way.

A slice is a number of pods that must run within one domain of its level; slices may be nested. Domains are chosen from
the requested level downwards, as ``rooms`` counts their room: above the slices' level greedily over
all that were reached, below it within each domain for what it was given. Domains that the pods prefer go before any
rule of packing. Source: KEP-2724 (topology aware scheduling).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from glebe.scheduling.placement.balanced import Balance, balance
from glebe.scheduling.placement.capacity import SlotTable, Spot
from glebe.scheduling.placement.fleet import Arrangement, Ints
from glebe.scheduling.placement.rooms import Cut, Lead, Level, cut_of, lead, levels_of
from glebe.scheduling.placement.topology import Ask

__all__ = ["Lead", "Placed", "choose", "holds", "lead", "room"]


class Placed(NamedTuple):
    """Nodes of the pods in rank order, and the leader's node (-1 without a leader)."""

    spots: tuple[Spot, ...]
    leader: int = -1


@dataclass(slots=True)
class _Domain:
    """One candidate: room in the units that are shared out, and what it is given in pods."""

    at: int
    room: int
    beside: int
    leader: int
    score: int = 0
    taken: int = 0
    led: int = 0


def room(table: SlotTable, ask: Ask) -> int:
    """How many pods fit in whole slices: in one domain of the requested level if it is required, else together."""
    if not len(table.arrangement.nodes):
        return 0
    cut = cut_of(ask, table.levels)
    level = levels_of(table, cut, None, None)[ask.level if ask.required else 0]
    return int(level.slices.max() if ask.required else level.slices.sum()) * cut.size


def holds(table: SlotTable, ask: Ask, count: int) -> bool:
    """Can ``count`` pods be placed in their slices? Exactly when ``choose`` succeeds."""
    return table.total >= count and room(table, ask) >= count


def choose(
    table: SlotTable, ask: Ask, count: int, leader: Lead | None = None, inside: Ints | None = None
) -> Placed | None:
    """Nodes for ``count`` pods and their leader, or ``None``.

    Where ``count`` is no multiple of the slice the last slice is given the room of a whole one.

    :param inside: by position, 1 for nodes that may be used; all if not given.
    """
    arrangement = table.arrangement
    if not len(arrangement.nodes):
        return None
    cut = cut_of(ask, table.levels)
    levels = levels_of(table, cut, leader, inside)
    if ask.ranked and arrangement.scores is not None:
        levels = [level._replace(scores=scores) for level, scores in zip(levels, arrangement.scores, strict=True)]
    slices, leaders = -(-count // cut.size), int(leader is not None)
    if ask.balanced:
        even = balance(arrangement, levels, ask, cut, slices, leaders)
        shared = _spread(arrangement, even, cut) if even is not None else None
        if shared is not None:
            return _placed(arrangement, shared, count)
    shared = _packed(arrangement, levels, ask, cut, slices, leaders)
    return None if shared is None else _placed(arrangement, shared, count)


def _packed(
    arrangement: Arrangement, levels: list[Level], ask: Ask, cut: Cut, slices: int, leaders: int
) -> list[_Domain] | None:
    """Nodes by the usual rules."""
    found = _top(levels, ask, slices, leaders)
    if found is None:
        return None
    level, chosen = found
    shared = _share(chosen, slices, leaders, cut.size, ask.scattered)
    for lower in range(level + 1, len(levels)):
        if shared is None:
            return None
        below = [_children(arrangement, lower, d.at) for d in shared]
        if lower <= cut.level:
            domains = _in_order(levels[lower], [at for ats in below for at in ats], ask.scattered)
            shared = _share(domains, slices, leaders, cut.size, ask.scattered)
        else:
            shared = _share_each(levels[lower], shared, below, cut.inner.get(lower, 1), ask.scattered)
    return shared


def _spread(arrangement: Arrangement, even: Balance, cut: Cut) -> list[_Domain] | None:
    """Nodes below the domains over which pods are spread evenly."""
    shared: list[_Domain] | None = [_Domain(s.at, 0, 0, 0, 0, s.slices * cut.size, s.led) for s in even.shares]
    for lower in range(even.level + 1, len(even.levels)):
        if shared is None:
            return None
        below = [_children(arrangement, lower, d.at) for d in shared]
        step = cut.size if lower <= cut.level else cut.inner.get(lower, 1)
        shared = _share_each(even.levels[lower], shared, below, step, False, lower <= cut.level)
    return shared


def _placed(arrangement: Arrangement, domains: list[_Domain], count: int) -> Placed:
    nodes = arrangement.nodes
    spots: list[Spot] = []
    for d in sorted(domains, key=lambda d: d.at):
        pods = min(d.taken, count)
        if pods:
            spots.append((nodes.item(d.at), pods))
            count -= pods
    return Placed(tuple(spots), next((nodes.item(d.at) for d in domains if d.led), -1))


def _top(levels: list[Level], ask: Ask, slices: int, leaders: int) -> tuple[int, list[_Domain]] | None:
    """The level where the search ends, and the domains there that hold everything together."""
    level = ask.level
    while True:
        domains = _with_leader_first(levels[level], ask.scattered, leaders)
        one = _one(domains, ask, slices, leaders)
        if one is not None:
            return level, [one]
        if ask.required:
            return None
        if level == 0 or ask.scattered or ask.flat:
            together = _together(levels[level], domains, slices, leaders, ask.scattered)
            return None if together is None else (level, together)
        level -= 1


def _one(domains: list[_Domain], ask: Ask, slices: int, leaders: int) -> _Domain | None:
    """The one domain that takes everything; where domains are preferred, only the most preferred unless it must be."""
    for i, first in enumerate(domains):
        if first.beside >= slices and first.leader >= leaders:
            return first if ask.scattered else _tightest(domains, i, slices, True)
        if ask.ranked and not (ask.required or ask.scattered):
            return None
    return None


def _together(level: Level, domains: list[_Domain], slices: int, leaders: int, scattered: bool) -> list[_Domain] | None:
    """Several domains: the leader's first, then as many as it takes."""
    used: list[_Domain] = []
    if leaders:
        domains = _host_first(domains, slices)
        if not domains[0].leader:
            return None
        used.append(domains[0])
        slices -= domains[0].beside
    rest = _in_order(level, [d.at for d in domains[len(used) :]], scattered)
    for i, d in enumerate(rest):
        if slices <= 0:
            break
        this = d if scattered or d.room < slices else _tightest(rest, i, slices, False)
        used.append(this)
        slices -= this.room
    return used if slices <= 0 else None


def _host_first(domains: list[_Domain], units: int) -> list[_Domain]:
    """The first domain goes ahead that can have the leader and still leaves enough room for ``units`` in all."""
    everything = sum(d.room for d in domains)
    for i, d in enumerate(domains):
        if d.leader and everything - d.room + d.beside >= units:
            return [d, *domains[:i], *domains[i + 1 :]]
    return domains


def _with_leader_first(level: Level, scattered: bool, leaders: int) -> list[_Domain]:
    sign = 1 if scattered else -1
    columns = [level.pods_beside, sign * level.slices_beside] if leaders else [level.pods, sign * level.slices]
    if level.scores is not None:
        columns.append(-level.scores)
    if leaders:
        columns.append(-level.leader)
    return _domains(level, np.lexsort(columns).tolist())


def _in_order(level: Level, ats: list[int], scattered: bool) -> list[_Domain]:
    """The preferred first; then by room in slices (the least first if scattered), then by what is left over."""
    sign = 1 if scattered else -1
    columns = [np.array(ats, dtype=np.int64), level.pods[ats], sign * level.slices[ats]]
    if level.scores is not None:
        columns.append(-level.scores[ats])
    return _domains(level, [ats[i] for i in np.lexsort(columns).tolist()])


def _domains(level: Level, ats: list[int]) -> list[_Domain]:
    columns = [level.slices, level.slices_beside, level.leader]
    if level.scores is not None:
        columns.append(level.scores)
    return [_Domain(*row) for row in zip(ats, *(c[ats].tolist() for c in columns), strict=True)]


def _children(arrangement: Arrangement, level: int, parent: int) -> list[int]:
    bounds = arrangement.child[level - 1]
    return list(range(bounds.item(parent), bounds.item(parent + 1)))


def _share_each(
    level: Level, parents: list[_Domain], below: list[list[int]], step: int, scattered: bool, in_slices: bool = False
) -> list[_Domain] | None:
    """What each domain was given goes to its children, in multiples of ``step`` pods."""
    found: list[_Domain] = []
    for parent, ats in zip(parents, below, strict=True):
        children = _in_order(level, ats, scattered)
        if not in_slices:
            for child in children:
                child.room = level.pods.item(child.at) // step
                child.beside = level.pods_beside.item(child.at) // step
        shared = _share(children, parent.taken // step, parent.led, step, scattered)
        if shared is None:
            return None
        found += shared
    return found


def _share(domains: list[_Domain], units: int, leaders: int, size: int, scattered: bool) -> list[_Domain] | None:
    """Give ``units`` of ``size`` pods and the leader to ``domains`` in turn; those that were needed."""
    used: list[_Domain] = []
    for i, first in enumerate(domains := _host_first(domains, units) if leaders else domains):
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
    """Of the domains from ``start`` on, of which the first fits: the first with the least room that fits.

    Domains that are preferred less than the first are not looked at.
    """
    best = domains[start]
    for d in domains[start + 1 :]:
        if d.score != best.score:
            break
        if beside:
            if d.leader and units <= d.beside < best.beside:
                best = d
        elif units <= d.room < best.room:
            best = d
    return best

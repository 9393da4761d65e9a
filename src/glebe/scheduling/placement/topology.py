"""Choice of topology domains for one pod set, by Kueue's default rules (TAS profile "mixed").

Required or preferred: the narrowest allowed level at which one domain holds all pods; of those domains the one with the
least room (best fit). Preferred climbs level by level; at the widest level several domains are combined, fullest use
first, and the last is again the tightest that holds the rest. Below the chosen domains the same greedy choice repeats
over all their children, down to the nodes. Unconstrained: pods go to nodes with the least room first, so that
large free domains stay whole. Ties: lexically smaller label values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glebe.scheduling.placement.capacity import Rooms, SlotTable, Spot

NOTHING = 1 << 61


@dataclass(frozen=True, slots=True)
class Ask:
    """``level`` is an index of the arrangement's levels: where the search for one domain starts.

    With ``layers``, (level, pods) of nested slices with the widest first, and for the rarer wishes
    ``glebe.scheduling.placement.slices`` places.
    """

    level: int
    required: bool = False
    scattered: bool = False  # unconstrained
    layers: tuple[tuple[int, int], ...] = ()
    balanced: bool = False  # preferred: evenly over as few domains as needed, where that is possible
    ranked: bool = False  # domains that the pods' preferred affinity likes more go first
    flat: bool = False  # unconstrained, by best fit: several domains of the level rather than a wider one

    @property
    def special(self) -> bool:
        return bool(self.layers) or self.balanced or self.ranked


def holds(table: SlotTable, ask: Ask, count: int) -> bool:
    """Can ``count`` pods be placed at all? Exactly when ``choose`` succeeds."""
    if table.total < count:
        return False
    return not ask.required or table.most(ask.level) >= count


def choose(table: SlotTable, ask: Ask, count: int) -> tuple[Spot, ...] | None:
    """Nodes for ``count`` pods in rank order (lexical order of domains), or ``None``."""
    if not holds(table, ask, count):
        return None
    if count <= 0:
        return ()
    level, domains, taken = _top(table, ask, count)
    child = table.arrangement.child
    for lower in range(level + 1, table.levels):
        bounds = child[lower - 1]
        if len(domains) == 1:
            start, end = bounds.item(domains[0]), bounds.item(domains[0] + 1)
            picked, taken = _pick(table.rooms(lower, start, end), count, ask.scattered)
            domains = [start + i for i in picked]
        else:
            below = [at for d in sorted(domains) for at in range(bounds.item(d), bounds.item(d + 1))]
            picked, taken = _pick(table.rooms_of(lower, below), count, ask.scattered)
            domains = [below[i] for i in picked]
    nodes = table.arrangement.nodes
    return tuple([(nodes.item(at), pods) for at, pods in sorted(zip(domains, taken, strict=True))])


def _top(table: SlotTable, ask: Ask, count: int) -> tuple[int, list[int], list[int]]:
    """The level where the search ends, its chosen domains and the pods in each."""
    level = ask.level
    while True:
        rooms = table.rooms(level)
        best = _tightest(rooms, count)
        if best >= 0:
            return level, [best], [count]
        if level == 0 or ask.scattered or ask.flat:
            return level, *_pick(rooms, count, ask.scattered)
        level -= 1


def _tightest(rooms: Rooms, count: int) -> int:
    """The domain with the least room that holds ``count``, the lexically first of equals; -1 if none does."""
    if isinstance(rooms, list):
        best, found = NOTHING, -1
        for at, room in enumerate(rooms):
            if count <= room < best:
                best, found = room, at
        return found
    masked = np.where(rooms >= count, rooms, NOTHING)
    at = int(masked.argmin())
    return at if masked.item(at) != NOTHING else -1


def _pick(rooms: Rooms, count: int, scattered: bool) -> tuple[list[int], list[int]]:
    """Domains that together hold ``count`` (they can), and the pods in each."""
    if scattered:
        return _pick_smallest(rooms, count)
    best = _tightest(rooms, count)
    if best >= 0:
        return [best], [count]
    if isinstance(rooms, list):
        order = sorted(range(len(rooms)), key=rooms.__getitem__, reverse=True)
    else:
        order = np.argsort(-rooms, kind="stable").tolist()
        rooms = rooms.tolist()
    taken: list[int] = []
    rest = count
    for at in order:  # the largest are used up entirely; the next one completes
        if rooms[at] >= rest:
            break
        taken.append(rooms[at])
        rest -= rooms[at]
    full = len(taken)
    last = _tightest([rooms[at] for at in order[full:]], rest)
    return [*order[:full], order[full + last]], [*taken, rest]


def _pick_smallest(rooms: Rooms, count: int) -> tuple[list[int], list[int]]:
    if isinstance(rooms, list):
        order = sorted([at for at, room in enumerate(rooms) if room], key=rooms.__getitem__)
    else:
        some = np.flatnonzero(rooms)
        order = some[np.argsort(rooms[some], kind="stable")].tolist()
        rooms = rooms.tolist()
    taken: list[int] = []
    rest = count
    for at in order:
        taken.append(min(rooms[at], rest))
        rest -= taken[-1]
        if not rest:
            break
    return order[: len(taken)], taken

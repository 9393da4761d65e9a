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

from glebe.scheduling.capacity import SlotTable, Spot
from glebe.scheduling.fleet import Ints

NOTHING = 1 << 61


@dataclass(frozen=True, slots=True)
class Ask:
    """``level`` is an index of the arrangement's levels: where the search for one domain starts."""

    level: int
    required: bool = False
    scattered: bool = False  # unconstrained


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
    for lower in range(level + 1, len(table.sums)):
        sums, bounds = table.sums[lower], child[lower - 1]
        if len(domains) == 1:
            start, end = bounds.item(domains[0]), bounds.item(domains[0] + 1)
            picked, taken = _pick(sums[start:end], count, ask.scattered)
            domains = [start + i for i in picked]
        else:
            below = np.concatenate([np.arange(bounds[d], bounds[d + 1]) for d in sorted(domains)])
            picked, taken = _pick(sums[below], count, ask.scattered)
            domains = below[picked].tolist()
    nodes = table.arrangement.nodes
    return tuple((nodes.item(at), pods) for at, pods in sorted(zip(domains, taken, strict=True)))


def _top(table: SlotTable, ask: Ask, count: int) -> tuple[int, list[int], list[int]]:
    """The level where the search ends, its chosen domains and the pods in each."""
    level = ask.level
    while True:
        sums = table.sums[level]
        best = _tightest(sums, count)
        if best >= 0:
            return level, [best], [count]
        if level == 0 or ask.scattered:
            return level, *_pick(sums, count, ask.scattered)
        level -= 1


def _tightest(sums: Ints, count: int) -> int:
    """The domain with the least room that holds ``count``, the lexically first of equals; -1 if none does."""
    if not len(sums):
        return -1
    masked = np.where(sums >= count, sums, NOTHING)
    at = int(masked.argmin())
    return at if masked.item(at) != NOTHING else -1


def _pick(sums: Ints, count: int, scattered: bool) -> tuple[list[int], list[int]]:
    """Domains out of ``sums`` that together hold ``count`` (they can), and the pods in each."""
    if scattered:
        return _pick_smallest(sums, count)
    best = _tightest(sums, count)
    if best >= 0:
        return [best], [count]
    order = np.argsort(-sums, kind="stable")
    held = sums[order].cumsum()
    full = int(held.searchsorted(count))  # how many are used up entirely; the next one completes
    rest = count - held.item(full - 1)
    picked = order[:full].tolist()
    taken = sums[order[:full]].tolist()
    if rest:
        remaining = sums[order[full:]]
        picked.append(order.item(full + _tightest(remaining, rest)))
        taken.append(rest)
    return picked, taken


def _pick_smallest(sums: Ints, count: int) -> tuple[list[int], list[int]]:
    order = np.argsort(sums, kind="stable")
    order = order[sums[order] > 0]
    held = sums[order].cumsum()
    last = int(held.searchsorted(count))
    picked = order[: last + 1].tolist()
    taken = sums[order[: last + 1]].tolist()
    taken[-1] -= held.item(last) - count
    return picked, taken

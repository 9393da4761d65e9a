"""Balanced placement (gate TASBalancedPlacement): pods spread evenly over as few domains as needed.

For a preferred request the domains below one parent of the requested level are tried together: of all such groups that
hold everything, the one wins whose domains can each be given the most at the least (the threshold), then the one that
needs fewer domains. Domains that cannot hold the threshold are left out. Of the rest the set with the least room to
spare is given the threshold each, and what remains goes to the largest. Where no group holds everything, nothing is
balanced and the usual rules apply. Source: KEP-2724 (balanced placement), kueue:pkg/cache/scheduler.

Not as in Kueue: slices of the requested level itself are balanced too where nodes are below it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from glebe.scheduling.placement.fleet import Arrangement, Ints
from glebe.scheduling.placement.rooms import Cut, Level, climb
from glebe.scheduling.placement.topology import Ask

Range = tuple[int, int]


class Allotment(NamedTuple):
    """What one domain is given: slices, and the leader (0 or 1)."""

    at: int
    slices: int
    led: int


class Balance(NamedTuple):
    """The level at which pods are shared out evenly, the shares, and the room of all levels as it was used."""

    level: int
    shares: list[Allotment]
    levels: list[Level]


class _Group(NamedTuple):
    """Siblings of the requested level: their threshold, how many are needed, and their room from that level down."""

    threshold: int
    needed: int
    spans: list[Range]  # by level, from the requested one down: numbers of the first domain and after the last
    starts: list[Ints]  # of ``spans``: each domain's first child, counted from the first of its level's
    levels: list[Level]


class _Greedy(NamedTuple):
    needed: int
    last_led: int  # the last domain used with a leader, -1 if none
    last: int  # the last one used without


def balance(arrangement: Arrangement, levels: list[Level], ask: Ask, cut: Cut, slices: int, led: int) -> Balance | None:
    """How ``slices`` and ``led`` leaders are spread evenly, or ``None`` where they cannot be."""
    best: _Group | None = None
    room = levels[ask.level - 1].slices if ask.level else None
    for parent, spans in enumerate(_siblings(arrangement, ask.level)):
        if room is not None and room.item(parent) < slices:
            continue
        found = _group(arrangement, levels, spans, cut, slices, led, best.threshold if best else 0)
        if found is None:
            continue
        if best is None or (found.threshold, -found.needed) > (best.threshold, -best.needed):
            best = found
    if best is None or best.threshold <= 0:
        return None
    below = ask.level < cut.level
    chosen = list(range(len(best.levels[0].slices)))
    if below:
        optimal = _optimal_set(best.levels[0], chosen, slices, led, cut.size, best)
        if optimal is None:
            return None
        first, second = best.spans[0][0], best.spans[1][0]
        child = arrangement.child[ask.level]
        chosen = [at - second for d in optimal for at in range(child.item(d + first), child.item(d + first + 1))]
    shares = _shares(best.levels[int(below)], chosen, slices, led, cut.size, best.threshold)
    if shares is None:
        return None
    start = best.spans[int(below)][0]
    moved = [Allotment(start + s.at, s.slices, s.led) for s in shares]
    return Balance(ask.level + below, moved, _embedded(levels, best, ask.level))


def _siblings(arrangement: Arrangement, level: int) -> Iterator[list[Range]]:
    """Groups of domains of ``level`` with one parent: their numbers, and those of what is below them."""
    last = len(arrangement.first) - 1
    parents = [(0, len(arrangement.first[0]))]
    if level:
        child = arrangement.child[level - 1].tolist()
        parents = list(pairwise(child))
    for span in parents:
        spans = [span]
        for at in range(level, last):
            child_of = arrangement.child[at]
            spans.append((child_of.item(spans[-1][0]), child_of.item(spans[-1][1])))
        yield spans


def _group(
    arrangement: Arrangement, levels: list[Level], spans: list[Range], cut: Cut, slices: int, led: int, beat: int
) -> _Group | None:
    top = len(levels) - len(spans)
    starts = [arrangement.child[top + i][a:b] - spans[i + 1][0] for i, (a, b) in enumerate(spans[:-1])]
    own = [_part(level, span) for level, span in zip(levels[top:], spans, strict=True)]
    lower = own[1] if top < cut.level else own[0]
    found = _greedy(lower, slices, led)
    if found is None:
        return None
    threshold = slices // max(1, found.needed)
    if found.last_led >= 0:
        threshold = min(threshold, lower.slices_beside.item(found.last_led))
    reserving = threshold
    if found.last >= 0:
        threshold = min(threshold, lower.slices.item(found.last))
        reserving = min(threshold, lower.slices_beside.item(found.last)) if led else threshold
    for attempt in dict.fromkeys((threshold, reserving)):  # the second keeps room for the leader everywhere
        if attempt < max(beat, 1):
            continue
        group = _pruned(arrangement, _Group(attempt, 0, spans, starts, own), top, cut, led)
        fits = _greedy(group.levels[0], slices, led)
        if fits is not None:
            return group._replace(needed=fits.needed)
    return None


def _part(level: Level, span: Range) -> Level:
    return Level(*[None if column is None else column[span[0] : span[1]] for column in level])  # type: ignore[arg-type]


def _greedy(level: Level, slices: int, led: int) -> _Greedy | None:
    """How many domains are needed when the largest go first; ``None`` if all together do not hold it."""
    rest, needed, last_led = slices, 0, -1
    order = _order(level, led)
    if led:
        if not order or not level.leader.item(order[0]):
            return None
        last_led, needed = order[0], 1
        rest -= level.slices_beside.item(last_led)
        order = _order(level, 0, [at for at in order if at != last_led])
    last = -1
    for at in order:
        room = level.slices.item(at)
        if rest <= 0 or room <= 0:
            break
        last, needed, rest = at, needed + 1, rest - room
    return None if rest > 0 else _Greedy(needed, last_led, last)


def _order(level: Level, led: int, ats: list[int] | None = None) -> list[int]:
    """The largest first; those that a leader fits in before all others if there is one."""
    slices, pods = (level.slices_beside, level.pods_beside) if led else (level.slices, level.pods)
    columns = [pods, -slices]
    if level.scores is not None:
        columns.append(-level.scores)
    if led:
        columns.append(-level.leader)
    if ats is None:
        found: list[int] = np.lexsort(columns).tolist()
        return found
    return [ats[i] for i in np.lexsort([column[ats] for column in columns]).tolist()]


def _pruned(arrangement: Arrangement, group: _Group, top: int, cut: Cut, led: int) -> _Group:
    """The same without domains too small for the threshold, a level below the requested one and at it."""
    spans, levels = group.spans, group.levels
    for depth in (1, 0) if top < cut.level else (0,):
        here, nodes = levels[depth], levels[-1]
        sizes = _sizes(arrangement.first[top + depth], spans[depth], spans[-1][1])
        large = np.repeat(here.slices >= group.threshold, sizes)
        leads = large & np.repeat(here.slices_beside >= group.threshold, sizes) if led else large
        cleared = nodes._replace(
            pods=nodes.pods * large, leader=nodes.leader * leads, pods_beside=nodes.pods_beside * leads
        )
        climbed = climb(cleared, group.starts, cut, top + len(spans) - 1)
        levels = [new._replace(scores=old.scores) for new, old in zip(climbed, levels, strict=True)]
    return group._replace(levels=levels)


def _sizes(first: Ints, span: Range, end: int) -> Ints:
    """How many nodes each domain of ``span`` has; ``end`` is the position after the last of them."""
    a, b = span
    return np.diff(np.append(first[a:b], end))


def _optimal_set(
    level: Level, ats: list[int], slices: int, led: int, size: int, group: _Group | None = None
) -> list[int] | None:
    """As few domains as the greedy choice needs, with the least room to spare in all.

    Knapsack over (domains used, leaders left, pods left), each reached in the first way found.
    """
    some = Level(*[None if column is None else column[ats] for column in level])  # type: ignore[arg-type]
    needs = _greedy(some, slices, led)
    if needs is None:
        return None
    order = list(range(len(ats))) if group is None else _by_evenness(some, group)
    chains: list[dict[tuple[int, int], tuple[int, ...]]] = [{} for _ in range(needs.needed + 1)]
    chains[0][led, slices * size] = ()
    rows = list(zip(*(c.tolist() for c in (some.pods, some.slices, some.leader, some.pods_beside)), strict=True))
    for at in order:
        pods, room, leader, beside = rows[at]
        for used in range(needs.needed, 0, -1):
            into = chains[used]
            for (leaders, left), chain in sorted(chains[used - 1].items()):
                if leaders <= 0 and left <= 0:
                    continue
                if leaders > 0 and leader > 0:
                    into.setdefault((leaders - leader, left - beside), (*chain, at))
                if room > 0:
                    into.setdefault((leaders, left - pods), (*chain, at))
    done = [(left, chain) for (leaders, left), chain in chains[-1].items() if leaders == 0 and left <= 0]
    return [ats[i] for i in max(done)[1]] if done else None


def _by_evenness(level: Level, group: _Group) -> list[int]:
    """The largest first, of equals the one whose own domains are of the most equal size (by entropy)."""
    below, starts = group.levels[1].pods, group.starts[0]
    total = np.add.reduceat(below, starts)
    share = below / np.maximum(1, np.repeat(total, np.diff(np.append(starts, len(below)))))
    terms = np.where(below > 0, -share * np.log2(np.where(below > 0, share, 1.0)), 0.0)
    entropy = np.add.reduceat(terms, starts)
    found: list[int] = np.lexsort((-entropy, -level.slices_beside, -level.leader)).tolist()
    return found


def _shares(level: Level, ats: list[int], slices: int, led: int, size: int, threshold: int) -> list[Allotment] | None:
    """The threshold for each domain of the best set, what remains for the largest of them."""
    chosen = _optimal_set(level, ats, slices, led, size)
    if chosen is None or slices < len(chosen) * threshold:
        return None
    extra, leaders = slices - len(chosen) * threshold, led
    shares: list[Allotment] = []
    for at in _order(level, 1, chosen):
        room = level.slices_beside if leaders else level.slices
        more = max(0, min(room.item(at) - threshold, extra))
        shares.append(Allotment(at, threshold + more, int(leaders > 0)))
        extra, leaders = extra - more, 0
    return None if extra or leaders else shares


def _embedded(levels: list[Level], group: _Group, top: int) -> list[Level]:
    """All levels, with the room of the group as it was used."""
    out = list(levels)
    for i, (a, b) in enumerate(group.spans):
        columns = [_inserted(old, new, a, b) for old, new in zip(levels[top + i], group.levels[i], strict=True)]
        out[top + i] = Level(*columns)  # type: ignore[arg-type]
    return out


def _inserted(old: Ints | None, new: Ints | None, a: int, b: int) -> Ints | None:
    if old is None or new is None:
        return None
    column = old.copy()
    column[a:b] = new
    return column

"""Who is worth looking at after something was freed: a cheap, lossless filter in front of the admission cycle.

A workload cannot fit while its queue may take less of some cell than it needs, claims of blocked strict heads ahead of
it included. So every line keeps its groups sorted by need of one *key* cell, and only groups up to what is available
now are looked at. That changes only with quota use and claims in the line's own cohort tree, so the list of a line is
kept until one of them changes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

from glebe.scheduling.claims import Claims
from glebe.scheduling.model import GPU
from glebe.scheduling.order import DONE, Group, Line
from glebe.scheduling.quota import Cell, QuotaState, QuotaTree

Candidates = list[tuple[Line, list[Group]]]
UNSEEN: tuple[int, tuple[int, ...]] = (-1, ())


class _Index:
    """Groups of one line that need one key cell, by need; a group stands in one index per option."""

    __slots__ = ("cell", "groups", "needs")

    def __init__(self, cell: Cell, entries: list[tuple[int, Group]]) -> None:
        entries.sort(key=lambda e: e[0])
        self.cell = cell
        self.needs = [need for need, _ in entries]
        self.groups = [group for _, group in entries]


class Waker:
    """Finds candidate groups of all lines, for a quota state that changes."""

    def __init__(self, lines: list[Line], quotas: QuotaState, claims: Callable[[int], Claims]) -> None:
        self._quotas = quotas
        self._claims = claims  # by root, on the state as it is
        self._lines = lines
        self._indexes: list[list[_Index]] = [_index(line, quotas.tree) for line in lines]
        self._always = [[g for g in line.groups if _unfiltered(g)] for line in lines]
        self._seen: list[tuple[int, tuple[int, ...]]] = [UNSEEN] * len(lines)  # at which ``_open`` was computed
        self._open: list[list[Group]] = [[] for _ in lines]
        self._place = {id(line): i for i, line in enumerate(lines)}

    def candidates(self) -> Candidates:
        """Lines with those of their groups that quota does not rule out; nodes may still do."""
        versions = self._quotas.version
        standings: dict[int, tuple[int, tuple[int, ...]]] = {}
        result: Candidates = []
        for i, line in enumerate(self._lines):
            standing = standings.get(line.root)
            if standing is None:
                standing = standings[line.root] = (versions[line.root], self._claims(line.root).nodes)
            if self._seen[i] != standing:
                self._seen[i] = standing
                self._open[i] = self._within_quota(i, line)
            if self._open[i]:
                result.append((line, self._open[i]))
        return result

    def _within_quota(self, i: int, line: Line) -> list[Group]:
        indexes, always = self._indexes[i], self._always[i]
        if len(indexes) == 1 and not always and not line.strict:  # the common case: one flavor
            index = indexes[0]
            return index.groups[: bisect_right(index.needs, self._limit(line, index.cell))]
        found: dict[int, Group] = {}
        for index in indexes:
            end = bisect_right(index.needs, self._limit(line, index.cell))
            for group in index.groups[:end]:
                found[id(group)] = group
        for group in always:
            found[id(group)] = group
        if line.strict:
            front = line.front()
            return [front] if front is not None and id(front) in found else []
        return list(found.values())

    def _limit(self, line: Line, cell: Cell) -> int:
        """The most of a cell that a workload of this line can have."""
        quotas, claims = self._quotas, self._claims(line.root)
        limit = quotas.available(line.node, cell)
        front = line.front()
        return claims.bound(line, front, cell, limit) if claims.listed and front is not None else limit

    def compact(self, line: Line) -> None:
        """Forget groups that have nobody left (call after one of the line's groups is done)."""
        i = self._place[id(line)]
        line.groups = [g for g in line.groups if g.head != DONE]
        self._indexes[i] = _index(line, self._quotas.tree)
        self._always[i] = [g for g in line.groups if _unfiltered(g)]
        self._seen[i] = UNSEEN


def _unfiltered(group: Group) -> bool:
    """Several pod sets, or no quota needed: always looked at."""
    plan = group.plan
    return not plan.simple or any(not o.need for o in plan.sets[0].options)


def _index(line: Line, tree: QuotaTree) -> list[_Index]:
    entries: dict[Cell, list[tuple[int, Group]]] = {}
    for group in line.groups:
        if group.head == DONE or _unfiltered(group) or group.plan.possible is False:
            continue
        for option in group.plan.sets[0].options:
            cell, need = next(((c, n) for c, n in option.need if tree.cell_names[c][1] == GPU), option.need[0])
            entries.setdefault(cell, []).append((need, group))
    return [_Index(cell, entries[cell]) for cell in sorted(entries)]

"""Who is worth looking at: a cheap, lossless filter in front of the admission cycle.

A workload cannot fit while its queue may take less of some cell than it needs, or while the nodes can take none of its
asks. Every line keeps its groups sorted by need of one *key* cell; those up to what is available are *open*. That
changes only with quota use in the line's own cohort tree. Of the open groups, only those are looked at with an ask that
can be placed now; for most lines that is one comparison of bits.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from operator import attrgetter, or_

from glebe.scheduling.cycle.order import DONE, Group, Line
from glebe.scheduling.model import GPU
from glebe.scheduling.placement.asks import Asks, Bits
from glebe.scheduling.quotas.quota import Cell, QuotaState
from glebe.scheduling.world import State, World

Candidates = list[tuple[Line, list[Group]]]
by_head = attrgetter("head")


class _Index:
    """Groups of one line that need one key cell, by need; a group stands in one index per option."""

    __slots__ = ("asks", "cell", "end", "groups", "needs", "up_to")

    def __init__(self, cell: Cell, entries: list[tuple[int, Group, Bits]]) -> None:
        entries.sort(key=lambda e: e[0])
        self.cell = cell
        self.needs = [need for need, _, _ in entries]
        self.groups = [group for _, group, _ in entries]
        self.asks = [ask for _, _, ask in entries]
        self.end = 0  # so many are open
        self.up_to = [0, *accumulate(self.asks, or_)]  # asks of the first n groups


class _Watch:
    """One line: its groups by need, and the asks of those that are open by quota."""

    __slots__ = ("_always", "_indexes", "_world", "asks", "line", "simple")

    def __init__(self, line: Line, world: World) -> None:
        self.line, self._world = line, world
        self.asks: Bits = 0
        self.compact()

    def compact(self) -> None:
        """Forget groups that have nobody left."""
        line, tree, asks = self.line, self._world.tree, self._world.asks
        line.groups = [g for g in line.groups if g.head != DONE]
        self.simple = all(g.plan.simple for g in line.groups)
        self._always = [g for g in line.groups if _unfiltered(g) and not g.careful]
        entries: dict[Cell, list[tuple[int, Group, Bits]]] = {}
        for group in line.groups:
            if line.strict or group.careful or _unfiltered(group) or group.plan.possible is False:
                continue
            only = group.plan.sets[0]
            for option in only.options:
                cell, need = next(((c, n) for c, n in option.need if tree.cell_names[c][1] == GPU), option.need[0])
                entries.setdefault(cell, []).append((need, group, asks.mask([option], only.pod_set.count)))
        self._indexes = [_Index(cell, entries[cell]) for cell in sorted(entries)]

    def refresh(self, quotas: QuotaState) -> Bits:
        """Collect the asks of open groups; to be called when quota use has changed."""
        line = self.line
        asks = 0
        if line.strict:
            front = line.front()
            if front is not None and not front.plan.simple:
                asks = front.plan.asks
            elif front is not None:
                only = front.plan.sets[0]
                for option in only.options:
                    if quotas.fits(line.node, option.need):
                        asks |= self._world.asks.mask((option,), only.pod_set.count)
        else:
            for index in self._indexes:
                index.end = bisect_right(index.needs, quotas.available(line.node, index.cell))
                asks |= index.up_to[index.end]
            for group in self._always:
                asks |= group.plan.asks
        self.asks = asks
        return asks

    def pick(self, possible: Bits) -> list[Group]:
        """The open groups with one of the ``possible`` asks, in the order of their heads (call after ``refresh``)."""
        line = self.line
        if line.strict:
            front = line.front()
            return [front] if front is not None else []
        found: list[Group] = []
        for index in self._indexes:
            if index.up_to[index.end] & possible:
                open_groups = zip(index.groups[: index.end], index.asks, strict=False)
                found += [g for g, ask in open_groups if ask & possible]
        if self._always:
            found += [g for g in self._always if g.plan.asks & possible]
        if len(self._indexes) > 1:
            found = list(dict.fromkeys(found))
        if len(found) > 1:
            found.sort(key=by_head)
        return found


class _Tree:
    """The lines under one root: all that is common to them changes only with quota use there."""

    __slots__ = ("asks", "began", "looked", "refused", "root", "settled", "version", "watches")

    def __init__(self, root: int) -> None:
        self.root = root
        self.watches: list[_Watch] = []
        self.version = -1  # of quota use, at the last refresh
        self.began = -1  # the version when something was freed last
        self.asks: Bits = 0  # of all open groups
        self.looked: Bits = 0  # those of them that could be placed at the last look
        self.settled, self.refused = -1, 0  # at that version, groups with these asks were refused although placeable

    def refresh(self, quotas: QuotaState) -> None:
        version = quotas.version[self.root]
        if self.version != version:
            self.version = version
            self.asks = 0
            for watch in self.watches:
                self.asks |= watch.refresh(quotas)

    def news(self) -> Bits:
        """Asks that make it worth looking at this tree, once they can be placed."""
        return self.asks & ~self.refused if self.settled == self.version else self.asks

    def settle(self) -> None:
        """Whoever could be placed was refused at the last look: without a change of quota use they will be again.

        Not so if something was admitted here meanwhile, or if several pod sets make the answer depend on more.
        """
        if self.looked and self.version == self.began and all(watch.simple for watch in self.watches):
            self.settled, self.refused = self.version, self.looked


class Waker:
    """Finds candidates in all lines, for a state that changes."""

    def __init__(self, world: World, state: State, lines: list[Line]) -> None:
        self._asks: Asks = world.asks
        self._state = state
        self._watches = {id(line): _Watch(line, world) for line in lines}
        self._trees = {line.root: _Tree(line.root) for line in lines}
        for watch in self._watches.values():
            self._trees[watch.line.root].watches.append(watch)
        self._impossible: Bits = 0  # asks that could not be placed since something was freed last

    def candidates(self, *, anew: bool = True) -> Candidates:
        """Lines with those of their groups that neither quota nor nodes rule out at first sight, in order.

        ``anew`` is false if nothing was freed since the last call.
        """
        wanted = 0
        for tree in self._trees.values():
            tree.refresh(self._state.quotas)
            wanted |= tree.news()
            if anew:
                tree.began = tree.version
        if anew:
            self._impossible = 0
        possible = self._placeable(wanted)
        result: Candidates = []
        for tree in self._trees.values():
            tree.looked = 0
            if tree.news() & possible:
                rest = tree.asks & ~wanted  # somebody may be let in here: then everybody counts
                tree.looked = tree.asks & (possible | self._placeable(rest))
                for watch in tree.watches:
                    if watch.asks & tree.looked:
                        groups = watch.pick(tree.looked)
                        if groups:
                            result.append((watch.line, groups))
        return result

    def _placeable(self, asks: Bits) -> Bits:
        asks &= ~self._impossible
        if not asks:
            return 0
        found = self._asks.open(self._state.nodes, asks)
        self._impossible |= asks & ~found
        return found

    def settle(self) -> None:
        """All candidates of the last call were refused."""
        for tree in self._trees.values():
            tree.settle()

    def compact(self, line: Line) -> None:
        """Forget groups of the line that have nobody left."""
        self._watches[id(line)].compact()
        self._trees[line.root].version = -1


def _unfiltered(group: Group) -> bool:
    """Several pod sets, or no quota needed: quota is not looked at."""
    plan = group.plan
    return not plan.simple or any(not o.need for o in plan.sets[0].options)

"""The order between the heads of queues: who goes next, given what the ones before took.

Under classical rules the order is fixed: less borrowing, then priority, then age. Under fair sharing it is a
tournament over the tree of cohorts (Kueue KEP-1714, KEP-4136): in each cohort that child wins whose share, with its
head admitted, is least, after those that need not borrow for what the head asks; between equals priority and age. A
head with a level below 0 (others leave for it) goes before all others.
Trees are independent of one another; between their winners the classical order decides.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from itertools import count, pairwise
from typing import Generic, NamedTuple, TypeVar

from glebe.scheduling.quotas.quota import Cell, Need, QuotaState
from glebe.scheduling.quotas.shares import Rank, share
from glebe.scheduling.quotas.sharing import fair_sharing
from glebe.scheduling.world import World

T = TypeVar("T")
HeadKey = tuple[int, int, float, str]
LevelKey = tuple[bool, bool, Rank, int, float, str]


class Contender(NamedTuple, Generic[T]):
    """A head: its queue's ``node``, what it would use, its place in the classical order, and the caller's ``entry``."""

    node: int
    need: Need
    key: HeadKey
    entry: T


class Tournament(Generic[T]):
    """``pop`` says who is next, on the quotas as they are then.

    Between two calls only the use of the queue that was popped may change: only its path to the root is looked at
    again, so that a round of n heads costs O(n log n).
    """

    def __init__(self, world: World, quotas: QuotaState, contenders: Iterable[Contender[T]]) -> None:
        self._tree = world.tree
        self._quotas = quotas
        self._serial = count()  # breaks ties, so that contenders themselves are never compared
        self._of: dict[int, list[Contender[T]]] = {}  # by queue of a tree that shares fairly
        self._heaps: dict[int, list[tuple[LevelKey, int, int, int, Contender[T]]]] = {}  # by cohort
        self._turn: dict[int, int] = {}  # by node: what was entered for it in an earlier turn is void
        self._fixed: dict[int, list[Contender[T]]] = {}  # by root: the last is next
        self._roots: list[tuple[HeadKey, int, int]] = []
        self._left = 0
        self._popped: Contender[T] | None = None
        for c in contenders:
            self._left += 1
            root = self._tree.top[c.node]
            fair = root != c.node and fair_sharing(world, root) is not None
            (self._of.setdefault(c.node, []) if fair else self._fixed.setdefault(root, [])).append(c)
        for listed in self._fixed.values():
            listed.sort(key=lambda c: c.key, reverse=True)
        self._build()

    def __len__(self) -> int:
        return self._left

    def pop(self) -> Contender[T]:
        """The next one; ``IndexError`` when none is left."""
        if self._popped is not None:
            self._settle(self._popped)
        _, _, root = heapq.heappop(self._roots)
        winner = self._champion(root)
        assert winner is not None  # a root is entered only while it has one
        if root in self._fixed:
            self._fixed[root].pop()
        else:
            self._of[winner.node].remove(winner)
        self._popped = winner
        self._left -= 1
        return winner

    def _build(self) -> None:
        tree = self._tree
        for node in sorted(self._of):
            self._enter_queue(node)
        for cohort in reversed(range(tree.cohorts)):  # children before parents
            if tree.parent[cohort] >= 0 and cohort in self._heaps:
                self._enter_cohort(cohort)
        for root in dict.fromkeys([*self._fixed, *(tree.top[node] for node in sorted(self._of))]):
            self._enter_root(root)

    def _settle(self, popped: Contender[T]) -> None:
        """Enter anew what the use of the popped one's queue, or its absence, may have changed."""
        root = self._tree.top[popped.node]
        if root not in self._fixed:
            self._enter_queue(popped.node)
            for cohort in self._tree.paths[popped.node][1:-1]:
                self._enter_cohort(cohort)
        self._enter_root(root)

    def _enter_root(self, root: int) -> None:
        champion = self._champion(root)
        if champion is not None:
            heapq.heappush(self._roots, (champion.key, next(self._serial), root))

    def _enter_queue(self, node: int) -> None:
        turn = self._turn[node] = self._turn.get(node, 0) + 1
        heap = self._heaps.setdefault(self._tree.parent[node], [])
        for c in self._of[node]:
            heapq.heappush(heap, (self._level_key(c, node), next(self._serial), node, turn, c))

    def _enter_cohort(self, cohort: int) -> None:
        turn = self._turn[cohort] = self._turn.get(cohort, 0) + 1
        champion = self._champion(cohort)
        if champion is not None:
            heap = self._heaps.setdefault(self._tree.parent[cohort], [])
            key = self._level_key(champion, cohort)
            heapq.heappush(heap, (key, next(self._serial), cohort, turn, champion))

    def _champion(self, node: int) -> Contender[T] | None:
        if node in self._fixed:
            return self._fixed[node][-1] if self._fixed[node] else None
        heap = self._heaps.get(node)
        while heap:
            _, _, child, turn, contender = heap[0]
            if turn == self._turn[child]:
                return contender
            heapq.heappop(heap)
        return None

    def _level_key(self, c: Contender[T], node: int) -> LevelKey:
        """How ``node``, a queue or cohort, compares with its siblings once ``c`` below it is admitted."""
        more = self._reaching(c, node)
        used, quota = self._quotas.usage[node], self._tree.subtree[node]
        borrows = any(amount > 0 and used[cell] + more[cell] > quota[cell] for cell, amount in c.need)
        return (c.key[0] >= 0, borrows, share(self._quotas, node, more).rank, *c.key[1:])

    def _reaching(self, c: Contender[T], node: int) -> dict[Cell, int]:
        """What of the need counts in ``node``: what is guaranteed below it stays there."""
        more = dict(c.need)
        guaranteed, usage = self._tree.guaranteed, self._quotas.usage
        for below, above in pairwise(self._tree.paths[c.node]):
            if below == node or above < 0:
                break
            for cell, amount in more.items():
                more[cell] = max(0, amount - max(0, guaranteed[below][cell] - usage[below][cell]))
        return more

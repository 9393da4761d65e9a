"""Preemption under fair sharing: victims of the queue with the largest share, as long as that makes shares more equal.

Shares of two queues are compared where their paths to the root meet: between the two children of the lowest cohort
above both (*sides*). The preemptor's share includes what it asks for. (Kueue KEP-1714, KEP-4136.)
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from fractions import Fraction

from glebe.scheduling.model import FairSharing, FairStrategy, Victim, VictimReason
from glebe.scheduling.policies import PreemptionPolicy
from glebe.scheduling.preemption.roster import Holder, Roster, may_take
from glebe.scheduling.preemption.trial import Target, Trial, Want
from glebe.scheduling.quotas.quota import Need, QuotaState
from glebe.scheduling.quotas.shares import Rank, Share, share
from glebe.scheduling.world import State, World

Order = tuple[int, float, Fraction | float]


class Shares:
    """Shares of nodes, remembered until the use below them changes.

    ``known`` are those without the preemptor, which hold for every search on the same use.
    """

    def __init__(self, quotas: QuotaState, known: dict[int, Share], own: int) -> None:
        self._quotas = quotas
        self._known = known
        self._own = frozenset(quotas.tree.paths[own])
        self._changed: dict[int, Share] = {}
        self._touched: set[int] = set(self._own)

    def of(self, node: int) -> Share:
        here = self._changed if node in self._touched else self._known
        found = here.get(node)
        if found is None:
            found = here[node] = share(self._quotas, node)
        return found

    def order(self, node: int) -> Order:
        """The largest share first; figures that differ are told apart without fractions."""
        kind, figure = self.of(node).rank
        return (-kind, -float(figure), -figure)

    def touch(self, node: int) -> None:
        """The use of ``node`` has changed."""
        for n in self._quotas.tree.paths[node]:
            self._touched.add(n)
            self._changed.pop(n, None)


class Waiting:
    """Candidates of one queue, in order, looked at one by one."""

    def __init__(self, holders: Iterator[Holder]) -> None:
        self._rest = holders
        self.head = next(holders, None)

    def pop(self) -> Holder:
        first, self.head = self.head, next(self._rest, None)
        assert first is not None  # asked for only where there is a head
        return first


class Targets:
    """Candidates by queue; yields the queue to take the next one from, until none is left that may lose any.

    From the root down it is the child with the largest share; between equals a cohort, then the queue whose first
    candidate goes first. After each turn only the path of the queue that had it is entered anew.
    """

    def __init__(self, quotas: QuotaState, own: int, shares: Shares, waiting: dict[int, Waiting]) -> None:
        self._tree = quotas.tree
        self._own = own
        self._above = frozenset(quotas.tree.paths[own][1:])
        self._shares = shares
        self._waiting = waiting
        self._dropped: set[int] = set()
        self._heaps: dict[int, list[tuple[tuple[object, ...], int, int]]] = {}  # by cohort: key, child, its turn
        self._turn: dict[int, int] = {}
        self._live = {n for node in waiting for n in quotas.tree.paths[node]}

    def __iter__(self) -> Iterator[int]:
        root = self._tree.top[self._own]
        while True:
            node = self._next(root)
            if node is None:
                return
            yield node
            for child in self._tree.paths[node][:-1]:
                self._enter(child)

    def left(self, node: int) -> bool:
        waiting = self._waiting.get(node)
        return waiting is not None and waiting.head is not None

    def pop(self, node: int) -> Holder:
        return self._waiting[node].pop()

    def drop(self, node: int) -> None:
        self._dropped.add(node)

    def _next(self, node: int) -> int | None:
        if node >= self._tree.cohorts:
            return node if self.left(node) and node not in self._dropped else None
        heap = self._heaps.get(node)
        if heap is None:
            heap = self._heaps[node] = []
            for child in self._tree.children[node]:
                if child in self._live:
                    self._enter(child)
        while heap:
            _, child, turn = heap[0]
            if turn == self._turn[child] and (found := self._next(child)) is not None:
                return found
            heapq.heappop(heap)
        return None

    def _enter(self, child: int) -> None:
        """Where the child stands among its siblings. Only the preemptor's own path may lose without borrowing."""
        heap = self._heaps.get(self._tree.parent[child])
        if heap is None:
            return
        turn = self._turn[child] = self._turn.get(child, 0) + 1
        is_cohort = child < self._tree.cohorts
        stays = child in self._above if is_cohort else child == self._own
        if child in self._dropped or not (stays or self._shares.of(child).borrowing):
            return
        if is_cohort:
            heapq.heappush(heap, ((*self._shares.order(child), 0, -child), child, turn))
        elif self.left(child):
            heapq.heappush(heap, ((*self._shares.order(child), 1, *self._rank(child)), child, turn))

    def _rank(self, node: int) -> tuple[object, ...]:
        """The queue's first candidate among those of other queues: the preemptor's own come last."""
        head = self._waiting[node].head
        assert head is not None
        return (head.place[0], node == self._own, *head.place[1:])


Rule = Callable[[Rank, Rank, Rank], bool]
#: May a queue take from another? By the shares of its own side and the other's before and after.
RULES: dict[FairStrategy, Rule] = {
    FairStrategy.FINAL_SHARE: lambda mine, before, after: mine <= after,
    FairStrategy.INITIAL_SHARE: lambda mine, before, after: mine < before,
}


def fair(world: World, state: State, roster: Roster, want: Want, sharing: FairSharing) -> tuple[Victim, ...]:
    """Victims under fair sharing; the state is as before afterwards."""
    waiting = _candidates(world, state.quotas, roster, want)
    if not waiting:
        return ()
    search = _Search(state, want, roster.shares_at(state.quotas, world.tree.top[want.node]))
    fits, retry = search.first(waiting, RULES[sharing.strategies[0]])
    if not fits and len(sharing.strategies) > 1:
        fits = search.second(retry)
    return search.finish(fits)


def _candidates(world: World, quotas: QuotaState, roster: Roster, want: Want) -> dict[int, Waiting]:
    """By queue: the preemptor's own, and all of its tree that borrow what is short."""
    tree, own = quotas.tree, want.node
    policy = world.queues[tree.names[own]].preemption
    found: dict[int, Waiting] = {}

    def add(node: int, rule: PreemptionPolicy) -> None:
        holders = roster.in_turn((node,), lambda h: may_take(rule, want.pending, h) and h.uses(want.short))
        waiting = Waiting(holders)
        if waiting.head is not None:
            found[node] = waiting

    if policy.within is not PreemptionPolicy.NEVER:
        add(own, policy.within)
    if tree.parent[own] < 0 or policy.reclaim is PreemptionPolicy.NEVER:
        return found
    for node in tree.queues_under[tree.top[own]]:
        used, nominal = quotas.usage[node], tree.nominal[node]
        if node != own and any(used[c] > nominal[c] for c in want.short):
            add(node, policy.reclaim)
    return found


class _Search:
    """The request is in use while it runs, so that shares include it."""

    def __init__(self, state: State, want: Want, known: dict[int, Share]) -> None:
        self._quotas = state.quotas
        self._want = want
        self._trial = Trial(state, want)
        self._quotas.add(want.node, want.need)
        self._shares = Shares(state.quotas, known, want.node)
        used, nominal = self._quotas.usage[want.node], self._quotas.tree.nominal[want.node]
        self._entitled = all(used[c] <= nominal[c] for c in want.short)

    def first(self, waiting: dict[int, Waiting], rule: Rule) -> tuple[bool, list[Holder]]:
        """By the first strategy. Whoever passed it leaves; the others are left for the second one.

        A preemptor that stays within its nominal quota takes from borrowers whatever the shares.
        """
        targets = Targets(self._quotas, self._want.node, self._shares, waiting)
        retry: list[Holder] = []
        for node in targets:
            if node == self._want.node:
                if self._take(targets.pop(node), VictimReason.IN_CLUSTER_QUEUE):
                    return True, []
            elif self._entitled:
                if self._take(targets.pop(node), VictimReason.IN_COHORT_RECLAMATION):
                    return True, []
            elif self._by_rule(targets, node, rule, retry):
                return True, []
        return False, retry

    def _by_rule(self, targets: Targets, node: int, rule: Rule, retry: list[Holder]) -> bool:
        """Take the queue's first candidate that passes; ``True`` if the workload fits then."""
        mine, its = self._sides(node)
        my_share, before = self._shares.of(mine), self._shares.of(its)
        hopeless = my_share.endless and not before.endless
        passed: dict[Need, bool] = {}  # equal ones pass, or do not, all alike
        while targets.left(node):
            holder = targets.pop(node)
            need = holder.holding.need
            if not hopeless and need not in passed:
                passed[need] = rule(my_share.rank, before.rank, self._after(holder, its))
            if passed.get(need):
                return self._take(holder, VictimReason.IN_COHORT_FAIR_SHARING)
            retry.append(holder)
        return False

    def second(self, holders: list[Holder]) -> bool:
        """By the share that the other side has now; at most one of each queue."""
        by_queue: dict[int, list[Holder]] = {}
        for holder in holders:
            by_queue.setdefault(holder.node, []).append(holder)
        waiting = {node: Waiting(iter(listed)) for node, listed in by_queue.items()}
        targets = Targets(self._quotas, self._want.node, self._shares, waiting)
        for node in targets:
            mine, its = self._sides(node)
            holder = targets.pop(node)
            if self._shares.of(mine).rank < self._shares.of(its).rank and self._take(
                holder, VictimReason.IN_COHORT_FAIR_SHARING
            ):
                return True
            targets.drop(node)
        return False

    def finish(self, fits: bool) -> tuple[Victim, ...]:
        self._quotas.remove(self._want.node, self._want.need)
        if fits:
            return self._trial.fill_back(True)
        self._trial.restore()
        return ()

    def _take(self, holder: Holder, reason: VictimReason) -> bool:
        """The holder leaves; does the workload fit now?"""
        self._trial.remove(Target(holder, reason))
        self._shares.touch(holder.node)
        want, quotas = self._want, self._quotas
        quotas.remove(want.node, want.need)
        fits = self._trial.fits(True)
        quotas.add(want.node, want.need)
        return fits

    def _sides(self, node: int) -> tuple[int, int]:
        """Below the lowest cohort above both: the child on the preemptor's path, and that on the other's."""
        paths = self._quotas.tree.paths
        mine, its = paths[self._want.node], paths[node]
        depth = 1
        while mine[-depth] == its[-depth]:
            depth += 1
        return mine[-depth], its[-depth]

    def _after(self, holder: Holder, side: int) -> Rank:
        """The other side's share without the holder."""
        self._quotas.remove(holder.node, holder.holding.need)
        after = share(self._quotas, side).rank
        self._quotas.add(holder.node, holder.holding.need)
        return after

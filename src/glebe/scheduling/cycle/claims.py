"""Claims: what a blocked StrictFIFO head keeps of the quota that it waits for, against those who come after it.

It keeps what it may have without preemption: its unused nominal quota or, when others of its cohort use that, what it
may borrow. So the rest of the cohort does not borrow away what it is waiting for.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from glebe.scheduling.cycle.order import Group, HeadKey, Line, head_key
from glebe.scheduling.model import PreemptionPolicy
from glebe.scheduling.placement.placement import nominate, possible, total_need
from glebe.scheduling.quotas.quota import UNLIMITED, Cell, Need, QuotaState
from glebe.scheduling.world import Plan, State, World


@dataclass(frozen=True, slots=True)
class Claim:
    """What a blocked head keeps, and its place in the order."""

    key: HeadKey
    node: int
    need: Need


class Claims:
    """The claims of blocked heads on one state, in order, and the quota that they leave."""

    def __init__(self, lines: list[Line], state: State, world: World) -> None:
        self.listed: list[Claim] = []
        self.by_nodes = False  # do they depend on what is free on the nodes?
        self._quotas = state.quotas
        for line in lines:
            front = line.front()
            if front is None or not possible(front.plan, world):
                continue
            cell, amount = front.plan.key
            if cell < 0 or amount <= state.quotas.available(line.node, cell):
                self.by_nodes = True
                if nominate(front.plan, state, world) is not None:
                    continue
            level, need = claim(front.plan, state)
            if need:
                self.listed.append(Claim(head_key(level, line.waiting[front.head]), line.node, need))
        self.listed.sort(key=claim_key)
        self.nodes = tuple(c.node for c in self.listed)
        self._left: dict[int, QuotaState] = {}
        self._room: dict[tuple[int, Cell], int] = {}
        self._keys = [c.key for c in self.listed]

    def leave(self, node: int, need: Need, key: HeadKey) -> bool:
        """Does ``need`` fit beside the claims that come before ``key``?"""
        before = bisect_left(self._keys, key)
        return not before or self._after(before).fits(node, need)

    def _all_before(self, line: Line, group: Group, level: int) -> bool:
        """Do all claims come before the group's head, which borrows at ``level`` at least?"""
        last = self._keys[-1]
        if level != last[0]:
            return level > last[0]
        return head_key(level, line.waiting[group.head]) > last

    def bound(self, line: Line, first: Group, cell: Cell) -> int:
        """The most of a cell that the claims leave to workloads of ``line`` from ``first`` on."""
        quotas = self._quotas
        room = self.room(line.node, cell)
        if self._all_before(line, first, 0):
            return room
        bound = max(quotas.own_room(line.node, cell), room)  # who borrows nothing may come before the claims
        return bound if self._all_before(line, first, quotas.level(line.node, cell, bound + 1)) else UNLIMITED

    def room(self, node: int, cell: Cell) -> int:
        """What a queue may take of a cell beside all claims."""
        node = self._quotas.tree.limiting[node][cell]
        found = self._room.get((node, cell))
        if found is None:
            found = self._room[node, cell] = self._after(len(self.listed)).available(node, cell)
        return found

    def _after(self, count: int) -> QuotaState:
        left = self._left.get(count)
        if left is None:
            left = self._left[count] = self._quotas.with_added([(c.node, c.need) for c in self.listed[:count]])
        return left


def claim(plan: Plan, state: State) -> tuple[int, Need]:
    """(borrowing level, quota kept) of a blocked head: for its first choice of flavors within its nominal quota.

    While it is within its own quota it keeps what is unused of that; if others use it, what it may borrow. What it
    wants above its nominal quota belongs to others: then it keeps nothing.
    """
    quotas, tree, node = state.quotas, state.quotas.tree, plan.node
    if plan.queue.preemption.reclaim is PreemptionPolicy.ANY:
        return 0, ()  # it takes back what others use of its own whenever it needs it
    choice = tuple(s.options[0] for s in plan.sets if s.options)
    if len(choice) < len(plan.sets):
        return 0, ()
    if plan.simple:
        for option in plan.sets[0].options:
            if all(n <= tree.nominal[node][c] for c, n in option.need):
                choice = (option,)
                break
    need = total_need(choice)
    if any(n > tree.nominal[node][c] for c, n in need):
        return 0, ()
    level = quotas.borrowing_level(node, need)
    kept = []
    for cell, amount in need:
        nominal, used = tree.nominal[node][cell], quotas.usage[node][cell]
        if level == 0:
            kept.append((cell, max(0, min(amount, nominal - used))))
            continue
        limit = tree.borrowing_limit[node][cell]
        kept.append((cell, amount if limit is None else max(0, min(amount, nominal + limit - used))))
    return level, tuple((c, n) for c, n in kept if n > 0)


def claim_key(claim: Claim) -> HeadKey:
    return claim.key


class _NoClaims(Claims):
    def __init__(self) -> None:
        self.listed = []
        self.nodes = ()
        self.by_nodes = False

    def leave(self, node: int, need: Need, key: HeadKey) -> bool:
        return True


NO_CLAIMS = _NoClaims()

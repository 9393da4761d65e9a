"""The admission cycle: heads of all queues compete until nobody who fits is left.

One round takes the head of every line: the first workload of a StrictFIFO line, the first that fits of a BestEffortFIFO
line. Heads are taken by less borrowing, then priority, then age; each sees what the ones before it took. Rounds repeat
until nothing more is admitted. Whatever does not fit in a pass cannot fit later in it, because room only shrinks;
so each equivalence class is refused at most once.

A blocked StrictFIFO head *claims* what it may have without preemption: its unused nominal quota (or, when it has to
borrow, up to its borrowing limit) counts as used for those who come after it, so that the rest of its cohort does not
borrow away what it is waiting for.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

from glebe.scheduling.model import Pending
from glebe.scheduling.order import DONE, Group, HeadKey, Line, head_key
from glebe.scheduling.placement import Choice, Fit, find, nominate, possible, total_need
from glebe.scheduling.placement import holding as holding_of
from glebe.scheduling.quota import Need, QuotaState
from glebe.scheduling.wake import Candidates
from glebe.scheduling.world import Holding, Plan, State, World


@dataclass(frozen=True, slots=True)
class Admission:
    """One workload that starts now."""

    line: Line
    group: Group
    rank: int
    fit: Fit
    holding: Holding

    @property
    def plan(self) -> Plan:
        return self.group.plan

    @property
    def pending(self) -> Pending:
        return self.line.waiting[self.rank]


@dataclass(frozen=True, slots=True)
class Claim:
    """What a blocked head keeps, and its place in the order."""

    key: HeadKey
    node: int
    need: Need


@dataclass(slots=True)
class _Entry:
    key: HeadKey
    line: Line
    group: Group
    choice: Choice


class Cycle:
    """Runs passes over lines on one state, which it changes."""

    def __init__(self, world: World, state: State, lines: list[Line]) -> None:
        self.world = world
        self.state = state
        self._strict: dict[int, list[Line]] = {}  # by root
        for line in lines:
            if line.strict:
                self._strict.setdefault(line.root, []).append(line)
        self._claims: dict[int, tuple[tuple[int, int], _Claims]] = {}

    def run(self, some: Candidates) -> list[Admission]:
        """Admit whoever fits out of ``some`` groups; the others are known not to fit."""
        candidates = {id(line): (line, sorted(groups, key=_last_first)) for line, groups in some}
        admitted: list[Admission] = []
        while True:
            entries = [e for line, groups in candidates.values() if groups and (e := self._head(line, groups))]
            if not entries:
                return admitted
            claims: list[Claim] = []
            if len(entries) > 1:
                entries.sort(key=_key)
                claims = [c for root in dict.fromkeys(e.line.root for e in entries) for c in self.claims(root).listed]
            now = self._admit(entries, claims)
            admitted += now
            for admission in now:
                _requeue(*candidates[id(admission.line)])

    def once(self, lines: list[Line]) -> list[Admission]:
        """One cycle to the letter of Kueue: the very first of every line is its head, and every blocked head claims."""
        entries, blocked = [], []
        for line in lines:
            group = line.front()
            if group is None:
                continue
            choice = nominate(group.plan, self.state, self.world)
            if choice is None:
                blocked.append(line)
            else:
                entries.append(_Entry(self._rank(line, group, choice), line, group, choice))
        entries.sort(key=_key)
        return self._admit(entries, _Claims(blocked, self.state, self.world).listed)

    def _head(self, line: Line, groups: list[Group]) -> _Entry | None:
        """Phase 1: the line's first group that fits on the state as it is. Groups that do not fit are dropped."""
        quotas, nodes = self.state.quotas, self.state.nodes
        answers, changed = nodes.answers, len(nodes.changed)
        claims = self.claims(line.root)
        standing = (quotas.version[line.root], claims.nodes)
        cell, limit, kept_limit = -1, 0, 0
        while groups:
            group = groups[-1]
            plan = group.plan
            key_cell, need = plan.key
            if key_cell >= 0:  # cheap checks ahead of the full ones: most groups stop here
                if key_cell != cell:
                    cell, limit = key_cell, quotas.available(line.node, key_cell)
                    kept_limit = claims.after_all.available(line.node, key_cell) if claims.listed else limit
                    if kept_limit < limit:
                        least = quotas.level(line.node, cell, kept_limit + 1)
                        if claims.all_before(line, group, least):  # then also before all that come after this group
                            limit = kept_limit
                if need > limit or group.held == standing or answers.get(plan.ask_number) == (changed, False):
                    groups.pop()
                    continue
                if need > kept_limit and claims.all_before(line, group, quotas.level(line.node, cell, need)):
                    group.held = standing
                    groups.pop()
                    continue
            choice = nominate(plan, self.state, self.world)
            if choice is not None:
                key = self._rank(line, group, choice)
                if claims.leave(line.node, total_need(choice), key):
                    return _Entry(key, line, group, choice)
                group.held = standing
            groups.pop()
        return None

    def _rank(self, line: Line, group: Group, choice: Choice) -> HeadKey:
        level = self.state.quotas.borrowing_level(line.node, total_need(choice))
        return head_key(level, line.waiting[group.head])

    def claims(self, root: int) -> _Claims:
        """Claims of the blocked strict heads under one root, on the state as it is."""
        lines = self._strict.get(root)
        if lines is None:
            return NO_CLAIMS
        version = (self.state.quotas.version[root], len(self.state.nodes.changed))
        known = self._claims.get(root)
        if known is None or known[0] != version:
            known = self._claims[root] = (version, _Claims(lines, self.state, self.world))
        return known[1]

    def _admit(self, entries: list[_Entry], claims: list[Claim]) -> list[Admission]:
        """Phase 2: take the heads in order; a head that no longer fits waits for the next round."""
        admitted: list[Admission] = []
        waiting = sorted(claims, key=_claim_key, reverse=True)
        made: list[Claim] = []
        quotas = self.state.quotas
        for entry in entries:
            while waiting and waiting[-1].key < entry.key:
                made.append(waiting.pop())
                quotas.add(made[-1].node, made[-1].need)
            fit = find(entry.group.plan, self.state, self.world, entry.choice)
            if fit is not None:
                holding = holding_of(entry.group.plan, fit)
                self.state.hold(holding)
                admitted.append(Admission(entry.line, entry.group, entry.group.head, fit, holding))
                entry.group.advance()
        for claim in reversed(made):
            quotas.remove(claim.node, claim.need)
        return admitted


class _Claims:
    """The claims of blocked heads on one state, in order, and the quota that they leave."""

    def __init__(self, lines: list[Line], state: State, world: World) -> None:
        self.listed: list[Claim] = []
        self._quotas = state.quotas
        for line in lines:
            front = line.front()
            if front is None or not possible(front.plan, world) or nominate(front.plan, state, world) is not None:
                continue
            level, need = claim(front.plan, state)
            if need:
                self.listed.append(Claim(head_key(level, line.waiting[front.head]), line.node, need))
        self.listed.sort(key=_claim_key)
        self.nodes = tuple(c.node for c in self.listed)
        self._left: dict[int, QuotaState] = {}
        self._keys = [c.key for c in self.listed]

    def leave(self, node: int, need: Need, key: HeadKey) -> bool:
        """Does ``need`` fit beside the claims that come before ``key``?"""
        before = bisect_left(self._keys, key)
        return not before or self._after(before).fits(node, need)

    def all_before(self, line: Line, group: Group, level: int) -> bool:
        """Do all claims come before the group's head, which borrows at ``level`` at least?"""
        return head_key(level, line.waiting[group.head]) > self._keys[-1]

    @property
    def after_all(self) -> QuotaState:
        return self._after(len(self.listed))

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


def _requeue(line: Line, groups: list[Group]) -> None:
    """The head of the last group has gone: put the group in its new place, or in a strict line the new front."""
    group = groups.pop()
    if line.strict:
        front = line.front()
        if front is not None:
            groups.append(front)
    elif group.head != DONE:
        insort(groups, group, key=_last_first)


def _last_first(group: Group) -> int:
    return -group.head


def _key(entry: _Entry) -> HeadKey:
    return entry.key


def _claim_key(claim: Claim) -> HeadKey:
    return claim.key


class _NoClaims(_Claims):
    def __init__(self) -> None:
        self.listed = []
        self.nodes = ()

    def leave(self, node: int, need: Need, key: HeadKey) -> bool:
        return True

    def all_before(self, line: Line, group: Group, level: int) -> bool:
        return False


NO_CLAIMS = _NoClaims()

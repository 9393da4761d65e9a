"""The admission cycle: heads of all queues compete until nobody who fits is left.

One round takes the head of every line: the first workload in a StrictFIFO line, the first that fits in a BestEffortFIFO
line. Heads are taken by less borrowing, then priority, then age; each sees what the ones before it took. Rounds repeat
until nothing more is admitted. Whatever does not fit in a pass cannot fit later in it, because room only shrinks;
so each equivalence class is refused at most once.

A blocked StrictFIFO head keeps what it may claim without preemption: its unused nominal quota (or, when it has to
borrow, up to its borrowing limit) counts as used for those who come after it in a round, so that the rest of
its cohort does not borrow away what it is waiting for.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass

from glebe.scheduling.model import Pending
from glebe.scheduling.order import DONE, Group, HeadKey, Line, head_key
from glebe.scheduling.placement import Choice, Fit, find, nominate, total_need
from glebe.scheduling.placement import holding as holding_of
from glebe.scheduling.quota import Need
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


NO_KEY: HeadKey = (0, 0, 0.0, "")


@dataclass(slots=True)
class _Entry:
    key: HeadKey
    line: Line
    group: Group
    choice: Choice | None  # None: a blocked strict head
    reserve: Need


class Cycle:
    """Runs passes over lines on one state, which it changes."""

    def __init__(self, world: World, state: State, all_lines: list[Line]) -> None:
        self.world = world
        self.state = state
        self.strict = [line for line in all_lines if line.strict]

    def run(self, some: Candidates) -> list[Admission]:
        """Admit whoever fits out of ``some`` groups; the others are known not to fit."""
        candidates = {id(line): (line, sorted(groups, key=_last_first)) for line, groups in some}
        admitted: list[Admission] = []
        while True:
            entries = self._nominate(candidates.values())
            if not entries:
                return admitted
            now, refused = self._admit(entries)
            admitted += now
            for admission in now:
                _requeue(*candidates[id(admission.line)])
            if not now:
                for entry in refused:  # only a strict head's claim stands in the way: it will until this pass ends
                    candidates[id(entry.line)][1].pop()

    def once(self, lines: list[Line]) -> list[Admission]:
        """One cycle to the letter of Kueue: the very first of every line is its head, and every blocked head claims."""
        entries = []
        for line in lines:
            group = line.front()
            choice = nominate(group.plan, self.state, self.world) if group is not None else None
            if group is not None and choice is not None:
                entries.append(_Entry(NO_KEY, line, group, choice, ()))
        self._rank(entries, lines)
        return self._admit(entries)[0]

    def _nominate(self, candidates: Iterable[tuple[Line, list[Group]]]) -> list[_Entry]:
        """Phase 1: the head of every line, with the flavors that fit on the state as it is."""
        entries = []
        available = self.state.quotas.available
        answers, changed = self.state.nodes.answers, len(self.state.nodes.changed)
        for line, groups in candidates:
            cell, limit = -1, 0
            while groups:
                group = groups[-1]
                key_cell, need = group.plan.key
                if key_cell >= 0:  # a cheap check ahead of the full one: most groups stop here
                    if key_cell != cell:
                        cell, limit = key_cell, available(line.node, key_cell)
                    known = answers.get(group.plan.ask_number)
                    if need > limit or known == (changed, False):
                        groups.pop()
                        continue
                choice = nominate(group.plan, self.state, self.world)
                if choice is not None:
                    entries.append(_Entry(NO_KEY, line, group, choice, ()))
                    break
                groups.pop()
        if entries and (len(entries) > 1 or self.strict):
            self._rank(entries, self.strict)
        return entries

    def _rank(self, entries: list[_Entry], claimants: list[Line]) -> None:
        """Phase 2: order the heads, and the claims of blocked ``claimants`` among them."""
        quotas = self.state.quotas
        for entry in entries:
            level = quotas.borrowing_level(entry.line.node, total_need(entry.choice or ()))
            entry.key = head_key(level, entry.line.waiting[entry.group.head])
        roots = {entry.line.root for entry in entries}
        nominated = {id(entry.line) for entry in entries}
        for line in claimants:
            if line.root in roots and id(line) not in nominated:
                group = line.front()
                if group is not None:
                    level, reserve = claim(group.plan, self.state)
                    if reserve:
                        entries.append(_Entry(head_key(level, line.waiting[group.head]), line, group, None, reserve))
        entries.sort(key=lambda e: e.key)

    def _admit(self, entries: list[_Entry]) -> tuple[list[Admission], list[_Entry]]:
        """Phase 3: take the heads in order; a head that no longer fits waits for the next round."""
        admitted: list[Admission] = []
        refused: list[_Entry] = []
        reserved: list[tuple[int, Need]] = []
        for entry in entries:
            if entry.choice is None:
                self.state.quotas.add(entry.line.node, entry.reserve)
                reserved.append((entry.line.node, entry.reserve))
                continue
            fit = find(entry.group.plan, self.state, self.world, entry.choice)
            if fit is None:
                refused.append(entry)
                continue
            holding = holding_of(entry.group.plan, fit)
            self.state.hold(holding)
            admitted.append(Admission(entry.line, entry.group, entry.group.head, fit, holding))
            entry.group.advance()
        for node, need in reversed(reserved):
            self.state.quotas.remove(node, need)
        return admitted, refused


def _last_first(group: Group) -> int:
    return -group.head


def _requeue(line: Line, groups: list[Group]) -> None:
    """The head of the last group has gone: put the group in its new place, or in a strict line the new front."""
    group = groups.pop()
    if line.strict:
        front = line.front()
        if front is not None:
            groups.append(front)
    elif group.head != DONE:
        insort(groups, group, key=_last_first)


def claim(plan: Plan, state: State) -> tuple[int, Need]:
    """(borrowing level, quota kept) of a blocked strict head: for its first choice of flavors that it could ever have.

    Within nominal quota it keeps what is unused of that; above it, what it may borrow.
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
        return 0, ()  # it cannot claim anything: what it wants above its own quota belongs to others
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

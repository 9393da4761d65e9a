"""The admission cycle: heads of all queues compete until nobody who fits is left.

One round takes the head of every line: the first workload of a StrictFIFO line, the first that fits of a BestEffortFIFO
line. Heads are taken by less borrowing, then priority, then age; each sees what the ones before it took. Rounds repeat
until nothing more is admitted. Whatever does not fit in a pass cannot fit later in it, because room only shrinks;
so each equivalence class is refused at most once.

A blocked StrictFIFO head claims quota (see ``claims``) against those who come after it.
"""

from __future__ import annotations

from operator import attrgetter
from typing import NamedTuple

from glebe.scheduling.claims import NO_CLAIMS, Claim, Claims, claim_key
from glebe.scheduling.model import Pending
from glebe.scheduling.order import DONE, Group, HeadKey, Line, head_key
from glebe.scheduling.placement import Choice, Fit, find, nominate, total_need
from glebe.scheduling.placement import holding as holding_of
from glebe.scheduling.quota import UNLIMITED, Cell
from glebe.scheduling.wake import Waker
from glebe.scheduling.world import Holding, Plan, State, World


class Admission(NamedTuple):
    """One workload that starts now; with ``fewer`` pods than it asked for if that plan is given."""

    line: Line
    group: Group
    rank: int
    fit: Fit
    holding: Holding
    fewer: Plan | None = None

    @property
    def plan(self) -> Plan:
        return self.group.plan if self.fewer is None else self.fewer

    @property
    def pending(self) -> Pending:
        return self.line.waiting[self.rank]


class _Entry(NamedTuple):
    key: HeadKey
    line: Line
    group: Group
    choice: Choice


_key = attrgetter("key")


class Cycle:
    """Runs passes over lines on one state, which it changes."""

    def __init__(self, world: World, state: State, lines: list[Line]) -> None:
        self.world = world
        self.state = state
        self._strict: dict[int, list[Line]] = {}  # by root
        for line in lines:
            if line.strict:
                self._strict.setdefault(line.root, []).append(line)
        self._claims: dict[int, tuple[int, int, Claims]] = {}  # by root: at which version and change of nodes
        self._waker = Waker(world, state, lines)
        self._refused: set[Group] = set()  # in this pass
        self._kept: dict[tuple[int, Cell], int] = {}  # by line and cell: the most that claims have left in this pass

    def run(self) -> list[Admission]:
        """Admit until nobody fits any more."""
        self._refused.clear()
        self._kept.clear()
        admitted: list[Admission] = []
        while True:
            candidates = self._waker.candidates(anew=not admitted)
            entries = [e for line, groups in candidates if (e := self._head(line, groups))]
            if not entries:
                self._waker.settle()
                return admitted
            claims: list[Claim] = []
            if len(entries) > 1:
                entries.sort(key=_key)
                claims = [c for root in dict.fromkeys(e.line.root for e in entries) for c in self.claims(root).listed]
            now = self._admit(entries, claims)
            admitted += now
            for admission in now:
                if admission.group.head == DONE:
                    self._waker.compact(admission.line)

    def _head(self, line: Line, groups: list[Group]) -> _Entry | None:
        """Phase 1: the line's first group that fits on the state as it is, out of ``groups``."""
        refused, claims = self._refused, self.claims(line.root)
        if refused:
            groups = [g for g in groups if g not in refused]
        if claims.listed and groups and not line.strict:
            groups = self._left_by(claims, line, groups)
        standing = (self.state.quotas.version[line.root], claims.nodes)
        for group in groups:
            if group.held != standing:
                choice = nominate(group.plan, self.state, self.world)
                if choice is not None:
                    key = self._rank(line, group, choice)
                    if claims.leave(line.node, total_need(choice), key):
                        return _Entry(key, line, group, choice)
                    group.held = standing
            refused.add(group)
        return None

    def _left_by(self, claims: Claims, line: Line, groups: list[Group]) -> list[Group]:
        """Groups to which claims may leave enough of their key cell: a cheap check ahead of the full one."""
        cell = groups[0].plan.key[0]
        if cell < 0:
            return groups
        most = min(claims.bound(line, groups[0], cell), self._kept.get((line.node, cell), UNLIMITED))
        self._kept[line.node, cell] = most
        return [g for g in groups if g.plan.key[1] <= most or g.plan.key[0] != cell]

    def _rank(self, line: Line, group: Group, choice: Choice) -> HeadKey:
        level = self.state.quotas.borrowing_level(line.node, total_need(choice))
        return head_key(level, line.waiting[group.head])

    def claims(self, root: int) -> Claims:
        """Claims of the blocked strict heads under one root, on the state as it is."""
        lines = self._strict.get(root)
        if lines is None:
            return NO_CLAIMS
        version, changed = self.state.quotas.version[root], len(self.state.nodes.changed)
        known = self._claims.get(root)
        if known is None or known[0] != version or (known[2].by_nodes and known[1] != changed):
            known = self._claims[root] = (version, changed, Claims(lines, self.state, self.world))
        return known[2]

    def _admit(self, entries: list[_Entry], claims: list[Claim]) -> list[Admission]:
        """Phase 2: take the heads in order; a head that no longer fits waits for the next round."""
        admitted: list[Admission] = []
        waiting = sorted(claims, key=claim_key, reverse=True)
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

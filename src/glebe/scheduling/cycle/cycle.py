"""The admission cycle: heads of all queues compete until nobody who fits, or may preempt, is left.

One round takes the head of every line: the first workload of a StrictFIFO line, the first that fits of a BestEffortFIFO
line, or an earlier one that can preempt. Heads are taken by less borrowing, then priority, then age (or, where trees
share fairly, by shares); each sees what the ones before it took. Rounds repeat until nothing more is admitted. Whatever
does not fit in a pass cannot fit later in it, because room only shrinks; so each equivalence class is refused at most
once.

What a preemptor will hold is kept for it, and so is what its victims still hold; then the next of its line has its
turn, unless the line is strict. A blocked StrictFIFO head claims quota (see ``claims``) against those who come after.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import NamedTuple

from glebe.scheduling.cycle.claims import NO_CLAIMS, Claim, Claims, claim_key
from glebe.scheduling.cycle.nominations import Nomination, Nominator
from glebe.scheduling.cycle.onecycle import Verdict
from glebe.scheduling.cycle.order import DONE, Group, HeadKey, Line, head_key
from glebe.scheduling.cycle.projection import Projection, fits
from glebe.scheduling.cycle.reservation import Reservations
from glebe.scheduling.cycle.thorough import Thorough
from glebe.scheduling.cycle.tournament import Contender, Tournament
from glebe.scheduling.cycle.wake import Waker
from glebe.scheduling.flavoring import variants
from glebe.scheduling.flavoring.assign import Mode
from glebe.scheduling.model import Pending, Reason, Victim
from glebe.scheduling.placement.placement import Choice, Fit, find, nominate, total_need
from glebe.scheduling.placement.placement import holding as holding_of
from glebe.scheduling.preemption.roster import Roster
from glebe.scheduling.quotas.quota import UNLIMITED, Cell
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


class Preempting(NamedTuple):
    """One workload for which others must leave, and what it will hold then. Without ``victims``: others' victims."""

    line: Line
    group: Group
    rank: int
    victims: tuple[Victim, ...]
    holding: Holding

    @property
    def pending(self) -> Pending:
        return self.line.waiting[self.rank]


class _Entry(NamedTuple):
    key: HeadKey
    line: Line
    group: Group
    choice: Choice
    nomination: Nomination | None = None  # of the full search
    seen: int = 0  # so many preempted when it was made


MAX_PREEMPTORS = 256  # of one run; the others have their turn in the next
_key = attrgetter("key")


class Cycle:
    """Runs passes over lines on one state, which it changes; with a ``nominator`` that knows a roster, it preempts."""

    def __init__(self, world: World, state: State, lines: list[Line], nominator: Nominator | None = None) -> None:
        self.world = world
        self.state = state
        self.preempting: list[Preempting] = []  # in the last run
        self.verdicts: dict[str, Verdict] = {}  # of the last run, by key, for some who did not start
        self._nominator = nominator or Nominator(world, Roster(world, (), {}, 0.0), {})
        self._strict: dict[int, list[Line]] = {}  # by root
        for line in lines:
            if line.strict:
                self._strict.setdefault(line.root, []).append(line)
        self._claims: dict[int, tuple[int, int, Claims]] = {}  # by root: at which version and change of nodes
        self._waker = Waker(world, state, lines)
        self._thorough = Thorough(self._nominator, state, lines)
        self._fair = any(world.fair(root) for root in dict.fromkeys(line.root for line in lines))
        self._projection = Projection(state)
        self.reserves: Reservations | None = None  # set by who knows when running work ends
        self._refused: set[Group] = set()  # in this pass
        self._closed: set[int] = set()  # strict lines whose head preempts
        self._started_variants: set[str] = set()  # parents of variants that start in this run
        self._passed: list[tuple[Line, Group]] = []  # of others, in this round
        self._kept: dict[tuple[int, Cell], int] = {}  # by line and cell: the most that claims have left in this pass

    def run(self, nominator: Nominator | None = None) -> list[Admission]:
        """Admit until nobody fits any more; ``preempting`` says for whom others must leave.

        ``nominator``: to be used from now on, when the roster has changed.
        """
        self._begin(nominator)
        admitted: list[Admission] = []
        while True:
            entries = self._entries(anew=not admitted)
            if not entries:
                if self._projection.still:
                    self._waker.settle()
                return admitted
            claims: list[Claim] = []
            if len(entries) > 1:
                claims = [c for root in dict.fromkeys(e.line.root for e in entries) for c in self.claims(root).listed]
            now = self._take(entries, claims)
            admitted += now
            for line, group in dict.fromkeys([*((a.line, a.group) for a in now), *self._passed]):
                self._thorough.moved(line)
                if group.head == DONE:
                    self._waker.compact(line)
            self._passed.clear()

    def _begin(self, nominator: Nominator | None) -> None:
        if nominator is not None:
            self._nominator = nominator
        self._thorough.begin(nominator)
        self._projection = Projection(self.state)
        if self._closed:
            self._claims.clear()
        self._started_variants.clear()
        for memory in (self._refused, self._kept, self._closed, self.preempting, self.verdicts):
            memory.clear()

    def _entries(self, *, anew: bool) -> list[_Entry]:
        """The heads of a round."""
        quick: dict[int, _Entry] = {}
        for line, groups in self._waker.candidates(anew=anew):
            if id(line) not in self._closed and (entry := self._head(line, groups)):
                quick[id(line)] = entry
        for line in self._thorough.lines if len(self.preempting) < MAX_PREEMPTORS else ():
            if id(line) in self._closed:
                continue
            fits = quick.get(id(line))
            found = self._thorough.head(line, None if fits is None else line.place(fits.group))
            if found is not None:
                group, nomination = found
                a = nomination.assignment
                key = head_key(a.level, line.waiting[group.head])
                quick[id(line)] = _Entry(key, line, group, a.choice, nomination, len(self.preempting))
        urgent = [e for e in quick.values() if e.line.waiting[e.group.head].preempting]
        if not urgent or len(urgent) == len(quick):
            return list(quick.values())
        for entry in quick.values():  # others left for those: nobody comes before them
            if entry.nomination is not None and not entry.line.waiting[entry.group.head].preempting:
                self._thorough.ask_again(entry.line, entry.group)
        return urgent

    def _head(self, line: Line, groups: list[Group]) -> _Entry | None:
        """Phase 1: the line's first group that fits on the state as it is, out of ``groups``."""
        refused, claims = self._refused, self.claims(line.root)
        if refused:
            groups = [g for g in groups if g not in refused]
        if line.turns is not None:
            groups = sorted(groups, key=line.place)
        if claims.listed and groups and not line.strict:
            groups = self._left_by(claims, line, groups)
        standing = (self.state.quotas.version[line.root], claims.nodes)
        for group in groups:
            if group.careful:
                continue
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
            still = [line for line in lines if id(line) not in self._closed]
            known = self._claims[root] = (version, changed, Claims(still, self.state, self.world))
        return known[2]

    def _ordered(self, entries: list[_Entry]) -> Iterable[_Entry]:
        if not self._fair or len(entries) < 2:
            return sorted(entries, key=_key)
        return self._by_shares(entries)

    def _by_shares(self, entries: list[_Entry]) -> Iterator[_Entry]:
        contenders = [Contender(e.line.node, total_need(e.choice), e.key, e) for e in entries]
        tournament = Tournament(self.world, self.state.quotas, contenders)
        while len(tournament):
            yield tournament.pop().entry

    def _take(self, entries: list[_Entry], claims: list[Claim]) -> list[Admission]:
        """Phase 2: take the heads in order; a head that no longer fits waits for the next round."""
        admitted: list[Admission] = []
        waiting = sorted(claims, key=claim_key, reverse=True)
        made: list[Claim] = []
        quotas = self.state.quotas
        for entry in self._ordered(entries):
            while waiting and waiting[-1].key < entry.key:
                made.append(waiting.pop())
                quotas.add(made[-1].node, made[-1].need)
            if entry.nomination is not None and self._migrates(entry, entry.nomination):
                continue
            if entry.nomination is not None and entry.nomination.mode is not Mode.FIT:
                self._preempt(entry, entry.nomination)
            elif (admission := self._admit(entry)) is not None:
                admitted.append(admission)
        for claim in reversed(made):
            quotas.remove(claim.node, claim.need)
        return admitted

    def _admit(self, entry: _Entry) -> Admission | None:
        found = entry.nomination
        if found is not None:
            return self._admit_nominated(entry, found)
        plan, projection = entry.group.plan, self._projection
        fit = find(plan, self.state, self.world, entry.choice)
        if fit is None:
            return None
        holding = holding_of(plan, fit)
        if not projection.still and not all(answer := projection.fits_then(holding)):
            again = find(plan, projection.crowded, self.world, entry.choice) if answer[0] else None
            if again is None:
                self._refused.add(entry.group)
                return None
            fit, holding = again, holding_of(plan, again)
        if not self._reserved(entry, holding):
            return None
        projection.admit(holding)
        admission = Admission(entry.line, entry.group, entry.group.head, fit, holding)
        entry.line.passed(entry.group)
        return admission

    def _admit_nominated(self, entry: _Entry, found: Nomination) -> Admission | None:
        """As the full search said; anew if that no longer holds."""
        old = self._nominator.replaced(found.pending)
        projection = self._projection
        if found.pending.replaces in projection.leaving:
            return None
        gone = () if old is None else (old,)
        if not all(fits(self.state, found.holding(), gone)) or not all(projection.fits_then(found.holding(), gone)):
            found = self._nominator.nominate(found.pending, entry.group.plan, self.state)
            if found.mode is not Mode.FIT or not all(projection.fits_then(found.holding(), gone)):
                return None
        holding = found.holding()
        if not self._reserved(entry, holding):
            return None
        if old is not None:
            projection.finish(old)
            self._nominator.finish(found.pending.replaces)
        projection.admit(holding)
        fewer = found.plan if found.plan is not entry.group.plan else None
        admission = Admission(entry.line, entry.group, entry.group.head, found.fit, holding, fewer)
        entry.line.passed(entry.group)
        return admission

    def _reserved(self, entry: _Entry, holding: Holding) -> bool:
        """Does it leave the reserved starts of others as they are? If not, its class waits."""
        if self.reserves is None:
            return True
        pending = entry.line.waiting[entry.group.head]
        if not self.reserves.permits(entry.line, entry.key, pending, holding):
            self._refused.add(entry.group)
            return False
        self.reserves.taken(entry.line, entry.key, pending, holding)
        return True

    def _migrates(self, entry: _Entry, found: Nomination) -> bool:
        """Is it a variant that waits for another one of the same workload, or for the other to make way for it?"""
        pending = found.pending
        if not pending.variant_of or not self.world.snapshot.gates.concurrent_admission:
            return False
        if variants.better(self.world, pending) or pending.variant_of in self._started_variants:
            self.verdicts[pending.key] = Verdict(Reason.PENDING_EVALUATION)
            return True
        worse = variants.worse(self.world, pending) if found.mode is Mode.FIT else None
        if worse is None:
            if found.mode is Mode.FIT:
                self._started_variants.add(pending.variant_of)
            return False
        if variants.may_migrate(entry.line.queue, pending):
            self._projection.keep(found.holding())
            self.verdicts[pending.key] = Verdict(Reason.WAITING_FOR_PREEMPTED, (worse,))
        else:
            self.verdicts[pending.key] = Verdict(Reason.PENDING_EVALUATION)
        return True

    def _preempt(self, entry: _Entry, found: Nomination) -> None:
        """Others leave for it, unless they are leaving for somebody else already: then it is nominated anew."""
        projection, roster = self._projection, self._nominator.roster
        pending = found.pending
        gates = self.world.snapshot.gates
        if pending.gated and (gates.orchestrated_preemption or gates.concurrent_admission):
            self.verdicts[pending.key] = Verdict(Reason.ADMISSION_GATED)
            return
        rest = roster.beside(ChainMap(projection.leaving, self._nominator.finished))
        leaving = [roster.holding(v.key) for v in found.victims if v.key not in projection.leaving]
        old = self._nominator.replaced(pending)
        if old is not None:
            leaving.append(old)
        stale = entry.seen != len(self.preempting) or any(v.key in self._nominator.finished for v in found.victims)
        if stale or not all(projection.fits_then(found.holding(), leaving)):
            found = self._nominator.nominate(pending, entry.group.plan, projection.then, rest)
            if found.mode is not Mode.FIT and not found.victims:
                return
        projection.evict((v, roster.holding(v.key)) for v in found.victims)
        holding = found.holding()
        projection.keep(holding)
        self._thorough.goes_on(projection.then, rest)
        self.verdicts[pending.key] = Verdict(Reason.WAITING_FOR_PREEMPTED, found.victims)
        self.preempting.append(Preempting(entry.line, entry.group, entry.group.head, found.victims, holding))
        if entry.line.strict:
            self._closed.add(id(entry.line))
            self._claims.pop(entry.line.root, None)
        else:
            entry.line.passed(entry.group)
            self._passed.append((entry.line, entry.group))

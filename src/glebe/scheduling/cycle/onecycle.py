"""One scheduling cycle to the letter of Kueue: one head per queue, nominated on the state at the start, then in order.

Each head sees what those before it took, keep, or will free. A head whose victims were taken already, or whose nodes
were, is nominated anew on what is left, with the same flavors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from glebe.scheduling.cycle.nominations import Nomination, Nominator, reserve
from glebe.scheduling.cycle.order import Group, Line, head_key
from glebe.scheduling.cycle.projection import Projection, fits
from glebe.scheduling.cycle.tournament import Contender, Tournament
from glebe.scheduling.flavoring import variants
from glebe.scheduling.flavoring.assign import Mode
from glebe.scheduling.model import PreemptionPolicy, Reason, Victim
from glebe.scheduling.world import Holding, State, World


class Verdict(NamedTuple):
    """What became of a head that did not start. ``parked``: nothing to do for it until something changes."""

    reason: Reason
    victims: tuple[Victim, ...] = ()
    parked: bool = False


@dataclass(slots=True)
class Head:
    line: Line
    group: Group
    nomination: Nomination


@dataclass(slots=True)
class Outcomes:
    """``started`` in order; ``verdicts`` by key for the heads that did not start."""

    started: list[Head] = field(default_factory=list)
    verdicts: dict[str, Verdict] = field(default_factory=dict)


class OneCycle:
    """Runs one cycle over lines on a state, which it changes."""

    def __init__(self, world: World, state: State, nominator: Nominator) -> None:
        self.world = world
        self.nominator = nominator
        self.projection = Projection(state)
        self._gates = world.snapshot.gates
        self.outcomes = Outcomes()

    def run(self, lines: list[Line]) -> Outcomes:
        heads = [head for line in lines if (head := self._nominate(line)) is not None]
        quotas = self.projection.now.quotas.copy()  # what the order is judged on: everybody in it
        kept = 0
        tournament = Tournament(self.world, quotas, [self._contender(h) for h in heads])
        while len(tournament):
            head = tournament.pop().entry
            before = len(self.outcomes.started)
            self._process(head)
            if len(self.outcomes.started) > before:
                holding = head.nomination.holding()
                quotas.add(holding.node, holding.need)
            for node, need in self.projection.crowd[kept:]:
                quotas.add(node, need)
            kept = len(self.projection.crowd)
        return self.outcomes

    def _nominate(self, line: Line) -> Head | None:
        group = line.front()
        if group is None:
            return None
        pending = line.waiting[group.head]
        if pending.failed_checks or pending.invalid:
            reason = Reason.PENDING_EVALUATION if pending.failed_checks else Reason.MISCONFIGURED
            self.outcomes.verdicts[pending.key] = Verdict(reason, (), parked=not line.strict)
            return None
        return Head(line, group, self.nominator.nominate(pending, group.plan, self.projection.now))

    def _contender(self, head: Head) -> Contender[Head]:
        a = head.nomination.assignment
        return Contender(head.line.node, a.need, head_key(a.level, head.nomination.pending), head)

    def _process(self, head: Head) -> None:
        pending = head.nomination.pending
        if self._gates.concurrent_admission and variants.better(self.world, pending):
            self._say(head, Reason.PENDING_EVALUATION)
            return
        fits = self._refresh(head)
        nomination = head.nomination
        if nomination.mode is Mode.NO_FIT:
            self._park(head, nomination.assignment.reason, equals=True)
        elif nomination.mode is Mode.PREEMPT and not nomination.victims:
            self._no_candidates(head)
        elif nomination.mode is Mode.PREEMPT and pending.gated and self._heeds_gates:
            self._park(head, Reason.ADMISSION_GATED)
        elif nomination.mode is Mode.DEFERRED_FIT:
            self.projection.keep(nomination.holding())
            self._say(head, Reason.WAITING_FOR_PREEMPTED)
        elif self._overlaps(nomination) or not fits:
            self._say(head, Reason.WAITING_FOR_QUOTA)
        elif nomination.mode is Mode.PREEMPT:
            self._preempt(head)
        else:
            self._start(head)

    @property
    def _heeds_gates(self) -> bool:
        return self._gates.concurrent_admission or self._gates.orchestrated_preemption

    def _say(self, head: Head, reason: Reason) -> None:
        self.outcomes.verdicts[head.nomination.pending.key] = Verdict(reason)

    def _park(self, head: Head, reason: Reason, *, equals: bool = False) -> None:
        """It is not looked at until something changes; nor, with ``equals``, are those like it.

        A strict head stays where it is, and so does who has flavors left to try.
        """
        line, group = head.line, head.group
        parked = not line.strict and not head.nomination.assignment.unfinished
        pending = head.nomination.pending
        self.outcomes.verdicts[pending.key] = Verdict(reason, (), parked)
        if parked and equals:
            for rank in group.ranks[group.next + 1 :]:
                other = line.waiting[rank]
                if other.priority == pending.priority:
                    self.outcomes.verdicts[other.key] = Verdict(reason, (), parked)

    def _no_candidates(self, head: Head) -> None:
        """It keeps what it waits for in this cycle, unless its queue can take that back from anybody at any time."""
        nomination = head.nomination
        if head.line.queue.preemption.reclaim is not PreemptionPolicy.ANY:
            holding = nomination.holding()
            self.projection.keep(Holding(holding.node, reserve(nomination, self.projection.now), holding.taken))
        self._park(head, Reason.WAITING_FOR_QUOTA, equals=True)

    def _preempt(self, head: Head) -> None:
        nomination = head.nomination
        roster = self.nominator.roster
        self.projection.evict([(v, roster.holding(v.key)) for v in nomination.victims])
        self.projection.keep(nomination.holding())
        verdict = Verdict(Reason.WAITING_FOR_PREEMPTED, nomination.victims)
        self.outcomes.verdicts[nomination.pending.key] = verdict

    def _start(self, head: Head) -> None:
        nomination = head.nomination
        pending = nomination.pending
        if self._gates.concurrent_admission and (worse := variants.worse(self.world, pending)) is not None:
            self.projection.keep(nomination.holding())
            if variants.may_migrate(head.line.queue, pending):
                self.outcomes.verdicts[pending.key] = Verdict(Reason.WAITING_FOR_PREEMPTED, (worse,))
            else:
                self._park(head, Reason.PENDING_EVALUATION)
            return
        old = self.nominator.replaced(pending)
        if pending.replaces in self.projection.leaving:
            self._say(head, Reason.WAITING_FOR_PREEMPTED)
            return
        if old is not None:
            self.projection.finish(old)
            self.nominator.finish(pending.replaces)
        self.projection.admit(nomination.holding())
        self.outcomes.started.append(head)

    def _overlaps(self, nomination: Nomination) -> bool:
        gone, finished = self.projection.leaving, self.nominator.finished
        return any(v.key in gone or v.key in finished for v in nomination.victims)

    def _refresh(self, head: Head) -> bool:
        """Nominate anew what no longer holds after the heads before it; does it fit then?"""
        nomination = head.nomination
        if nomination.mode is Mode.NO_FIT:
            return False
        projection = self.projection
        quota, nodes = self._fits(nomination)
        overlaps = self._overlaps(nomination) and self._gates.recompute_overlapping
        if not overlaps and not (quota and not nodes and self._gates.recompute_placement):
            return quota and nodes
        state = projection.then if overlaps else projection.crowded
        roster = self.nominator.roster.without(projection.leaving) if overlaps else self.nominator.roster
        again = self.nominator.nominate(
            nomination.pending,
            head.group.plan,
            state,
            roster,
            nomination.pins() if nomination.assignment.need else None,
        )
        if overlaps and again.mode is Mode.FIT:
            again.mode = Mode.DEFERRED_FIT
        head.nomination = again
        return again.mode is not Mode.NO_FIT and all(self._fits(again))

    def _fits(self, nomination: Nomination) -> tuple[bool, bool]:
        """Quota and nodes once its victims, those of others and the slice that it replaces are gone."""
        roster, leaving = self.nominator.roster, self.projection.leaving
        gone = [roster.holding(v.key) for v in nomination.victims if v.key not in leaving]
        old = self.nominator.replaced(nomination.pending)
        if old is not None:
            gone.append(old)
        holding = nomination.holding()
        quota, nodes = self.projection.fits_then(holding, gone)
        if nomination.mode is Mode.FIT and quota:  # victims are still there
            quota = fits(self.projection.now, holding, () if old is None else (old,))[0]
        return quota, nodes

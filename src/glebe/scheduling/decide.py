"""``decide``: one decision for every pending workload of a snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from glebe.scheduling import explain
from glebe.scheduling.cycle.cycle import Admission, Cycle, Preempting
from glebe.scheduling.cycle.nominations import Nominator
from glebe.scheduling.cycle.onecycle import OneCycle, Verdict
from glebe.scheduling.cycle.order import Line, fork, lines, queue_key
from glebe.scheduling.cycle.reservation import Reservations, starts
from glebe.scheduling.cycle.secondpass import second_pass
from glebe.scheduling.foresight.holders import running
from glebe.scheduling.foresight.runtime import predicted_end
from glebe.scheduling.model import Decision, Outcome, Pending, Reason, Snapshot
from glebe.scheduling.never import Why
from glebe.scheduling.placement.fleet import Fleet
from glebe.scheduling.placement.placement import assignments, possible
from glebe.scheduling.preemption.roster import Roster
from glebe.scheduling.world import Holding, State, World


@dataclass(slots=True)
class Plateau:
    """Where things stand after the cycle: the world, its state, and who was admitted in which order."""

    world: World
    state: State
    lines: list[Line]
    admitted: list[Admission]
    holdings: dict[str, Holding]
    verdicts: dict[str, Verdict] = field(default_factory=dict)  # of the cycle, for some who did not start
    again: list[Decision] = field(default_factory=list)  # about running workloads that were looked at again
    preempting: list[Preempting] = field(default_factory=list)  # for whom others must leave
    through: bool = False  # everybody was looked at who could start
    reserved: dict[str, float] = field(default_factory=dict)  # reserved starts of blocked heads, by key

    def fork(self) -> Plateau:
        """The same standing, to go on from independently."""
        copies = [fork(line) for line in self.lines]
        state = self.state.copy()
        return replace(self, state=state, lines=copies, through=True)


def prepare(snapshot: Snapshot) -> Fleet:
    """Node arrays of a snapshot; pass them to ``decide`` and ``forecast`` as long as nodes and topologies stay."""
    return Fleet(snapshot.nodes, snapshot.topologies)


def decide(snapshot: Snapshot, now: float, *, fleet: Fleet | None = None, waits: bool = True) -> list[Decision]:
    """One ``Decision`` per pending workload: admissions first, in order, then the others by queue and place.

    Before them come those about running workloads that are looked at again (``Admitted.second_pass``).

    ``now`` is in seconds since the epoch: for protected minimum run times, lost work, and what messages say. Without
    ``waits``, decisions to wait are left out unless somebody has to leave: to explain them costs more than to decide.
    """
    plateau = settle(snapshot, fleet, now)
    return decisions(plateau, now, waits)


def decide_one_cycle(snapshot: Snapshot, now: float, *, fleet: Fleet | None = None) -> list[Decision]:
    """As ``decide``, but only one cycle of one head per queue, as Kueue does it; for comparison with its scenarios."""
    world = World(snapshot, fleet)
    state, holdings = world.state(snapshot.admitted)
    again = second_pass(world, state, holdings)
    queue_lines = lines(world, snapshot.pending, everybody=True)
    roster = Roster(world, snapshot.admitted, holdings, now, to_the_letter=True)
    nominator = Nominator(world, roster, holdings)
    outcomes = OneCycle(world, state, nominator).run(queue_lines)
    admitted = []
    for head in outcomes.started:
        found = head.nomination
        fewer = found.plan if found.plan is not head.group.plan else None
        admitted.append(Admission(head.line, head.group, head.group.head, found.fit, found.holding(), fewer))
        head.group.advance()
    return decisions(Plateau(world, state, queue_lines, admitted, holdings, outcomes.verdicts, again), now)


def settle(snapshot: Snapshot, fleet: Fleet | None = None, now: float | None = None) -> Plateau:
    """Phases 1-4: prepare, order, run the admission cycle to its end; nobody is preempted unless ``now`` is given."""
    world = World.kept(snapshot, fleet)
    state, holdings = world.state(snapshot.admitted)
    again = second_pass(world, state, holdings)
    queue_lines = lines(world, snapshot.pending)
    roster = Roster(world, snapshot.admitted if now is not None else (), holdings, now or 0.0)
    cycle = Cycle(world, state, queue_lines, Nominator(world, roster, holdings))
    if world.reserves and now is not None:
        ends = [(predicted_end(a.started_at, a.run_time, now), holdings[a.key]) for a in snapshot.admitted]
        cycle.reserves = Reservations(world, state, queue_lines, lambda: ends)
        cycle.reserves.begin(now)
    admitted = cycle.run()
    reserved = starts(cycle.reserves)
    return Plateau(
        world, state, queue_lines, admitted, holdings, cycle.verdicts, again, cycle.preempting, True, reserved
    )


def decisions(plateau: Plateau, now: float, waits: bool = True) -> list[Decision]:
    """Phase 5: explain; without ``waits`` only what is more than to wait for something."""
    admitted: dict[str, Admission | None] = {a.pending.key: a for a in plateau.admitted}
    result = [*plateau.again, *(admit(a, plateau.world.fleet) for a in plateau.admitted)]
    listed = running(plateau.world, plateau.holdings, plateau.admitted, now)
    explainer = explain.Explainer(plateau.world, plateau.state, plateau.lines, listed, now, plateau.preempting)
    if not waits:
        admitted.update(dict.fromkeys(_merely_waiting(plateau)))
    for key, found in plateau.verdicts.items():
        if found.victims and key not in admitted:
            result.append(explain.preempting(key, found))
            admitted[key] = None
    for pending, why, parked in _others(plateau, admitted, explainer):
        verdict = plateau.verdicts.get(pending.key)
        if verdict is None:
            result.append(Decision(pending.key, why.outcome, why.reason, why.message, why.remedy, parked=parked))
        else:
            result.append(explain.verdict(pending, verdict, why))
    return result


def admit(admission: Admission, fleet: Fleet) -> Decision:
    placed = assignments(admission.plan, admission.fit, fleet)
    pending = admission.pending
    said = explain.admitted(admission, fleet)
    return Decision(pending.key, Outcome.ADMIT, Reason.ADMITTED, said, "", placed, replaces=pending.replaces)


def _merely_waiting(plateau: Plateau) -> Iterable[str]:
    """Keys of those in line who could start one day, and for whom nobody leaves."""
    hopeful: dict[int, bool] = {}
    for line in plateau.lines:
        for pending, group in zip(line.waiting, line.group_of, strict=True):
            found = plateau.verdicts.get(pending.key)
            if found is not None and found.victims:
                continue
            plan = group.plan
            if id(plan) not in hopeful:
                hopeful[id(plan)] = possible(plan, plateau.world)
            if hopeful[id(plan)]:
                yield pending.key


def _others(
    plateau: Plateau, admitted: Mapping[str, Admission | None], explainer: explain.Explainer
) -> Iterable[tuple[Pending, Why, bool]]:
    """Who was not ``admitted`` (or is left out for another reason), why, and whether it is parked."""
    in_line = {p.key for line in plateau.lines for p in line.waiting}
    for pending in sorted(plateau.world.snapshot.pending, key=lambda p: (p.queue, *queue_key(p))):
        if pending.key not in in_line:
            yield pending, explainer.unqueued(pending), False
    kept = {id(p.line) for p in plateau.preempting}
    for line in plateau.lines:
        parked = plateau.through and not line.strict and id(line) not in kept
        for rank, pending in enumerate(line.waiting):
            if pending.key not in admitted:
                yield pending, explainer.waiting(line, rank), parked

"""What a cycle intends with one workload: its flavors, who must leave for it, and what it will then hold.

As Kueue nominates: all pods where they fit; else all pods with preemption; else, if the pod sets allow for fewer pods
(partial admission, KEP-420), the largest counts with either. A slice of an elastic workload is judged as if the slice
that it replaces had left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from glebe.scheduling.flavoring.assign import Allowed, Assignment, Mode, Oracle, Rank, Standing, assign
from glebe.scheduling.model import Pending, Victim
from glebe.scheduling.placement.placement import Fit, placed
from glebe.scheduling.placement.placement import holding as holding_of
from glebe.scheduling.placement.placing import NO_PREVIOUS, Previous
from glebe.scheduling.preemption.oracle import Possibility, possibility
from glebe.scheduling.preemption.roster import Roster
from glebe.scheduling.preemption.search import Want, victims
from glebe.scheduling.quotas.quota import Need
from glebe.scheduling.world import Holding, Plan, State, World

STANDINGS = {
    Possibility.NO_CANDIDATES: Standing.NO_CANDIDATES,
    Possibility.PREEMPT: Standing.PREEMPT,
    Possibility.RECLAIM: Standing.RECLAIM,
}
NOTHING = Holding(-1, (), ())
Pins = tuple[Mapping[str, str], ...]  # flavor by resource, by pod set


@dataclass(slots=True)
class Nomination:
    """``spots`` of a preemptor are those that it has once its victims are gone (without victims: on empty nodes)."""

    pending: Pending
    assignment: Assignment
    victims: tuple[Victim, ...] = ()
    mode: Mode = Mode.NO_FIT

    @property
    def plan(self) -> Plan:
        return self.assignment.plan

    @property
    def fit(self) -> Fit:
        a = self.assignment
        return Fit(a.choice, a.need, a.spots if a.spots is not None else tuple(() for _ in a.choice))

    def holding(self) -> Holding:
        """What it will hold, as far as that is known."""
        return holding_of(self.plan, self.fit)

    def pins(self) -> Pins:
        """Its flavors, to stay with them when it is nominated again in the same cycle."""
        return tuple({r: p.flavor for r, p in by_resource.items()} for by_resource in self.assignment.picks)


class Nominator:
    """Nominates on states of one world. ``roster``: who could be preempted; ``holdings``: what runs, by key.

    ``finished`` are slices that have been replaced since: what they held is gone, and so are they.
    """

    def __init__(self, world: World, roster: Roster, holdings: MutableMapping[str, Holding]) -> None:
        self.world = world
        self.finished: dict[str, Holding] = {}
        self.roster = roster.beside(self.finished)
        self.holdings = holdings

    def replaced(self, pending: Pending) -> Holding | None:
        """What the slice holds that the workload replaces, if it still runs."""
        key = pending.replaces
        return self.holdings.get(key) if key and key not in self.finished else None

    def finish(self, key: str) -> None:
        """A slice has been replaced."""
        self.finished[key] = NOTHING
        self.holdings[key] = NOTHING

    def nominate(
        self, pending: Pending, plan: Plan, state: State, roster: Roster | None = None, pins: Pins | None = None
    ) -> Nomination:
        """On ``state``, which stays as it is; only with the flavors of ``pins``, if those are given."""
        roster = self.roster if roster is None else roster
        old = self.replaced(pending)
        if old is None:
            return self._nominate(pending, plan, state, roster, self._allowed(pending, plan, pins))
        with _absent(state, old):
            rest = roster.without((pending.replaces,))
            return self._nominate(pending, plan, state, rest, self._allowed(pending, plan, pins))

    def assigned(self, pending: Pending, plan: Plan, state: State, oracle: Oracle) -> Assignment:
        """Only the search for flavors, with what an oracle says of preemption."""
        old = self.replaced(pending)
        with _absent(state, *(() if old is None else (old,))):
            return assign(plan, state, self.world, oracle, self._allowed(pending, plan, None))

    def _nominate(
        self, pending: Pending, plan: Plan, state: State, roster: Roster, allowed: Allowed | None
    ) -> Nomination:
        full = self._try(pending, plan, state, roster, allowed)
        if full.mode is Mode.FIT or full.victims:
            return full
        fewer = self._fewer(pending, plan, state, roster, allowed) if reducible(plan) else None
        if fewer is not None:
            return fewer
        if full.mode is Mode.PREEMPT and full.assignment.placed:
            a = full.assignment
            a.spots = a.nodes(self.world.idle, self.world)
        return full

    def _try(self, pending: Pending, plan: Plan, state: State, roster: Roster, allowed: Allowed | None) -> Nomination:
        oracle = self._oracle(pending, plan, state, roster)
        found = assign(plan, state, self.world, oracle, allowed, self._previous(pending))
        if found.mode is not Mode.PREEMPT:
            return Nomination(pending, found, (), found.mode)
        leaving = self._victims(pending, found, state, roster)
        if leaving and found.placed:
            with _absent(state, *(roster.holding(v.key) for v in leaving)):
                found.spots = found.nodes(state, self.world)
        return Nomination(pending, found, leaving, found.mode)

    def _victims(self, pending: Pending, a: Assignment, state: State, roster: Roster) -> tuple[Victim, ...]:
        world = self.world

        def places(tried: State) -> bool:
            if a.previous:
                return a.nodes(tried, world) is not None
            return placed(a.plan, a.choice, world, tried)

        asked = places if a.placed else None
        return victims(world, state, roster, Want(pending, a.plan.node, a.need, a.short(world), asked))

    def _oracle(self, pending: Pending, plan: Plan, state: State, roster: Roster) -> Oracle:
        def ask(cell: int, amount: int) -> Rank:
            said = possibility(self.world, state, roster, pending, plan.node, cell, amount)
            return Rank(STANDINGS[said.possibility], said.level)

        return ask

    def _fewer(
        self, pending: Pending, plan: Plan, state: State, roster: Roster, allowed: Allowed | None
    ) -> Nomination | None:
        """The largest counts that fit or can preempt, by bisection between all pods and the least."""
        sets = [s.pod_set for s in plan.sets]
        spare = [s.count - (s.count if s.min_count is None else min(s.min_count, s.count)) for s in sets]
        most = sum(spare)
        found: dict[int, Nomination] = {}
        low, high = 0, most + 1
        while low < high:
            step = (low + high) // 2
            counts = [s.count - d * step // most for s, d in zip(sets, spare, strict=True)]
            smaller = tuple(replace(s, count=n) for s, n in zip(sets, counts, strict=True))
            tried = self._try(pending, self.world.plan(plan.queue, smaller), state, roster, allowed)
            if tried.mode is Mode.FIT or tried.victims:
                found[step] = tried
                high = step
            else:
                low = step + 1
        return found.get(low)

    def _allowed(self, pending: Pending, plan: Plan, pins: Pins | None) -> Allowed | None:
        """Which flavors the workload may have: those it is bound to, those of the old slice, those pinned."""
        bound = frozenset(pending.flavors)
        old = self._flavors_of(pending.replaces, plan) if pending.replaces else None
        if not bound and old is None and pins is None:
            return None

        def allowed(i: int, resource: str, flavor: str) -> bool:
            if bound and flavor not in bound:
                return False
            if old is not None and old[i].get(resource, flavor) != flavor:
                return False
            return pins is None or pins[i].get(resource) == flavor

        return allowed

    def _previous(self, pending: Pending) -> Previous:
        """Where the pods of the slice that it replaces are: they stay."""
        if not pending.replaces or not self.world.snapshot.gates.elastic_with_topology:
            return NO_PREVIOUS
        old = next((a for a in self.world.snapshot.admitted if a.key == pending.replaces), None)
        index = self.world.fleet.index
        return {
            a.pod_set: tuple((index.get(node, -1), pods) for node, pods in a.nodes)
            for a in (old.assignments if old is not None else ())
            if a.nodes
        }

    def _flavors_of(self, key: str, plan: Plan) -> Pins | None:
        admitted = next((a for a in self.world.snapshot.admitted if a.key == key), None)
        if admitted is None:
            return None
        by_set = {a.pod_set: a.flavors for a in admitted.assignments}
        return tuple(by_set.get(s.pod_set.name, {}) for s in plan.sets)


def reducible(plan: Plan) -> bool:
    """Would fewer pods do?"""
    return any(s.pod_set.min_count is not None and s.pod_set.min_count < s.pod_set.count for s in plan.sets)


def reserve(nomination: Nomination, state: State) -> Need:
    """What a preemptor without victims keeps of what it waits for: what it could have without preemption.

    Within its queue's nominal quota that is what is unused of it; if it has to borrow, what it may borrow.
    """
    a = nomination.assignment
    if a.mode is not Mode.PREEMPT:
        return a.need
    quotas, tree, node = state.quotas, state.quotas.tree, nomination.plan.node
    kept = []
    for cell, amount in a.need:
        nominal, used = tree.nominal[node][cell], quotas.usage[node][cell]
        limit = tree.borrowing_limit[node][cell]
        if a.level == 0:
            kept.append((cell, max(0, min(amount, nominal - used))))
        else:
            kept.append((cell, amount if limit is None else max(0, min(amount, nominal + limit - used))))
    return tuple((c, n) for c, n in kept if n > 0)


@contextmanager
def _absent(state: State, *holdings: Holding) -> Iterator[None]:
    """``state`` without some holdings for the moment."""
    for holding in holdings:
        state.release(holding)
    try:
        yield
    finally:
        for holding in reversed(holdings):
            state.hold(holding)

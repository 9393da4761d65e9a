"""The search for victims, by the rules of the preemptor's root cohort."""

from __future__ import annotations

from glebe.scheduling.model import Victim
from glebe.scheduling.preemption.classical import classical
from glebe.scheduling.preemption.cycles import returned
from glebe.scheduling.preemption.fair import fair
from glebe.scheduling.preemption.roster import Roster
from glebe.scheduling.preemption.trial import Want
from glebe.scheduling.quotas.sharing import fair_sharing
from glebe.scheduling.world import State, World

__all__ = ["Want", "fair_sharing", "victims"]

NOBODY: frozenset[str] = frozenset()


def victims(world: World, state: State, roster: Roster, want: Want) -> tuple[Victim, ...]:
    """Who must leave, minimal; empty if nobody's leaving makes the workload fit. The state is as before afterwards.

    Nobody is among them who could preempt this workload in return.
    """
    quotas, root = state.quotas, world.tree.top[want.node]
    version = quotas.version[root]
    if want.places is not None:
        return _search(world, state, roster, want)
    asked = (want.pending.key, want.node, want.need, want.short, quotas, version, roster.gone)
    known = roster.answers.get(asked)  # the oracle asks for what is then sought
    if known is None:
        known = roster.answers[asked] = _search(world, state, roster, want)
    return known


def _search(world: World, state: State, roster: Roster, want: Want) -> tuple[Victim, ...]:
    quotas, root = state.quotas, world.tree.top[want.node]
    version = quotas.version[root]
    if roster.to_the_letter:
        found = _by_rules(world, state, roster, want)
        quotas.is_again(root, version)
        return found
    if ahead := roster.preemptors_of(want.pending):
        roster = roster.without(ahead)
    while True:
        found = _by_rules(world, state, roster, want)
        guilty = returned(world, state, roster, want, found, _by_rules) if found else NOBODY
        quotas.is_again(root, version)
        if not guilty:
            return found
        roster = roster.without(guilty)


def _by_rules(world: World, state: State, roster: Roster, want: Want) -> tuple[Victim, ...]:
    sharing = fair_sharing(world, want.node)
    if sharing is not None:
        return fair(world, state, roster, want, sharing)
    return classical(world, state, roster, want)

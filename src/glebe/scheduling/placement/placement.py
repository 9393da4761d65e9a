"""Does a workload fit into a state, with which flavors, and on which nodes? A gang fits whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from glebe.scheduling.flavoring.flavors import Option
from glebe.scheduling.model import PodSetAssignment, TryNext
from glebe.scheduling.placement.fleet import Fleet
from glebe.scheduling.placement.placing import NO_PREVIOUS, Choice, Previous, Spots, place, placeable, placed
from glebe.scheduling.quotas.quota import Cell, Need
from glebe.scheduling.world import Holding, Plan, State, World

__all__ = ["Choice", "Fit", "Previous", "Spots", "find", "nominate", "place", "placeable", "placed", "possible"]
MAX_STEPS = 256  # of the search over flavor combinations of several pod sets


class Fit(NamedTuple):
    """One option per pod set, and the nodes of each (empty where the core places no pods)."""

    choice: Choice
    need: Need
    spots: Spots


def nominate(plan: Plan, state: State, world: World) -> Choice | None:
    """The first choice of flavors with which the workload fits now, or ``None``.

    In a queue that borrows last it is the first of those that borrow least.
    """
    if not plan.simple:
        fit = find(plan, state, world)
        return fit.choice if fit else None
    quotas, node = state.quotas, plan.node
    only = plan.sets[0]
    for option in _in_turn(plan, (), only.options, state):
        for cell, amount in option.need:
            if amount > quotas.available(node, cell):
                break
        else:
            if placeable(only, option, state, world):
                return (option,)
    return None


def _in_turn(plan: Plan, chosen: Choice, options: tuple[Option, ...], state: State) -> Sequence[Option]:
    """The order in which a pod set's options are tried after the choice for those before it."""
    if plan.queue.fungibility.when_can_borrow is TryNext.STOP or len(options) < 2:
        return options
    return sorted(options, key=lambda o: state.quotas.borrowing_level(plan.node, total_need((*chosen, o))))


def possible(plan: Plan, world: World) -> bool:
    """Would it start on an empty fleet with nothing in use, with the fewest pods that do? If not: never."""
    if plan.possible is None:
        plan.possible = nominate(plan, world.pristine, world) is not None or _with_fewest(plan, world)
    return plan.possible


def _with_fewest(plan: Plan, world: World) -> bool:
    sets = tuple(s.pod_set for s in plan.sets)
    fewest = tuple(s if s.min_count is None else replace(s, count=min(s.count, s.min_count)) for s in sets)
    return fewest != sets and nominate(world.plan(plan.queue, fewest), world.pristine, world) is not None


def find(
    plan: Plan, state: State, world: World, choice: Choice | None = None, previous: Previous = NO_PREVIOUS
) -> Fit | None:
    """Flavors and nodes for the whole workload; only with the flavors of ``choice`` if that is given.

    ``previous``: nodes of the replaced slice of an elastic workload, with a ``choice``; the slice holds nothing.
    """
    if choice is not None:
        need = total_need(choice)
        if not state.quotas.fits(plan.node, need):
            return None
        spots = place(plan, choice, state, world, previous)
        return None if spots is None else Fit(choice, need, spots)
    budget = [MAX_STEPS]
    return _search(plan, state, world, (), budget)


def _search(plan: Plan, state: State, world: World, chosen: Choice, budget: list[int]) -> Fit | None:
    if len(chosen) == len(plan.sets):
        return find(plan, state, world, chosen)
    this = plan.sets[len(chosen)]
    for option in _in_turn(plan, chosen, this.options, state):
        budget[0] -= 1
        if budget[0] < 0:
            return None
        longer = (*chosen, option)
        if this.pod_set.topology is not None and not _with_its_group(plan, longer):
            continue
        if not state.quotas.fits(plan.node, total_need(longer)) or not placeable(this, option, state, world):
            continue
        found = _search(plan, state, world, longer, budget)
        if found is not None:
            return found
    return None


def total_need(choice: Choice) -> Need:
    if len(choice) == 1:
        return choice[0].need
    total: dict[Cell, int] = {}
    for option in choice:
        for cell, amount in option.need:
            total[cell] = total.get(cell, 0) + amount
    return tuple(sorted(total.items()))


def _with_its_group(plan: Plan, chosen: Choice) -> bool:
    """Has the last of ``chosen`` the flavors of its group's other pod set, if that is chosen?"""
    this = plan.sets[len(chosen) - 1].pod_set.topology
    if this is None or not this.group:
        return True
    mine = chosen[-1]
    for other, option in zip(plan.sets, chosen[:-1], strict=False):
        if other.pod_set.topology is not None and other.pod_set.topology.group == this.group:
            shared = mine.flavors.keys() & option.flavors.keys()
            return mine.kind.topology == option.kind.topology and all(
                mine.flavors[r] == option.flavors[r] for r in shared
            )
    return True


def holding(plan: Plan, fit: Fit) -> Holding:
    """What the workload will hold once it is admitted."""
    taken = tuple((o.shape, s) for o, s in zip(fit.choice, fit.spots, strict=True) if s and o.shape is not None)
    return Holding(plan.node, fit.need, taken)


def assignments(plan: Plan, fit: Fit, fleet: Fleet) -> tuple[PodSetAssignment, ...]:
    """The fit in the words of the model."""
    return tuple(
        PodSetAssignment(
            pod_set=this.pod_set.name,
            count=this.pod_set.count,
            flavors=option.flavors,
            usage=this.usage,
            nodes=tuple((fleet.nodes[n].name, pods) for n, pods in spots),
            delayed="Pending" if option.delayed else "",
        )
        for this, option, spots in zip(plan.sets, fit.choice, fit.spots, strict=True)
    )

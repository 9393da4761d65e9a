"""Does a workload fit into a state, with which flavors, and on which nodes? A gang fits whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from glebe.scheduling.capacity import Spot
from glebe.scheduling.flavors import Option, SetPlan
from glebe.scheduling.fleet import Fleet
from glebe.scheduling.model import PodSetAssignment
from glebe.scheduling.quota import Cell, Need
from glebe.scheduling.topology import choose, holds
from glebe.scheduling.world import Holding, Plan, State, World

MAX_STEPS = 256  # of the search over flavor combinations of several pod sets
Choice = tuple[Option, ...]
Spots = tuple[tuple[Spot, ...], ...]


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
    if not plan.queue.borrow_last or len(options) < 2:
        return options
    return sorted(options, key=lambda o: state.quotas.borrowing_level(plan.node, total_need((*chosen, o))))


def possible(plan: Plan, world: World) -> bool:
    """Would it start on an empty fleet with nothing in use? If not: never."""
    if plan.possible is None:
        plan.possible = nominate(plan, world.pristine, world) is not None
    return plan.possible


def placeable(plan: SetPlan, option: Option, state: State, world: World) -> bool:
    """Can the nodes take this one pod set?"""
    if option.ask is None:
        return _some_node_is_large_enough(option, world)
    if option.shape is None:
        return False
    nodes = state.nodes
    known = nodes.known(option.ask_number)
    if known is not None:
        return known
    answer = holds(nodes.table(option.slot, option.kind, option.shape), option.ask, plan.pod_set.count)
    nodes.answers[option.ask_number] = (len(nodes.changed), answer)
    return answer


def _some_node_is_large_enough(option: Option, world: World) -> bool:
    """For pods that the core does not place. A flavor without any node says nothing: nodes may come on demand."""
    arrangement = world.fleet.arrangement(option.kind)
    if not len(arrangement.nodes):
        return True
    if option.shape is None:
        return False
    table = world.pristine.nodes.table(option.slot, option.kind, option.shape)
    return table.most(table.levels - 1) > 0


def find(plan: Plan, state: State, world: World, choice: Choice | None = None) -> Fit | None:
    """Flavors and nodes for the whole workload; only with the flavors of ``choice`` if that is given."""
    if choice is not None:
        need = total_need(choice)
        if not state.quotas.fits(plan.node, need):
            return None
        spots = _place(plan, choice, state, world)
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


def _place(plan: Plan, choice: Choice, state: State, world: World) -> Spots | None:
    """Nodes for every pod set, each seeing what the ones before took. The state is as before afterwards."""
    given = range(len(choice))
    spots = _place_in_order(plan, choice, state, world, tuple(given))
    if spots is None and len(choice) > 1:
        hardest = tuple(sorted(given, key=lambda i: _hardness(plan.sets[i], choice[i])))
        spots = _place_in_order(plan, choice, state, world, hardest)
    return spots


def _hardness(plan: SetPlan, option: Option) -> tuple[bool, int, int]:
    required = option.ask is not None and option.ask.required
    return (not required, -max(option.shape or (0,)), -plan.pod_set.count)


def _place_in_order(plan: Plan, choice: Choice, state: State, world: World, order: tuple[int, ...]) -> Spots | None:
    spots: list[tuple[Spot, ...]] = [()] * len(choice)
    held: list[int] = []
    nodes = state.nodes
    complete = True
    for i in order:
        option, this = choice[i], plan.sets[i]
        if option.ask is None:
            complete = _some_node_is_large_enough(option, world)
        elif option.shape is None:
            complete = False
        else:
            found = choose(nodes.table(option.slot, option.kind, option.shape), option.ask, this.pod_set.count)
            complete = found is not None
            if found is not None:
                spots[i] = found
                if len(order) > 1:
                    nodes.take(option.shape, found)
                    held.append(i)
        if not complete:
            break
    for i in held:
        nodes.give(choice[i].shape or (), spots[i])
    return tuple(spots) if complete else None


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
        )
        for this, option, spots in zip(plan.sets, fit.choice, fit.spots, strict=True)
    )

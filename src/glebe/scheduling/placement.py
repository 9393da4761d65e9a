"""Does a workload fit into a state, with which flavors, and on which nodes? A gang fits whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from glebe.scheduling import slices
from glebe.scheduling.capacity import NodeState, Spot
from glebe.scheduling.flavors import Option, SetPlan
from glebe.scheduling.fleet import Fleet
from glebe.scheduling.model import PodSetAssignment, TryNext
from glebe.scheduling.quota import Cell, Need
from glebe.scheduling.refine import units
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
    if plan.queue.fungibility.when_can_borrow is TryNext.STOP or len(options) < 2:
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
    fits = slices.holds if option.ask.layers else holds
    answer = fits(nodes.table(option.slot, option.kind, option.shape), option.ask, plan.pod_set.count)
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


def _place(plan: Plan, choice: Choice, state: State, world: World) -> Spots | None:
    """Nodes for every pod set, each seeing what the ones before took. The state is as before afterwards."""
    if len(choice) == 1:
        return _place_in_order(plan, choice, state, world, ((0,),))
    given = units(plan.sets)
    spots = _place_in_order(plan, choice, state, world, given)
    if spots is None and len(given) > 1:
        hardest = tuple(sorted(given, key=lambda unit: _hardness(plan.sets[unit[0]], choice[unit[0]])))
        spots = _place_in_order(plan, choice, state, world, hardest)
    return spots


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


def _hardness(plan: SetPlan, option: Option) -> tuple[bool, int, int]:
    required = option.ask is not None and option.ask.required
    return (not required, -max(option.shape or (0,)), -plan.pod_set.count)


def _place_in_order(
    plan: Plan, choice: Choice, state: State, world: World, order: tuple[tuple[int, ...], ...]
) -> Spots | None:
    spots: list[tuple[Spot, ...]] = [()] * len(choice)
    held: list[int] = []
    nodes = state.nodes
    complete = True
    for unit in order:
        if len(unit) == 1:
            found = _place_one(plan.sets[unit[0]], choice[unit[0]], nodes, world)
        else:
            found = _place_group(plan, choice, nodes, *unit)
        complete = found is not None
        if found is None:
            break
        for i, where in zip(unit, found, strict=True):
            spots[i] = where
            if len(choice) > 1 and where:
                nodes.take(choice[i].shape or (), where)
                held.append(i)
    for i in held:
        nodes.give(choice[i].shape or (), spots[i])
    return tuple(spots) if complete else None


def _place_one(this: SetPlan, option: Option, nodes: NodeState, world: World) -> Spots | None:
    if option.ask is None:
        return ((),) if _some_node_is_large_enough(option, world) else None
    if option.shape is None:
        return None
    table = nodes.table(option.slot, option.kind, option.shape)
    if not option.ask.layers:
        found = choose(table, option.ask, this.pod_set.count)
        return None if found is None else (found,)
    placed = slices.choose(table, option.ask, this.pod_set.count)
    return None if placed is None else (placed.spots,)


def _place_group(plan: Plan, choice: Choice, nodes: NodeState, workers: int, leader: int) -> Spots | None:
    """A leader with its workers, as the workers ask."""
    mine, its = choice[workers], choice[leader]
    if mine.ask is None or mine.shape is None or its.shape is None:
        return None
    table = nodes.table(mine.slot, mine.kind, mine.shape)
    allowed = nodes.fleet.arrangement(its.kind)
    lead = slices.lead(nodes, table.arrangement, mine.shape, its.shape, allowed)
    placed = slices.choose(table, mine.ask, plan.sets[workers].pod_set.count, lead)
    return None if placed is None else (placed.spots, ((placed.leader, plan.sets[leader].pod_set.count),))


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

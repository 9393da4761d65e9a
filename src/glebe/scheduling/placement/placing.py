"""Nodes for the pods of a whole workload whose flavors are chosen: all of them or none.

Pod sets are placed one after the other, each seeing what the ones before took; a leader and its workers in one go. A
slice of an elastic workload keeps the nodes of the slice that it replaces: only what it adds is placed anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from glebe.scheduling.flavoring.flavors import Option, SetPlan
from glebe.scheduling.placement import slices
from glebe.scheduling.placement.capacity import NodeState, Shape, Spot
from glebe.scheduling.placement.refine import units
from glebe.scheduling.placement.replacement import domain
from glebe.scheduling.placement.topology import choose, holds
from glebe.scheduling.world import Plan, State, World

Choice = tuple[Option, ...]
Spots = tuple[tuple[Spot, ...], ...]
Previous = Mapping[str, tuple[Spot, ...]]  # by pod set: the nodes of the slice that is replaced, in rank order
NO_PREVIOUS: Previous = MappingProxyType({})


def place(plan: Plan, choice: Choice, state: State, world: World, previous: Previous = NO_PREVIOUS) -> Spots | None:
    """Nodes for every pod set, or ``None``. The state is as before afterwards; quota is not looked at."""
    if len(choice) == 1:
        return _in_order(plan, choice, state, world, ((0,),), previous)
    given = units(plan.sets)
    spots = _in_order(plan, choice, state, world, given, previous)
    if spots is None and len(given) > 1:
        hardest = tuple(sorted(given, key=lambda unit: _hardness(plan.sets[unit[0]], choice[unit[0]])))
        spots = _in_order(plan, choice, state, world, hardest, previous)
    return spots


def placed(plan: Plan, choice: Choice, world: World, state: State) -> bool:
    """Would ``place`` find nodes? As fast as that can be said."""
    if not all(placeable(this, option, state, world) for this, option in zip(plan.sets, choice, strict=True)):
        return False
    return len(choice) == 1 or place(plan, choice, state, world) is not None


def still_fits(choice: Choice, spots: Spots, state: State) -> bool:
    """Are the very nodes that were found earlier still free for all pods together?"""
    need: dict[int, list[int]] = {}
    for option, where in zip(choice, spots, strict=True):
        for node, pods in where:
            row = need.setdefault(node, [0] * state.nodes.width)
            for column, amount in enumerate(option.shape or ()):
                row[column] += amount * pods
    return all(
        amount <= state.nodes.free[node][column] or not amount
        for node, row in need.items()
        for column, amount in enumerate(row)
    )


def placeable(plan: SetPlan, option: Option, state: State, world: World) -> bool:
    """Can the nodes take this one pod set?"""
    if option.ask is None:
        return option.delayed or _some_node_is_large_enough(option, world)
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


def _hardness(plan: SetPlan, option: Option) -> tuple[bool, int, int]:
    required = option.ask is not None and option.ask.required
    return (not required, -max(option.shape or (0,)), -plan.pod_set.count)


def _in_order(
    plan: Plan, choice: Choice, state: State, world: World, order: tuple[tuple[int, ...], ...], previous: Previous
) -> Spots | None:
    spots: list[tuple[Spot, ...]] = [()] * len(choice)
    held: list[int] = []
    nodes = state.nodes
    complete = True
    for unit in order:
        found = _unit(plan, choice, nodes, world, unit, previous)
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


def _unit(
    plan: Plan, choice: Choice, nodes: NodeState, world: World, unit: tuple[int, ...], previous: Previous
) -> Spots | None:
    if previous:
        kept = _kept(plan, choice, nodes, unit, previous)
        if kept is not None:
            return _grown(plan, choice, nodes, world, unit, kept)
    if len(unit) == 1:
        return _one(choice[unit[0]], plan.sets[unit[0]].pod_set.count, nodes, world)
    return _group(choice, nodes, unit, (plan.sets[unit[0]].pod_set.count, plan.sets[unit[1]].pod_set.count))


def _one(option: Option, count: int, nodes: NodeState, world: World) -> Spots | None:
    if option.ask is None:
        return ((),) if option.delayed or _some_node_is_large_enough(option, world) else None
    if option.shape is None:
        return None
    table = nodes.table(option.slot, option.kind, option.shape)
    if not option.ask.special:
        found = choose(table, option.ask, count)
        return None if found is None else (found,)
    sliced = slices.choose(table, option.ask, count)
    return None if sliced is None else (sliced.spots,)


def _group(choice: Choice, nodes: NodeState, unit: tuple[int, ...], counts: tuple[int, ...]) -> Spots | None:
    """A leader with its workers, as the workers ask; ``unit`` and ``counts`` with the workers first."""
    mine, its = choice[unit[0]], choice[unit[1]]
    if mine.delayed and its.delayed:
        return (), ()
    if mine.ask is None or mine.shape is None or its.shape is None:
        return None
    table = nodes.table(mine.slot, mine.kind, mine.shape)
    lead = slices.lead(nodes, mine.kind, mine.shape, its.kind, its.shape)
    found = slices.choose(table, mine.ask, counts[0], lead)
    return None if found is None else (found.spots, ((found.leader, counts[1]),))


def _kept(plan: Plan, choice: Choice, nodes: NodeState, unit: tuple[int, ...], previous: Previous) -> Spots | None:
    """The nodes that the pod sets of a unit keep, no more than their pods need; ``None``: all are placed anew."""
    if plan.sets[unit[0]].pod_set.name not in previous:
        return None
    found: list[tuple[Spot, ...]] = []
    for i in unit:
        before = previous.get(plan.sets[i].pod_set.name, ())
        option = choice[i]
        if option.ask is None:
            return None
        position = nodes.fleet.arrangement(option.kind).position_list
        if any(node < 0 or position[node] < 0 for node, _ in before):
            return None  # one of them is gone, or is no node for these pods any more
        found.append(_first(before, plan.sets[i].pod_set.count))
    return tuple(found)


def _first(spots: tuple[Spot, ...], count: int) -> tuple[Spot, ...]:
    """The nodes of the first ``count`` ranks."""
    out: list[Spot] = []
    for node, pods in spots:
        if count > 0:
            out.append((node, min(pods, count)))
        count -= pods
    return tuple(out)


def _grown(
    plan: Plan, choice: Choice, nodes: NodeState, world: World, unit: tuple[int, ...], kept: Spots
) -> Spots | None:
    """What is kept, and nodes for the pods beyond it, which have the last ranks."""
    shapes: list[Shape] = [choice[i].shape or () for i in unit]
    for shape, where in zip(shapes, kept, strict=True):
        nodes.take(shape, where)
    missing = [plan.sets[i].pod_set.count - sum(pods for _, pods in k) for i, k in zip(unit, kept, strict=True)]
    more: list[tuple[Spot, ...] | None]
    if len(unit) == 2 and missing[0] and missing[1]:
        more = list(_group(choice, nodes, unit, tuple(missing)) or (None,))
    else:
        more = [
            _beyond(choice[i], count, where, nodes, world) if count else ()
            for i, count, where in zip(unit, missing, kept, strict=True)
        ]
    for shape, where in zip(shapes, kept, strict=True):
        nodes.give(shape, where)
    added = [m for m in more if m is not None]
    return tuple(joined(k, m) for k, m in zip(kept, added, strict=True)) if len(added) == len(kept) else None


def _beyond(
    option: Option, count: int, kept: tuple[Spot, ...], nodes: NodeState, world: World
) -> tuple[Spot, ...] | None:
    """Nodes for ``count`` more pods; a required domain is that of the pods that are there."""
    if option.ask is None or option.shape is None or not (option.ask.required and kept):
        found = _one(option, count, nodes, world)
        return None if found is None else found[0]
    table = nodes.table(option.slot, option.kind, option.shape)
    inside = np.zeros(len(table.arrangement.nodes), dtype=np.int64)
    first, end = domain(table, option.ask.level, kept[0][0])
    inside[first:end] = 1
    sliced = slices.choose(table, option.ask, count, inside=inside)
    return None if sliced is None else sliced.spots


def joined(kept: tuple[Spot, ...], more: tuple[Spot, ...]) -> tuple[Spot, ...]:
    """One list of nodes in rank order: pods that are on one node one after the other are one entry."""
    out: list[Spot] = []
    for node, pods in (*kept, *more):
        if out and out[-1][0] == node:
            out[-1] = (node, out[-1][1] + pods)
        else:
            out.append((node, pods))
    return tuple(out)

"""What pod sets add to their options where they are placed: required node affinity, slices, leaders with workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from glebe.scheduling.flavors import Option, SetPlan
from glebe.scheduling.fleet import Fleet
from glebe.scheduling.model import TopologyMode, TopologyRequest
from glebe.scheduling.topology import Ask


def refine(sets: Sequence[SetPlan], fleet: Fleet) -> tuple[SetPlan, ...]:
    """The same pod sets with what their requests add; options that cannot be are refused with a reason."""
    grouped = _fault_of_groups(sets)
    return tuple(_refine(s, fleet, grouped) for s in sets)


def units(sets: Sequence[SetPlan]) -> tuple[tuple[int, ...], ...]:
    """What is placed in one go, in order: one pod set, or (workers, leader) of a group."""
    members: dict[str | int, tuple[int, ...]] = {}
    for i, this in enumerate(sets):
        name = _group(this) or i
        members[name] = (*members.get(name, ()), i)
    return tuple(_workers_first(sets, unit) for unit in members.values())


def _workers_first(sets: Sequence[SetPlan], unit: tuple[int, ...]) -> tuple[int, ...]:
    if len(unit) == 2 and sets[unit[1]].pod_set.count > sets[unit[0]].pod_set.count:
        return unit[1], unit[0]
    return unit


def _group(this: SetPlan) -> str:
    return this.pod_set.topology.group if this.pod_set.topology is not None else ""


def _fault_of_groups(sets: Sequence[SetPlan]) -> str:
    counts: dict[str, list[int]] = {}
    for this in sets:
        if name := _group(this):
            counts.setdefault(name, []).append(this.pod_set.count)
    for name, pods in counts.items():
        if len(pods) != 2 or 1 not in pods:
            return f"pod set group {name} must be two pod sets, one of them of one pod"
    return ""


def _refine(this: SetPlan, fleet: Fleet, fault: str) -> SetPlan:
    request = this.pod_set.topology
    cut = request is not None and bool(request.slices or request.group)
    if not (cut or this.pod_set.affinity):
        return this
    options, refused = [], list(this.refused)
    for given in this.options:
        option = _with_affinity(given, this, fleet)
        found: Option | str = option
        if cut and request is not None:
            found = fault or _with_slices(option, request, this.pod_set.count, fleet)
        if isinstance(found, str):
            refused.append(found)
        else:
            options.append(found)
    return replace(this, options=tuple(options), refused=tuple(refused))


def _with_affinity(option: Option, this: SetPlan, fleet: Fleet) -> Option:
    """The option on those nodes only that the pods' required affinity lets them on."""
    terms = this.pod_set.affinity
    if option.ask is None or not terms:
        return option
    kind = replace(option.kind, affinity=terms)
    slot = fleet.number((kind, option.shape))
    number = fleet.number((slot, option.ask, this.pod_set.count))
    return replace(option, kind=kind, slot=slot, ask_number=number)


def _with_slices(option: Option, request: TopologyRequest, count: int, fleet: Fleet) -> Option | str:
    """The option with its slices, or why they cannot be."""
    if option.ask is None or option.kind.topology is None or not request.slices:
        return option
    keys = fleet.topologies[option.kind.topology].levels
    names = f"topology {option.kind.topology}"
    above = option.ask.level if request.mode is not TopologyMode.UNCONSTRAINED else 0
    layers: list[tuple[int, int]] = []
    for part in request.slices:
        if part.level not in keys:
            return f"{names} has no level {part.level} for slices (it has {', '.join(keys)})"
        level = keys.index(part.level)
        if part.size < 1:
            return f"a slice of {part.size} pods is none"
        if level < above or (layers and level == above):
            return f"slices of level {part.level} cannot be wider than level {keys[above]}"
        if layers and layers[-1][1] % part.size:
            return f"slices of {part.size} pods do not divide those of {layers[-1][1]}"
        layers.append((level, part.size))
        above = level
    start = 0 if request.mode is TopologyMode.UNCONSTRAINED else option.ask.level
    ask = Ask(start, option.ask.required, option.ask.scattered, tuple(layers))
    return replace(option, ask=ask, ask_number=fleet.number((option.slot, ask, count)))

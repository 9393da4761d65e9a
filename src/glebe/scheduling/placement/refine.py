"""What pod sets add to their options where they are placed: node affinity, slices, leaders with workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from glebe.scheduling.flavoring.flavors import Option, SetPlan
from glebe.scheduling.model import DEFAULT_GATES, Gates, TopologyMode, TopologyRequest
from glebe.scheduling.placement.fleet import Fleet
from glebe.scheduling.placement.topology import Ask


def refine(
    sets: Sequence[SetPlan], fleet: Fleet, gates: Gates = DEFAULT_GATES, delays: tuple[str, ...] = ()
) -> tuple[SetPlan, ...]:
    """The same pod sets with what their requests add; options that cannot be are refused with a reason.

    :param delays: flavors whose nodes come later: the core places no pods on them yet.
    """
    if delays:
        sets = [_delayed(s, delays) for s in sets]
    if not gates.profile_mixed:
        sets = [_packed(s, fleet) for s in sets]
    grouped = _fault_of_groups(sets)
    leaders = {unit[1] for unit in units(sets) if len(unit) == 2}
    return tuple(_refine(s, fleet, grouped, gates, i in leaders) for i, s in enumerate(sets))


def _delayed(this: SetPlan, delays: tuple[str, ...]) -> SetPlan:
    options = tuple(
        replace(o, ask=None, delayed=True)
        if o.ask is not None and not set(delays).isdisjoint(o.flavors.values())
        else o
        for o in this.options
    )
    return replace(this, options=options)


def _packed(this: SetPlan, fleet: Fleet) -> SetPlan:
    """The same with best fit for unconstrained pods, too."""
    options = tuple(
        _numbered(replace(o, ask=replace(o.ask, scattered=False, flat=True)), this.pod_set.count, fleet)
        if o.ask is not None and o.ask.scattered
        else o
        for o in this.options
    )
    return replace(this, options=options)


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


def _refine(this: SetPlan, fleet: Fleet, fault: str, gates: Gates, leader: bool) -> SetPlan:
    request = this.pod_set.topology
    cut = request is not None and bool(request.slices or request.group)
    ranked = gates.preferred_affinity and bool(this.pod_set.preferred)
    balanced = gates.balanced_placement and request is not None and request.mode is TopologyMode.PREFERRED
    if not (cut or this.pod_set.affinity or ranked or balanced):
        return this
    options, refused = [], list(this.refused)
    for given in this.options:
        option = _with_affinity(given, this, ranked)
        found: Option | str = option
        if cut and request is not None:
            asked = replace(request, slices=()) if leader else request  # a leader goes where the workers' slices are
            found = fault or _with_slices(option, asked, fleet)
        if isinstance(found, str):
            refused.append(found)
        else:
            options.append(_numbered(_wishing(found, ranked, balanced), this.pod_set.count, fleet))
    return replace(this, options=tuple(options), refused=tuple(refused))


def _with_affinity(option: Option, this: SetPlan, ranked: bool) -> Option:
    """The option on those nodes only that the pods' required affinity lets them on."""
    if option.ask is None:
        return option
    preferred = this.pod_set.preferred if ranked else ()
    return replace(option, kind=replace(option.kind, affinity=this.pod_set.affinity, preferred=preferred))


def _wishing(option: Option, ranked: bool, balanced: bool) -> Option:
    if option.ask is None or not (ranked or balanced):
        return option
    return replace(option, ask=replace(option.ask, ranked=ranked, balanced=balanced))


def _numbered(option: Option, count: int, fleet: Fleet) -> Option:
    slot = fleet.number((option.kind, option.shape))
    return replace(option, slot=slot, ask_number=fleet.number((slot, option.ask, count)))


def _with_slices(option: Option, request: TopologyRequest, fleet: Fleet) -> Option | str:
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
    return replace(option, ask=ask)

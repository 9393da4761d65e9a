"""What the search for flavors looks up: per topology group of pod sets and resource group, one row per flavor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from glebe.scheduling.flavoring.flavors import refusal
from glebe.scheduling.model import ClusterQueue, QuotaCheck, ResourceGroup
from glebe.scheduling.placement.refine import units
from glebe.scheduling.quotas.quota import Cell
from glebe.scheduling.world import Plan, World


@dataclass(frozen=True, slots=True)
class Row:
    """One flavor: why it cannot be used (``""``: it can), and what of it would be taken."""

    flavor: str
    refused: str
    amounts: tuple[tuple[str, Cell | None, int], ...]  # (resource, cell, total over the pod sets)


@dataclass(frozen=True, slots=True)
class GroupTable:
    resources: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class UnitTable:
    """Pod sets that get the same flavors. ``uncovered``: resources for which the queue has no quota at all."""

    sets: tuple[int, ...]
    groups: tuple[GroupTable, ...]
    uncovered: tuple[str, ...]


def table_of(plan: Plan, world: World) -> tuple[UnitTable, ...]:
    """The table of a plan, made when it is first asked for."""
    known = plan.table
    if known is None:
        known = plan.table = tuple(_unit(plan, sorted(unit), world) for unit in units(plan.sets))
    return known


def _unit(plan: Plan, unit: Sequence[int], world: World) -> UnitTable:
    totals: dict[str, int] = {}
    uncovered: list[str] = []
    for i in unit:
        for resource, amount in plan.sets[i].usage.items():
            totals[resource] = totals.get(resource, 0) + amount
        uncovered += plan.sets[i].uncovered
    if world.snapshot.quota_check is QuotaCheck.IGNORE_UNDECLARED:
        uncovered = []
    wanted = [(g, tuple(r for r in sorted(totals) if r in g.covered)) for g in plan.queue.resource_groups]
    asked = [(g, resources) for g, resources in wanted if resources]
    asked.sort(key=lambda item: item[1][0])  # as their first resources come
    groups = tuple(
        _group(plan, unit, group, resources, totals, world, alone=len(asked) == 1) for group, resources in asked
    )
    return UnitTable(tuple(unit), groups, tuple(uncovered))


def _group(
    plan: Plan,
    unit: Sequence[int],
    group: ResourceGroup,
    resources: tuple[str, ...],
    totals: dict[str, int],
    world: World,
    *,
    alone: bool,
) -> GroupTable:
    rows = []
    for fq in group.flavors:
        why = _refused(plan, unit, group, fq.flavor, world)
        if not why and alone:
            for i in unit:
                if not any(set(o.flavors.values()) <= {fq.flavor} for o in plan.sets[i].options):
                    why = "; ".join(plan.sets[i].refused) or "it does not suit the pods"
        amounts = tuple((r, world.tree.cells.get((fq.flavor, r)), totals[r]) for r in resources)
        rows.append(Row(fq.flavor, why, amounts))
    return GroupTable(resources, tuple(rows))


def _refused(plan: Plan, unit: Sequence[int], group: ResourceGroup, name: str, world: World) -> str:
    flavor = world.flavors.get(name)
    if flavor is None:
        return f"flavor {name} does not exist"
    only_placed = places_only(plan.queue, world)
    for i in unit:
        why = refusal(plan.sets[i].pod_set, flavor, world.fleet, only_placed, group.covered)
        if why:
            return why
    return ""


def places_only(queue: ClusterQueue, world: World) -> bool:
    """Have all of a queue's flavors a topology? Then pods that ask for none are placed, too."""
    return all(
        fq.flavor in world.flavors and bool(world.flavors[fq.flavor].topology)
        for g in queue.resource_groups
        for fq in g.flavors
    )

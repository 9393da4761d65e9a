"""A node of a running gang failed: other nodes for its pods, while the rest of the gang stays where it is.

What the gang asked for holds for the replacement too: the required domain is that of the pods that stay, and pods of a
broken slice go where the rest of the slice is. Whole slices may move to any domain that the gang may use.
"""

from __future__ import annotations

from dataclasses import replace

from glebe.scheduling import slices
from glebe.scheduling.capacity import SlotTable, Spot
from glebe.scheduling.topology import Ask

Range = tuple[int, int]


def replacement(table: SlotTable, ask: Ask, held: tuple[Spot, ...], failed: int) -> tuple[Spot, ...] | None:
    """Where all pods of the gang are afterwards, in rank order; ``None`` if no nodes can take those of ``failed``.

    :param table: room beside everything that stays; the failed node must have none.
    :param held: where the gang's pods were.
    """
    kept = tuple(spot for spot in held if spot[0] != failed)
    missing = sum(pods for node, pods in held if node == failed)
    position = table.arrangement.position_list
    if any(position[node] < 0 for node, _ in kept):
        return None  # another of its nodes is gone as well
    within, layers = _confined(table, ask, kept, missing)
    start = 0 if within is not None and not ask.required else ask.level
    placed = slices.choose(table, replace(ask, level=start, layers=layers), missing, within=within)
    if placed is None:
        return None
    pods = dict(kept)
    for node, more in placed.spots:
        pods[node] = pods.get(node, 0) + more
    return tuple(sorted(pods.items(), key=lambda spot: position[spot[0]]))


def _confined(
    table: SlotTable, ask: Ask, kept: tuple[Spot, ...], missing: int
) -> tuple[Range | None, tuple[tuple[int, int], ...]]:
    """Between which positions the replacement must be, and the slices into which it must be cut."""
    broken = [layer for layer in ask.layers if missing % layer[1]]
    if not kept:
        return None, ask.layers
    if broken:
        level, size = broken[-1]
        whole = tuple(layer for layer in ask.layers if not missing % layer[1])
        return _rest_of_slice(table, kept, missing, level, size), whole[-1:]
    if ask.required:
        return _domain(table, ask.level, kept[0][0]), ask.layers
    return None, ask.layers


def _rest_of_slice(table: SlotTable, kept: tuple[Spot, ...], missing: int, level: int, size: int) -> Range | None:
    """The first domain whose pods and the missing ones make whole slices."""
    pods: dict[Range, int] = {}
    for node, count in kept:
        domain = _domain(table, level, node)
        pods[domain] = pods.get(domain, 0) + count
    return next((domain for domain in sorted(pods) if (pods[domain] + missing) % size == 0), None)


def _domain(table: SlotTable, level: int, node: int) -> Range:
    """The positions of the domain of ``level`` that ``node`` belongs to."""
    arrangement = table.arrangement
    at = arrangement.position_list[node]
    if level == table.levels - 1:
        return at, at + 1
    number, first = arrangement.domain[level][at], arrangement.first[level]
    end = first.item(number + 1) if number + 1 < len(first) else len(arrangement.nodes)
    return first.item(number), end

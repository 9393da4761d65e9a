"""A node of a running gang failed: other nodes for its pods, while the rest of the gang stays where it is.

What the gang asked for holds for the replacement too: the required domain is that of the pods that stay, and pods of a
broken slice go where the rest of the slice is. Whole slices may move to any domain that the gang may use. The nodes
that take over stand in the failed node's place, so that no other pod changes its rank. Source: KEP-2724 (node failure).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from glebe.scheduling.placement import slices
from glebe.scheduling.placement.capacity import SlotTable, Spot
from glebe.scheduling.placement.fleet import Ints
from glebe.scheduling.placement.topology import Ask

Range = tuple[int, int]
Layers = tuple[tuple[int, int], ...]


def replacement(table: SlotTable, ask: Ask, held: tuple[Spot, ...], *failed: int) -> tuple[Spot, ...] | None:
    """Where all pods of the gang are afterwards, in rank order; ``None`` if no nodes can take those of ``failed``.

    :param table: room beside everything that stays.
    :param held: where the gang's pods were.
    """
    kept = tuple(spot for spot in held if spot[0] not in failed)
    missing = sum(pods for node, pods in held if node in failed)
    position = table.arrangement.position_list
    if any(node >= len(position) or position[node] < 0 for node, _ in kept):
        return None  # another of its nodes is gone as well
    if len(failed) > 1 and not _whole(table, ask, kept):
        return None  # which of the missing pods belong to which slice is not known
    within, layers = _confined(table, ask, kept, missing)
    start = 0 if within is not None and not ask.required else ask.level
    wish = replace(ask, level=start, layers=layers, balanced=False)
    placed = slices.choose(table, wish, missing, inside=_inside(table, within, failed))
    return None if placed is None else _in_their_place(held, failed, placed.spots)


def _inside(table: SlotTable, within: Range | None, failed: tuple[int, ...]) -> Ints:
    """By position: where replacements may be, which is never a failed node."""
    position, count = table.arrangement.position_list, len(table.arrangement.nodes)
    inside = np.ones(count, dtype=np.int64)
    if within is not None:
        inside[: within[0]] = 0
        inside[within[1] :] = 0
    for node in failed:
        if node < len(position) and position[node] >= 0:
            inside[position[node]] = 0
    return inside


def _in_their_place(held: tuple[Spot, ...], failed: tuple[int, ...], found: tuple[Spot, ...]) -> tuple[Spot, ...]:
    """Ranks in the order of before; neighbours of one node are one."""
    fresh = list(reversed(found))
    out: list[Spot] = []

    def put(node: int, pods: int) -> None:
        if out and out[-1][0] == node:
            pods += out.pop()[1]
        out.append((node, pods))

    for node, pods in held:
        if node not in failed:
            put(node, pods)
            continue
        while pods > 0:
            new, room = fresh.pop()
            put(new, min(room, pods))
            if room > pods:
                fresh.append((new, room - pods))
            pods -= room
    return tuple(out)


def _whole(table: SlotTable, ask: Ask, kept: tuple[Spot, ...]) -> bool:
    """Are the pods that stay in whole slices?"""
    for level, size in ask.layers:
        pods: Counter[Range] = Counter()
        for node, count in kept:
            pods[domain(table, level, node)] += count
        if any(count % size for count in pods.values()):
            return False
    return True


def _confined(table: SlotTable, ask: Ask, kept: tuple[Spot, ...], missing: int) -> tuple[Range | None, Layers]:
    """Between which positions the replacement must be, and the slices into which it must be cut."""
    broken = [layer for layer in ask.layers if missing % layer[1]]
    if not kept:
        return None, ask.layers
    if broken:
        level, size = broken[-1]
        whole = tuple(layer for layer in ask.layers if not missing % layer[1])
        return _rest_of_slice(table, kept, missing, level, size), whole[-1:]
    if ask.required:
        return domain(table, ask.level, kept[0][0]), ask.layers
    return None, ask.layers


def _rest_of_slice(table: SlotTable, kept: tuple[Spot, ...], missing: int, level: int, size: int) -> Range | None:
    """The first domain whose pods and the missing ones make whole slices."""
    pods: Counter[Range] = Counter()
    for node, count in kept:
        pods[domain(table, level, node)] += count
    return next((where for where in sorted(pods) if (pods[where] + missing) % size == 0), None)


def domain(table: SlotTable, level: int, node: int) -> Range:
    """The positions of the domain of ``level`` that ``node`` belongs to."""
    arrangement = table.arrangement
    at = arrangement.position_list[node]
    if level == table.levels - 1:
        return at, at + 1
    number, first = arrangement.domain[level][at], arrangement.first[level]
    end = first.item(number + 1) if number + 1 < len(first) else len(arrangement.nodes)
    return first.item(number), end

"""``status.admission.podSetAssignments[].topologyAssignment``: nodes in rank order, written compactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from glebe.queueing import labels

NodeCounts = Sequence[tuple[str, int]]


def encode(nodes: NodeCounts) -> dict[str, Any]:
    """The assignment of pods to hosts: common prefix and equal counts are written once."""
    names = [name for name, _ in nodes]
    values: dict[str, Any]
    if len(set(names)) == 1:
        values = {"universalValue": names[0]}
    else:
        prefix = _common_prefix(names)
        values = {"prefix": prefix} if prefix else {}
        values["roots"] = [name[len(prefix) :] for name in names]
    part: dict[str, Any] = {"domainCount": len(nodes), "valuesPerLevel": [values]}
    counts = [count for _, count in nodes]
    if len(set(counts)) == 1:
        part["universalPodCount"] = counts[0]
    else:
        part["podCounts"] = counts
    return {"levels": [labels.HOSTNAME], "slices": [part]}


def _common_prefix(names: Sequence[str]) -> str:
    first, last = min(names), max(names)
    same = 0
    while same < min(len(first), len(last)) and first[same] == last[same]:
        same += 1
    return first[:same]


def decode(assignment: Mapping[str, Any] | None) -> tuple[tuple[str, int], ...]:
    """Hosts and numbers of pods in rank order; empty for assignments that do not name hosts."""
    if not assignment or not assignment.get("levels") or assignment["levels"][-1] != labels.HOSTNAME:
        return ()
    out: list[tuple[str, int]] = []
    for part in assignment.get("slices") or ():
        size = int(part["domainCount"])
        values = part["valuesPerLevel"][-1]
        if "universalValue" in values:
            names = [values["universalValue"]] * size
        else:
            names = [f"{values.get('prefix', '')}{root}{values.get('suffix', '')}" for root in values["roots"]]
        counts = part.get("podCounts") or [part["universalPodCount"]] * size
        out.extend(zip(names, (int(c) for c in counts), strict=True))
    return tuple(out)


def ranks(nodes: NodeCounts) -> list[str]:
    """The host of each rank."""
    return [name for name, count in nodes for _ in range(count)]

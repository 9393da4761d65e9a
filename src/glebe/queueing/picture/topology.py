"""``status.admission.podSetAssignments[].topologyAssignment``: nodes in rank order, in Kueue's compact v1beta2 form.

Source: KEP-2724 and kueue:apis/kueue/v1beta2 (``TopologyAssignment``). An earlier form of our own (``universalValue``,
``universalPodCount``, plain lists) and Kueue's v1beta1 form (``domains``) are read as well, and rewritten with the next
change of the workload's status.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from glebe.queueing import labels

NodeCounts = Sequence[tuple[str, int]]
_MAX_DOMAINS = 100_000  # of one slice, by the API


def encode(nodes: NodeCounts) -> dict[str, Any]:
    """The assignment of pods to hosts: common beginnings and ends and equal counts are written once."""
    return compact([labels.HOSTNAME], [((name,), count) for name, count in nodes])


def compact(levels: Sequence[str], found: Sequence[tuple[tuple[str, ...], int]]) -> dict[str, Any]:
    """The assignment of pods to domains of any levels, told by their values by level."""
    parts = [found[at : at + _MAX_DOMAINS] for at in range(0, len(found), _MAX_DOMAINS)]
    return {"levels": list(levels), "slices": [_slice(part) for part in parts]}


def _slice(found: Sequence[tuple[tuple[str, ...], int]]) -> dict[str, Any]:
    counts = [count for _, count in found]
    same = len(set(counts)) == 1
    return {
        "domainCount": len(found),
        "valuesPerLevel": [_values(names) for names in zip(*(values for values, _ in found), strict=True)],
        "podCounts": {"universal": counts[0]} if same else {"individual": counts},
    }


def _values(names: Sequence[str]) -> dict[str, Any]:
    prefix = _common(names)
    if len(prefix) == max(map(len, names)):
        return {"universal": prefix}
    rests = [name[len(prefix) :] for name in names]  # what is in the beginning cannot be in the end as well
    end = len(_common([rest[::-1] for rest in rests]))
    out: dict[str, Any] = {"prefix": prefix} if prefix else {}
    if end:
        out["suffix"] = rests[0][-end:]
    out["roots"] = [rest[: len(rest) - end] for rest in rests]
    return {"individual": out}


def _common(texts: Sequence[str]) -> str:
    """The beginning that all of them have."""
    first, last = min(texts), max(texts)
    same = 0
    while same < min(len(first), len(last)) and first[same] == last[same]:
        same += 1
    return first[:same]


def decode(assignment: Mapping[str, Any] | None) -> tuple[tuple[str, int], ...]:
    """Hosts and numbers of pods in rank order; empty for assignments that do not name hosts."""
    if not assignment or not assignment.get("levels") or assignment["levels"][-1] != labels.HOSTNAME:
        return ()
    return tuple((values[-1], count) for values, count in domains(assignment))


def domains(assignment: Mapping[str, Any]) -> Iterable[tuple[tuple[str, ...], int]]:
    """Values by level and the number of pods, one domain after the other, whatever the levels and the form are."""
    for domain in assignment.get("domains") or ():  # v1beta1
        yield tuple(domain["values"]), int(domain["count"])
    for part in assignment.get("slices") or ():
        size = int(part["domainCount"])
        columns = [_expanded(values, size) for values in part["valuesPerLevel"]]
        yield from zip(zip(*columns, strict=True), _counts(part, size), strict=True)


def _expanded(values: Mapping[str, Any], size: int) -> list[str]:
    one = values.get("universal", values.get("universalValue"))
    if one is not None:
        return [one] * size
    many = values.get("individual", values)
    prefix, suffix = many.get("prefix") or "", many.get("suffix") or ""
    return [f"{prefix}{root}{suffix}" for root in many["roots"]]


def _counts(part: Mapping[str, Any], size: int) -> list[int]:
    counts = part.get("podCounts")
    if isinstance(counts, Mapping):
        counts = counts.get("individual") or [counts["universal"]] * size
    return [int(c) for c in counts or [part["universalPodCount"]] * size]


def modern(admission: Mapping[str, Any]) -> Mapping[str, Any]:
    """``status.admission`` with assignments of an earlier form rewritten; itself if there are none."""
    sets = admission.get("podSetAssignments") or ()
    if not any(_is_old(a.get("topologyAssignment")) for a in sets):
        return admission
    rewritten = [
        {**a, "topologyAssignment": encode(decode(a["topologyAssignment"]))}
        if _is_old(a.get("topologyAssignment"))
        else a
        for a in sets
    ]
    return {**admission, "podSetAssignments": rewritten}


def _is_old(assignment: Mapping[str, Any] | None) -> bool:
    parts = (assignment or {}).get("slices") or ()
    return any(not isinstance(part.get("podCounts"), Mapping) for part in parts)


def ranks(nodes: NodeCounts) -> list[str]:
    """The host of each rank."""
    return [name for name, count in nodes for _ in range(count)]

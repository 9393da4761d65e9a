"""The rolling update of a DaemonSet: which old pods go, and which nodes get a second, new pod."""

from __future__ import annotations

from dataclasses import dataclass, field

from glebe.kube.objects import Object, is_deleting
from glebe.workloads.daemonset.facts import Facts


@dataclass(slots=True)
class Roll:
    """Pods to delete, and nodes that get a new pod beside their old one."""

    delete: list[Object] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)


def roll(f: Facts) -> Roll:
    """What the update does now, when every node has what it should have apart from its revision."""
    return _surging(f) if f.surge else _replacing(f)


def _places(f: Facts) -> list[str]:
    wanted = [name for name, (start, _) in f.verdicts.items() if start]
    return sorted({*wanted, *f.by_node})


def _pair(f: Facts, node: str) -> tuple[Object | None, Object | None] | None:
    """The new and the old pod of a node; ``None`` when there are several of a kind."""
    pods = [p for p in f.by_node.get(node, ()) if not is_deleting(p)]
    new = [p for p in pods if f.is_updated(p)]
    old = [p for p in pods if not f.is_updated(p)]
    if len(new) > 1 or len(old) > 1:
        return None
    return next(iter(new), None), next(iter(old), None)


def _replacing(f: Facts) -> Roll:
    """Old pods that serve nobody go at once, others as long as ``maxUnavailable`` allows."""
    out, candidates, unavailable = Roll(), [], 0
    for node in _places(f):
        pair = _pair(f, node)
        new, old = pair or (None, None)
        if old is None or new is not None:
            unavailable += new is None or old is not None or not f.is_available(new)
        elif not f.is_available(old):
            out.delete.append(old)
            unavailable += 1
        else:
            candidates.append(old)
    out.delete += candidates[: max(0, f.unavailable - unavailable)]
    return out


def _surging(f: Facts) -> Roll:
    """A new pod comes first, on ``maxSurge`` nodes at a time; the old one goes when the new one is available."""
    out = Roll()
    candidates: list[str] = []
    leaving: list[Object] = []  # available, on nodes where nothing should run any more
    surging = available = 0
    for node in _places(f):
        pair = _pair(f, node)
        if pair is None:
            surging += 1
            continue
        new, old = pair
        main = old or new
        available += main is not None and f.is_available(main)
        if old is None:
            continue
        if new is not None:
            if f.is_available(new):
                out.delete.append(old)
            else:
                surging += 1
            continue
        start, _ = f.verdicts.get(node, (False, False))
        if not f.is_available(old):
            (out.nodes.append(node) if start else out.delete.append(old))
        elif not start:
            leaving.append(old)
        else:
            candidates.append(node)
    out.delete += leaving[: max(0, available - f.desired)]
    out.nodes += candidates[: max(0, f.surge - surging)]
    return out

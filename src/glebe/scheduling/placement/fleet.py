"""The static part of a fleet: node arrays, and nodes arranged by topology. Build it once, keep it while nodes stay.

Arrays are nodes x resources in int64 base units; nodes are numbered by name. An *arrangement* is the nodes that one
kind of pod may use (labels, taints), in lexical order of their domains, so that every domain of every level is a
contiguous range: sums per domain are ``np.add.reduceat`` and ties break lexically by position.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glebe.scheduling.flavoring.affinity import Terms, lets_on, liking
from glebe.scheduling.model import Flavor, Node, Preferred, Taint, Toleration, Topology

Ints = NDArray[np.int64]
HOSTNAME = "kubernetes.io/hostname"
PODS = "pods"
PLENTY = 1 << 40  # "as many as you like", far from overflow when summed over nodes


@dataclass(frozen=True, slots=True)
class PodKind:
    """What decides on which nodes a pod may run; equal kinds share one arrangement."""

    labels: tuple[tuple[str, str], ...]  # of the flavors and the pod's selector together, sorted
    tolerations: tuple[Toleration, ...]
    topology: str | None
    affinity: Terms = ()
    preferred: tuple[Preferred, ...] = ()


@dataclass(slots=True)
class Arrangement:
    """Nodes in lexical order; level 0 is the widest, the last level is single nodes."""

    levels: tuple[str, ...]  # label keys; the last may be "" when nodes are below the lowest declared level
    nodes: Ints  # position -> node
    position: Ints  # node -> position, -1 if absent
    first: list[Ints]  # per level: domain -> its first position
    child: list[Ints]  # per level but the last: domain -> its first domain one level down, plus one end sentinel
    position_list: list[int]  # as ``position``
    domain: list[list[int]]  # per level but the last: position -> domain
    scores: list[Ints] | None = None  # per level: how much the pods prefer a domain; ``None``: they do not say


class Fleet:
    """Derived arrays of a snapshot's nodes and topologies. Reusable for any snapshot with the same ones."""

    def __init__(self, nodes: Iterable[Node], topologies: Iterable[Topology]) -> None:
        self.nodes = tuple(sorted(nodes, key=lambda n: n.name))
        self.source: tuple[object, object] = (nodes, topologies)
        self.topologies = {t.name: t for t in topologies}
        self.index = {n.name: i for i, n in enumerate(self.nodes)}
        names: set[str] = {PODS}
        for node in self.nodes:
            names.update(node.allocatable)
        self.resources = tuple(sorted(names))
        self.column = {r: i for i, r in enumerate(self.resources)}
        self.capacity = self._table([n.allocatable for n in self.nodes])
        pods = self.column[PODS]
        for i, node in enumerate(self.nodes):
            if PODS not in node.allocatable:  # a node that declares no pod limit has none
                self.capacity[i, pods] = PLENTY
        self.other_use = self._table([n.other_use for n in self.nodes])
        self.ready = np.fromiter((n.ready for n in self.nodes), dtype=np.bool_, count=len(self.nodes))
        self.kept: object | None = None  # the last world made of it
        self._numbers: dict[object, int] = {}
        self._arrangements: dict[PodKind, Arrangement] = {}

    def _table(self, rows: list[Mapping[str, int]]) -> Ints:
        table = np.zeros((len(rows), len(self.resources)), dtype=np.int64)
        for name, column in self.column.items():
            table[:, column] = [row.get(name, 0) for row in rows]
        return table

    def matches(self, nodes: tuple[Node, ...], topologies: tuple[Topology, ...]) -> bool:
        """True when this fleet was built from equal nodes and topologies (cheap when they are the same objects)."""
        return self.source == (nodes, topologies)

    def vector(self, requests: Mapping[str, int]) -> tuple[int, ...] | None:
        """Per-pod needs by column, one of ``pods`` included; ``None`` if some resource exists on no node."""
        row = [0] * len(self.resources)
        row[self.column[PODS]] = 1
        for name, amount in requests.items():
            if amount <= 0:
                continue
            column = self.column.get(name)
            if column is None:
                return None
            row[column] = max(row[column], amount)
        return tuple(row)

    def number(self, thing: object) -> int:
        """A small number for a hashable thing; equal things have the same number as long as the fleet lives."""
        return self._numbers.setdefault(thing, len(self._numbers))

    def arrangement(self, kind: PodKind) -> Arrangement:
        found = self._arrangements.get(kind)
        if found is None:
            found = self._arrangements[kind] = self._arrange(kind)
        return found

    def _arrange(self, kind: PodKind) -> Arrangement:
        keys = self.topologies[kind.topology].levels if kind.topology in self.topologies else ()
        wanted = kind.labels
        chosen: list[tuple[tuple[str, ...], int]] = []
        for i, node in enumerate(self.nodes):
            labels = node.labels
            if not all(labels.get(k) == v for k, v in wanted) or not tolerated(node.taints, kind.tolerations):
                continue
            if kind.affinity and not lets_on(kind.affinity, labels):
                continue
            try:
                chosen.append(((*[labels[k] for k in keys], node.name), i))
            except KeyError:
                continue  # a node without all levels belongs to no domain
        chosen.sort()
        if keys and keys[-1] == HOSTNAME and len({c[0][:-1] for c in chosen}) == len(chosen):
            chosen = [(path[:-1], i) for path, i in chosen]
        else:
            keys = (*keys, "")
        found = _build(keys, chosen, len(self.nodes))
        if kind.preferred:
            liked = [liking(kind.preferred, self.nodes[i].labels) for _, i in chosen]
            scores = np.array(liked, dtype=np.int64)
            found.scores = [np.add.reduceat(scores, first) if len(first) else scores for first in found.first]
        return found


def _build(keys: tuple[str, ...], chosen: list[tuple[tuple[str, ...], int]], total: int) -> Arrangement:
    nodes = np.array([i for _, i in chosen], dtype=np.int64)  # explicit dtype: the list may be empty
    position = np.full(total, -1, dtype=np.int64)
    position[nodes] = np.arange(len(chosen))
    domain: list[Ints] = []
    first: list[Ints] = []
    for level in range(len(keys)):
        of: list[int] = []
        starts: list[int] = []
        previous: tuple[str, ...] | None = None
        for at, (path, _) in enumerate(chosen):
            prefix = path[: level + 1]
            if prefix != previous:
                previous = prefix
                starts.append(at)
            of.append(len(starts) - 1)
        domain.append(np.array(of, dtype=np.int64))
        first.append(np.array(starts, dtype=np.int64))
    child = [
        np.append(domain[level + 1][first[level]], len(first[level + 1])).astype(np.int64)
        for level in range(len(keys) - 1)
    ]
    lists = [d.tolist() for d in domain[:-1]]
    return Arrangement(keys, nodes, position, first, child, position.tolist(), lists)


def tolerated(taints: Iterable[Taint], tolerations: tuple[Toleration, ...]) -> bool:
    """Do ``tolerations`` cover every taint that keeps pods away (NoSchedule, NoExecute)?"""
    return all(
        t.effect not in ("NoSchedule", "NoExecute") or any(_tolerates(toleration, t) for toleration in tolerations)
        for t in taints
    )


def _tolerates(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.operator == "Exists":
        return not toleration.key or toleration.key == taint.key
    return toleration.key == taint.key and toleration.value == taint.value


def merged_labels(flavors: Iterable[Flavor], selector: Mapping[str, str]) -> tuple[tuple[str, str], ...] | None:
    """Labels that a node must carry, or ``None`` when flavors and selector contradict each other."""
    labels: dict[str, str] = dict(selector)
    for flavor in flavors:
        for key, value in flavor.node_labels.items():
            if labels.setdefault(key, value) != value:
                return None
    return tuple(sorted(labels.items()))

"""The nodes and what is free on them, as arrays: one row per node (in order of name), one column per resource.

Kept up to date by small changes. A decision *holds* its amounts at once, before any answer from the API, so that the
next decision cannot give them again. A pod for which others were told to leave is *nominated* to its node: pods of
lower priority see that room as taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from glebe.kube.nodes import selected
from glebe.kube.objects import Object, is_deleting
from glebe.kube.quantity import to_int
from glebe.workloads.binder import nodematch
from glebe.workloads.binder.crowd import Crowd, Member
from glebe.workloads.binder.needs import Needs
from glebe.workloads.binder.places import Opinion, opinion_of
from glebe.workloads.binder.plugins import Plugin
from glebe.workloads.binder.ports import HostPorts

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
HOSTNAME = "kubernetes.io/hostname"
_KEPT = 256  # opinions


@dataclass(frozen=True, slots=True)
class Hold:
    """What a pod has on a node."""

    node: str
    needs: Needs
    deleting: bool = False

    def same(self, other: Hold) -> bool:
        mine, its = self.needs, other.needs
        return (self.node, self.deleting, mine.key) == (other.node, other.deleting, its.key) and (
            mine.labels == its.labels
        )


class Fleet:
    """Nodes, holds, and opinions that are valid until a node's fixed properties change."""

    def __init__(self) -> None:
        self.plugins: tuple[Plugin, ...] = ()
        """What has a say beside amounts and company."""
        self.crowd = Crowd()
        self.ports = HostPorts()
        self.claims: Counter[str] = Counter()
        """How many pods on nodes mount which claim (``namespace/name``)."""
        self._nodes: dict[str, Object] = {}
        self._prints: dict[str, tuple[Any, ...]] = {}
        self._holds: dict[str, Hold] = {}
        self._on: dict[str, dict[str, None]] = {}  # node -> uids
        self._priorities: Counter[int] = Counter()
        self._nominated: dict[str, Hold] = {}
        self._opinions: dict[str, tuple[Needs, Opinion]] = {}
        self._columns: dict[str, int] = {}
        self._rows: dict[str, int] = {}
        self._hosts: dict[str, list[int]] = {}  # value of the hostname label -> rows
        self._domains: dict[str, tuple[Ints, int]] = {}
        self._inclusions: dict[str, tuple[Bools, Bools]] = {}
        self.names: list[str] = []
        self.allocatable: Ints = np.zeros((0, 0), np.int64)
        self.used: Ints = np.zeros((0, 0), np.int64)
        self.weight: Ints = np.zeros((0, 2), np.int64)
        """What counts as used for the score: thousandths of a core, bytes."""
        self._stale = False

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def empty(self) -> bool:
        """Whether no pod holds anything, or is to."""
        return not (self._holds or self._nominated)

    # --- changes

    def set_node(self, node: Object) -> bool:
        """Take in a node; whether anything changed that placement depends on (heartbeats do not)."""
        name = node["metadata"]["name"]
        if is_deleting(node):
            return self.remove_node(name)
        fingerprint = _fingerprint(node)
        if self._prints.get(name) == fingerprint:
            return False
        before = self._prints.get(name)
        self._nodes[name] = node
        self._prints[name] = fingerprint
        self._stale = self._stale or before is None or not self._update(name, before, fingerprint)
        return True

    def _update(self, name: str, before: tuple[Any, ...], after: tuple[Any, ...]) -> bool:
        """Change one row in place; ``False`` when everything has to be made anew."""
        (uid, labels, taints, _, _, amounts), row = after, self._rows.get(name)
        hosts = ((before[1] or {}).get(HOSTNAME), (labels or {}).get(HOSTNAME))
        if row is None or uid != before[0] or hosts[0] != hosts[1] or not set(amounts or ()) <= set(self._columns):
            return False
        if labels != before[1] or taints != before[2]:
            self._domains.clear()
            self._inclusions.clear()
        if amounts != before[5]:
            self.allocatable[row, :] = 0
            self._set_amounts(row, amounts or {})
        node, lost = self._nodes[name], []
        for place, (needs, opinion) in self._opinions.items():
            if not opinion.revise(needs, row, node):
                lost.append(place)
        for place in lost:
            del self._opinions[place]
        return True

    def _set_amounts(self, row: int, amounts: Mapping[str, Any]) -> None:
        for resource, quantity in {"pods": 110, **amounts}.items():
            self.allocatable[row, self._columns[resource]] = to_int(quantity, resource)

    def remove_node(self, name: str) -> bool:
        if self._nodes.pop(name, None) is None:
            return False
        del self._prints[name]
        self._stale = True
        return True

    def node(self, name: str) -> Object | None:
        return self._nodes.get(name)

    def hold(self, uid: str, node: str, needs: Needs, *, deleting: bool = False) -> bool:
        """Pod ``uid`` has what it needs on ``node`` (replaces what it had); whether that is news."""
        new = Hold(node, needs, deleting)
        old = self._holds.get(uid)
        if old is not None:
            if old.same(new):
                return False
            self._count(uid, old, -1)
        self._holds[uid] = new
        self._count(uid, new, 1)
        return True

    def release(self, uid: str) -> Hold | None:
        """Pod ``uid`` has nothing any more; what it had."""
        old = self._holds.pop(uid, None)
        if old is not None:
            self._count(uid, old, -1)
        return old

    def restore(self, uid: str, hold: Hold) -> None:
        """Undo :meth:`release`."""
        self._holds[uid] = hold
        self._count(uid, hold, 1)

    def holder(self, uid: str) -> Hold | None:
        return self._holds.get(uid)

    def _count(self, uid: str, hold: Hold, sign: int) -> None:
        self._priorities[hold.needs.priority] += sign
        if not self._priorities[hold.needs.priority]:
            del self._priorities[hold.needs.priority]
        if sign > 0:
            self._on.setdefault(hold.node, {})[uid] = None
        else:
            self._on[hold.node].pop(uid, None)
            if not self._on[hold.node]:
                del self._on[hold.node]
        row = self._rows.get(hold.node)
        if self._stale or row is None:
            self._stale = self._stale or hold.node in self._nodes
            return
        self._tally(uid, hold, row, sign)

    def _tally(self, uid: str, hold: Hold, row: int, sign: int) -> None:
        needs = hold.needs
        for resource, amount in needs.requests.items():
            column = self._columns.get(resource)
            if column is not None:
                self.used[row, column] += sign * amount
        self.weight[row, 0] += sign * needs.weight[0]
        self.weight[row, 1] += sign * needs.weight[1]
        if sign > 0:
            self.crowd.put(uid, Member(row, needs.namespace, needs.labels, hold.deleting, needs.relations))
        else:
            self.crowd.drop(uid)
        if needs.ports:
            self.ports.add(hold.node, needs.ports, sign)
        for claim, _ in needs.claims:
            self.claims[f"{needs.namespace}/{claim}"] += sign

    def nominate(self, uid: str, node: str, needs: Needs) -> None:
        self._nominated[uid] = Hold(node, needs)

    def withdraw(self, uid: str) -> Hold | None:
        """The pod is nominated no longer; where it was."""
        return self._nominated.pop(uid, None)

    def nominated_to(self, node: str) -> list[str]:
        return [uid for uid, hold in self._nominated.items() if hold.node == node]

    def nomination(self, uid: str) -> Hold | None:
        return self._nominated.get(uid)

    # --- reading

    @property
    def stale(self) -> bool:
        """Whether rows are not what they were: :meth:`refresh` first."""
        return self._stale

    def refresh(self) -> None:
        """Rebuild the arrays if nodes have changed. Call before reading them."""
        if not self._stale:
            return
        self._stale = False
        self._opinions.clear()
        self._domains.clear()
        self._inclusions.clear()
        self.names = sorted(self._nodes)
        self._rows = {name: row for row, name in enumerate(self.names)}
        self._hosts = {}
        for row, name in enumerate(self.names):
            host = (self._nodes[name]["metadata"].get("labels") or {}).get(HOSTNAME, "")
            self._hosts.setdefault(host, []).append(row)
        amounts = {n: (self._nodes[n].get("status") or {}).get("allocatable") or {} for n in self.names}
        resources = sorted({r for per_node in amounts.values() for r in per_node} | {"pods"})
        self._columns = {resource: column for column, resource in enumerate(resources)}
        self.allocatable = np.zeros((len(self.names), len(resources)), np.int64)
        for row, name in enumerate(self.names):
            self._set_amounts(row, amounts[name])
        self.used = np.zeros_like(self.allocatable)
        self.weight = np.zeros((len(self.names), 2), np.int64)
        self.crowd.clear(len(self.names))
        self.ports.clear()
        self.claims.clear()
        for uid, hold in self._holds.items():
            if (row_of := self._rows.get(hold.node)) is not None:
                self._tally(uid, hold, row_of, 1)

    def concerned(self, needs: Needs) -> list[Plugin]:
        """The plug-ins that have to be asked about a pod."""
        return [plugin for plugin in self.plugins if plugin.concerns(needs)] if needs.extras else []

    def objection(self, needs: Needs) -> tuple[str, str] | None:
        """(plug-in, words) of the first that says that no node will do."""
        for plugin in self.concerned(needs):
            if (text := plugin.objection(needs)) is not None:
                return plugin.name, text
        return None

    def row(self, name: str) -> int | None:
        return self._rows.get(name)

    def column(self, resource: str) -> int | None:
        """Where a resource stands in the arrays; ``None`` when no node has it."""
        return self._columns.get(resource)

    def on(self, node: str) -> list[str]:
        """The pods that hold something on a node."""
        return list(self._on.get(node, ()))

    def has_below(self, priority: int) -> bool:
        """Whether a pod of lower priority holds anything."""
        return any(other < priority for other in self._priorities)

    def rivals(self, needs: Needs, uid: str) -> dict[str, list[tuple[str, Hold]]]:
        """Who is nominated, by node, and must not be passed by a pod with ``needs``."""
        found: dict[str, list[tuple[str, Hold]]] = {}
        for other, hold in self._nominated.items():
            if other != uid and hold.needs.priority >= needs.priority and other not in self._holds:
                found.setdefault(hold.node, []).append((other, hold))
        return found

    @contextmanager
    def assuming(self, rivals: Sequence[tuple[str, Hold]]) -> Iterator[None]:
        """As if these were bound already."""
        for uid, hold in rivals:
            self.restore(uid, hold)
        try:
            yield
        finally:
            for uid, _ in rivals:
                self.release(uid)

    def only_row(self, needs: Needs) -> int | None:
        """The row that ``needs`` names by its hostname label or its name; saves looking at all nodes."""
        if needs.named is not None:
            rows = [self._rows[name] for name in needs.named if name in self._rows]
        else:
            rows = self._hosts.get(needs.selector.get(HOSTNAME) or "-", [])
        return rows[0] if len(rows) == 1 else None

    def domains(self, topology: str) -> tuple[Ints, int]:
        """The domain of each row by node label ``topology``, numbered from 0; and how many there are, which is also the
        number of the rows that are in none."""
        known = self._domains.get(topology)
        if known is None:
            labels = [(self._nodes[n]["metadata"].get("labels") or {}).get(topology) for n in self.names]
            numbers = {value: i for i, value in enumerate(sorted({v for v in labels if v is not None}))}
            codes = np.array([len(numbers) if v is None else numbers[v] for v in labels], np.int64)
            known = self._domains[topology] = (codes, len(numbers))
        return known

    def opinion(self, needs: Needs) -> Opinion:
        """What ``needs`` thinks of the nodes' fixed properties."""
        known = self._opinions.get(needs.place)
        if known is None:
            if len(self._opinions) >= _KEPT:
                self._opinions.clear()
            rows = None if needs.named is None else [self._rows[n] for n in sorted(needs.named) if n in self._rows]
            made = opinion_of(needs, [self._nodes[n] for n in self.names], rows)
            known = self._opinions[needs.place] = (needs, made)
        return known[1]

    def inclusion(self, needs: Needs) -> tuple[Bools, Bools]:
        """Rows that suit by selector and affinity, and rows whose taints are tolerated: what counts for spread."""
        known = self._inclusions.get(needs.place)
        if known is None:
            if len(self._inclusions) >= _KEPT:
                self._inclusions.clear()
            affine = self.rows_where(lambda n: selected(n, needs.selector, needs.terms))
            calm = self.rows_where(
                lambda n: nodematch.schedulable((n.get("spec") or {}).get("taints") or (), needs.tolerations)
            )
            known = self._inclusions[needs.place] = (affine, calm)
        return known

    def rows_where(self, holds: Callable[[Object], bool]) -> Bools:
        return np.fromiter((holds(self._nodes[n]) for n in self.names), np.bool_, len(self.names))


def _fingerprint(node: Object) -> tuple[Any, ...]:
    spec, status = node.get("spec") or {}, node.get("status") or {}
    ready = next((c.get("status") for c in status.get("conditions") or () if c.get("type") == "Ready"), None)
    labels = node["metadata"].get("labels")
    return (
        node["metadata"].get("uid"),
        labels,
        spec.get("taints"),
        spec.get("unschedulable"),
        ready,
        status.get("allocatable"),
    )

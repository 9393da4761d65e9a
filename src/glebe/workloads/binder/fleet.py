"""The nodes and what is free on them, as arrays: one row per node (in order of name), one column per resource.

Kept up to date by small changes. A decision *holds* its amounts at once, before any answer from the API, so that the
next decision cannot give them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from glebe.kube.objects import Object, is_deleting
from glebe.kube.quantity import to_int
from glebe.workloads.binder.needs import Needs

Ints = npt.NDArray[np.int64]
HOSTNAME = "kubernetes.io/hostname"
_KEPT = 256  # opinions


@dataclass(frozen=True, slots=True)
class Hold:
    """What a pod has on a node."""

    node: str
    requests: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one class of pods thinks of every row, apart from amounts."""

    eligible: npt.NDArray[np.bool_]
    dislikes: npt.NDArray[np.float64]
    refusals: dict[str, int]  # reason -> number of nodes


class Fleet:
    """Nodes, holds, and opinions that are valid until a node's fixed properties change."""

    def __init__(self) -> None:
        self._nodes: dict[str, Object] = {}
        self._prints: dict[str, tuple[Any, ...]] = {}
        self._holds: dict[str, Hold] = {}
        self._opinions: dict[str, Opinion] = {}
        self._columns: dict[str, int] = {}
        self._rows: dict[str, int] = {}
        self._hosts: dict[str, list[int]] = {}  # value of the hostname label -> rows
        self.names: list[str] = []
        self.allocatable: Ints = np.zeros((0, 0), np.int64)
        self.used: Ints = np.zeros((0, 0), np.int64)
        self._stale = False

    def __len__(self) -> int:
        return len(self._nodes)

    # --- changes

    def set_node(self, node: Object) -> bool:
        """Take in a node; whether anything changed that placement depends on (heartbeats do not)."""
        name = node["metadata"]["name"]
        if is_deleting(node):
            return self.remove_node(name)
        fingerprint = _fingerprint(node)
        if self._prints.get(name) == fingerprint:
            return False
        self._nodes[name] = node
        self._prints[name] = fingerprint
        self._invalidate()
        return True

    def remove_node(self, name: str) -> bool:
        if self._nodes.pop(name, None) is None:
            return False
        del self._prints[name]
        self._invalidate()
        return True

    def _invalidate(self) -> None:
        self._stale = True
        self._opinions.clear()

    def hold(self, uid: str, node: str, requests: Mapping[str, int]) -> None:
        """Pod ``uid`` has ``requests`` on ``node`` (replaces what it had)."""
        new = Hold(node, requests)
        old = self._holds.get(uid)
        if old == new:
            return
        if old is not None:
            self._count(old, -1)
        self._holds[uid] = new
        self._count(new, 1)

    def release(self, uid: str) -> bool:
        """Pod ``uid`` has nothing any more; whether it had anything."""
        old = self._holds.pop(uid, None)
        if old is not None:
            self._count(old, -1)
        return old is not None

    def holder(self, uid: str) -> Hold | None:
        return self._holds.get(uid)

    def _count(self, hold: Hold, sign: int) -> None:
        row = self._rows.get(hold.node)
        if self._stale or row is None:
            self._stale = self._stale or hold.node in self._nodes
            return
        for resource, amount in hold.requests.items():
            column = self._columns.get(resource)
            if column is not None:
                self.used[row, column] += sign * amount

    # --- reading

    def refresh(self) -> None:
        """Rebuild the arrays if nodes have changed. Call before reading them."""
        if not self._stale:
            return
        self._stale = False
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
            for resource, quantity in {"pods": 110, **amounts[name]}.items():
                self.allocatable[row, self._columns[resource]] = to_int(quantity, resource)
        self.used = np.zeros_like(self.allocatable)
        for hold in self._holds.values():
            self._count(hold, 1)

    def column(self, resource: str) -> int | None:
        """Where a resource stands in the arrays; ``None`` when no node has it."""
        return self._columns.get(resource)

    def only_node(self, needs: Needs) -> str | None:
        """The node that ``needs`` names by its hostname label, if it fits there now; saves looking at all nodes."""
        rows = self._hosts.get(needs.selector.get(HOSTNAME) or "-", ())
        if len(rows) != 1:
            return None
        (row,) = rows
        name = self.names[row]
        if needs.refuses(self._nodes[name]) is not None:
            return None
        for resource, amount in needs.requests.items():
            column = self._columns.get(resource)
            if column is None or self.allocatable[row, column] - self.used[row, column] < amount:
                return None
        return name

    def opinion(self, needs: Needs) -> Opinion:
        """What ``needs`` thinks of the nodes' fixed properties."""
        known = self._opinions.get(needs.key)
        if known is not None:
            return known
        eligible = np.ones(len(self.names), np.bool_)
        dislikes = np.zeros(len(self.names), np.float64)
        refusals: dict[str, int] = {}
        for row, name in enumerate(self.names):
            reason = needs.refuses(self._nodes[name])
            if reason is not None:
                eligible[row] = False
                refusals[reason] = refusals.get(reason, 0) + 1
            else:
                dislikes[row] = needs.dislikes(self._nodes[name])
        if len(self._opinions) >= _KEPT:
            self._opinions.clear()
        opinion = self._opinions[needs.key] = Opinion(eligible, dislikes, refusals)
        return opinion


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

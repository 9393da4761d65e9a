"""The nodes as the core sees them: machines by name, with what pods outside the queue hold of them.

The same name in several logical clusters is one machine: what runs on it is counted once, whichever cluster it is in,
and a workload is placed on machines that its own cluster has (:mod:`glebe.queueing.tenants.tenancy`).
"""

from __future__ import annotations

from glebe.kube.objects import Object, ObjectKey, condition_is_true, is_deleting
from glebe.queueing.picture import fleetobjects
from glebe.queueing.picture.nodeuse import NodeUse
from glebe.queueing.tenants import tenancy
from glebe.scheduling import model as m


class Machines:
    """Takes changes of nodes, gives them as a tuple; equal nodes of successive tuples are the same objects."""

    def __init__(self, host: str, use: NodeUse) -> None:
        self._host = host
        self._use = use
        self._objects: dict[str, dict[str, Object]] = {}  # node -> cluster -> object
        self._nodes: dict[str, m.Node] = {}
        self._tuple: tuple[m.Node, ...] = ()

    def change(self, key: ObjectKey, new: Object | None) -> None:
        """One Node appeared, changed or vanished."""
        places = self._objects.setdefault(key.name, {})
        if new is not None:
            places[key.cluster] = new
        else:
            places.pop(key.cluster, None)
            if not places:
                del self._objects[key.name]
        self._use.dirty[key.name] = None

    def nodes(self) -> tuple[m.Node, ...]:
        """All nodes, by name."""
        dirty = list(self._use.take_dirty())
        if not dirty:
            return self._tuple
        members_changed = changed = False
        for name in dirty:
            places = self._objects.get(name)
            if not places:
                members_changed |= self._nodes.pop(name, None) is not None
                continue
            node, known = self._converted(name, places), self._nodes.get(name)
            members_changed |= known is None
            if node != known:  # pods of placed workloads come and go without changing what is left for others
                self._nodes[name] = node
                changed = True
        if members_changed:
            self._nodes = dict(sorted(self._nodes.items()))
        if members_changed or changed:
            self._tuple = tuple(self._nodes.values())
        return self._tuple

    def _converted(self, name: str, places: dict[str, Object]) -> m.Node:
        own = places.get(self._host)
        node = fleetobjects.node(own if own is not None else places[min(places)], self._use.other_use(name))
        if len(places) == 1 and own is not None:
            return node
        return tenancy.shared(node, [cluster for cluster, obj in sorted(places.items()) if _takes_pods(obj)])


def _takes_pods(node: Object) -> bool:
    unschedulable = (node.get("spec") or {}).get("unschedulable")
    return condition_is_true(node, "Ready") and not unschedulable and not is_deleting(node)

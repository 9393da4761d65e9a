"""What pods outside placed workloads hold on each node, kept up to date pod by pod."""

from __future__ import annotations

from collections.abc import Iterable

from glebe.kube.objects import Object, annotations_of, cluster_of, controller_of, is_deleting
from glebe.kube.pods import has_ended, requests_of
from glebe.kube.quantity import QuantityError
from glebe.queueing import labels
from glebe.scheduling.placement.fleet import PODS

Owners = tuple[str, ...]  # by what a pod's workload may be known: the uid of its job, its own name


class NodeUse:
    """Sums of pod requests by node and owners. ``dirty`` collects the nodes whose sum may have changed."""

    def __init__(self) -> None:
        self._use: dict[str, dict[Owners, dict[str, int]]] = {}  # node -> owners -> resource -> amount
        self._nodes_of: dict[Owners, dict[str, int]] = {}  # owners -> node -> pods
        self._known_as: dict[str, dict[Owners, None]] = {}
        self._placed: dict[str, int] = {}  # by how many workloads: slices of an elastic job follow one another
        self.dirty: dict[str, None] = {}

    def pod_changed(self, old: Object | None, new: Object | None) -> None:
        before = _hold(old) if old is not None else None
        after = _hold(new) if new is not None else None
        if before == after:
            return
        for hold, sign in ((before, -1), (after, 1)):
            if hold is not None:
                self._add(*hold, sign)

    def _add(self, node: str, owners: Owners, requests: dict[str, int], sign: int) -> None:
        held = self._use.setdefault(node, {}).setdefault(owners, {})
        for resource, amount in requests.items():
            held[resource] = held.get(resource, 0) + sign * amount
        if owners not in self._nodes_of:
            for owner in owners:
                self._known_as.setdefault(owner, {})[owners] = None
        pods = self._nodes_of.setdefault(owners, {})
        pods[node] = pods.get(node, 0) + sign
        if not pods[node]:
            del pods[node]
            self._use[node].pop(owners, None)
            if not pods:
                self._forget(owners)
        self.dirty[node] = None

    def _forget(self, owners: Owners) -> None:
        del self._nodes_of[owners]
        for owner in owners:
            del self._known_as[owner][owners]
            if not self._known_as[owner]:
                del self._known_as[owner]

    def set_placed(self, owner: str, placed: bool) -> None:
        """Pods of a placed workload's job are counted by their workload, not here."""
        if not owner:
            return
        count = self._placed.get(owner, 0) + (1 if placed else -1)
        if count > 0:
            self._placed[owner] = count
        else:
            self._placed.pop(owner, None)
        for owners in self._known_as.get(owner, ()):
            self.dirty.update(dict.fromkeys(self._nodes_of[owners]))

    def other_use(self, node: str) -> dict[str, int]:
        total: dict[str, int] = {}
        for owners, held in self._use.get(node, {}).items():
            if any(owner in self._placed for owner in owners):
                continue
            for resource, amount in held.items():
                total[resource] = total.get(resource, 0) + amount
        return total

    def take_dirty(self) -> Iterable[str]:
        dirty, self.dirty = self.dirty, {}
        return dirty


def _hold(pod: Object) -> tuple[str, Owners, dict[str, int]] | None:
    """(node, owners, requests) of a pod that holds resources. A pod on its way out counts for nobody's workload."""
    node = pod["spec"].get("nodeName")
    if not node or has_ended(pod):
        return None
    try:
        return node, _owners(pod), {**requests_of(pod["spec"]), PODS: 1}
    except QuantityError:
        return None


def _owners(pod: Object) -> Owners:
    """Whose the pod is: the workload that it names, and its controller's uid.

    Pods of an elastic job name the slice with which they began; a later one has taken that one's place.
    """
    if is_deleting(pod):
        return ()
    name, controller = annotations_of(pod).get(labels.WORKLOAD), controller_of(pod)
    named = (workload_owner(pod, name),) if name else ()
    return (*named, str(controller["uid"])) if controller is not None else named


def workload_owner(obj: Object, name: str) -> str:
    """By what pods of the workload ``name`` beside ``obj`` are known to :class:`NodeUse`."""
    return f"{cluster_of(obj)}/{obj['metadata']['namespace']}/{name}"

"""What pods outside placed workloads hold on each node, kept up to date pod by pod."""

from __future__ import annotations

from collections.abc import Iterable

from glebe.kube.objects import Object, annotations_of, cluster_of, controller_of, is_deleting
from glebe.kube.pods import has_ended, requests_of
from glebe.kube.quantity import QuantityError
from glebe.queueing import labels
from glebe.scheduling.fleet import PODS


class NodeUse:
    """Sums of pod requests by node and owner. ``dirty`` collects the nodes whose sum may have changed."""

    def __init__(self) -> None:
        self._use: dict[str, dict[str, dict[str, int]]] = {}  # node -> owner uid -> resource -> amount
        self._nodes_of: dict[str, dict[str, int]] = {}  # owner uid -> node -> pods
        self._placed: dict[str, int] = {}
        self.dirty: dict[str, None] = {}

    def pod_changed(self, old: Object | None, new: Object | None) -> None:
        before = _hold(old) if old is not None else None
        after = _hold(new) if new is not None else None
        if before == after:
            return
        for hold, sign in ((before, -1), (after, 1)):
            if hold is not None:
                self._add(*hold, sign)

    def _add(self, node: str, owner: str, requests: dict[str, int], sign: int) -> None:
        held = self._use.setdefault(node, {}).setdefault(owner, {})
        for resource, amount in requests.items():
            held[resource] = held.get(resource, 0) + sign * amount
        pods = self._nodes_of.setdefault(owner, {})
        pods[node] = pods.get(node, 0) + sign
        if not pods[node]:
            del pods[node]
            self._use[node].pop(owner, None)
            if not pods:
                del self._nodes_of[owner]
        self.dirty[node] = None

    def set_placed(self, owner: str, placed: bool) -> None:
        """Pods of a placed workload's job are counted by their workload, not here."""
        if (owner in self._placed) == placed or not owner:
            return
        if placed:
            self._placed[owner] = 1
        else:
            del self._placed[owner]
        for node in self._nodes_of.get(owner, ()):
            self.dirty[node] = None

    def other_use(self, node: str) -> dict[str, int]:
        total: dict[str, int] = {}
        for owner, held in self._use.get(node, {}).items():
            if owner in self._placed:
                continue
            for resource, amount in held.items():
                total[resource] = total.get(resource, 0) + amount
        return total

    def take_dirty(self) -> Iterable[str]:
        dirty, self.dirty = self.dirty, {}
        return dirty


def _hold(pod: Object) -> tuple[str, str, dict[str, int]] | None:
    """(node, owner, requests) of a pod that holds resources. A pod on its way out counts for nobody's workload."""
    node = pod["spec"].get("nodeName")
    if not node or has_ended(pod):
        return None
    try:
        return node, _owner(pod), {**requests_of(pod["spec"]), PODS: 1}
    except QuantityError:
        return None


def _owner(pod: Object) -> str:
    """Whose the pod is: the workload that it names, else its controller's uid."""
    if is_deleting(pod):
        return ""
    if name := annotations_of(pod).get(labels.WORKLOAD):
        return workload_owner(pod, name)
    owner = controller_of(pod)
    return str(owner["uid"]) if owner is not None else ""


def workload_owner(obj: Object, name: str) -> str:
    """By what pods of the workload ``name`` beside ``obj`` are known to :class:`NodeUse`."""
    return f"{cluster_of(obj)}/{obj['metadata']['namespace']}/{name}"

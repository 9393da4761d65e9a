"""Which pods belong together though the pod does not say so: those of its Services and of its controller.

Upstream's default constraints (``systemDefaultConstraints``): such pods are spread over nodes and zones where that
costs nothing else. Only pods without constraints of their own get them, and only for the score.
"""

from __future__ import annotations

from typing import Final

from glebe.kube.objects import Object, controller_of, labels_of
from glebe.kube.pods import BY_SPACE, space, space_of
from glebe.kube.resources import REPLICA_SETS, REPLICATION_CONTROLLERS, SERVICES, STATEFUL_SETS, Resource
from glebe.kube.selectors import LabelSelector, SelectorError
from glebe.workloads.binder.fleet import HOSTNAME
from glebe.workloads.binder.relations import Spread, Who
from glebe.workloads.binder.view import View

ZONE: Final = "topology.kubernetes.io/zone"
WATCHES: Final = (SERVICES, REPLICATION_CONTROLLERS, REPLICA_SETS, STATEFUL_SETS)
INDEXERS: Final = {SERVICES: {BY_SPACE: space_of}}
_SKEWS: Final = ((HOSTNAME, 3), (ZONE, 5))
_OWNERS: Final[dict[tuple[str, str], Resource]] = {
    ("v1", "ReplicationController"): REPLICATION_CONTROLLERS,
    ("apps/v1", "ReplicaSet"): REPLICA_SETS,
    ("apps/v1", "StatefulSet"): STATEFUL_SETS,
}
_KEPT = 4096


class Families:
    """Default constraints of one cluster's pods."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._known: dict[tuple[object, ...], tuple[Spread, ...]] = {}

    def changed(self) -> None:
        """A Service or controller has changed."""
        self._known.clear()

    def spread_of(self, pod: Object) -> tuple[Spread, ...]:
        """What the pod gets; nothing for one that says for itself how it is to be spread."""
        if pod["spec"].get("topologySpreadConstraints"):
            return ()
        meta, labels = pod["metadata"], labels_of(pod)
        owner = controller_of(pod) or {}
        key = (meta["namespace"], owner.get("uid"), frozenset(labels.items()))
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _KEPT:
                self._known.clear()
            found = self._known[key] = self._find(meta["namespace"], labels, owner)
        return found

    def _find(self, namespace: str, labels: dict[str, str], owner: Object) -> tuple[Spread, ...]:
        together: dict[str, str] = {}
        for service in self._view.indexed(SERVICES, BY_SPACE, space(self._view.label, namespace)):
            wanted = (service.get("spec") or {}).get("selector") or {}
            if wanted and all(labels.get(name) == value for name, value in wanted.items()):
                together.update(wanted)
        requirements = LabelSelector.from_object({"matchLabels": together}).requirements if together else ()
        resource = _OWNERS.get((owner.get("apiVersion", ""), owner.get("kind", "")))
        above = self._view.find(resource, f"{namespace}/{owner['name']}") if resource is not None else None
        if above is not None:
            requirements = (*requirements, *_selector(above).requirements)
        if not requirements:
            return ()
        who = Who(frozenset((namespace,)), None, LabelSelector(tuple(dict.fromkeys(requirements))), living=True)
        return tuple(Spread(topology, who, True, skew, 1, True, False) for topology, skew in _SKEWS)


def _selector(owner: Object) -> LabelSelector:
    selector = (owner.get("spec") or {}).get("selector") or {}
    if owner.get("kind") == "ReplicationController":
        selector = {"matchLabels": selector}
    try:
        return LabelSelector.from_object(selector)
    except SelectorError:
        return LabelSelector(nothing=True)

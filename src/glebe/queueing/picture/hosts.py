"""Nodes by the names that assignments have for them: the label ``kubernetes.io/hostname``."""

from __future__ import annotations

from collections.abc import Iterable

from glebe.kube import resources as r
from glebe.kube.informer import Informers
from glebe.kube.objects import EVERY, Object, cluster_of, condition_is_true, is_deleting
from glebe.queueing.picture import fleetobjects

HOST_INDEX = "queueing/host"
_HOST = "root"


def host_index(node: Object) -> Iterable[str]:
    return (fleetobjects.host_of(node),)


class Nodes:
    """The host cluster's nodes, by the names that assignments have for them."""

    def __init__(self, informers: Informers, cluster: str) -> None:
        self.host = _HOST if cluster == EVERY else cluster
        self._store = informers.get(r.NODES, indexers={HOST_INDEX: host_index}).store

    def get(self, host: str) -> Object | None:
        found = self._store.by_index(HOST_INDEX, host)
        return next((n for n in found if cluster_of(n) in ("", self.host)), None)

    def is_sound(self, host: str) -> bool:
        """Is it ready, and open to all pods?"""
        node = self.get(host)
        return node is not None and not self.is_down(host) and not (node.get("spec") or {}).get("taints")

    def is_down(self, host: str) -> bool:
        """Does the node take no pods just now?"""
        node = self.get(host)
        if node is None or not condition_is_true(node, "Ready"):
            return True
        return bool((node.get("spec") or {}).get("unschedulable")) or is_deleting(node)

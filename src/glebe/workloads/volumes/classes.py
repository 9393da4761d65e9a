"""StorageClass ``local-path`` in every cluster that has nodes of Glebe.

It is made when the first such node is seen, and not again when somebody deletes it, until the control plane starts
anew. It is the default class unless the cluster has one already.
"""

from __future__ import annotations

from typing import Final

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_already_exists
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, cluster_of, key_of, labels_of
from glebe.kube.resources import NODES
from glebe.kube.storage import CLASSES, DEFAULT_CLASS, LOCAL_PATH, WAIT, default_class
from glebe.workloads.volumes.provision import KIND_LABEL

NAME: Final = "local-path"
KINDS: Final = ("process", "simulated")


class Classes:
    """Keys are clusters."""

    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        self._client = client
        self._nodes = informers.get(NODES)
        self._classes = informers.get(CLASSES)
        self._seen: set[str] = set()
        self.controller = Controller("local-path-class", self.reconcile, env)
        self.controller.watch(self._nodes, self._cluster_of, when=self._is_first)
        self.controller.watch(self._classes, lambda _: (), when=lambda *_: False)  # only to wait for its first list

    def _is_first(self, old: Object | None, new: Object | None) -> bool:
        if old is not None or new is None or labels_of(new).get(KIND_LABEL) not in KINDS:
            return False
        return cluster_of(new) not in self._seen

    def _cluster_of(self, node: Object) -> list[ObjectKey]:
        return [ObjectKey(key_of(node, self._nodes.cluster).cluster, "", NAME)]

    async def reconcile(self, key: ObjectKey) -> Result | None:
        if self._classes.store.get(key) is None:
            where = key.cluster if self._client.cluster == "*" else ""
            there = default_class(c for c in self._classes.store.values() if cluster_of(c) == where)
            try:
                await self._client.at(key.cluster).create(CLASSES, storage_class(default=there is None))
            except ApiError as error:
                if not is_already_exists(error):
                    raise
        self._seen.add(key.cluster if self._client.cluster == "*" else "")
        return None


def storage_class(*, default: bool) -> Object:
    """The class, for nodes of Glebe only."""
    topology = {"key": KIND_LABEL, "values": list(KINDS)}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": NAME, "annotations": {DEFAULT_CLASS: "true"} if default else {}},
        "provisioner": LOCAL_PATH,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": WAIT,
        "allowVolumeExpansion": True,
        "allowedTopologies": [{"matchLabelExpressions": [topology]}],
    }


def build(client: Client, informers: Informers, env: Env) -> Controller:
    """The controller, for one cluster or for all."""
    return Classes(client, informers, env).controller

"""Which nodes have to do with which objects, by way of the pods that are bound to them.

One graph per logical cluster, made when a node asks for the first time. Changes are noted when they happen and worked
in at the next question, so that a cluster whose nodes do not ask pays nothing for its pods.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from glebe.apiserver.store import Event, Key, Store
from glebe.kube.objects import Object

Ref: TypeAlias = tuple[str, str, str]
"""(group resource, namespace, name)."""

PODS, VOLUMES, CLAIMS = "pods", "persistentvolumes", "persistentvolumeclaims"
SECRETS, CONFIG_MAPS, ACCOUNTS = "secrets", "configmaps", "serviceaccounts"
ATTACHMENTS, SLICES = "volumeattachments.storage.k8s.io", "resourceslices.resource.k8s.io"
DEVICES = "resourceclaims.resource.k8s.io"
_MIRROR = "kubernetes.io/config.mirror"
_FOLLOWED = (PODS, VOLUMES, ATTACHMENTS, SLICES)
_KEPT = 256  # clusters


class _Graph:
    """The edges of one cluster."""

    def __init__(self) -> None:
        self.changed: dict[Ref, None] = {}
        self._holds: dict[Ref, tuple[str, frozenset[Ref]]] = {}  # an object's node, and what it refers to
        self._nodes: dict[Ref, dict[str, int]] = {}  # how many of a node's objects refer to it
        self._volume_claim: dict[str, Ref] = {}
        self._secret_volumes: dict[Ref, set[str]] = {}
        self._volume_secrets: dict[str, tuple[Ref, ...]] = {}

    def put(self, ref: Ref, obj: Object | None) -> None:
        """The present state of an object; ``None``: it is gone."""
        if ref[0] == VOLUMES:
            self._put_volume(ref[2], obj)
            return
        node, refs = ("", frozenset[Ref]()) if obj is None else _edges(ref, obj)
        old = self._holds.pop(ref, None)
        if old is not None:
            for each in old[1]:
                counts = self._nodes[each]
                counts[old[0]] -= 1
                if not counts[old[0]]:
                    del counts[old[0]]
                if not counts:
                    del self._nodes[each]
        if node:
            self._holds[ref] = (node, refs)
            for each in refs:
                counts = self._nodes.setdefault(each, {})
                counts[node] = counts.get(node, 0) + 1

    def _put_volume(self, name: str, obj: Object | None) -> None:
        for secret in self._volume_secrets.pop(name, ()):
            self._secret_volumes[secret].discard(name)
            if not self._secret_volumes[secret]:
                del self._secret_volumes[secret]
        self._volume_claim.pop(name, None)
        claim = (obj or {}).get("spec", {}).get("claimRef")
        if obj is None or not claim:
            return
        self._volume_claim[name] = (CLAIMS, str(claim.get("namespace")), str(claim.get("name")))
        secrets = tuple(_volume_secrets(obj["spec"], str(claim.get("namespace"))))
        self._volume_secrets[name] = secrets
        for secret in secrets:
            self._secret_volumes.setdefault(secret, set()).add(name)

    def connects(self, node: str, ref: Ref) -> bool:
        if node in self._nodes.get(ref, ()):
            return True
        if ref[0] == VOLUMES:
            claim = self._volume_claim.get(ref[2])
            return claim is not None and node in self._nodes.get(claim, ())
        if ref[0] == SECRETS:
            return any(self.connects(node, (VOLUMES, "", volume)) for volume in self._secret_volumes.get(ref, ()))
        return False


class NodeGraphs:
    """The graphs of all clusters of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._graphs: OrderedDict[str, _Graph] = OrderedDict()
        for resource in _FOLLOWED:
            store.follow(resource, self._follow(resource))

    def connects(self, cluster: str, node: str, ref: Ref) -> bool:
        """Whether ``node`` needs the object."""
        graph = self._graphs.get(cluster)
        if graph is None:
            graph = self._graphs[cluster] = self._build(cluster)
            if len(self._graphs) > _KEPT:
                self._graphs.popitem(last=False)
        elif graph.changed:
            changed, graph.changed = graph.changed, {}
            for each in changed:
                entry = self._store.get(Key(each[0], cluster, each[1], each[2]))
                graph.put(each, None if entry is None else entry.load())
        return graph.connects(node, ref)

    def _build(self, cluster: str) -> _Graph:
        graph = _Graph()
        for resource in _FOLLOWED:
            for entry in self._store.range(resource, cluster).entries:
                obj = entry.load()
                meta = obj["metadata"]
                graph.put((resource, meta.get("namespace", ""), meta["name"]), obj)
        return graph

    def _follow(self, resource: str) -> Any:
        def changed(event: Event) -> None:
            graph = self._graphs.get(event.cluster)
            if graph is None:
                return
            if not event.name:
                del self._graphs[event.cluster]  # the whole cluster went
            else:
                graph.changed[resource, event.namespace, event.name] = None

        return changed


def _edges(ref: Ref, obj: Object) -> tuple[str, frozenset[Ref]]:
    """The node of an object and everything that the node may therefore read."""
    spec = obj.get("spec") or {}
    node = str(spec.get("nodeName") or "")
    if ref[0] != PODS or (obj["metadata"].get("annotations") or {}).get(_MIRROR):
        return node, frozenset((ref,))
    return node, frozenset((ref, *_pod_refs(ref[1], ref[2], spec, obj.get("status") or {})))


def _pod_refs(namespace: str, name: str, spec: Object, status: Object) -> Iterator[Ref]:
    if account := spec.get("serviceAccountName"):
        yield ACCOUNTS, namespace, account
    for secret in spec.get("imagePullSecrets") or ():
        yield SECRETS, namespace, secret.get("name", "")
    for volume in spec.get("volumes") or ():
        yield from _volume_refs(namespace, name, volume)
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind) or ():
            yield from _environment_refs(namespace, container)
    given = {s.get("name"): s.get("resourceClaimName") for s in status.get("resourceClaimStatuses") or ()}
    for claim in spec.get("resourceClaims") or ():
        if found := claim.get("resourceClaimName") or given.get(claim.get("name")):
            yield DEVICES, namespace, found
    if extended := (status.get("extendedResourceClaimStatus") or {}).get("resourceClaimName"):
        yield DEVICES, namespace, extended


def _volume_refs(namespace: str, pod: str, volume: Object) -> Iterator[Ref]:
    if source := volume.get("persistentVolumeClaim"):
        yield CLAIMS, namespace, source.get("claimName", "")
    if volume.get("ephemeral"):
        yield CLAIMS, namespace, f"{pod}-{volume.get('name')}"
    if source := volume.get("secret"):
        yield SECRETS, namespace, source.get("secretName", "")
    if source := volume.get("configMap"):
        yield CONFIG_MAPS, namespace, source.get("name", "")
    for source in (volume.get("projected") or {}).get("sources") or ():
        if part := source.get("secret"):
            yield SECRETS, namespace, part.get("name", "")
        if part := source.get("configMap"):
            yield CONFIG_MAPS, namespace, part.get("name", "")
    for secret in _plain_secrets(volume):
        yield SECRETS, namespace, secret


def _plain_secrets(volume: Object) -> Iterable[str]:
    """Secrets of the volume kinds that name one themselves."""
    for kind, field in (
        ("cephfs", "secretRef"), ("flexVolume", "secretRef"), ("rbd", "secretRef"), ("scaleIO", "secretRef"),
        ("iscsi", "secretRef"), ("storageos", "secretRef"), ("csi", "nodePublishSecretRef"),
    ):  # fmt: skip
        if name := ((volume.get(kind) or {}).get(field) or {}).get("name"):
            yield name
    if name := (volume.get("azureFile") or {}).get("secretName"):
        yield name


def _environment_refs(namespace: str, container: Object) -> Iterator[Ref]:
    for source in container.get("envFrom") or ():
        yield from _references(namespace, source, "secretRef", "configMapRef")
    for variable in container.get("env") or ():
        yield from _references(namespace, variable.get("valueFrom") or {}, "secretKeyRef", "configMapKeyRef")


def _references(namespace: str, source: Object, secret: str, config: str) -> Iterator[Ref]:
    if part := source.get(secret):
        yield SECRETS, namespace, part.get("name", "")
    if part := source.get(config):
        yield CONFIG_MAPS, namespace, part.get("name", "")


def _volume_secrets(spec: Object, namespace: str) -> Iterator[Ref]:
    """The secrets that a persistent volume names; without a namespace of their own they are in the claim's."""
    for kind in ("csi", "cephfs", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos"):
        source = spec.get(kind) or {}
        for field, value in source.items():
            if field.endswith("ecretRef") and isinstance(value, dict) and value.get("name"):
                yield SECRETS, value.get("namespace") or namespace, value["name"]
    source = spec.get("azureFile") or {}
    if source.get("secretName"):
        yield SECRETS, source.get("secretNamespace") or namespace, source["secretName"]

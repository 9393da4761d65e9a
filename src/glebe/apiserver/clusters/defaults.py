"""What every logical cluster has from its first moment: namespaces, service accounts, the root certificate.

All clusters share one template; nothing of it is stored until somebody changes it (``store.Given``), so that creating
a cluster is one write and an empty cluster costs no more than its name. The root cluster alone has them as stored
objects: there they are what the platform itself works with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from types import MappingProxyType

import orjson

from glebe.apiserver.clusters.logical import LogicalCluster
from glebe.apiserver.request.routing import ROOT
from glebe.apiserver.store import GivenEntry, Key
from glebe.apiserver.verbs.namespaces import DEFAULT
from glebe.kube.objects import Object

ROOT_CA_NOTE = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints"
_EMPTY: Mapping[tuple[str, str], GivenEntry] = MappingProxyType({})
_UID, _TIME, _REVISION = "\ue000", "\ue001", "\ue002"
"""Stand in the template for what differs; nothing else in it contains them."""
_FEW = 8
_REMEMBERED = 500
"""Of kinds that a cluster has few of, so many are kept as they were made."""


def namespace(name: str) -> Object:
    """A namespace as every cluster has it, but for uid and time."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    }


def template(root_ca: str = "") -> list[tuple[str, Object]]:
    """(group resource, object) of everything that a new cluster has.

    :param root_ca: PEM of the server's CA; "": there is no ``kube-root-ca.crt``.
    """
    out: list[tuple[str, Object]] = []
    for name in DEFAULT:
        out.append(("namespaces", namespace(name)))
        meta: Object = {"name": "default", "namespace": name}
        out.append(("serviceaccounts", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}))
        if root_ca:
            meta = {"name": "kube-root-ca.crt", "namespace": name}
            meta["annotations"] = {"kubernetes.io/description": ROOT_CA_NOTE}
            config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"ca.crt": root_ca}}
            out.append(("configmaps", config))
    return out


class _Form:
    """One object of the template, cut where uid, time and revision belong."""

    __slots__ = ("_address", "_parts")

    def __init__(self, resource: str, obj: Object) -> None:
        meta = obj["metadata"]
        stamps = {"uid": _UID, "resourceVersion": _REVISION, "creationTimestamp": _TIME}
        text = orjson.dumps({**obj, "metadata": {**meta, **stamps}}).decode()
        first, rest = text.split(_UID)
        second, rest = rest.split(_REVISION)
        third, fourth = rest.split(_TIME)
        self._parts = (first.encode(), second.encode(), third.encode(), fourth.encode())
        self._address = f"{resource}/{meta.get('namespace', '')}/{meta['name']}".encode()

    def entry(self, cluster: LogicalCluster, owner: str) -> GivenEntry:
        a, b, c, d = self._parts
        # The same for ever, and in every replica: other objects refer to it.
        digest = sha256(owner.encode() + b"\0" + self._address).hexdigest()
        uid = f"{digest[:8]}-{digest[8:12]}-8{digest[13:16]}-8{digest[17:20]}-{digest[20:32]}"
        parts = (a, uid.encode(), b, b"%d" % cluster.revision, c, cluster.created.encode(), d)
        return GivenEntry(cluster.revision, b"".join(parts))


class Defaults:
    """The template as ``store.Given``.

    :param find: the cluster of a name, as long as it lives.
    """

    def __init__(self, find: Callable[[str], LogicalCluster | None], objects: list[tuple[str, Object]]) -> None:
        self._find = find
        self._forms: dict[str, dict[tuple[str, str], _Form]] = {}
        self._made: dict[tuple[str, int, str, tuple[str, str]], GivenEntry] = {}
        for resource, obj in objects:
            address = (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
            self._forms.setdefault(resource, {})[address] = _Form(resource, obj)

    def table(self, resource: str, cluster: str) -> Mapping[tuple[str, str], GivenEntry]:
        """See ``store.Given``."""
        forms = self._forms.get(resource)
        if forms is None or cluster == ROOT:
            return _EMPTY
        found = self._find(cluster)
        if found is None:
            return _EMPTY
        if len(forms) <= _FEW:
            return {address: self._entry(found, resource, address, form) for address, form in forms.items()}
        owner = found.uid
        return {address: form.entry(found, owner) for address, form in forms.items()}

    def entry(self, key: Key) -> GivenEntry | None:
        """See ``store.Given``."""
        forms = self._forms.get(key.resource)
        address = (key.namespace, key.name)
        if forms is None or key.cluster == ROOT or (form := forms.get(address)) is None:
            return None
        found = self._find(key.cluster)
        return self._entry(found, key.resource, address, form) if found is not None else None

    def _entry(self, cluster: LogicalCluster, resource: str, address: tuple[str, str], form: _Form) -> GivenEntry:
        """Every request to a cluster asks for its namespace, its service account and the like."""
        key = (cluster.name, cluster.revision, resource, address)
        made = self._made.get(key)
        if made is None:
            if len(self._made) >= _REMEMBERED:
                self._made.clear()
            made = self._made[key] = form.entry(cluster, cluster.uid)
        return made

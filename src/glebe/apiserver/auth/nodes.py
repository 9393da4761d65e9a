"""The Node authorizer: a kubelet reaches what the pods on its node need, and its own objects."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from glebe.apiserver.auth import bootstrap
from glebe.apiserver.auth.nodegraph import (
    ACCOUNTS,
    ATTACHMENTS,
    CLAIMS,
    CONFIG_MAPS,
    DEVICES,
    PODS,
    SECRETS,
    SLICES,
    VOLUMES,
    NodeGraphs,
)
from glebe.apiserver.auth.rules import Attributes, Rule, allows
from glebe.apiserver.store import Store
from glebe.kube.selectors import FieldSelector
from glebe.kube.transport import User

_GROUP, _USER = "system:nodes", "system:node:"
_LEASES = "kube-node-lease"
_Verdict = tuple[bool, str]
_YES: _Verdict = (True, "")
_NO: _Verdict = (False, "")


def node_of(user: User) -> str | None:
    """The node that a user is; ``None`` for everybody else."""
    if not user.name.startswith(_USER) or _GROUP not in user.groups:
        return None
    return user.name[len(_USER) :] or None


@cache
def _rules() -> tuple[Rule, ...]:
    return tuple(bootstrap.cluster_roles()["system:node"]["rules"])


class NodeAuthorizer:
    """Decides about requests of nodes; has no opinion on others."""

    def __init__(self, store: Callable[[], Store]) -> None:
        self._store = store
        self._graphs: NodeGraphs | None = None
        self._by_resource: dict[str, Callable[[str, str, Attributes], _Verdict]] = {
            SECRETS: self._read_one,
            CONFIG_MAPS: self._read_one,
            CLAIMS: self._claim,
            VOLUMES: self._get,
            DEVICES: self._get,
            ATTACHMENTS: self._get,
            ACCOUNTS: self._account,
            "leases.coordination.k8s.io": self._lease,
            "csinodes.storage.k8s.io": self._csi_node,
            SLICES: self._slice,
            "nodes": self._node,
            PODS: self._pod,
        }

    def decide(self, node: str, cluster: str, a: Attributes) -> _Verdict:
        """(allowed, why not)."""
        if not a.path:
            special = self._by_resource.get(f"{a.resource}.{a.group}" if a.group else a.resource)
            if special is not None:
                return special(node, cluster, a)
        return (True, "") if any(allows(rule, a) for rule in _rules()) else _NO

    def _connected(self, node: str, cluster: str, a: Attributes) -> _Verdict:
        if not a.name:
            return False, "No Object name found"
        if self._graphs is None:
            self._graphs = NodeGraphs(self._store())
        resource = f"{a.resource}.{a.group}" if a.group else a.resource
        if self._graphs.connects(cluster, node, (resource, a.namespace, a.name)):
            return _YES
        return False, f"no relationship found between node '{node}' and this object"

    def _get(self, node: str, cluster: str, a: Attributes) -> _Verdict:
        if a.verb != "get":
            return False, "can only get individual resources of this type"
        if a.subresource:
            return False, "cannot get subresource"
        return self._connected(node, cluster, a)

    def _claim(self, node: str, cluster: str, a: Attributes) -> _Verdict:
        if a.subresource != "status":
            return self._get(node, cluster, a)
        if a.verb not in ("update", "patch"):
            return False, "can only get/update/patch this type"
        return self._connected(node, cluster, a)

    def _read_one(self, node: str, cluster: str, a: Attributes) -> _Verdict:
        if a.verb not in ("get", "list", "watch"):
            return False, "can only read resources of this type"
        if a.subresource:
            return False, "cannot read subresource"
        if not a.namespace:
            return False, "can only read namespaced object of this type"
        return self._connected(node, cluster, a)

    def _account(self, node: str, cluster: str, a: Attributes) -> _Verdict:
        if a.verb == "get" and not a.subresource:
            return self._read_one(node, cluster, a)
        if a.verb != "create" or not a.name:
            return False, "can only create tokens for individual service accounts"
        if a.subresource != "token":
            return False, "can only create token subresource of serviceaccount"
        return self._connected(node, cluster, a)

    def _lease(self, node: str, cluster: str, a: Attributes) -> _Verdict:
        if a.verb not in ("get", "create", "update", "patch", "delete"):
            return False, "can only get, create, update, patch, or delete a node lease"
        if a.namespace != _LEASES:
            return False, f'can only access leases in the "{_LEASES}" system namespace'
        if a.verb != "create" and a.name != node:
            return False, "can only access node lease with the same name as the requesting node"
        return _YES

    def _csi_node(self, node: str, cluster: str, a: Attributes) -> _Verdict:
        if a.verb not in ("get", "create", "update", "patch", "delete"):
            return False, "can only get, create, update, patch, or delete a CSINode"
        if a.subresource:
            return False, "cannot authorize CSINode subresources"
        if a.verb != "create" and a.name != node:
            return False, "can only access CSINode with the same name as the requesting node"
        return _YES

    def _slice(self, node: str, cluster: str, a: Attributes) -> _Verdict:
        if a.subresource:
            return False, "cannot authorize ResourceSlice subresources"
        if a.verb == "create":
            return _YES
        if a.verb in ("get", "update", "patch", "delete"):
            return self._connected(node, cluster, a)
        if a.verb in ("watch", "list", "deletecollection"):
            if _pins(a.fields, "spec.nodeName", node):
                return _YES
            return False, "can only list/watch/deletecollection resourceslices with nodeName field selector"
        verbs = "get, watch, list, create, update, patch, delete, deletecollection"
        return False, f"only the following verbs are allowed for a ResourceSlice: {verbs}"

    def _node(self, node: str, cluster: str, a: Attributes) -> _Verdict:
        if a.subresource == "status":
            return _YES if a.verb in ("update", "patch") else _NO
        if a.subresource:
            return _NO
        if a.verb in ("create", "update", "patch"):
            return _YES
        if a.verb not in ("get", "list", "watch"):
            return _NO
        if a.name == node:
            return _YES
        if not a.name:
            return False, f"node '{node}' cannot read all nodes, only its own Node object"
        return False, f"node '{node}' cannot read '{a.name}', only its own Node object"

    def _pod(self, node: str, cluster: str, a: Attributes) -> _Verdict:
        allowed = {"status": ("update", "patch"), "eviction": ("create",)}.get(a.subresource)
        if a.subresource:
            return _YES if allowed is not None and a.verb in allowed else _NO
        if a.verb == "get":
            return self._get(node, cluster, a)
        if a.verb in ("create", "delete"):
            return _YES
        if a.verb not in ("list", "watch"):
            return _NO
        if _pins(a.fields, "spec.nodeName", node):
            return _YES
        if a.name:
            return self._connected(node, cluster, a)
        return False, "can only list/watch pods with spec.nodeName field selector"


def _pins(fields: str, path: str, value: str) -> bool:
    """Whether a field selector lets only objects through whose ``path`` is ``value``."""
    try:
        return any(t.equal and t.path == path and t.value == value for t in FieldSelector.parse(fields).terms)
    except ValueError:
        return False

"""Role-based access control over the stored roles and bindings, with the bootstrap policy underneath."""

from __future__ import annotations

from collections import OrderedDict
from functools import cache
from typing import Protocol

from glebe.apiserver.auth import bootstrap
from glebe.apiserver.auth.bootstrap import BINDINGS, CLUSTER_BINDINGS, CLUSTER_ROLES, GROUP, ROLES, Address
from glebe.apiserver.auth.compiled import Policy
from glebe.apiserver.auth.rules import Attributes, Rule
from glebe.apiserver.store import EVERY_CLUSTER, Event, Key, Store
from glebe.kube.objects import Object
from glebe.kube.transport import User

__all__ = ["BINDINGS", "CLUSTER_BINDINGS", "CLUSTER_ROLES", "GROUP", "MASTERS", "ROLES", "RbacAuthorizer"]

MASTERS = "system:masters"
_RESOURCES = (ROLES, CLUSTER_ROLES, BINDINGS, CLUSTER_BINDINGS)
_MARKERS = "bootstrappolicy.glebe.dev"
_KEPT = 2048  # clusters whose policy is kept


def marker(cluster: str) -> Key:
    """Where it is written that a cluster holds the bootstrap policy itself (and which version of it)."""
    return Key(_MARKERS, cluster, "", "rbac")


class Holder(Protocol):
    """Who has the store: the API server."""

    @property
    def store(self) -> Store: ...


@cache
def _shared() -> Policy:
    """The policy of all clusters that hold nothing of their own."""
    base = bootstrap.policy()
    return Policy(base[ROLES], base[CLUSTER_ROLES], base[BINDINGS], base[CLUSTER_BINDINGS])


class RbacAuthorizer:
    """Answers from a compiled policy per cluster; a change of a role or binding holds from the next request on.

    In a cluster that has not been given the bootstrap objects yet, they hold nevertheless, except where a stored
    object has the same name.
    """

    def __init__(self, holder: Holder) -> None:
        self._holder = holder
        self._following = False
        self._policies: OrderedDict[str, Policy] = OrderedDict()

    async def authorize(
        self,
        user: User,
        cluster: str,
        verb: str,
        group: str,
        resource: str,
        subresource: str,
        namespace: str,
        name: str,
        path: str,
        fields: str = "",
    ) -> tuple[bool, str]:
        """Whether ``user`` may do it, and which binding says so."""
        if subresource:
            resource = f"{resource}/{subresource}"
        reason = self.policy(cluster).decide(user, verb, group, resource, namespace, name, path)
        return (False, "") if reason is None else (True, reason)

    def decide(self, user: User, cluster: str, a: Attributes) -> tuple[bool, str]:
        """The same without the ceremony; members of ``system:masters`` may do everything."""
        if MASTERS in user.groups:
            return True, ""
        resource = f"{a.resource}/{a.subresource}" if a.subresource else a.resource
        reason = self.policy(cluster).decide(user, a.verb, a.group, resource, a.namespace, a.name, a.path)
        return (False, "") if reason is None else (True, reason)

    def rules_of(self, user: User, cluster: str, namespace: str = "") -> list[Rule]:
        """Everything that ``user`` may do in ``namespace`` (or only cluster-wide)."""
        if MASTERS in user.groups:
            return list(bootstrap.EVERYTHING)
        return self.policy(cluster).rules_of(user, namespace)

    def rules_of_role(self, cluster: str, reference: Object, namespace: str) -> list[Rule] | None:
        """The rules of a ``roleRef``; ``None`` when the role does not exist."""
        return self.policy(cluster).rules_of_role(reference, namespace)

    # --- compiling

    def policy(self, cluster: str) -> Policy:
        """The present policy of a cluster."""
        found = self._policies.get(cluster)
        if found is not None:
            return found
        if not self._following:
            self._following = True
            for resource in (*_RESOURCES, _MARKERS):
                self._holder.store.follow(resource, self._changed)
        found = self._policies[cluster] = _compile(self._holder.store, cluster)
        if len(self._policies) > _KEPT:
            self._policies.popitem(last=False)
        return found

    def _changed(self, event: Event) -> None:
        self._policies.pop(event.cluster, None)


def _compile(store: Store, cluster: str) -> Policy:
    if cluster in ("", EVERY_CLUSTER):
        return _shared()  # no cluster: what is bound in one must count for nothing in a question about all of them
    stored = {resource: _stored(store, resource, cluster) for resource in _RESOURCES}
    base = bootstrap.policy()
    if store.get(marker(cluster)) is None:
        stored = {resource: {**base[resource], **objects} for resource, objects in stored.items()}
    if all(_same(stored[resource], base[resource]) for resource in _RESOURCES):
        return _shared()
    return Policy(stored[ROLES], stored[CLUSTER_ROLES], stored[BINDINGS], stored[CLUSTER_BINDINGS])


def _same(a: dict[Address, Object], b: dict[Address, Object]) -> bool:
    """Whether these are the very same objects."""
    return len(a) == len(b) and all(b.get(address) is obj for address, obj in a.items())


def _stored(store: Store, resource: str, cluster: str) -> dict[Address, Object]:
    """The objects of a cluster; those that say what the bootstrap policy says are its shared ones."""
    base = bootstrap.policy()[resource]
    out: dict[Address, Object] = {}
    for entry in store.range(resource, cluster).entries:
        obj = entry.load()  # not the shared view: these stay
        meta = obj["metadata"]
        address = (meta.get("namespace", ""), meta["name"])
        usual = base.get(address)
        if usual is not None and all(obj.get(k) == usual.get(k) for k in _MEANING) and _labels(obj) == _labels(usual):
            out[address] = usual
            continue
        meta.pop("managedFields", None)
        out[address] = obj
    return out


_MEANING = ("rules", "aggregationRule", "roleRef", "subjects")


def _labels(obj: Object) -> Object:
    labels: Object = obj["metadata"].get("labels") or {}
    return labels

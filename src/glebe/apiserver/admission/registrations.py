"""The admission registrations of each logical cluster, decoded and compiled once per content.

A cluster without registrations costs one look-up in a dict. What is compiled is keyed by content and shared by all
clusters; what a cluster has registered is forgotten when something of it changes, whoever changed it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import orjson

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer
    from glebe.kube.objects import Object

GROUP = "admissionregistration.k8s.io"
MUTATING_WEBHOOKS = f"mutatingwebhookconfigurations.{GROUP}"
VALIDATING_WEBHOOKS = f"validatingwebhookconfigurations.{GROUP}"
VALIDATING_POLICIES = f"validatingadmissionpolicies.{GROUP}"
VALIDATING_BINDINGS = f"validatingadmissionpolicybindings.{GROUP}"
MUTATING_POLICIES = f"mutatingadmissionpolicies.{GROUP}"
MUTATING_BINDINGS = f"mutatingadmissionpolicybindings.{GROUP}"
#: Objects that no registration may stand in the way of: who registers a mistake must be able to mend it.
EXEMPT = frozenset(
    {
        MUTATING_WEBHOOKS,
        VALIDATING_WEBHOOKS,
        VALIDATING_POLICIES,
        VALIDATING_BINDINGS,
        MUTATING_POLICIES,
        MUTATING_BINDINGS,
    }
)
_SHARED = 2048

T = TypeVar("T")


class Registrations(Generic[T]):
    """What ``read`` makes of a cluster's objects of some resources, remembered until one of them changes."""

    def __init__(
        self, server: ApiServer, resources: Sequence[str], read: Callable[[dict[str, list[Object]]], tuple[T, ...]]
    ) -> None:
        self._server = server
        self._resources = tuple(resources)
        self._read = read
        self.known: dict[str, tuple[T, ...]] = {}
        """What is remembered, for who looks before he asks :meth:`of`."""
        self._following = False

    def of(self, cluster: str) -> tuple[T, ...]:
        """All of a cluster's, in the order of their names."""
        known = self.known.get(cluster)
        return self._load(cluster) if known is None else known

    def _load(self, cluster: str) -> tuple[T, ...]:
        if not self._following:
            self._following = True
            for resource in self._resources:
                self._server.store.follow(resource, lambda event: self._forget(event.cluster))
            self._server.clusters.on_delete(self._forget)
        stored: dict[str, list[Object]] = {}
        for resource in self._resources:
            found = self._server.read_all(cluster, resource)
            if not found and not stored:  # the first resource decides whether there is anything to do
                break
            stored[resource] = sorted(found, key=lambda obj: str(obj["metadata"]["name"]))
        made = self._read(stored) if stored else ()
        if self._server.clusters.exists(cluster):
            self.known[cluster] = made
        return made

    def _forget(self, cluster: str) -> None:
        self.known.pop(cluster, None)


class Shared(Generic[T]):
    """Compiled things by their content."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self._made: OrderedDict[bytes, T] = OrderedDict()

    def of(self, content: Any) -> T:
        key = hashlib.blake2b(orjson.dumps(content, option=orjson.OPT_SORT_KEYS), digest_size=20).digest()
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = self._make(content)
            while len(self._made) > _SHARED:
                self._made.popitem(last=False)
        else:
            self._made.move_to_end(key)
        return found

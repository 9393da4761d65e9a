"""One logical cluster's part of the caches."""

from __future__ import annotations

from collections.abc import Mapping

from glebe.kube.informer import Informer
from glebe.kube.objects import EVERY, Object, ObjectKey, key_of
from glebe.kube.resources import Resource


class View:
    """Reads what informers (over all clusters, or over one) know of ``cluster``."""

    def __init__(self, cluster: str, informers: Mapping[Resource, Informer]) -> None:
        self.cluster = cluster
        self.label = cluster if all(informer.cluster == EVERY for informer in informers.values()) else ""
        """What objects say of their cluster."""
        self._informers = informers

    def find(self, resource: Resource, path: str) -> Object | None:
        """The object at ``name`` or ``namespace/name``."""
        namespace, _, name = path.rpartition("/")
        return self._informers[resource].store.get(ObjectKey(self.cluster, namespace, name))

    def every(self, resource: Resource) -> list[Object]:
        """All of a kind."""
        return self._informers[resource].members(self.cluster)

    def indexed(self, resource: Resource, index: str, value: str) -> list[Object]:
        """Those of a kind for which an index has ``value``."""
        return self._informers[resource].store.by_index(index, value)

    def key_of(self, obj: Object) -> ObjectKey:
        return key_of(obj, self.cluster)

    def at(self, resource: Resource, key: ObjectKey) -> Object | None:
        return self._informers[resource].store.get(key)

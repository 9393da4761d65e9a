"""What reconcilers of jobs and pods look up: classes, flavors, other objects that a job names, whom it belongs to."""

from __future__ import annotations

from collections.abc import Iterable

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.informer import Informer, Informers
from glebe.kube.objects import EVERY, Object, ObjectKey, cluster_of, controller_of
from glebe.kube.resources import Resource
from glebe.queueing.jobs import integrations
from glebe.queueing.jobs.integrations import Find, JobKinds
from glebe.queueing.tenants import tenancy

#: Where a workload's priority may come from.
CLASSES = (r.WORKLOAD_PRIORITY_CLASSES, r.WORKLOAD_CLASSES, r.PRIORITY_CLASSES)
_HOST = "root"
#: Owners of owners that are followed.
_DEPTH = 10


class World:
    """Looks things up in shared informers.

    Queues, flavors and classes are the host cluster's, whichever cluster a job is in.
    """

    def __init__(self, client: Client, informers: Informers, kinds: JobKinds, needs: Iterable[Resource] = ()) -> None:
        self._informers = informers
        self._kinds = kinds
        self._cluster = client.cluster
        self.host = _HOST if client.cluster == EVERY else client.cluster
        self._stores: dict[Resource, Informer] = {
            resource: informers.get(resource) for resource in (*CLASSES, r.RESOURCE_FLAVORS, *needs)
        }

    def place(self, obj: Object) -> str:
        """The cluster under which the stores have what lives beside ``obj``."""
        return cluster_of(obj) if self._cluster == EVERY else self._cluster

    def finder(self, obj: Object) -> Find:
        """Looks up what ``obj`` names: in its own cluster, classes in the host."""
        cluster = self.place(obj)

        def find(resource: Resource, name: str, namespace: str = "") -> Object | None:
            known = self._stores.get(resource)
            if known is None:
                return None
            where = self.host if not resource.namespaced and resource in CLASSES else cluster
            found = known.store.get(ObjectKey(where, namespace, name))
            return found if where == cluster or found is None or tenancy.may_use(found, cluster) else None

        return find

    def flavor(self, name: str) -> Object | None:
        """A ResourceFlavor."""
        return self._stores[r.RESOURCE_FLAVORS].store.get(ObjectKey(self.host, "", name))

    def queued_owner(self, obj: Object) -> Object | None:
        """The object that is queued and that ``obj`` is a part of: its controller, or that one's, and so on."""
        for _ in range(_DEPTH):
            ref = controller_of(obj)
            kind = self._kinds.for_kind(ref["apiVersion"], ref["kind"]) if ref else None
            if ref is None or kind is None:
                return None
            key = ObjectKey(self.place(obj), obj["metadata"]["namespace"], ref["name"])
            found = self._informers.get(kind.resource).store.get(key)
            if found is None or found["metadata"]["uid"] != ref["uid"]:
                return None
            if integrations.is_queued(found, kind):
                return found
            obj = found
        return None

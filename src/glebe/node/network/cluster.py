"""What the cluster's Services are, from shared informers: read by DNS and by the proxies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, labels_of
from glebe.kube.resources import NAMESPACES, NODES, SERVICES, Resource
from glebe.node.network.services import cluster_ips
from glebe.node.spec import KIND_LABEL

SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
_SERVICE_NAME = "kubernetes.io/service-name"
_BY_SERVICE, _BY_ADDRESS = "node-by-service", "node-by-address"

#: Under which addresses a Service is reached inside the cluster.
AddressesOf = Callable[[Object], Sequence[str]]


def service_key(service: Object) -> str:
    """``NAMESPACE/NAME``."""
    return f"{service['metadata']['namespace']}/{service['metadata']['name']}"


def services_of(each: Object) -> list[str]:
    """The keys of the Services (one or none) of an EndpointSlice."""
    name = labels_of(each).get(_SERVICE_NAME)
    return [f"{each['metadata']['namespace']}/{name}"] if name else []


def _slices_by_address(each: Object) -> list[str]:
    return sorted({a for endpoint in each.get("endpoints") or () for a in endpoint.get("addresses") or ()})


class Cluster:
    """Services, their endpoints, namespaces. Implements :class:`.records.View`."""

    def __init__(self, informers: Informers, addresses_of: AddressesOf = cluster_ips) -> None:
        indexers = {_BY_SERVICE: services_of, _BY_ADDRESS: _slices_by_address}
        self.services = informers.get(SERVICES, indexers={_BY_ADDRESS: cluster_ips})
        self.all_slices = informers.get(SLICES, indexers=indexers)
        self._namespaces = informers.get(NAMESPACES)
        self._nodes = informers.get(NODES)
        self._informers = (self.services, self.all_slices, self._namespaces, self._nodes)
        self.addresses_of = addresses_of
        self.other_services_at: Callable[[str], Sequence[Object]] | None = None

    async def wait_synced(self) -> None:
        for informer in self._informers:
            await informer.wait_synced()

    @property
    def has_synced(self) -> bool:
        return all(informer.has_synced for informer in self._informers)

    def service(self, namespace: str, name: str) -> Object | None:
        return self.services.store.get(ObjectKey(self.services.cluster, namespace, name))

    def slices(self, namespace: str, name: str) -> Sequence[Object]:
        return self.all_slices.store.by_index(_BY_SERVICE, f"{namespace}/{name}")

    def addresses(self, service: Object) -> Sequence[str]:
        return self.addresses_of(service)

    def has_namespace(self, name: str) -> bool:
        return self._namespaces.store.get(ObjectKey(self._namespaces.cluster, "", name)) is not None

    def services_at(self, address: str) -> Sequence[Object]:
        if self.other_services_at is not None:
            return self.other_services_at(address)
        return self.services.store.by_index(_BY_ADDRESS, address)

    def slices_at(self, address: str) -> Sequence[Object]:
        return self.all_slices.store.by_index(_BY_ADDRESS, address)

    def in_namespace(self, namespace: str) -> Iterator[Object]:
        """The Services of one namespace."""
        return (s for s in self.services.store.values() if s["metadata"]["namespace"] == namespace)

    def unreal(self, node: str) -> bool:
        """Whether pods of the node only pretend to be at their addresses."""
        found = self._nodes.store.get(ObjectKey(self._nodes.cluster, "", node)) if node else None
        return found is not None and labels_of(found).get(KIND_LABEL) == "simulated"

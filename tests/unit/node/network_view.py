"""A cluster for tests of names and Services: Services and EndpointSlices from plain words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from glebe.kube.objects import Object
from glebe.node.network.services import cluster_ips


def service(name: str, address: str = "None", *, namespace: str = "default", **spec: Any) -> Object:
    ports = spec.pop("ports", [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}])
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{namespace}-{name}"},
        "spec": {"clusterIP": address, "clusterIPs": [address], "ports": ports, "type": "ClusterIP", **spec},
    }


def endpoint(address: str, *, node: str = "local", host: str = "", **conditions: bool) -> Object:
    out: Object = {"addresses": [address], "conditions": {"ready": True, **conditions}, "nodeName": node}
    return {**out, "hostname": host} if host else out


def slices(of: Object, *endpoints: Object, ports: Sequence[Object] | None = None) -> Object:
    meta = of["metadata"]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{meta['name']}-{len(endpoints)}x",
            "namespace": meta["namespace"],
            "uid": f"slice-{meta['name']}",
            "labels": {"kubernetes.io/service-name": meta["name"]},
        },
        "addressType": "IPv4",
        "ports": ports if ports is not None else [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": list(endpoints),
    }


class FixedView:
    """A view over fixed objects."""

    def __init__(self, services: Sequence[Object] = (), listed: Sequence[Object] = ()) -> None:
        self._services = {(s["metadata"]["namespace"], s["metadata"]["name"]): s for s in services}
        self._slices = listed

    def service(self, namespace: str, name: str) -> Object | None:
        return self._services.get((namespace, name))

    def slices(self, namespace: str, name: str) -> Sequence[Object]:
        return [
            s
            for s in self._slices
            if (s["metadata"]["namespace"], s["metadata"]["labels"]["kubernetes.io/service-name"]) == (namespace, name)
        ]

    def addresses(self, service: Object) -> Sequence[str]:
        return cluster_ips(service)

    def has_namespace(self, name: str) -> bool:
        return name in {"default", "other"}

    def services_at(self, address: str) -> Sequence[Object]:
        return [s for s in self._services.values() if address in cluster_ips(s)]

    def slices_at(self, address: str) -> Sequence[Object]:
        return [s for s in self._slices if any(address in e["addresses"] for e in s["endpoints"])]

"""The cluster's names as lines of a hosts file, for pods that can ask no name server. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from glebe.kube.objects import Object
from glebe.node.network.cluster import Cluster
from glebe.node.network.records import DOMAIN
from glebe.node.network.services import is_headless, is_ready


def host_names(cluster: Cluster, namespace: str) -> list[tuple[str, str]]:
    """Address and names (short ones for Services of the pod's own ``namespace``) of everything that has an address."""
    out: list[tuple[str, str]] = []
    for service in cluster.services.store.values():
        meta = service["metadata"]
        names = _names(meta["name"], meta["namespace"], own=meta["namespace"] == namespace)
        out += [(address, " ".join(names)) for address in cluster.addresses(service)[:1]]
        if is_headless(service):
            out += _members(service, cluster.slices(meta["namespace"], meta["name"]), names)
    return sorted(out, key=lambda line: line[1])


def _names(name: str, namespace: str, *, own: bool) -> list[str]:
    short = [name] if own else []
    return [*short, f"{name}.{namespace}", f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.{DOMAIN}"]


def _members(service: Object, slices: Sequence[Object], names: Sequence[str]) -> list[tuple[str, str]]:
    """The endpoints of a headless Service: each under its own name, and all under the Service's."""
    out = []
    for each in slices:
        for endpoint in each.get("endpoints") or () if each.get("addressType") == "IPv4" else ():
            if not is_ready(endpoint):
                continue
            for address in endpoint["addresses"]:
                host = endpoint.get("hostname")
                out += [(address, " ".join(f"{host}.{name}" for name in names))] if host else []
                out.append((address, " ".join(names)))
    return out

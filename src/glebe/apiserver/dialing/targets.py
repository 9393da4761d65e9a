"""From what an object names (a Service, a URL) to addresses that may be dialled."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from glebe.apiserver.dialing.rules import DialError, DialRules
from glebe.apiserver.store import Key
from glebe.kube.objects import Object

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer

_SLICES, _ENDPOINTS, _SERVICES = "endpointslices.discovery.k8s.io", "endpoints", "services"
_OF_SERVICE = "kubernetes.io/service-name"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes: addresses to try in turn, and the name that its certificate must have."""

    addresses: tuple[tuple[str, int], ...]
    server_name: str
    host_header: str
    path: str = "/"
    scheme: str = "https"

    @property
    def url(self) -> str:
        """The URL as an error message shows it."""
        return f"{self.scheme}://{self.host_header}{self.path}"


class Targets:
    """Finds targets in the state of their logical cluster, and holds them to the rules."""

    def __init__(self, server: ApiServer, rules: DialRules | None = None) -> None:
        self._server = server
        self.rules = rules or DialRules()

    def service(self, cluster: str, namespace: str, name: str, port: int) -> list[tuple[str, int]]:
        """The addresses behind a Service's ``port``: its ready endpoints, else its ClusterIP.

        :raises DialError: there is no such service or port, or nothing that could be dialled.
        """
        found = self._server.read(cluster, _SERVICES, namespace, name)
        if found is None:
            raise DialError(f'service "{name}" not found')
        spec = found.get("spec") or {}
        if spec.get("type") == "ExternalName":
            raise DialError(f'service "{name}" is of type ExternalName')
        chosen = next((p for p in spec.get("ports") or () if p.get("port") == port), None)
        if chosen is None:
            raise DialError(f'no service port {port} found for service "{name}"')
        addresses = self._endpoints(cluster, namespace, name, str(chosen.get("name") or ""))
        if not addresses:
            ip = spec.get("clusterIP") or ""
            if not ip or ip == "None":
                raise DialError(f'no endpoints available for service "{name}"')
            addresses = [(ip, port)]
        for host, _ in addresses:
            self.rules.check(cluster, host)
        return addresses

    def _endpoints(self, cluster: str, namespace: str, name: str, port: str) -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        for obj in self._server.read_all(cluster, _SLICES, namespace):
            if (obj["metadata"].get("labels") or {}).get(_OF_SERVICE) == name:
                found += _of_slice(obj, port)
        if found:
            return sorted(set(found))
        endpoints = self._server.store.get(Key(_ENDPOINTS, cluster, namespace, name))
        for subset in (endpoints.view().get("subsets") or ()) if endpoints is not None else ():
            number = _port(subset.get("ports"), port)
            if number:
                found += [(a["ip"], number) for a in subset.get("addresses") or ()]
        return sorted(set(found))

    def of_service(self, cluster: str, reference: Mapping[str, Any]) -> Target:
        """The target of a ``ServiceReference`` (namespace, name, port, path).

        :raises DialError: it leads nowhere.
        """
        namespace, name = str(reference.get("namespace", "")), str(reference.get("name", ""))
        port = int(reference.get("port") or 443)
        server_name = f"{name}.{namespace}.svc"
        path = str(reference.get("path") or "/")
        path = path if path.startswith("/") else f"/{path}"
        addresses = tuple(self.service(cluster, namespace, name, port))
        return Target(addresses, server_name, f"{server_name}:{port}", path)

    async def of_url(self, cluster: str, url: str) -> Target:
        """The target of a URL; its host is resolved here, so that what is checked is what is dialled.

        :raises DialError: it leads nowhere.
        """
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
        try:
            addresses = [str(ipaddress.ip_address(host))]
        except ValueError:
            loop = asyncio.get_running_loop()
            try:
                infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except OSError:
                raise DialError(f"dial tcp: lookup {host}: no such host") from None
            addresses = list(dict.fromkeys(str(info[4][0]) for info in infos))
        for address in addresses:
            self.rules.check(cluster, address)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return Target(tuple((a, port) for a in addresses), host, parts.netloc, path, parts.scheme or "https")

    async def of_client_config(self, cluster: str, config: Mapping[str, Any]) -> Target:
        """The target of a ``WebhookClientConfig`` (``url`` or ``service``).

        :raises DialError: it leads nowhere.
        """
        if config.get("service"):
            return self.of_service(cluster, config["service"])
        return await self.of_url(cluster, str(config.get("url") or ""))


def decode_bundle(text: str | None) -> bytes:
    """A ``caBundle`` as it stands in an object (base64 of PEM)."""
    try:
        return base64.b64decode(text or "")
    except ValueError:
        return b""


def _of_slice(obj: Object, port: str) -> list[tuple[str, int]]:
    number = _port(obj.get("ports"), port)
    if not number:
        return []
    ready = [e for e in obj.get("endpoints") or () if (e.get("conditions") or {}).get("ready") is not False]
    return [(address, number) for e in ready for address in (e.get("addresses") or ())[:1]]


def _port(ports: Any, name: str) -> int:
    """The number of the port called ``name``; an unnamed port is the only one."""
    for each in ports or ():
        if str(each.get("name") or "") == name:
            return int(each.get("port") or 0)
    return 0

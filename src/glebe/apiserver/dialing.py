"""Calling servers that tenants run: webhooks, conversion webhooks, aggregated APIs.

A target is a URL or a Service of the tenant's own logical cluster. A Service is reached at the addresses of its ready
endpoints (this server stands in no pod network that would know the ClusterIP), and at its ClusterIP when it has none.

What tenants name decides where this process connects to, so that it could be sent to places that only it can reach
(its own loopback ports, a cloud's metadata service). :class:`DialRules` says which addresses each logical cluster may
name: ``root`` any, the others neither loopback nor link-local ones unless they are allowed.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import os
import socket
import ssl
import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from glebe.apiserver.request.routing import ROOT
from glebe.apiserver.store import Key
from glebe.kube.objects import Object

if TYPE_CHECKING:
    import aiohttp

    from glebe.apiserver.server import ApiServer

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_SLICES, _ENDPOINTS, _SERVICES = "endpointslices.discovery.k8s.io", "endpoints", "services"
_OF_SERVICE = "kubernetes.io/service-name"
_CONTEXTS = 256
LARGEST_ANSWER = 16 << 20


class DialError(Exception):
    """The target cannot be reached, or may not be."""


@dataclass(frozen=True, slots=True)
class DialRules:
    """Which addresses may be dialled on behalf of logical clusters other than ``root``.

    :param allow: networks that are allowed although they are loopback or link-local.
    :param deny: networks that are refused besides those.
    """

    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()

    def check(self, cluster: str, host: str) -> None:
        """:raises DialError: ``cluster`` may not make this server connect to the address ``host``."""
        if cluster == ROOT:
            return
        address: Address = ipaddress.ip_address(host.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if any(address in network for network in self.allow):
            return
        closed = address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast
        if closed or any(address in network for network in self.deny):
            raise DialError(f"dial tcp {host}: the address may not be reached from this cluster")


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


@dataclass(slots=True)
class Answer:
    """A whole HTTP answer."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Dialer:
    """Resolves targets and sends requests to them, over connections that are kept open."""

    def __init__(self, server: ApiServer, rules: DialRules | None = None) -> None:
        self._server = server
        self.rules = rules or DialRules()
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._contexts: OrderedDict[tuple[bytes, str, tuple[bytes, bytes]], ssl.SSLContext] = OrderedDict()

    # -- where ---------------------------------------------------------------------------------------------------

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

    # -- what ----------------------------------------------------------------------------------------------------

    def context(
        self, ca_bundle: bytes, *, insecure: bool = False, identity: tuple[bytes, bytes] = (b"", b""), name: str = ""
    ) -> ssl.SSLContext:
        """TLS that trusts ``ca_bundle`` (PEM; empty: the system's roots), remembered per server ``name``.

        :param identity: PEM of a client certificate and its key.
        :raises DialError: the bundle holds no certificate.
        """
        key = (b"insecure" if insecure else ca_bundle, name, identity)
        held = self._contexts.get(key)
        if held is not None:
            self._contexts.move_to_end(key)
            return held
        try:
            made = ssl.create_default_context(cadata=ca_bundle.decode("ascii") if ca_bundle and not insecure else None)
        except (ssl.SSLError, ValueError) as error:
            raise DialError(f"unable to load root certificates: {error}") from None
        if insecure:
            made.check_hostname = False
            made.verify_mode = ssl.CERT_NONE
        # Python 3.13 is strict about key usages that self-signed webhook certificates rarely have; upstream is not.
        made.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        if identity[0]:
            _load_identity(made, identity)
        self._contexts[key] = made
        while len(self._contexts) > _CONTEXTS:
            self._contexts.popitem(last=False)
        return made

    async def request(
        self,
        target: Target,
        method: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        context: ssl.SSLContext | None = None,
        timeout: float = 30.0,
        query: str = "",
    ) -> Answer:
        """Send one request; the next address is tried when one does not take the connection.

        :raises DialError: no answer came. :raises TimeoutError: not within ``timeout`` seconds.
        """
        async with asyncio.timeout(timeout):
            last: Exception = DialError("no addresses")
            for address in target.addresses:
                try:
                    return await self._once(target, address, method, body, headers or {}, context, query)
                except _Unreachable as error:
                    last = error.cause
            raise DialError(str(last))

    async def open(
        self,
        target: Target,
        method: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        context: ssl.SSLContext | None = None,
        query: str = "",
    ) -> aiohttp.ClientResponse:
        """The same without reading the answer's body: the caller reads and releases it (proxies, streams).

        :raises DialError: no answer came.
        """
        last: Exception = DialError("no addresses")
        for address in target.addresses:
            try:
                return await self._send(target, address, method, body, headers or {}, context, query)
            except _Unreachable as error:
                last = error.cause
        raise DialError(str(last))

    async def _once(
        self,
        target: Target,
        address: tuple[str, int],
        method: str,
        body: bytes,
        headers: Mapping[str, str],
        context: ssl.SSLContext | None,
        query: str,
    ) -> Answer:
        import aiohttp

        response = await self._send(target, address, method, body, headers, context, query)
        try:
            content = bytearray()
            async for chunk in response.content.iter_chunked(1 << 16):
                content += chunk
                if len(content) > LARGEST_ANSWER:
                    response.close()
                    raise DialError(f"the answer is longer than {LARGEST_ANSWER} bytes")
            return Answer(response.status, bytes(content), {k.lower(): v for k, v in response.headers.items()})
        except aiohttp.ClientError as error:
            raise DialError(str(error) or type(error).__name__) from None
        finally:
            response.release()

    async def _send(
        self,
        target: Target,
        address: tuple[str, int],
        method: str,
        body: bytes,
        headers: Mapping[str, str],
        context: ssl.SSLContext | None,
        query: str,
    ) -> aiohttp.ClientResponse:
        import aiohttp
        from yarl import URL

        session = self._open_session()
        host, port = address
        shown = f"[{host}]" if ":" in host else host
        url = URL(f"{target.scheme}://{shown}:{port}{target.path}{query}", encoded=True)
        secure = target.scheme == "https"
        tls: ssl.SSLContext | bool = True
        if secure:
            tls = context if context is not None else self.context(b"", name=target.server_name)
        try:
            return await session.request(
                method,
                url,
                data=body or None,
                headers=[("host", target.host_header), *headers.items()],  # a multidict names some several times
                ssl=tls,
                server_hostname=target.server_name if secure else None,
                allow_redirects=False,
            )
        except aiohttp.ClientConnectorCertificateError as error:
            raise DialError(f"tls: failed to verify certificate: {error.certificate_error}") from None
        except aiohttp.ClientConnectorError as error:
            number = error.os_error.errno
            why = os.strerror(number) if number else str(error.os_error)
            raise _Unreachable(DialError(f"dial tcp {shown}:{port}: connect: {why.lower()}")) from None
        except (aiohttp.ClientError, ssl.SSLError, OSError) as error:
            raise DialError(str(error) or type(error).__name__) from None

    def _open_session(self) -> aiohttp.ClientSession:
        import aiohttp  # late: most servers never call anybody

        loop = asyncio.get_running_loop()
        if self._session is None or self._session.closed or self._loop is not loop:
            connector = aiohttp.TCPConnector(limit=256, limit_per_host=64, keepalive_timeout=30)
            timeout = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=10)
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=timeout,
                auto_decompress=True,
                trust_env=False,
                headers={"user-agent": "glebe-apiserver-admission"},
                cookie_jar=aiohttp.DummyCookieJar(),
            )
            self._loop = loop
        return self._session

    async def close(self) -> None:
        """Give up the kept connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


class _Unreachable(Exception):
    """Nothing was sent: another address may be tried."""

    def __init__(self, cause: DialError) -> None:
        super().__init__(str(cause))
        self.cause = cause


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


def _load_identity(context: ssl.SSLContext, identity: tuple[bytes, bytes]) -> None:
    """The ssl module reads keys from files only."""
    handle, path = tempfile.mkstemp()  # readable by us alone
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(identity[0] + b"\n" + identity[1])
        context.load_cert_chain(path)
    finally:
        os.unlink(path)

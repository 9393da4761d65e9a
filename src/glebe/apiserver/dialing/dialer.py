"""Requests to targets, over connections that are kept open."""

from __future__ import annotations

import asyncio
import os
import ssl
import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from glebe.apiserver.dialing.rules import DialError, DialRules
from glebe.apiserver.dialing.targets import Target, Targets

if TYPE_CHECKING:
    import aiohttp

    from glebe.apiserver.server import ApiServer

_CONTEXTS = 256
LARGEST_ANSWER = 16 << 20


@dataclass(slots=True)
class Answer:
    """A whole HTTP answer."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Dialer(Targets):
    """Finds targets and sends requests to them."""

    def __init__(self, server: ApiServer, rules: DialRules | None = None) -> None:
        super().__init__(server, rules)
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._contexts: OrderedDict[tuple[bytes, str, tuple[bytes, bytes]], ssl.SSLContext] = OrderedDict()

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
        """Send one request and read its whole answer.

        :raises DialError: no answer came, or too long a one. :raises TimeoutError: not within ``timeout`` seconds.
        """
        import aiohttp

        async with asyncio.timeout(timeout):
            response = await self.open(target, method, body, headers=headers, context=context, query=query)
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
        """Send one request; the caller reads and releases the answer (proxies, streams).

        The next address is tried when one does not take the connection.

        :raises DialError: no answer came.
        """
        last: Exception = DialError("no addresses")
        for address in target.addresses:
            try:
                return await self._send(target, address, method, body, headers or {}, context, query)
            except _Unreachable as error:
                last = error.cause
        raise DialError(str(last))

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


def _load_identity(context: ssl.SSLContext, identity: tuple[bytes, bytes]) -> None:
    """The ssl module reads keys from files only."""
    handle, path = tempfile.mkstemp()  # readable by us alone
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(identity[0] + b"\n" + identity[1])
        context.load_cert_chain(path)
    finally:
        os.unlink(path)

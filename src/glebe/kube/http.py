"""The transport over HTTP(S), on aiohttp.

A read that fails on a kept-alive connection, because the server closed it or was restarted, is sent once more on a
new one. A write is not: whether it took effect is unknown, and :class:`ConnectionLost` says so.
"""

from __future__ import annotations

import asyncio
import base64
import math
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Final
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from glebe.kube.kubeconfig import ClientConfig, ExecPlugin, KubeconfigError
from glebe.kube.tls import client_context
from glebe.kube.transport import ConnectionLost, Request, Response

_PATH_SAFE: Final = "/:@!$&'()*+,;=~"
_TOKEN_LIFE: Final = 60.0  # seconds before a token file is read again
_BROKEN: Final = (aiohttp.ClientError, ConnectionError, TimeoutError, ssl.SSLError, asyncio.IncompleteReadError)


class HttpTransport:
    """Carries requests to ``server_url``; a path in the URL is a prefix (``https://host:6443/clusters/team-a``).

    :param connect_timeout: seconds for connecting, TLS included.
    :param read_timeout: seconds that a unary answer may keep silent.
    :param watch_timeout: seconds that a watch may keep silent (bookmarks come each minute); log streams may for ever.
    :param limit: connections kept at most; 0: no limit. Each watch has one of its own.
    """

    def __init__(
        self,
        server_url: str,
        ssl_context: ssl.SSLContext | None = None,
        token: str | None = None,
        *,
        token_file: str = "",
        basic: tuple[str, str] | None = None,
        exec_plugin: ExecPlugin | None = None,
        server_hostname: str = "",
        proxy: str = "",
        user_agent: str = "glebe",
        connect_timeout: float = 10.0,
        read_timeout: float = 60.0,
        watch_timeout: float = 180.0,
        limit: int = 0,
    ) -> None:
        self._base = server_url.rstrip("/")
        self._ssl = ssl_context
        self._tokens = _Tokens(token or "", token_file, exec_plugin)
        self._basic = f"Basic {base64.b64encode(':'.join(basic).encode()).decode()}" if basic else ""
        self._server_hostname = server_hostname or None
        self._proxy = proxy or None
        self._user_agent = user_agent
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._watch_timeout = watch_timeout
        self._limit = limit
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def from_config(cls, config: ClientConfig, **options: float) -> HttpTransport:
        """A transport with a kubeconfig's credentials; ``options`` are the timeouts of the constructor."""
        return cls(
            config.server,
            client_context(config) if config.server.startswith("https") else None,
            config.token,
            token_file=config.token_file,
            basic=(config.username, config.password) if config.username else None,
            exec_plugin=config.exec,
            server_hostname=config.tls_server_name,
            proxy=config.proxy_url,
            connect_timeout=options.get("connect_timeout", 10.0),
            read_timeout=options.get("read_timeout", 60.0),
            watch_timeout=options.get("watch_timeout", 180.0),
        )

    async def __aenter__(self) -> HttpTransport:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def send(self, request: Request) -> Response:
        try:
            response = await self._send(request)
            if response.status == 401 and self._tokens.renewable:
                await response.close()
                self._tokens.forget()
                response = await self._send(request)
            return response
        except KubeconfigError as error:
            raise ConnectionLost(str(error)) from error

    async def _send(self, request: Request) -> Response:
        # A read may be sent twice: once more after a keep-alive connection turned out to be dead.
        attempts = 2 if request.method in ("GET", "HEAD") else 1
        while True:
            attempts -= 1
            try:
                return await self._attempt(request)
            except aiohttp.ClientConnectorError as error:
                raise ConnectionLost(f"cannot reach {self._base}: {_why(error)}") from error
            except TimeoutError as error:
                raise ConnectionLost(f"no answer from {self._base} in time") from error
            except _BROKEN as error:
                if not attempts:
                    raise ConnectionLost(f"the connection to {self._base} broke: {error}") from error

    async def _attempt(self, request: Request) -> Response:
        watch = request.method == "GET" and request.param("watch") in ("true", "1")
        logs = request.method == "GET" and request.path.endswith("/log")
        follow = logs and request.param("follow") in ("true", "1")
        silence = self._watch_timeout if watch else None if follow else self._read_timeout
        answer = await self._open().request(
            request.method,
            self._url(request),
            data=request.body or None,
            headers=await self._headers(request),
            timeout=aiohttp.ClientTimeout(
                total=None, connect=None, sock_connect=self._connect_timeout, sock_read=silence
            ),
            ssl=self._ssl if self._ssl is not None else True,
            server_hostname=self._server_hostname,
            proxy=self._proxy,
            allow_redirects=False,
        )
        try:
            headers = _flatten(answer)
            if (watch or logs) and answer.status == 200:
                return Response(answer.status, headers, b"", _Chunks(answer))
            body = await answer.read()
            answer.release()
            return Response(answer.status, headers, body)
        except BaseException:
            answer.close()
            raise

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            connector = aiohttp.TCPConnector(limit=self._limit, keepalive_timeout=30.0)
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
            # aiohttp would by itself repeat PUT and DELETE on a dead keep-alive connection: for us they are writes.
            self._session._retry_connection = False
        return self._session

    def _url(self, request: Request) -> URL:
        url = self._base + quote(request.path, safe=_PATH_SAFE)
        if request.query:
            url += "?" + urlencode(request.query, quote_via=quote)
        return URL(url, encoded=True)

    async def _headers(self, request: Request) -> dict[str, str]:
        headers = {"user-agent": self._user_agent, **request.headers}
        if "authorization" not in headers:
            token = await self._tokens.get()
            if token:
                headers["authorization"] = f"Bearer {token}"
            elif self._basic:
                headers["authorization"] = self._basic
        return headers


class _Tokens:
    """The bearer token, wherever it comes from."""

    def __init__(self, token: str, file: str, plugin: ExecPlugin | None) -> None:
        self._static = token
        self._file = file
        self._plugin = plugin
        self._cached = ""
        self._valid_until = 0.0  # loop time
        self._lock = asyncio.Lock()

    @property
    def renewable(self) -> bool:
        return bool(self._file or self._plugin)

    def forget(self) -> None:
        self._valid_until = 0.0

    async def get(self) -> str:
        if not self.renewable:
            return self._static
        loop = asyncio.get_running_loop()
        if loop.time() < self._valid_until:
            return self._cached
        async with self._lock:
            if loop.time() >= self._valid_until:
                self._cached, life = await self._fetch()
                self._valid_until = loop.time() + life
        return self._cached

    async def _fetch(self) -> tuple[str, float]:
        if self._file:
            return _read_token(self._file), _TOKEN_LIFE
        assert self._plugin is not None
        token, certificate, _, _ = await self._plugin.credentials()
        if not token and certificate:
            raise KubeconfigError(f"exec plugin {self._plugin.command!r} gives certificates only: not supported yet")
        return token, math.inf  # until the server answers 401


def _read_token(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise KubeconfigError(f"token file {path} cannot be read: {error.strerror}") from error


def _why(error: aiohttp.ClientConnectorError) -> str:
    """The system's words for it, without the connector's address and TLS settings."""
    cause = error.os_error
    return cause.strerror or str(cause) if isinstance(cause, OSError) else str(error)


def _flatten(answer: aiohttp.ClientResponse) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in answer.headers.items():
        lower = name.lower()
        headers[lower] = f"{headers[lower]}, {value}" if lower in headers else value
    return headers


class _Chunks:
    """The body as it comes. Ends cleanly only when the server ended it cleanly."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await self._answer.content.readany()
        except TimeoutError as error:
            self._answer.close()
            raise ConnectionLost("the stream was silent for too long") from error
        except _BROKEN as error:
            self._answer.close()
            why = "the server went away" if isinstance(error, aiohttp.ClientPayloadError) else error
            raise ConnectionLost(f"the stream broke: {why}") from error
        if not chunk:
            self._answer.release()
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        self._answer.close()

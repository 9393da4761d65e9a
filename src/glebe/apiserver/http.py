"""The HTTP front of the API server: aiohttp outside, ``ApiServer.handle`` inside."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl, unquote

import orjson
from aiohttp import web

from glebe.kube.errors import ApiError
from glebe.kube.transport import Request, Response

log = logging.getLogger("glebe.apiserver.http")

#: As upstream's limit for request bodies.
MAX_BODY = 3 * 1024 * 1024
#: A client has so long to send its body, and to take each chunk of a stream.
BODY_SECONDS = 60.0
CHUNK_SECONDS = 30.0
#: How long a shutdown waits for requests in flight.
DRAIN_SECONDS = 5.0


class HttpServer:
    """Listens on one address.

    :param handle: the server's coroutine from request to response.
    :param tls: serve HTTPS; the client's certificate, if it shows one, goes into ``Request.peer_certificate``.
    """

    def __init__(
        self,
        handle: Callable[[Request], Awaitable[Response]],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._handle = handle
        self._host = host
        self._wanted_port = port
        self._tls = tls
        self._runner: web.ServerRunner | None = None
        self._streams: set[asyncio.Task[object]] = set()
        self._requests: set[asyncio.Task[Response]] = set()
        self._closing = False
        self.port = 0
        """The port that is listened on, once started."""

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self._host}:{self.port}"

    async def start(self) -> None:
        """Listen.

        :raises OSError: the address cannot be had.
        """
        # Cancelling handlers of clients that went away is what ends their watches.
        server = web.Server(self._serve, handler_cancellation=True, keepalive_timeout=75.0, access_log=None)
        self._runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=DRAIN_SECONDS)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._wanted_port, ssl_context=self._tls, backlog=1024)
        try:
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Stop listening, end the streams, let requests in flight finish."""
        self._closing = True
        for task in tuple(self._streams):
            task.cancel()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._requests:
            await asyncio.wait(self._requests, timeout=DRAIN_SECONDS)

    async def _serve(self, raw: web.BaseRequest) -> web.StreamResponse:
        try:
            body = await _body(raw)
        except ApiError as error:
            headers = {"connection": "close", "content-type": "application/json"}
            return web.Response(status=error.code, body=orjson.dumps(error.status()), headers=headers)
        response = await self._answer(_request(raw, body))
        if response.stream is None:
            return web.Response(status=response.status, headers=response.headers, body=response.body)
        return await self._stream(raw, response)

    async def _answer(self, request: Request) -> Response:
        """Run the request to its end even when its client goes away: half a request must not happen."""
        task = asyncio.ensure_future(self._handle(request))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_discard)
            raise

    async def _stream(self, raw: web.BaseRequest, response: Response) -> web.StreamResponse:
        out = web.StreamResponse(status=response.status, headers=response.headers)
        out.enable_chunked_encoding()
        task = asyncio.current_task()
        assert task is not None
        assert response.stream is not None
        self._streams.add(task)
        try:
            await out.prepare(raw)
            async for chunk in response.stream:
                async with asyncio.timeout(CHUNK_SECONDS):
                    await out.write(chunk)
            await out.write_eof()
        except TimeoutError:
            log.warning("a client did not read its stream for %d s and was cut off", CHUNK_SECONDS)
            if raw.transport is not None:
                raw.transport.abort()
        except (ConnectionError, asyncio.CancelledError):
            if not self._closing or raw.transport is None:
                raise
            task.uncancel()
            await out.write_eof()
        finally:
            self._streams.discard(task)
            await response.close()
        return out


def _discard(task: asyncio.Task[Response]) -> None:
    """A response that nobody takes any more: release what its stream holds."""
    if not task.cancelled() and task.exception() is None and task.result().stream is not None:
        closing = asyncio.ensure_future(task.result().close())
        closing.add_done_callback(lambda _: None)


async def _body(raw: web.BaseRequest) -> bytes:
    """The whole body.

    :raises ApiError: 413 when it is too long, 408 when it does not come.
    """
    if not raw.body_exists:
        return b""
    message = f"Request entity too large: limit is {MAX_BODY}"
    too_large = ApiError(413, "RequestEntityTooLarge", message)
    if (raw.content_length or 0) > MAX_BODY:
        raise too_large
    chunks, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in raw.content.iter_any():
                size += len(chunk)
                if size > MAX_BODY:
                    raise too_large
                chunks.append(chunk)
    except TimeoutError:
        raise ApiError(408, "Timeout", "the request's body did not arrive in time") from None
    return b"".join(chunks)


def _headers(raw: web.BaseRequest) -> dict[str, str]:
    """Names in lower case; what is given several times is joined, as HTTP allows."""
    headers: dict[str, str] = {}
    for name, value in raw.headers.items():
        key = name.lower()
        headers[key] = f"{headers[key]},{value}" if key in headers else value
    return headers


def _request(raw: web.BaseRequest, body: bytes) -> Request:
    path, _, query = raw.raw_path.partition("?")
    if not path.startswith("/"):
        path = raw.rel_url.raw_path
    certificate = None
    secured = raw.transport.get_extra_info("ssl_object") if raw.transport is not None else None
    if secured is not None:
        certificate = secured.getpeercert(binary_form=True)
    return Request(
        raw.method,
        unquote(path),
        parse_qsl(query, keep_blank_values=True) if query else [],
        _headers(raw),
        body,
        None,
        certificate,
    )

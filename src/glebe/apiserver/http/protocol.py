"""One connection: bytes to requests, responses to bytes, in order.

Requests are parsed as they come and answered one after the other by a task that lives as long as there are any. A
write runs to its end even when its client goes away, since half of it must not happen; a read or a stream ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, cast

import httptools

from glebe.apiserver.http import bodies, requests, responses
from glebe.apiserver.http.requests import Refusal
from glebe.apiserver.http.sink import Sink
from glebe.kube.transport import Request, Response

if TYPE_CHECKING:
    from glebe.apiserver.http.listener import HttpServer

log = logging.getLogger("glebe.apiserver.http")

_NEVER = float("inf")
_READ = 256 * 1024
"""At most so much comes, or is held, at once."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Item:
    """A parsed request, or the refusal of what was not one."""

    __slots__ = ("close", "modern", "refusal", "request", "upgrade")

    def __init__(self, request: Request | None, close: bool, modern: bool, refusal: Refusal | None = None) -> None:
        self.request = request
        self.close = close
        """The connection ends with the answer."""
        self.modern = modern
        """HTTP/1.1: streams may be chunked."""
        self.refusal = refusal
        self.upgrade = False


class HttpProtocol(asyncio.Protocol):
    """See the module. Its callbacks on parts of a message are the parser's."""

    def __init__(self, front: HttpServer) -> None:
        self._front = front
        self._limits = front.limits
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Item] = deque()
        self.task: asyncio.Task[None] | None = None
        """Answers what is queued; None while there is nothing."""
        self._interruptible = self._streaming = False
        self._deaf = False
        """Nothing more is read: a refusal is queued, or the last request has come."""
        self._held: list[bytes] | None = None
        """What came behind a request to upgrade, until it is decided."""
        self._held_size = 0
        self._inner: asyncio.Protocol | None = None
        self._paused_reading = False
        self.deadline = self._loop.time() + self._limits.head_seconds
        self.write_deadline = _NEVER
        self._begin_message()
        self._parser = httptools.HttpRequestParser(self)

    # -- the transport's callbacks ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.sink = Sink(self.transport, self._loop)
        self._certificate, self._remote = peer_of(self.transport)
        self._front.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._front.left(self)
        self._deaf = True
        self.sink.lost()
        self.deadline = self.write_deadline = _NEVER
        if self._inner is not None:
            self._inner.connection_lost(exc)
        elif self.task is not None and self._interruptible:
            self.task.cancel()

    def eof_received(self) -> bool | None:
        if self._inner is not None:
            return self._inner.eof_received()
        return None  # the transport closes: nobody who sends only half is served

    def pause_writing(self) -> None:
        self.sink.pause()
        self.write_deadline = self._loop.time() + self._limits.write_seconds
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        self.write_deadline = _NEVER
        self.sink.resume()
        if self._inner is not None:
            self._inner.resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.data_received(data)
        elif self._held is not None:
            self._hold(data)
        elif not self._deaf:
            self._parse(data)

    # -- deadlines -------------------------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Called now and then by the listener: end what takes too long."""
        if self._inner is not None:
            return  # no HTTP any more: who talks there may be silent, or slow, for as long as he likes
        if now >= self.write_deadline:
            log.warning("a client (%s) took nothing for %d s and was cut off", self._remote, self._limits.write_seconds)
            self.transport.abort()
        elif now >= self.deadline:
            self.deadline = _NEVER
            if self._in_body:
                self._refuse(Refusal(408, "Timeout", "the request's body did not arrive in time"))
            elif self._in_message:
                self._refuse(Refusal(408, "Timeout", "the request's headers did not arrive in time"))
            else:
                self.transport.close()

    def finish(self) -> None:
        """The server stops: end streams, answer what is in flight, take nothing more."""
        self._deaf = True
        if self._inner is not None:
            self.transport.abort()
        elif self.task is None:
            self.transport.close()
        elif self._streaming:
            self.task.cancel()

    # -- parsing ---------------------------------------------------------------------------------------------------

    def _begin_message(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._count = self._size = self._pending = 0
        self._body: list[bytes] = []
        self._body_size = 0
        self._in_message = self._in_body = False

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            self._held, self._held_size = [], 0
            self._hold(data[stop.args[0] :])
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, Refusal) else requests.malformed("the request cannot be read"))
        except httptools.HttpParserError as error:
            if not self._deaf:
                self._refuse(requests.malformed(f"malformed HTTP request: {error}"))
        else:
            if self._in_message and not self._in_body:
                self._pending += len(data)
                if self._pending > self._limits.head + _READ:
                    self._refuse(_TOO_MANY_HEADERS)

    def on_message_begin(self) -> None:
        if self._deaf:
            raise requests.malformed("data behind the last request")
        self._begin_message()
        self._in_message = True
        self.deadline = self._loop.time() + self._limits.head_seconds

    def on_url(self, part: bytes) -> None:
        self._url += part
        self._size += len(part)
        if self._size > self._limits.head:
            raise _TOO_MANY_HEADERS

    def on_header(self, raw_name: bytes, raw_value: bytes) -> None:
        self._count += 1
        self._size += len(raw_name) + len(raw_value) + 4
        if self._size > self._limits.head or self._count > self._limits.headers:
            raise _TOO_MANY_HEADERS
        name, value = requests.header_name(raw_name), requests.header_value(raw_value)
        headers = self._headers
        if name in headers:
            if name in requests.SINGLE:
                raise requests.malformed(f"the header {name} comes more than once")
            value = f"{headers[name]},{value}"
        headers[name] = value

    def on_headers_complete(self) -> None:
        self._in_body = True
        headers, parser = self._headers, self._parser
        self._version = parser.get_http_version()
        requests.check_framing(headers, self._version, parser.should_upgrade())
        length = headers.get("content-length")
        if length is not None and int(length) > self._limits.body:
            raise self._too_large()
        if length is not None or "transfer-encoding" in headers:
            self.deadline = self._loop.time() + self._limits.body_seconds
            if "expect" in headers and self._version == "1.1" and self.task is None:
                self.transport.write(_CONTINUE)

    def on_body(self, part: bytes) -> None:
        self._body_size += len(part)
        if self._body_size > self._limits.body:
            raise self._too_large()
        self._body.append(part)

    def on_message_complete(self) -> None:
        parser = self._parser
        path, query = requests.target(self._url)
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        method = parser.get_method().decode()
        piecewise = method == "GET"
        request = Request(method, path, query, self._headers, body, None, self._certificate, self._remote, piecewise)
        keep = parser.should_keep_alive()
        item = Item(request, not keep, self._version == "1.1")
        item.upgrade = parser.should_upgrade()
        self._begin_message()
        self._deaf = self._deaf or not keep
        self._enqueue(item)

    def _too_large(self) -> Refusal:
        return Refusal(413, "RequestEntityTooLarge", f"Request entity too large: limit is {self._limits.body}")

    def _refuse(self, why: Refusal) -> None:
        """Answer so, after what came before; nothing that follows is looked at."""
        self._deaf = True
        self._enqueue(Item(None, True, True, why))

    def _enqueue(self, item: Item) -> None:
        self.deadline = _NEVER
        self._queue.append(item)
        if self.task is None:
            self.task = self._loop.create_task(self._work())
        elif len(self._queue) >= self._limits.pipelined and not self._paused_reading:
            self._paused_reading = True
            self.transport.pause_reading()

    def _hold(self, data: bytes) -> None:
        """Keep what follows a request to upgrade; a client that talks on before it is answered has to wait."""
        assert self._held is not None
        if data:
            self._held.append(data)
            self._held_size += len(data)
            if self._held_size > _READ and not self._paused_reading:
                self._paused_reading = True
                self.transport.pause_reading()

    def _read_on(self) -> None:
        if self._paused_reading:
            self._paused_reading = False
            self.transport.resume_reading()

    # -- answering -------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Answer what is queued, in order."""
        try:
            while self._queue and not self.sink.gone:
                item = self._queue.popleft()
                if self._paused_reading and self._held is None and len(self._queue) < self._limits.pipelined // 2:
                    self._read_on()
                if item.request is None:
                    self._end_with(item)
                    return
                await self._answer(item, item.request)
        except (ConnectionError, asyncio.CancelledError):
            self.transport.abort()
        except Exception:
            log.exception("a connection failed")
            self.transport.abort()
        finally:
            self.task = None
            self._streaming = False
            self.deadline = self._loop.time() + self._limits.idle_seconds if not self._in_message else self.deadline

    def _end_with(self, item: Item) -> None:
        assert item.refusal is not None
        self.transport.write(responses.refusal(item.refusal, self._front.date()))
        self._loop.call_later(self._limits.linger_seconds, self.transport.close)

    async def _answer(self, item: Item, request: Request) -> None:
        self._interruptible = request.method in ("GET", "HEAD")
        try:
            response = await self._front.handle(request)
        finally:
            self._interruptible = False
        if self.sink.gone:
            await response.close()
            return
        if response.upgrade is not None and item.upgrade:
            self._hand_over(response)
            return
        close = item.close or self._front.closing
        if response.stream is None:
            await bodies.send(self._front, self.transport, self.sink, request, response, close)
        elif request.method == "HEAD":
            await response.close()
            self.transport.write(responses.head(response.status, response.headers, self._front.date(), 0, close))
        else:
            await self._stream(item, response, close)
        if close:
            self._deaf = True
            self.transport.close()
        elif item.upgrade and self._held is not None:
            self._parse_held()

    def _parse_held(self) -> None:
        """The upgrade was not taken: what came behind it is the next request."""
        held, self._held = self._held or [], None
        self._parser = httptools.HttpRequestParser(self)
        self._read_on()
        if held:
            self._parse(b"".join(held))

    async def _stream(self, item: Item, response: Response, close: bool) -> None:
        """Chunks until the stream ends, the client goes, or the server stops (a clean end, too)."""
        assert response.stream is not None
        self.sink.chunked = item.modern
        headers = {**response.headers, "transfer-encoding": "chunked"} if item.modern else response.headers
        item.close = item.close or not item.modern
        stream_head = responses.head(response.status, headers, self._front.date(), None, close or item.close)
        if item.modern:
            stream_head = stream_head[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
        self._streaming = self._interruptible = True
        try:
            self.transport.write(stream_head)
            push_to = getattr(response.stream, "push_to", None)
            if push_to is not None:
                push_to(self.sink)
            async for chunk in response.stream:
                self.sink.write(chunk)
                if self.sink.full:
                    await self.sink.drained()
        except asyncio.CancelledError:
            if not self._front.closing or self.sink.gone:
                raise
        finally:
            self._streaming = self._interruptible = False
            await response.close()
        self.sink.end()
        if item.close or self._front.closing:
            self._deaf = True
            self.transport.close()

    def _hand_over(self, response: Response) -> None:
        """The connection is the handler's from here on."""
        assert response.upgrade is not None
        headers = {"connection": "Upgrade", **response.headers}
        head = responses.head(response.status, response.headers, self._front.date(), None, False)
        self.transport.write(head[:-2] + f"Connection: {headers['connection']}\r\n\r\n".encode())
        held, self._held = self._held or [], None
        self._inner = inner = response.upgrade(self.transport)
        inner.connection_made(self.transport)
        self._read_on()
        if held:
            inner.data_received(b"".join(held))


_TOO_MANY_HEADERS = Refusal(431, "RequestHeaderFieldsTooLarge", "the request's headers are too large")


def peer_of(transport: asyncio.Transport) -> tuple[bytes | None, str]:
    """(the client's certificate, DER; its IP address)."""
    secured = transport.get_extra_info("ssl_object")
    address = transport.get_extra_info("peername")
    certificate = secured.getpeercert(binary_form=True) if secured is not None else None
    return certificate, str(address[0]) if isinstance(address, tuple) else ""

"""The HTTP front against clients that are odd, slow or hostile: raw sockets, bytes in, bytes out."""

from __future__ import annotations

import asyncio
import gzip
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import orjson
import pytest

from glebe.apiserver.http import HttpServer, Limits
from glebe.apiserver.http.upgrades import as_streams
from glebe.kube.transport import Request, Response

pytestmark = pytest.mark.realtime

Handle = Callable[[Request], Awaitable[Response]]


async def echo(request: Request) -> Response:
    """What arrived, as JSON."""
    body = {
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "headers": dict(request.headers),
        "body": request.body.decode("latin-1"),
        "remote": request.remote,
    }
    return Response(200, {"content-type": "application/json"}, orjson.dumps(body))


class Wire:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, text: str | bytes) -> None:
        self.writer.write(text.encode("latin-1") if isinstance(text, str) else text)
        await self.writer.drain()

    async def answer(self, *, head_only: bool = False) -> tuple[int, dict[str, str], bytes]:
        """The next response (with a length)."""
        async with asyncio.timeout(5):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head[:-4].split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        status = int(first.split()[1])
        length = 0 if head_only or status < 200 else int(headers.get("content-length", "0"))
        return status, headers, await self.reader.readexactly(length)

    async def closed(self) -> bool:
        """The server ends the connection (and says nothing more)."""
        try:
            async with asyncio.timeout(5):
                return await self.reader.read(65536) == b""
        except ConnectionError:
            return True


@asynccontextmanager
async def serving(handle: Handle = echo, limits: Limits | None = None) -> AsyncIterator[HttpServer]:
    front = HttpServer(handle, limits=limits)
    await front.start()
    try:
        yield front
    finally:
        await front.close()


@asynccontextmanager
async def connected(front: HttpServer) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port, limit=2**20)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


def quick(**changes: float) -> Limits:
    return Limits(check_seconds=0.02, linger_seconds=0.05, **changes)  # type: ignore[arg-type]


# --- what is refused

HOST = "Host: a\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
UPGRADE = "Connection: Upgrade\r\nUpgrade: x\r\n"
SMUGGLING = {
    "length and chunked": f"POST / HTTP/1.1\r\n{HOST}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": f"POST / HTTP/1.1\r\n{HOST}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "list of lengths": f"POST / HTTP/1.1\r\n{HOST}Content-Length: 3, 3\r\n\r\nabc",
    "signed length": f"POST / HTTP/1.1\r\n{HOST}Content-Length: +3\r\n\r\nabc",
    "huge length": f"POST / HTTP/1.1\r\n{HOST}Content-Length: 99999999999999999999\r\n\r\nabc",
    "almost chunked": f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked not last": f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked twice": f"POST / HTTP/1.1\r\n{HOST}{CHUNKED}{CHUNKED}\r\n0\r\n\r\n",
    "identity": f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: identity\r\n\r\n",
    "chunked in 1.0": f"POST / HTTP/1.0\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "folded line": f"GET / HTTP/1.1\r\n{HOST}X: a\r\n b\r\n\r\n",
    "space before colon": f"GET / HTTP/1.1\r\n{HOST}X : a\r\n\r\n",
    "bare line feeds": "GET / HTTP/1.1\nHost: a\n\n",
    "bare carriage return": f"GET / HTTP/1.1\r\n{HOST}X: a\rY: b\r\n\r\n",
    "NUL in a value": f"GET / HTTP/1.1\r\n{HOST}X: a\x00b\r\n\r\n",
    "chunk too long": f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    "odd chunk size": f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
    "length in a trailer": f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n",
    "two hosts": f"GET / HTTP/1.1\r\n{HOST}{HOST}\r\n",
    "no host": "GET / HTTP/1.1\r\n\r\n",
    "two identities": f"GET / HTTP/1.1\r\n{HOST}Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
    "two impersonated": f"GET / HTTP/1.1\r\n{HOST}Impersonate-User: a\r\nImpersonate-User: b\r\n\r\n",
    "upgrade with a body": f"POST / HTTP/1.1\r\n{HOST}{UPGRADE}Content-Length: 3\r\n\r\nabc",
    "bad escape": f"GET /api/%zz HTTP/1.1\r\n{HOST}\r\n",
    "cut escape": f"GET /api/%a HTTP/1.1\r\n{HOST}\r\n",
    "no text": f"GET /api/%ff%fe HTTP/1.1\r\n{HOST}\r\n",
    "NUL in the path": f"GET /api/%00 HTTP/1.1\r\n{HOST}\r\n",
    "authority": f"CONNECT a:1 HTTP/1.1\r\n{HOST}\r\n",
    "other scheme": f"GET file:///etc/passwd HTTP/1.1\r\n{HOST}\r\n",
    "asterisk": f"OPTIONS * HTTP/1.1\r\n{HOST}\r\n",
    "no version": "GET /\r\n\r\n",
    "HTTP/2 at once": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no HTTP at all": "\x16\x03\x01\x02\x00\x01\x00",
}


@pytest.mark.parametrize("name", SMUGGLING)
async def test_what_is_not_clear_is_refused_and_nothing_behind_it_is_served(name: str) -> None:
    served = 0

    async def count(request: Request) -> Response:
        nonlocal served
        served += 1
        return Response(200)

    async with serving(count, quick()) as front, connected(front) as wire:
        await wire.send(SMUGGLING[name] + f"GET /smuggled HTTP/1.1\r\n{HOST}\r\n")
        status, headers, _ = await wire.answer()
        assert 400 <= status < 600
        assert headers["connection"] == "close"
        assert await wire.closed()
    assert served == 0


async def test_headers_have_bounds() -> None:
    async with serving(limits=quick(head=4096, headers=20)) as front:
        for text in (
            f"GET / HTTP/1.1\r\n{HOST}X: {'a' * 5000}\r\n\r\n",
            f"GET /{'a' * 5000} HTTP/1.1\r\n{HOST}\r\n",
            f"GET / HTTP/1.1\r\n{HOST}" + "X: a\r\n" * 30 + "\r\n",
        ):
            async with connected(front) as wire:
                await wire.send(text)
                status, _, _ = await wire.answer()
                assert status == 431
                assert await wire.closed()


async def test_a_header_that_never_ends_is_cut_off() -> None:
    async with serving(limits=quick(head=4096)) as front, connected(front) as wire:
        await wire.send(f"GET / HTTP/1.1\r\n{HOST}X: ")
        for _ in range(100):
            await wire.send(b"a" * 8192)
        assert (await wire.answer())[0] == 431
        assert await wire.closed()


async def test_too_large_a_body_is_refused_before_it_is_sent() -> None:
    async with serving(limits=quick(body=1000)) as front:
        async with connected(front) as wire:
            await wire.send(f"POST / HTTP/1.1\r\n{HOST}Content-Length: 1001\r\nExpect: 100-continue\r\n\r\n")
            status, _, body = await wire.answer()
            assert (status, orjson.loads(body)["reason"]) == (413, "RequestEntityTooLarge")
            assert await wire.closed()
        async with connected(front) as wire:
            await wire.send(f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n")
            await wire.send(b"3e9\r\n" + b"a" * 1001 + b"\r\n0\r\n\r\n")
            assert (await wire.answer())[0] == 413
            assert await wire.closed()


# --- slow clients


async def test_slow_headers_are_answered_408() -> None:
    async with serving(limits=quick(head_seconds=0.1)) as front, connected(front) as wire:
        await wire.send("GET / HTTP/1.1\r\n")
        for _ in range(3):
            await asyncio.sleep(0.03)
            await wire.send("X: drip\r\n")
        status, _, _ = await wire.answer()
        assert status == 408
        assert await wire.closed()


async def test_a_connection_that_says_nothing_is_closed() -> None:
    async with serving(limits=quick(head_seconds=0.1)) as front, connected(front) as wire:
        assert await wire.closed()


async def test_slow_bodies_are_answered_408() -> None:
    async with serving(limits=quick(body_seconds=0.1)) as front, connected(front) as wire:
        await wire.send(f"POST / HTTP/1.1\r\n{HOST}Content-Length: 100\r\n\r\nabc")
        status, _, body = await wire.answer()
        assert (status, orjson.loads(body)["reason"]) == (408, "Timeout")
        assert await wire.closed()


async def test_idle_connections_are_closed() -> None:
    async with serving(limits=quick(idle_seconds=0.1)) as front, connected(front) as wire:
        await wire.send(f"GET / HTTP/1.1\r\n{HOST}\r\n")
        assert (await wire.answer())[0] == 200
        assert await wire.closed()


async def test_a_slow_handler_is_no_slow_client() -> None:
    async def slow(request: Request) -> Response:
        await asyncio.sleep(0.3)
        return Response(200)

    async with serving(slow, quick(idle_seconds=0.1, head_seconds=0.1)) as front, connected(front) as wire:
        await wire.send(f"GET / HTTP/1.1\r\n{HOST}\r\n")
        assert (await wire.answer())[0] == 200


async def test_a_watcher_that_reads_nothing_is_cut_off_and_its_stream_closed() -> None:
    ended = asyncio.Event()

    async def flood() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 65536
        finally:
            ended.set()

    async def handle(request: Request) -> Response:
        return Response(200, {}, stream=flood())

    async with serving(handle, quick(write_seconds=0.2)) as front, connected(front) as wire:
        await wire.send(f"GET /?watch=1 HTTP/1.1\r\n{HOST}\r\n")
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(5):
            await ended.wait()


async def test_the_kernel_is_told_to_find_out_peers_that_vanished() -> None:
    async with serving() as front, connected(front) as wire:
        await wire.send(f"GET / HTTP/1.1\r\n{HOST}\r\n")
        await wire.answer()
        (connection,) = front._connections
        raw = connection.transport.get_extra_info("socket")
        assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


# --- what is served


async def test_requests_in_a_row_are_answered_in_order() -> None:
    async def later_is_faster(request: Request) -> Response:
        await asyncio.sleep(0.05 if request.path == "/0" else 0)
        return await echo(request)

    async with serving(later_is_faster) as front, connected(front) as wire:
        await wire.send("".join(f"GET /{i} HTTP/1.1\r\n{HOST}\r\n" for i in range(50)))
        for i in range(50):
            _, _, body = await wire.answer()
            assert orjson.loads(body)["path"] == f"/{i}"


async def test_chunked_bodies_cut_anywhere() -> None:
    text = f"POST /x?a=1&b=%20 HTTP/1.1\r\n{HOST}{CHUNKED}\r\n3\r\nabc\r\n4;e=1\r\ndefg\r\n0\r\nT: 1\r\n\r\n"
    async with serving() as front, connected(front) as wire:
        for character in text:
            await wire.send(character)
        _, _, body = await wire.answer()
        seen = orjson.loads(body)
        assert (seen["body"], seen["query"]) == ("abcdefg", [["a", "1"], ["b", " "]])
        assert seen["remote"] == "127.0.0.1"


async def test_continue_is_said_to_who_waits_for_it() -> None:
    async with serving() as front, connected(front) as wire:
        await wire.send(f"POST / HTTP/1.1\r\n{HOST}Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert (await wire.answer())[0] == 100
        await wire.send("abc")
        status, _, body = await wire.answer()
        assert (status, orjson.loads(body)["body"]) == (200, "abc")


async def test_other_expectations_fail() -> None:
    async with serving() as front, connected(front) as wire:
        await wire.send(f"POST / HTTP/1.1\r\n{HOST}Content-Length: 3\r\nExpect: miracles\r\n\r\nabc")
        assert (await wire.answer())[0] == 417


async def test_head_has_the_length_and_no_body() -> None:
    async with serving() as front, connected(front) as wire:
        await wire.send(f"HEAD / HTTP/1.1\r\n{HOST}\r\nGET /next HTTP/1.1\r\n{HOST}\r\n")
        _, headers, _ = await wire.answer(head_only=True)
        assert int(headers["content-length"]) > 0
        _, _, body = await wire.answer()
        assert orjson.loads(body)["path"] == "/next"


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/api%2Fv1/pods", "/api/v1/pods"),  # one decoding, for authorization and routing alike
        ("/api/v1/../v1/pods", "/api/v1/../v1/pods"),
        ("/api/%2e%2e/x", "/api/../x"),
        ("/a%252Fb", "/a%2Fb"),
        ("http://elsewhere/api/v1", "/api/v1"),
        ("http://elsewhere", "/"),
        ("/a#b", "/a"),
        ("/caf%C3%A9", "/café"),
    ],
)
async def test_targets(target: str, path: str) -> None:
    async with serving() as front, connected(front) as wire:
        await wire.send(f"GET {target} HTTP/1.1\r\n{HOST}\r\n")
        _, _, body = await wire.answer()
        assert orjson.loads(body)["path"] == path


async def test_a_malformed_parameter_is_left_out() -> None:
    async with serving() as front, connected(front) as wire:
        await wire.send(f"GET /?a=1&b=%zz&c=1;d=2&&e=%2B+x&f HTTP/1.1\r\n{HOST}\r\n")
        _, _, body = await wire.answer()
        assert orjson.loads(body)["query"] == [["a", "1"], ["e", "+ x"], ["f", ""]]


async def test_http_1_0_and_connection_close_end_the_connection() -> None:
    async def stream(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"one"
            yield b"two"

        return Response(200, {}, stream=chunks())

    async with serving() as front, connected(front) as wire:
        await wire.send(f"GET / HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n")
        _, headers, _ = await wire.answer()
        assert headers["connection"] == "close"
        assert await wire.closed()
    async with serving(stream) as front, connected(front) as wire:
        await wire.send("GET / HTTP/1.0\r\n\r\n")
        async with asyncio.timeout(5):
            text = await wire.reader.read()
        assert text.endswith(b"\r\n\r\nonetwo")  # no chunks for who does not know them


async def test_large_answers_are_compressed_for_who_asks() -> None:
    large = b"abcdefgh" * 40_000

    async def handle(request: Request) -> Response:
        return Response(200, {}, large if request.path == "/large" else b"small")

    async with serving(handle) as front, connected(front) as wire:
        await wire.send(f"GET /large HTTP/1.1\r\n{HOST}Accept-Encoding: deflate, gzip;q=1.0\r\n\r\n")
        _, headers, body = await wire.answer()
        assert headers["content-encoding"] == "gzip"
        assert headers["vary"] == "Accept-Encoding"
        assert gzip.decompress(body) == large
        for path, accept in (("/large", "identity"), ("/large", "gzip;q=0"), ("/small", "gzip")):
            await wire.send(f"GET {path} HTTP/1.1\r\n{HOST}Accept-Encoding: {accept}\r\n\r\n")
            _, headers, body = await wire.answer()
            assert "content-encoding" not in headers
            with pytest.raises(zlib.error):
                zlib.decompress(body, 31)


async def test_a_header_of_an_answer_cannot_split_it() -> None:
    async def handle(request: Request) -> Response:
        return Response(200, {"warning": "a\r\nSet-Cookie: b"})

    async with serving(handle) as front, connected(front) as wire:
        await wire.send(f"GET / HTTP/1.1\r\n{HOST}\r\n")
        _, headers, _ = await wire.answer()
        assert "set-cookie" not in headers


# --- taking over, going away, stopping


async def test_an_upgrade_takes_the_connection_over() -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()

    async def handle(request: Request) -> Response:
        if request.headers.get("upgrade") == "shout":
            return Response(101, {"upgrade": "shout"}, upgrade=as_streams(shout))
        return await echo(request)

    async with serving(handle, quick(idle_seconds=0.1, write_seconds=0.1)) as front:
        async with connected(front) as wire:
            await wire.send(f"GET / HTTP/1.1\r\n{HOST}Connection: Upgrade\r\nUpgrade: shout\r\n\r\nearly\n")
            status, headers, _ = await wire.answer()
            assert (status, headers["upgrade"], headers["connection"]) == (101, "shout", "Upgrade")
            assert await wire.reader.readline() == b"EARLY\n"
            await asyncio.sleep(0.3)  # a terminal may be silent for hours
            await wire.send(b"late\n")
            assert await wire.reader.readline() == b"LATE\n"
        async with connected(front) as wire:  # an upgrade that nobody takes is an ordinary request
            wanted = f"GET /1 HTTP/1.1\r\n{HOST}Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
            await wire.send(wanted + f"GET /2 HTTP/1.1\r\n{HOST}\r\n")
            assert orjson.loads((await wire.answer())[2])["path"] == "/1"
            assert orjson.loads((await wire.answer())[2])["path"] == "/2"


@pytest.mark.parametrize(("method", "runs_on"), [("POST", True), ("GET", False)])
async def test_a_write_runs_to_its_end_though_its_client_left(method: str, runs_on: bool) -> None:
    began, ended, finished = asyncio.Event(), asyncio.Event(), False

    async def slow(request: Request) -> Response:
        nonlocal finished
        began.set()
        try:
            await asyncio.sleep(0.1)
            finished = True
        finally:
            ended.set()
        return Response(200)

    async with serving(slow) as front:
        async with connected(front) as wire:
            await wire.send(f"{method} / HTTP/1.1\r\n{HOST}Content-Length: 0\r\n\r\n")
            await began.wait()
        async with asyncio.timeout(5):
            await ended.wait()
    assert finished is runs_on


async def test_stopping_answers_what_is_in_flight_and_ends_streams_cleanly() -> None:
    began = asyncio.Event()

    async def forever() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.Event().wait()

    async def handle(request: Request) -> Response:
        if request.path == "/stream":
            return Response(200, {}, stream=forever())
        began.set()
        await asyncio.sleep(0.1)
        return Response(200, {}, b"done")

    async with serving(handle) as front, connected(front) as stream, connected(front) as slow, connected(front) as idle:
        await stream.send(f"GET /stream HTTP/1.1\r\n{HOST}\r\n")
        await stream.reader.readuntil(b"first\r\n")
        await slow.send(f"POST / HTTP/1.1\r\n{HOST}Content-Length: 0\r\n\r\n")
        await began.wait()
        closing = asyncio.create_task(front.close())
        assert await stream.reader.read() == b"0\r\n\r\n"
        assert (await slow.answer())[2] == b"done"
        assert await slow.closed()
        assert await idle.closed()
        await closing


async def test_connections_are_counted() -> None:
    async with serving(limits=Limits(connections=1)) as front, connected(front) as first:
        await first.send(f"GET / HTTP/1.1\r\n{HOST}\r\n")
        assert (await first.answer())[0] == 200
        async with connected(front) as second:
            assert (await second.answer())[0] == 503
            assert await second.closed()


async def test_many_requests_ahead_do_not_pile_up() -> None:
    release = asyncio.Event()
    served = 0

    async def handle(request: Request) -> Response:
        nonlocal served
        served += 1
        await release.wait()
        return Response(200)

    async with serving(handle, Limits(pipelined=4)) as front, connected(front) as wire:
        request = f"POST / HTTP/1.1\r\n{HOST}Content-Length: 100000\r\n\r\n".encode() + b"a" * 100_000
        sending = asyncio.create_task(wire.send(request * 100))
        await asyncio.sleep(0.2)
        (connection,) = front._connections
        assert len(connection._queue) < 20
        release.set()
        for _ in range(100):
            assert (await wire.answer())[0] == 200
        await sending
    assert served == 100

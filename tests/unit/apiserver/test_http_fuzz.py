"""Whatever bytes come, and however they are cut: the same requests are seen, and nothing breaks."""

from __future__ import annotations

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glebe.apiserver.http import HttpServer, Limits
from glebe.apiserver.http.protocol import HttpProtocol
from glebe.kube.transport import Request, Response
from glebe.kube.virtualtime import run as run_virtual

VERSIONS = ("1.1", "1.0", "2.0")
METHODS = ("GET", "POST", "PUT", "HEAD", "CONNECT", "OPTIONS", "get", "PRI")
TARGETS = ("/", "/api/v1/pods?limit=1", "/a%2Fb", "/%zz", "*", "http://h/x", "h:1", "/..", "/\xff", "")
LINES = (
    "Host: a",
    "Content-Length: 3",
    "Content-Length: 0",
    "Content-Length: 3, 3",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding : chunked",
    "Connection: close",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Expect: 100-continue",
    " folded",
    "X: \x00",
    "X: a\rb",
    "Authorization: Bearer x",
    "",
)
BODIES = ("", "abc", "3\r\nabc\r\n0\r\n\r\n", "3\r\nabcd\r\n", "0\r\n\r\n", "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:  # type: ignore[override]
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def seen(pieces: list[bytes]) -> tuple[list[tuple[str, str, bytes]], list[bytes], bool]:
    """(requests that reached the handler, status lines, was the connection ended)."""
    requests: list[tuple[str, str, bytes]] = []

    async def handle(request: Request) -> Response:
        requests.append((request.method, request.path, request.body))
        return Response(200)

    front = HttpServer(handle, limits=Limits(head=4096, body=1000))
    front._loop = asyncio.get_running_loop()
    connection, wire = HttpProtocol(front), Wire()
    connection.connection_made(wire)
    for piece in pieces:
        if wire.closed:
            break
        connection.data_received(piece)
        if connection.task is not None:
            await asyncio.wait([connection.task])
    await asyncio.sleep(1)
    closed = wire.closed
    connection.connection_lost(None)
    lines = [line for line in wire.written.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    return requests, lines, closed


def mostly(draw: st.DrawFn, right: str, others: tuple[str, ...]) -> str:
    return right if draw(st.integers(0, 5)) else draw(st.sampled_from(others))


FRAMED = (
    ("", ""),
    ("Content-Length: 3", "abc"),
    ("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n"),
    ("Content-Length: 0", ""),
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """One to three requests, most of them right in most of their parts."""
    out = ""
    for _ in range(draw(st.integers(1, 3))):
        method, version = mostly(draw, "POST", METHODS), mostly(draw, "1.1", VERSIONS)
        length, body = draw(st.sampled_from(FRAMED))
        lines = [mostly(draw, "Host: a", LINES), *([length] if length else [])]
        if not draw(st.integers(0, 3)):
            lines.append(draw(st.sampled_from(LINES)))
        end = mostly(draw, "\r\n", ("\n",))
        first = f"{method} {mostly(draw, '/api/v1/pods?limit=1', TARGETS)} HTTP/{version}"
        out += end.join([first, *lines, "", ""]) + mostly(draw, body, BODIES)
    return out.encode("latin-1")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(messages(), st.lists(st.integers(0, 400), max_size=4))
def test_cuts_make_no_difference(text: bytes, cuts: list[int]) -> None:
    places = sorted({c for c in cuts if 0 < c < len(text)})
    pieces = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    whole = run_virtual(seen([text]))
    cut = run_virtual(seen(pieces))
    assert whole[0] == cut[0]
    assert whole[1] == cut[1]
    assert whole[2] == cut[2]


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_garbage_is_answered_or_waited_for(text: bytes) -> None:
    requests, lines, closed = run_virtual(seen([text]))
    assert all(b" 4" in line or b" 5" in line for line in lines[len(requests) :])
    assert closed or len(lines) == len(requests)

"""A GET as probes and hooks make it: one connection, certificates unchecked, errors in the words users know."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import ssl
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

_REDIRECTS = 10
_HEAD_LIMIT = 64 * 1024
_BODY_LIMIT = 10 * 1024


class GetError(Exception):
    """There was no answer. ``plain_http``: an HTTPS request met a server that speaks HTTP."""

    def __init__(self, message: str, *, plain_http: bool = False) -> None:
        super().__init__(message)
        self.plain_http = plain_http


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, and up to 10 KB of the body."""

    status: int
    body: str


async def get(url: str, headers: list[tuple[str, str]], timeout: float) -> Answer:
    """GET ``url``; redirects to the same host are followed, up to ten.

    :param headers: a Host, User-Agent or Accept among them replaces the usual one.
    :raises GetError: no connection, no HTTP, or too late.
    """
    failed = functools.partial("Get {}: {}".format, f'"{url}"')
    try:
        async with asyncio.timeout(timeout):
            return await _follow(url, headers)
    except TimeoutError:
        late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        raise GetError(failed(late)) from None
    except ssl.SSLError as error:
        if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"):
            raise GetError(failed("http: server gave HTTP response to HTTPS client"), plain_http=True) from None
        raise GetError(failed(f"remote error: tls: {error.reason or error}")) from None
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        raise GetError(failed("EOF")) from None
    except (OSError, ValueError) as error:
        raise GetError(failed(dial_error(url, error))) from None


def dial_error(url: str, error: Exception) -> str:
    """What went wrong with a connection to the host of ``url`` (or to ``host:port``), as Go's net package says it."""
    where = urlsplit(url).netloc or url
    number = getattr(error, "errno", None)
    if number == errno.ECONNRESET:
        return f"read tcp {where}: read: connection reset by peer"
    if isinstance(error, TimeoutError):
        return f"dial tcp {where}: i/o timeout"
    known = {
        errno.ECONNREFUSED: "connect: connection refused",
        errno.EHOSTUNREACH: "connect: no route to host",
        errno.ENETUNREACH: "connect: network is unreachable",
    }
    return f"dial tcp {where}: {known.get(number, str(error)) if number is not None else error}"


async def _follow(url: str, headers: list[tuple[str, str]]) -> Answer:
    host = urlsplit(url).hostname
    for _ in range(_REDIRECTS):
        status, location, body = await _once(url, headers)
        if status not in (301, 302, 303, 307, 308) or not location:
            return Answer(status, body)
        target = urljoin(url, location)
        if urlsplit(target).hostname != host or urlsplit(target).scheme not in ("http", "https"):
            return Answer(status, body)
        url = target
    raise ValueError("stopped after 10 redirects")


async def _once(url: str, headers: list[tuple[str, str]]) -> tuple[int, str, str]:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(
        parts.hostname, port, ssl=_unchecked() if secure else None, limit=_HEAD_LIMIT
    )
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        given = {name.lower() for name, _ in headers}
        lines = [f"GET {path} HTTP/1.1", *([] if "host" in given else [f"Host: {parts.netloc}"])]
        lines += [f"{name}: {value}" for name, value in headers if value or name.lower() != "accept"]
        writer.write(("\r\n".join([*lines, "Connection: close"]) + "\r\n\r\n").encode("latin-1", "replace"))
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        version, _, rest = head[0].partition(" ")
        if not version.startswith("HTTP/") or not rest[:3].isdigit():
            raise ValueError(f'net/http: HTTP/1.x transport connection broken: malformed HTTP response "{head[0]}"')
        location = next((line.partition(":")[2].strip() for line in head if line.lower().startswith("location:")), "")
        return int(rest[:3]), location, await _body(reader, head)
    finally:
        writer.close()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(0.1):
                await writer.wait_closed()


async def _body(reader: asyncio.StreamReader, head: list[str]) -> str:
    """The beginning of the body, as far as it comes by itself."""
    sizes = [line.partition(":")[2].strip() for line in head if line.lower().startswith("content-length:")]
    wanted = min(int(sizes[0]), _BODY_LIMIT) if sizes and sizes[0].isdigit() else _BODY_LIMIT
    data = b""
    while len(data) < wanted:
        piece = await reader.read(wanted - len(data))
        if not piece:
            break
        data += piece
    return data.decode("utf-8", "replace")


@functools.cache
def _unchecked() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context

"""Heads of responses, and their compression."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

import orjson

from glebe.apiserver.http.requests import Refusal
from glebe.kube.errors import ApiError

#: What the front itself says of a message's framing: handlers have no word in it.
_FRAMING = frozenset({"content-length", "transfer-encoding", "connection", "keep-alive", "date"})
_GZIP_LEVEL = 1


@lru_cache(maxsize=128)
def status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


@lru_cache(maxsize=256)
def _line(name: str, value: str) -> bytes:
    title = "-".join(part.capitalize() for part in name.split("-"))
    clean = value.replace("\r", " ").replace("\n", " ")
    return f"{title}: {clean}\r\n".encode("utf-8", "surrogateescape")


class Dates:
    """The Date header, made once per second of the loop's time."""

    def __init__(self) -> None:
        self._line = b""
        self._until = 0.0

    def line(self, now: float) -> bytes:
        if now >= self._until:
            self._until = now + 1.0
            self._line = f"Date: {formatdate(usegmt=True)}\r\n".encode()
        return self._line


def head(status: int, headers: Mapping[str, str], date: bytes, length: int | None, close: bool) -> bytes:
    """Status line and headers. ``length`` None: the body is chunked (or ends with the connection)."""
    parts = [status_line(status), date]
    cached = False
    for name, value in headers.items():
        if name not in _FRAMING:
            parts.append(_line(name, value))
            cached = cached or name == "cache-control"
    if not cached:
        parts.append(b"Cache-Control: no-cache, private\r\n")
    if length is not None and status >= 200 and status != 204:
        parts.append(b"Content-Length: %d\r\n" % length)
    if close:
        parts.append(b"Connection: close\r\n")
    parts.append(b"\r\n")
    return b"".join(parts)


def refusal(error: Refusal, date: bytes) -> bytes:
    """The whole answer to a request that was not looked at; the connection ends with it."""
    status = ApiError(error.status, error.reason, error.message).status()
    body = orjson.dumps(status)
    return head(error.status, {"content-type": "application/json"}, date, len(body), True) + body


@lru_cache(maxsize=64)
def accepts_gzip(header: str) -> bool:
    """Does this Accept-Encoding name gzip, and not to forbid it?"""
    for clause in header.lower().split(","):
        coding, _, quality = clause.partition(";")
        if coding.strip() == "gzip":
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def compress(pieces: Iterable[bytes]) -> bytes:
    """gzip, quick rather than small (upstream's level)."""
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 31)
    return b"".join((*map(packer.compress, pieces), packer.flush()))

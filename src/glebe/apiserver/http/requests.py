"""From the parts of a parsed request to a :class:`Request`, or to the refusal that it gets.

The parser (llhttp, strict) has seen to the framing: it refuses Content-Length beside Transfer-Encoding, repeated or
malformed lengths, bad chunks, folded lines, bare line feeds and odd names. What remains to be refused stands here.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote_plus, unquote_to_bytes

#: Headers that may come only once: whoever stands between could have believed the other one.
SINGLE = frozenset(
    {"host", "authorization", "content-type", "content-length", "transfer-encoding", "expect", "upgrade"}
    | {"impersonate-user", "impersonate-uid"}
)


_BAD_ESCAPE = re.compile("%(?![0-9a-fA-F]{2})")
_MOST_FIELDS = 1000


class Refusal(Exception):
    """A request that is answered before anybody looks at what it asks; the connection ends with it."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


def malformed(why: str) -> Refusal:
    return Refusal(400, "BadRequest", why)


@lru_cache(maxsize=512)
def header_name(raw: bytes) -> str:
    """In lower case. The parser lets only tokens through."""
    return raw.decode("ascii").lower()


def header_value(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def check_framing(headers: dict[str, str], version: str, upgrade: bool) -> None:
    """What the headers say of the message, beyond what the parser checks.

    :raises Refusal: it is not clear where the message ends, or to whom it goes.
    """
    coding = headers.get("transfer-encoding")
    if coding is not None:
        if version != "1.1":
            raise malformed("Transfer-Encoding needs HTTP/1.1")
        if coding.strip().lower() != "chunked":
            raise Refusal(501, "NotImplemented", "unsupported transfer encoding")
    if version == "1.1":
        if "host" not in headers:
            raise malformed("missing required Host header")
    elif version != "1.0":
        raise Refusal(505, "HTTPVersionNotSupported", "unsupported protocol version")
    expected = headers.get("expect")
    if expected is not None and expected.lower() != "100-continue":
        raise Refusal(417, "ExpectationFailed", "unknown expectation")
    if upgrade and (coding is not None or headers.get("content-length", "0").strip("0")):
        raise malformed("a request to upgrade the connection has no body")


def target(raw: bytes) -> tuple[str, list[tuple[str, str]]]:
    """(decoded path, query) of the request line's target, absolute or not.

    A path is decoded once, as upstream does: an encoded slash is a slash for whoever decides and for whoever serves,
    and dot segments are names like any other, which no object can have.

    :raises Refusal: it is no target, or its bytes are no text.
    """
    if raw[:1] != b"/":
        raw = _origin(raw)
    raw, _, _ = raw.partition(b"#")
    path, _, query = raw.partition(b"?")
    try:
        if b"%" in path:
            _check_escapes(path.decode("latin-1"))
            decoded = unquote_to_bytes(path).decode()
        else:
            decoded = path.decode("ascii")
        pairs = _pairs(query.decode("ascii")) if query else []
    except UnicodeDecodeError:
        raise malformed("the URL is not valid UTF-8") from None
    if "\x00" in decoded:
        raise malformed("the URL's path holds a NUL")
    return decoded, pairs


def _pairs(query: str) -> list[tuple[str, str]]:
    """The parameters in their order. Like upstream's, a malformed one is left out and the others count."""
    fields = query.split("&")
    if len(fields) > _MOST_FIELDS:
        raise malformed("the URL's query has too many fields")
    out = []
    for field in fields:
        if not field or ";" in field:
            continue
        name, _, value = field.partition("=")
        if "%" in field or "+" in field:
            if _BAD_ESCAPE.search(field):
                continue
            name, value = unquote_plus(name), unquote_plus(value)
        out.append((name, value))
    return out


def _origin(raw: bytes) -> bytes:
    """The path and query of an absolute target."""
    scheme, found, rest = raw.partition(b"://")
    if not found or scheme.lower() not in (b"http", b"https"):
        raise malformed("the request's target is neither a path nor an http URL")
    end = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=-1)
    if end < 0:
        return b"/"
    return rest[end:] if rest[end : end + 1] == b"/" else b"/" + rest[end:]


def _check_escapes(path: str) -> None:
    bad = _BAD_ESCAPE.search(path)
    if bad is not None:
        raise malformed(f'invalid URL escape "{path[bad.start() : bad.start() + 3]}"')

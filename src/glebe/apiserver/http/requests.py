"""From the parts of a parsed request to a :class:`Request`, or to the refusal that it gets.

The parser (llhttp, strict) has seen to the framing: it refuses Content-Length beside Transfer-Encoding, repeated or
malformed lengths, bad chunks, folded lines, bare line feeds and odd names. What remains to be refused stands here.
"""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import parse_qsl, unquote_to_bytes

#: Headers that may come only once: whoever stands between could have believed the other one.
SINGLE = frozenset(
    {"host", "authorization", "content-type", "content-length", "transfer-encoding", "expect", "upgrade"}
    | {"impersonate-user", "impersonate-uid"}
)


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
            _check_escapes(path)
            decoded = unquote_to_bytes(path).decode()
        else:
            decoded = path.decode("ascii")
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=1000) if query else []
    except UnicodeDecodeError:
        raise malformed("the URL is not valid UTF-8") from None
    except ValueError:
        raise malformed("the URL's query has too many fields") from None
    if "\x00" in decoded:
        raise malformed("the URL's path holds a NUL")
    return decoded, pairs


def _origin(raw: bytes) -> bytes:
    """The path and query of an absolute target."""
    scheme, found, rest = raw.partition(b"://")
    if not found or scheme.lower() not in (b"http", b"https"):
        raise malformed("the request's target is neither a path nor an http URL")
    end = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=-1)
    if end < 0:
        return b"/"
    return rest[end:] if rest[end : end + 1] == b"/" else b"/" + rest[end:]


_HEX = frozenset(b"0123456789abcdefABCDEF")


def _check_escapes(path: bytes) -> None:
    at = path.find(b"%")
    while at >= 0:
        pair = path[at + 1 : at + 3]
        if len(pair) != 2 or not _HEX.issuperset(pair):
            raise malformed(f'invalid URL escape "{path[at : at + 3].decode("latin-1")}"')
        at = path.find(b"%", at + 3)

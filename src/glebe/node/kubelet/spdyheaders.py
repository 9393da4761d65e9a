"""Header blocks of SPDY/3: name and value pairs, compressed with a dictionary that both sides know."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

_LARGEST = 64 * 1024
#: The dictionary of the specification (draft-mbelshe-httpbis-spdy, 2.6.10.1): these words, each behind its length,
#: and then a tail. Its Adler-32 is 0xe3c6a7c2.
_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status"
)
_MORE = ("200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin")
_CODES = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
_TAIL = (
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = (
    b"".join(struct.pack(">I", len(word)) + word.encode() for word in (*_WORDS.split(), *_MORE))
    + (_CODES + _TAIL).encode()
)


class Headers:
    """Both directions of one connection: each is one compressed stream."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def read(self, block: bytes) -> dict[str, str]:
        """
        :raises zlib.error: it is not compressed so. :raises struct.error: it is cut off. :raises OSError: too long.
        """
        data = self._inflate.decompress(block, _LARGEST)
        if self._inflate.unconsumed_tail:
            raise ConnectionAbortedError("too many headers")
        (count,) = struct.unpack_from(">I", data)
        texts: list[str] = []
        at = 4
        for _ in range(min(count, _LARGEST // 8) * 2):
            (length,) = struct.unpack_from(">I", data, at)
            texts.append(data[at + 4 : at + 4 + length].decode("latin-1"))
            at += 4 + length
        return {name.lower(): value.split("\0")[0] for name, value in zip(texts[::2], texts[1::2], strict=True)}

    def write(self, headers: Mapping[str, str]) -> bytes:
        """A block of headers."""
        data = bytearray(struct.pack(">I", len(headers)))
        for name, value in headers.items():
            for text in (name.lower().encode(), value.encode()):
                data += struct.pack(">I", len(text)) + text
        return self._deflate.compress(bytes(data)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

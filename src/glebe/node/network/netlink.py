"""Netlink, as much of it as a node's network needs: requests with acknowledgements, transactions, dumps.

Only the standard library is imported, here and in ``links``, ``nftables``, ``namespaces`` and ``undo``: the program
that cleans up after a killed platform runs without anything else.

Sources: ``include/uapi/linux/netlink.h``, RFC 3549.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Iterator

REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
REPLACE, EXCL, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
_ERROR, _DONE = 2, 3
_NESTED = 0x8000
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ROOM = 4 * 1024 * 1024  # bytes in the socket's buffers: a transaction is sent as one datagram


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded."""
    size = len(payload) + 4
    return struct.pack("=HH", size, kind) + payload + b"\0" * (-size % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | _NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    """32 bits in the machine's order, as rtnetlink has them."""
    return attribute(kind, struct.pack("=I", value))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes in ``data``: kind (without flags) and payload."""
    at = 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        if size < 4:
            return
        yield kind & 0x3FFF, data[at + 4 : at + size]
        at += size + (-size % 4)


class Netlink:
    """A socket of one netlink family in the network namespace of the thread that makes it. Blocking.

    :raises OSError: the kernel has no such family, or refuses.
    """

    def __init__(self, family: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._socket.settimeout(10.0)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF, 32, 33):  # 32, 33: beyond the limit, with privilege
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, option, _ROOM)
            except OSError:
                continue
        self._socket.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def request(self, kind: int, body: bytes, flags: int = 0) -> None:
        """Ask for one change and wait until it is made.

        :raises OSError: the kernel's own error.
        """
        message = self._message(kind, flags | REQUEST | ACK, body)
        self._socket.send(message)
        for _ in self._answers({self._sequence}):
            pass

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """All objects of a kind, without their headers."""
        self._socket.send(self._message(kind, REQUEST | DUMP, body))
        return list(self._answers({self._sequence}))

    def transaction(self, begin: tuple[int, bytes], messages: Iterable[tuple[int, int, bytes]], end: int) -> None:
        """Send ``(type, flags, body)`` between the marks of a batch; all of it happens or nothing.

        :raises OSError: the first error; nothing was changed.
        """
        kind, mark = begin
        parts = [self._message(kind, REQUEST, mark)]
        waiting = set()
        for message, flags, body in messages:
            parts.append(self._message(message, flags | REQUEST | ACK, body))
            waiting.add(self._sequence)
        parts.append(self._message(end, REQUEST, mark))
        self._socket.send(b"".join(parts))
        for _ in self._answers(waiting, whole=True):
            pass

    def _message(self, kind: int, flags: int, body: bytes) -> bytes:
        self._sequence += 1
        padding = b"\0" * (-len(body) % 4)
        return _HEADER.pack(_HEADER.size + len(body), kind, flags, self._sequence, 0) + body + padding

    def _answers(self, waiting: set[int], *, whole: bool = False) -> Iterator[bytes]:
        """Objects of the answers to ``waiting``, until each is acknowledged.

        :param whole: read all acknowledgements even after an error.
        """
        error: OSError | None = None
        while waiting:
            data = self._socket.recv(1 << 20)
            at = 0
            while at + _HEADER.size <= len(data):
                size, kind, _, sequence, _ = _HEADER.unpack_from(data, at)
                body = data[at + _HEADER.size : at + size]
                at += max(size + (-size % 4), _HEADER.size)
                if kind == _ERROR:
                    code = -struct.unpack_from("=i", body)[0]
                    if code:
                        error = error or OSError(code, os.strerror(code))
                        if not whole or sequence not in waiting:  # of the batch itself: no others will come
                            raise error
                    waiting.discard(sequence)
                elif kind == _DONE:
                    waiting.discard(sequence)
                elif sequence in waiting:
                    yield body
        if error is not None:
            raise error

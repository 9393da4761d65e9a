"""One loopback address per pod, so that pods on one machine can use the same ports."""

from __future__ import annotations

import zlib

_FIRST, _LAST = 1 << 16, (1 << 24) - 1  # 127.1.0.0 .. 127.255.255.255: 127.0.x.y stays the machine's own


class Addresses:
    """Gives out addresses from 127.0.0.0/8; the same pod gets the same one whenever it is free."""

    def __init__(self) -> None:
        self._by_uid: dict[str, str] = {}
        self._taken: set[str] = set()

    def restore(self, uid: str, address: str) -> None:
        """The pod has this address already (it was given by an earlier process)."""
        self._by_uid[uid] = address
        self._taken.add(address)

    def allocate(self, uid: str) -> str:
        """The pod's address; a new one if it has none."""
        if uid in self._by_uid:
            return self._by_uid[uid]
        span = _LAST - _FIRST
        number = zlib.crc32(uid.encode()) % span
        while True:
            address = _text(_FIRST + number)
            if address not in self._taken and not address.endswith((".0", ".255")):
                self.restore(uid, address)
                return address
            number = (number + 1) % span

    def get(self, uid: str) -> str | None:
        """The pod's address, if it has one."""
        return self._by_uid.get(uid)

    def release(self, uid: str) -> None:
        """The pod is gone; its address may be given again."""
        address = self._by_uid.pop(uid, None)
        if address is not None:
            self._taken.discard(address)


def _text(number: int) -> str:
    return f"127.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"

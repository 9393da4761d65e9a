"""The JSON of a list, from the bytes of its items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Protocol

from glebe.apiserver.store import Kept

_VALUE = attrgetter("value")


class Item(Protocol):
    """What a list is made of."""

    @property
    def value(self) -> bytes: ...


class ListBody:
    """A list's bytes, not yet put together: the items are copied once, piece by piece.

    :param head: the JSON of the list without items.
    """

    __slots__ = ("_head", "_items", "size")

    def __init__(self, head: bytes, items: Sequence[Item] | Sequence[bytes]) -> None:
        self._head = head[:-1] + b',"items":['
        self._items = items
        content = items.size if isinstance(items, Kept) else sum(map(len, self._values()))
        self.size = len(self._head) + content + max(0, len(items) - 1) + 2

    def _values(self) -> Iterator[bytes]:
        items = self._items
        return iter(items) if not items or isinstance(items[0], bytes) else map(_VALUE, items)  # type: ignore[arg-type]

    def pieces(self, least: Callable[[], int]) -> Iterator[bytes]:
        """See :class:`glebe.kube.transport.Parts`."""
        gathered, size, bound = [self._head], len(self._head), least()
        last = len(self._items) - 1
        for position, value in enumerate(self._values()):
            gathered.append(value)
            size += len(value)
            if position == last:
                break
            gathered.append(b",")
            size += 1
            if size >= bound:
                yield b"".join(gathered)
                gathered, size, bound = [], 0, least()
        gathered.append(b"]}")
        yield b"".join(gathered)

    def whole(self) -> bytes:
        """All in one."""
        return b"".join((self._head, b",".join(self._values()), b"]}"))

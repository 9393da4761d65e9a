"""In which order the containers of a pod end (KEP-753): main containers first, then sidecars, last started first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence


def predecessors(main: Sequence[str], sidecars: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Container -> those that must have ended before it is told to end. ``sidecars`` in the order of their start."""
    out: dict[str, tuple[str, ...]] = {}
    later: str | None = None
    for name in reversed(sidecars):
        out[name] = (*main, *((later,) if later is not None else ()))
        later = name
    return out


class Turns:
    """Lets each container wait for its turn to end.

    :param before: see :func:`predecessors`.
    """

    def __init__(self, before: Mapping[str, tuple[str, ...]], running: Iterable[str]) -> None:
        self._before = before
        self._ended = {name: asyncio.Event() for name in running}

    async def wait(self, name: str, limit: float) -> None:
        """Until all that end before ``name`` have ended, at most ``limit`` seconds."""
        try:
            async with asyncio.timeout(max(0.0, limit)):
                for other in self._before.get(name, ()):
                    if other in self._ended:
                        await self._ended[other].wait()
        except TimeoutError:
            return

    def ended(self, name: str) -> None:
        """The container has ended."""
        if name in self._ended:
            self._ended[name].set()

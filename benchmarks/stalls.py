"""How long the event loop keeps others waiting: turns that come late, and steps that take long and where."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

_TICK = 0.001


@dataclass
class Pulse:
    """Beats on the loop every millisecond: how late it comes is how long a request may have to wait for its turn."""

    longest: float = 0.0
    late: list[float] = field(default_factory=list)

    async def run(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(_TICK)
            now = time.perf_counter()
            self.late.append(now - last - _TICK)
            last = now

    def take(self) -> tuple[float, float]:
        """(99th percentile, longest) since the last call, seconds."""
        late, self.late = sorted(self.late), []
        return (max(0.0, late[int(0.99 * len(late))]), max(0.0, late[-1])) if late else (0.0, 0.0)


@dataclass
class Steps:
    """Times every single callback of asyncio's own loop; a thread looks where the long ones are."""

    limit: float = 0.010
    longest: float = 0.0
    over: int = 0
    where: Counter[str] = field(default_factory=Counter)
    _began: float = 0.0
    _done: threading.Event = field(default_factory=threading.Event)

    def install(self) -> None:
        run = asyncio.Handle._run

        def timed(handle: asyncio.Handle) -> None:
            self._began = began = time.perf_counter()
            run(handle)
            self._began = 0.0
            taken = time.perf_counter() - began
            self.longest = max(self.longest, taken)
            self.over += taken > self.limit

        asyncio.Handle._run = timed  # type: ignore[method-assign]
        threading.Thread(target=self._look, args=(threading.get_ident(),), daemon=True).start()

    def take(self) -> tuple[float, int]:
        """(longest, how many were too long) since the last call."""
        out = self.longest, self.over
        self.longest, self.over = 0.0, 0
        return out

    def _look(self, thread: int) -> None:
        seen = 0.0
        while not self._done.wait(0.002):
            began = self._began
            if began and began != seen and time.perf_counter() - began > self.limit * 0.7:
                seen = began
                frame = sys._current_frames().get(thread)
                if frame is not None:
                    self.where[_summary(frame)] += 1


def _summary(frame: FrameType) -> str:
    frames = [f for f in traceback.extract_stack(frame) if "/glebe/" in f.filename or "benchmarks" in f.filename]
    return " < ".join(f"{Path(f.filename).stem}.{f.name}:{f.lineno}" for f in reversed(frames[-7:]))

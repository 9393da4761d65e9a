"""An asyncio event loop whose clock jumps to the next timer instead of waiting for it.

``run(main())`` behaves like ``asyncio.run`` except that ``loop.time()`` starts at zero and advances only when nothing
is ready to run. A program that uses no sockets, threads or processes is then deterministic and takes no wall time to
wait. Real file descriptors still work (they are polled without blocking), but then order is no longer deterministic.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")
_TICKS = 1e9  # a second
_TICK = 1 / _TICKS


class Stalled(RuntimeError):
    """Nothing is ready, no timer is set and no event can ever come: the program would wait for ever."""


class _JumpingSelector(selectors.SelectSelector):
    """Advances the loop's clock by the time it is asked to block."""

    loop: VirtualTimeLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise Stalled("virtual time stalled: no task is ready and no timer is set")
        self.loop.advance(timeout)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """The event loop of simulations and of every test that opens no socket."""

    def __init__(self) -> None:
        selector = _JumpingSelector()
        selector.loop = self
        self._virtual_now = 0.0
        super().__init__(selector)
        self._clock_resolution = _TICK / 10

    def time(self) -> float:
        return self._virtual_now

    def advance(self, seconds: float) -> None:
        """Move the clock forward; timers that fall due run on the next turn."""
        now = self._virtual_now + seconds
        timers = self._scheduled  # type: ignore[attr-defined]  # the loop's own heap
        if timers and abs(timers[0]._when - now) < _TICK:
            now = timers[0]._when  # the difference that we were given was rounded
        self._virtual_now = now

    def call_at(  # type: ignore[override]  # its own signature knows which arguments the callback takes
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Timers lie on a grid wider than what the loop takes for the present.

        The loop runs a timer that is due within its clock's resolution. Here the clock stands still meanwhile: whoever
        looks whether his time has come, finds that it has not, and sets the timer again, would do so for ever.
        """
        return super().call_at(max(when, math.ceil(when * _TICKS) / _TICKS), callback, *args, context=context)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` to its end under virtual time and return its result.

    :raises Stalled: when the program can make no progress.
    """
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)

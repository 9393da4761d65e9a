"""Many small pieces of work on the event loop, a few at a time, without holding it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
_TURNS = 8  # pieces after which a worker gives way, if none of them did


async def in_parallel(work: Iterable[Coroutine[Any, Any, T]], width: int) -> list[T]:
    """Results in the order of ``work``, whose coroutines are made only when their turn comes.

    The first exception is raised when all workers have ended; what was not begun then is not begun.
    """
    todo = enumerate(work)
    results: dict[int, T] = {}

    async def worker() -> None:
        for turn, (index, each) in enumerate(todo, 1):
            results[index] = await each
            if turn % _TURNS == 0:
                await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for _ in range(width):
            group.create_task(worker())
    return [results[index] for index in sorted(results)]

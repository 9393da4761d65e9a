"""Garbage collection for a process with millions of long-lived objects, none of which are in cycles.

Python's collector walks everything that is alive each time that has grown by a quarter: with 5,000 jobs queued that
holds the event loop for a second, again and again. Decoded API objects are freed by reference counting; what is in
cycles is mostly young. So survivors are set aside (:func:`gc.freeze`) as they accumulate, and everything is walked only
when it has doubled.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_YOUNG, _MIDDLE = 1_500, 2  # so that one look takes a millisecond or so
_SURVIVORS = 30  # middle collections after which what survived is set aside: about 100,000 objects
_LOOK = 0.25
_FEW = 5_000_000  # never walk everything before so many objects have been set aside: that takes a second


@asynccontextmanager
async def few_full_collections() -> AsyncIterator[None]:
    """While the block runs, collect as described above; afterwards as before."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, 1 << 30)
    task = asyncio.create_task(_look())
    try:
        yield
    finally:
        task.cancel()
        gc.set_threshold(*before)
        gc.unfreeze()


async def _look() -> None:
    walked = most = gc.get_freeze_count()
    while True:
        await asyncio.sleep(_LOOK)
        if (passed := gc.get_count()[2]) < _SURVIVORS:
            continue
        # Counting walks all that was set aside, too: as long as it cannot have doubled, it is not counted.
        most += (passed + 1) * (_MIDDLE + 1) * (_YOUNG + 1)
        bound = max(2 * walked, _FEW)
        if most > bound:
            most = gc.get_freeze_count()
        if most > bound:
            gc.unfreeze()
            gc.collect()
            gc.freeze()
            walked = most = gc.get_freeze_count()
        else:
            gc.freeze()
            gc.collect()  # nothing is left to walk: this sets the counters back

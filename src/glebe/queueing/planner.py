"""Where the scheduling core runs: in this process, or in a worker process while the queue is long."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copyreg
import io
import logging
import multiprocessing
import pickle
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from types import MappingProxyType
from typing import Any, Protocol

from glebe.scheduling import decide, forecast
from glebe.scheduling.model import Decision, Forecast, Snapshot

log = logging.getLogger("glebe.queueing.planner")


class Planner(Protocol):
    """Answers with the core's decisions and forecasts; both are functions of their arguments alone."""

    async def decide(self, snapshot: Snapshot, now: float) -> Sequence[Decision]: ...

    async def forecast(self, snapshot: Snapshot, now: float) -> Sequence[Forecast]: ...

    async def close(self) -> None: ...


class InlinePlanner:
    """Runs the core on the event loop: for simulation, tests and short queues."""

    async def decide(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        return decide(snapshot, now)

    async def forecast(self, snapshot: Snapshot, now: float) -> Sequence[Forecast]:
        return forecast(snapshot, now)

    async def close(self) -> None:
        return None


class ProcessPlanner:
    """Runs the core in one worker process as soon as more than ``threshold`` workloads wait.

    The worker starts on first need. When it dies, the call is answered inline and the next one starts a new worker.
    Needs real threads and processes: not for simulated time.
    """

    def __init__(self, threshold: int = 50) -> None:
        self._threshold = threshold
        self._inline = InlinePlanner()
        self._pool: concurrent.futures.ProcessPoolExecutor | None = None

    async def decide(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        if len(snapshot.pending) <= self._threshold:
            return await self._inline.decide(snapshot, now)
        answer: Sequence[Decision] | None = await self._remote("decide", snapshot, now)
        return await self._inline.decide(snapshot, now) if answer is None else answer

    async def forecast(self, snapshot: Snapshot, now: float) -> Sequence[Forecast]:
        if len(snapshot.pending) <= self._threshold:
            return await self._inline.forecast(snapshot, now)
        answer: Sequence[Forecast] | None = await self._remote("forecast", snapshot, now)
        return await self._inline.forecast(snapshot, now) if answer is None else answer

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    async def _remote(self, verb: str, snapshot: Snapshot, now: float) -> Any:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = concurrent.futures.ProcessPoolExecutor(max_workers=1, mp_context=context)
        pool = self._pool
        try:
            answer = await asyncio.get_running_loop().run_in_executor(pool, work, verb, pack(snapshot), now)
        except BrokenProcessPool:
            log.warning("the planner's worker process died; planning in this process")
            if self._pool is pool:
                self._pool = None
            return None
        return pickle.loads(answer)


def work(verb: str, packed: bytes, now: float) -> bytes:
    """What the worker does."""
    snapshot: Snapshot = pickle.loads(packed)
    answer: Sequence[Any] = decide(snapshot, now) if verb == "decide" else forecast(snapshot, now)
    return pack(answer)


def pack(value: Any) -> bytes:
    """Pickle that knows read-only mappings."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = {**copyreg.dispatch_table, MappingProxyType: _reduce_mapping}
    pickler.dump(value)
    return buffer.getvalue()


def _reduce_mapping(mapping: MappingProxyType[Any, Any]) -> tuple[Any, ...]:
    return MappingProxyType, (dict(mapping),)

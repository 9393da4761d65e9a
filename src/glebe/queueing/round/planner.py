"""Where the scheduling core runs: in this process, or in worker processes while the queue is long."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import copyreg
import io
import logging
import multiprocessing
import os
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Protocol

from glebe.queueing.picture.delta import Receiver, Sender, Update
from glebe.scheduling import decide, forecast, prepare
from glebe.scheduling.model import Decision, Forecast, Snapshot
from glebe.scheduling.placement.fleet import Fleet

log = logging.getLogger("glebe.queueing.round.planner")

_NICE = 15  # of the process that forecasts
_CHUNK = 200  # answers unpacked between two turns of the event loop


class Planner(Protocol):
    """Answers with the core's decisions and forecasts; both are functions of their arguments alone.

    Decisions to wait, and the blockers of forecasts, may be left out.
    """

    async def decide(self, snapshot: Snapshot, now: float) -> Sequence[Decision]: ...

    async def forecast(self, snapshot: Snapshot, now: float) -> Sequence[Forecast]: ...

    async def close(self) -> None: ...


class Arrays:
    """The core's node arrays, kept while nodes and topologies stay."""

    def __init__(self) -> None:
        self._fleet: Fleet | None = None

    def of(self, snapshot: Snapshot) -> Fleet:
        if self._fleet is None or not self._fleet.matches(snapshot.nodes, snapshot.topologies):
            self._fleet = prepare(snapshot)
        return self._fleet


class InlinePlanner:
    """Runs the core on the event loop: for simulation, tests and short queues."""

    def __init__(self) -> None:
        self._arrays = Arrays()

    async def decide(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        return decide(snapshot, now, fleet=self._arrays.of(snapshot), waits=False)

    async def forecast(self, snapshot: Snapshot, now: float) -> Sequence[Forecast]:
        return forecast(snapshot, now, fleet=self._arrays.of(snapshot))

    async def close(self) -> None:
        return None


class ProcessPlanner:
    """Forecasts in one worker process and decides in another as soon as many workloads wait.

    A forecast runs the core forward many times, a decision runs it once: with 5,000 workloads waiting on 1,000 nodes
    0.8 s against 0.06 s, and both would hold the event loop. Two workers, so that no admission waits for a forecast.
    Only changes of the snapshot are handed over (:mod:`~glebe.queueing.picture.delta`), packed in a thread. A worker
    starts on first need; when it dies, the call is answered inline and the next one starts a new worker. Needs real
    threads and processes: not for simulated time.

    :param threshold: with more pending workloads than these, forecasts are made in a worker.
    :param decide_threshold: likewise for decisions.
    """

    def __init__(self, threshold: int = 50, decide_threshold: int = 200) -> None:
        self._threshold = threshold
        self._decide_threshold = decide_threshold
        self._inline = InlinePlanner()
        self._forecasts = _Worker(forecast_work, step_back)
        self._decisions = _Worker(decide_work)

    async def decide(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        if len(snapshot.pending) <= self._decide_threshold:
            return await self._inline.decide(snapshot, now)
        answer = await self._decisions.ask(snapshot, now)
        return await self._inline.decide(snapshot, now) if answer is None else answer

    async def forecast(self, snapshot: Snapshot, now: float) -> Sequence[Forecast]:
        if len(snapshot.pending) <= self._threshold:
            return await self._inline.forecast(snapshot, now)
        answer = await self._forecasts.ask(snapshot, now)
        return await self._inline.forecast(snapshot, now) if answer is None else answer

    async def close(self) -> None:
        await asyncio.gather(self._forecasts.close(), self._decisions.close())

    @property
    def worker_pids(self) -> list[int]:
        """The workers' process ids, while there are any."""
        return [*self._forecasts.pids, *self._decisions.pids]


class _Worker:
    """One process that follows the snapshots sent to it and does one kind of ``work`` on them."""

    def __init__(self, work: Callable[[bytes, float], list[bytes]], begin: Callable[[], None] | None = None) -> None:
        self._work = work
        self._begin = begin
        self._pool: concurrent.futures.ProcessPoolExecutor | None = None
        self._sender = Sender()
        self._turn = asyncio.Lock()

    @property
    def pids(self) -> list[int]:
        return list(getattr(self._pool, "_processes", None) or {})

    async def ask(self, snapshot: Snapshot, now: float) -> list[Any] | None:
        """The worker's answer, or None when it died over it."""
        async with self._turn:
            chunks = await self._send(snapshot, now)
        if chunks is None:
            return None
        answer: list[Any] = []
        for chunk in chunks:
            answer += pickle.loads(chunk)
            await asyncio.sleep(0)
        return answer

    async def _send(self, snapshot: Snapshot, now: float) -> list[bytes] | None:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = concurrent.futures.ProcessPoolExecutor(1, context, self._begin)
            self._sender = Sender()
        done = False
        try:
            update = self._sender.update(snapshot)
            packed = await asyncio.to_thread(pack, update)
            chunks = await asyncio.get_running_loop().run_in_executor(self._pool, self._work, packed, now)
            done = True
        except BrokenProcessPool:
            log.warning("a planner's worker process died; planning in this process")
            self._pool = None
            return None
        finally:
            if not done:
                self._sender = Sender()  # what the worker has is not known: it gets everything anew
        return chunks

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown, wait=True, cancel_futures=True)


# --- in the worker process

_receiver = Receiver()
_arrays = Arrays()


def step_back() -> None:
    """Forecasts take what others leave of the machine: the API server and decisions come first."""
    os.nice(_NICE)
    if hasattr(os, "sched_setscheduler"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def decide_work(packed: bytes, now: float) -> list[bytes]:
    """Decisions but those to wait for nothing in particular, packed in pieces."""
    snapshot = _receive(packed)
    return _pieces(decide(snapshot, now, fleet=_arrays.of(snapshot), waits=False))


def forecast_work(packed: bytes, now: float) -> list[bytes]:
    """All forecasts without blockers, packed in pieces."""
    snapshot = _receive(packed)
    return _pieces([replace(f, blockers=()) for f in forecast(snapshot, now, fleet=_arrays.of(snapshot))])


def _receive(packed: bytes) -> Snapshot:
    update: Update = pickle.loads(packed)
    return _receiver.apply(update)


def _pieces(answers: Sequence[Any]) -> list[bytes]:
    return [pack(answers[at : at + _CHUNK]) for at in range(0, len(answers), _CHUNK)]


def pack(value: Any) -> bytes:
    """Pickle that knows read-only mappings."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = {**copyreg.dispatch_table, MappingProxyType: _reduce_mapping}
    pickler.dump(value)
    return buffer.getvalue()


def _reduce_mapping(mapping: MappingProxyType[Any, Any]) -> tuple[Any, ...]:
    return MappingProxyType, (dict(mapping),)

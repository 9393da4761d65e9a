"""What Kueue's own scheduler benchmark does to a cluster: make queues and workloads, and end each after its run time.

A process of its own, as Kueue's runner is one. Each set of workloads of each queue is a loop of its own: wait the
interval, create one, wait for the answer. A watch tells when a workload is admitted; its run time later the runner
sets its condition Finished. Nothing else is done for a workload: there are no jobs and no pods.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from glebe.kube.kubeconfig import load_kubeconfig
from kueueloads import LOADS, RUNNING_MS, Load, workload_spec
from rawhttp import Address, Connection

_API = "/apis/kueue.x-k8s.io/v1beta2"
_CLASS = "kueue.x-k8s.io/performance-scheduler-class"
_CONNECTIONS = 24


class _Condition(msgspec.Struct):
    type: str
    status: str


class _Meta(msgspec.Struct, frozen=True):
    name: str = ""
    namespace: str = ""
    resourceVersion: str = ""  # noqa: N815 - the API's name
    labels: dict[str, str] = {}


class _Status(msgspec.Struct, frozen=True):
    conditions: list[dict[str, Any]] = []


class _Workload(msgspec.Struct, frozen=True):
    metadata: _Meta = _Meta()
    status: _Status = _Status()


class _Event(msgspec.Struct):
    type: str
    object: _Workload


@dataclass(slots=True)
class _Seen:
    """What the runner knows of one workload."""

    created: float
    admitted: float = -1.0  # negative: not admitted
    waited: float = 0.0
    finished: bool = False
    evicted: bool = False
    latest: _Workload | None = None


@dataclass(slots=True)
class Tally:
    """By class of workloads."""

    count: int = 0
    waited: float = 0.0
    evictions: int = 0


class Chunks:
    """The lines of a chunked stream."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self._buffer = bytearray()
        self._line = bytearray()
        self._left = -1  # of the chunk; negative: its head is still to come

    def feed(self, data: bytes) -> None:
        self._buffer += data
        while True:
            if self._left < 0:
                end = self._buffer.find(b"\r\n")
                if end < 0:
                    return
                self._left = int(bytes(self._buffer[:end]), 16) + 2
                del self._buffer[: end + 2]
            if len(self._buffer) < self._left:
                return
            self._line += self._buffer[: self._left - 2]
            del self._buffer[: self._left]
            self._left = -1
            if self._line.endswith(b"\n"):
                whole = bytes(self._line)
                self._line.clear()
                for line in whole.splitlines():
                    self._take(line)


class Pool:
    """A few connections shared by everybody who asks."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._free: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()
        self.requests = 0

    async def open(self, count: int) -> None:
        for connection in await asyncio.gather(*(Connection.open(self.address) for _ in range(count))):
            self._free.put_nowait(connection)

    async def ask(self, method: str, path: str, body: bytes, kind: str = "application/json") -> tuple[int, bytes]:
        head = f"{method} {self.address.prefix}{path} HTTP/1.1\r\nhost: {self.address.host}\r\n"
        head += f"accept: application/json\r\n{self.address.authorization}"
        head += f"content-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
        connection = await self._free.get()
        try:
            self.requests += 1
            return await connection.ask(head.encode() + body)
        finally:
            self._free.put_nowait(connection)

    async def create(self, path: str, obj: dict[str, Any]) -> None:
        status, body = await self.ask("POST", path, msgspec.json.encode(obj))
        if status not in (201, 409):
            raise RuntimeError(f"POST {path}: {status} {body[:300]!r}")


@dataclass(slots=True)
class Runner:
    """One run of one load."""

    load: Load
    pool: Pool
    seen: dict[str, _Seen] = field(default_factory=dict)
    tallies: dict[str, Tally] = field(default_factory=dict)
    finished: int = 0
    created: int = 0
    last: float = 0.0
    generated: float = 0.0
    done: asyncio.Event = field(default_factory=asyncio.Event)
    conflicts: int = 0
    problems: list[str] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    # --- making things

    async def prepare(self) -> None:
        for path, obj in self.load.infrastructure():
            await self.pool.create(path, obj)

    async def generate(self) -> None:
        async with asyncio.TaskGroup() as group:
            for queue, cohort in self.load.queues():
                group.create_task(self._queue(queue, cohort))
        self.generated = time.perf_counter()

    async def _queue(self, queue: str, cohort: str) -> None:
        await self.pool.create(f"{_API}/clusterqueues", self.load.cluster_queue(queue, cohort))
        await self.pool.create("/api/v1/namespaces", {"metadata": {"name": queue}})
        local = {
            "apiVersion": "kueue.x-k8s.io/v1beta2",
            "kind": "LocalQueue",
            "metadata": {"name": queue, "namespace": queue},
            "spec": {"clusterQueue": queue},
        }
        await self.pool.create(f"{_API}/namespaces/{queue}/localqueues", local)
        async with asyncio.TaskGroup() as group:
            for number, _ in enumerate(self.load.sets):
                group.create_task(self._set(queue, number))

    async def _set(self, queue: str, number: int) -> None:
        one = self.load.sets[number]
        path = f"{_API}/namespaces/{queue}/workloads"
        for index in range(self.load.scaled(one.count)):
            await asyncio.sleep(one.interval_ms / 1000)
            name = f"{one.name}-{number}-{index}-0"
            meta = {"name": name, "labels": {RUNNING_MS: str(one.runtime_ms), _CLASS: one.name}}
            self.created += 1
            await self.pool.create(path, {
                "apiVersion": "kueue.x-k8s.io/v1beta2",
                "kind": "Workload",
                "metadata": meta,
                "spec": workload_spec(one, queue),
            })  # fmt: skip

    # --- ending workloads

    def event(self, line: bytes) -> None:
        if line.startswith(b'{"type":"BOOKMARK"'):
            return
        event = _decode(line)
        if event.type not in ("ADDED", "MODIFIED"):
            return
        now = time.perf_counter()
        workload = event.object
        key = f"{workload.metadata.namespace}/{workload.metadata.name}"
        seen = self.seen.get(key)
        if seen is None:
            seen = self.seen[key] = _Seen(now)
            self._tally(workload).count += 1
        seen.latest = workload
        holds = {c["type"]: c["status"] == "True" for c in workload.status.conditions}
        evicted = holds.get("Evicted", False)
        if evicted and not seen.evicted:
            self._tally(workload).evictions += 1
        seen.evicted = evicted
        if holds.get("Finished"):
            self._finished(seen, now)
        elif holds.get("Admitted"):
            if seen.admitted < 0:
                seen.admitted = now
                seen.waited = now - seen.created
                left = int(workload.metadata.labels[RUNNING_MS]) / 1000
                asyncio.get_running_loop().call_later(left, self._spawn, key, now)
        else:
            seen.admitted = -1.0

    def _tally(self, workload: _Workload) -> Tally:
        return self.tallies.setdefault(workload.metadata.labels[_CLASS], Tally())

    def _finished(self, seen: _Seen, now: float) -> None:
        if seen.finished or seen.latest is None:
            return
        seen.finished = True
        self._tally(seen.latest).waited += seen.waited
        seen.latest = None
        self.finished += 1
        self.last = now
        if self.finished == self.load.total:
            self.done.set()

    def _spawn(self, key: str, admitted: float) -> None:
        task = asyncio.get_running_loop().create_task(self._finish(key, admitted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(self, key: str, admitted: float) -> None:
        seen = self.seen[key]
        while not seen.finished and seen.admitted == admitted and not seen.evicted and seen.latest is not None:
            meta = seen.latest.metadata
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            ended = {"type": "Finished", "status": "True", "reason": "ByTest", "message": "By test runner"}
            conditions = [*seen.latest.status.conditions, {**ended, "lastTransitionTime": now}]
            patch = {"metadata": {"resourceVersion": meta.resourceVersion}, "status": {"conditions": conditions}}
            path = f"{_API}/namespaces/{meta.namespace}/workloads/{meta.name}/status"
            body = msgspec.json.encode(patch)
            status, answer = await self.pool.ask("PATCH", path, body, "application/merge-patch+json")
            if status == 200:
                return
            self.conflicts += 1
            if status != 409 and len(self.problems) < 20:
                self.problems.append(f"{status} {answer[:200]!r}")
            await asyncio.sleep(0.02)


_decode = msgspec.json.Decoder(_Event).decode


async def follow(address: Address, take: Callable[[bytes], None]) -> Connection:
    """Watch all workloads from now on."""
    connection = await Connection.open(address)
    chunks = Chunks(take)
    head = bytearray()

    def first(data: bytes) -> None:
        head.extend(data)
        end = head.find(b"\r\n\r\n")
        if end >= 0:
            connection.on_data = chunks.feed
            chunks.feed(bytes(head[end + 4 :]))

    connection.on_data = first
    assert connection._transport is not None
    connection._transport.write(address.request("GET", f"{_API}/workloads?watch=true&resourceVersion=0"))
    return connection


async def run(kubeconfig: Path, load: Load, timeout: float, say: bool) -> dict[str, Any]:
    address = Address.of(load_kubeconfig(kubeconfig))
    pool = Pool(address)
    await pool.open(_CONNECTIONS)
    runner = Runner(load, pool)
    await runner.prepare()
    watch = await follow(address, runner.event)
    began = time.perf_counter()
    cpu = time.process_time()
    teller = asyncio.create_task(_tell(runner, began)) if say else None
    try:
        async with asyncio.timeout(timeout):
            await runner.generate()
            await runner.done.wait()
        ended = True
    except TimeoutError:
        ended = False
    if teller is not None:
        teller.cancel()
    watch.close()
    wall = (runner.last if ended else time.perf_counter()) - began
    classes = {
        name: {"count": t.count, "mean_wait": t.waited / max(1, t.count), "evictions": t.evictions}
        for name, t in sorted(runner.tallies.items())
    }
    return {
        "ended": ended,
        "wall": wall,
        "total": load.total,
        "finished": runner.finished,
        "generated": runner.generated - began,
        "runner_cpu": time.process_time() - cpu,
        "requests": pool.requests,
        "conflicts": runner.conflicts,
        "problems": runner.problems,
        "classes": classes,
    }


async def _tell(runner: Runner, began: float) -> None:
    while True:
        await asyncio.sleep(2)
        passed = time.perf_counter() - began
        running = sum(1 for s in runner.seen.values() if s.admitted >= 0 and not s.finished)
        print(
            f"    {passed:6.1f} s: created {runner.created}, running {running}, finished {runner.finished}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--load", choices=sorted(LOADS), required=True)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--queues", type=int)
    parser.add_argument("--timeout", type=float, default=900.0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--say", action="store_true")
    options = parser.parse_args()
    load = LOADS[options.load].at_scale(options.scale, options.queues)
    work: Coroutine[Any, Any, dict[str, Any]] = run(options.kubeconfig, load, options.timeout, options.say)
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(work)
    options.out.write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()

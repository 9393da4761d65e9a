"""The whole embedded platform: cold start, memory and idle load, and a fleet of 1,000 nodes with 5,000 queued jobs.

Everything is measured on the real thing: ``glebe up`` as a process for the small fleet; for the large one the same
assembly (SQLite store, HTTPS front, planner's worker process) with a client beside it that submits through the API.
Times are wall-clock seconds on this machine while nothing else should run on it; on a loaded one they are larger.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stalls import Pulse, Steps

NODES_PER_RACK, RACKS_PER_BLOCK = 16, 8
GANG_GPUS = 64
_DEADLINE = 300.0


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement. ``bound`` is what is promised; ``at_least``: larger is better."""

    what: str
    value: float
    unit: str
    bound: float | None = None
    at_least: bool = False

    def text(self) -> str:
        line = f"  {self.what:<62} {self.value:>10.4g} {self.unit:<7}"
        if self.bound is None:
            return line.rstrip()
        holds = self.value >= self.bound if self.at_least else self.value <= self.bound
        sign = ">=" if self.at_least else "<="
        ratio = f"{self.value / self.bound:<6.3g}" if self.bound else "-     "
        return f"{line} {sign} {self.bound:<6g} ratio {ratio} {'holds' if holds else 'MISSED'}"


def show(row: Row, rows: list[Row]) -> None:
    rows.append(row)
    print(row.text(), flush=True)


# --- processes


def resident_mb(pid: int) -> float:
    """Resident memory of a process and all its descendants, MB (Linux)."""
    total = 0
    for each in [pid, *_descendants(pid)]:
        try:
            status = Path(f"/proc/{each}/status").read_text(encoding="ascii")
        except OSError:
            continue
        total += next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")), 0)
    return total * 1024 / 1e6


def _descendants(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return []
    return [each for child in children for each in (int(child), *_descendants(int(child)))]


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def default_fleet(rows: list[Row], *, starts: int, idle: float) -> None:
    """``glebe up`` with the default fleet: start to ready API (the best and the worst), memory and load when idle."""
    times, cpu = [], []
    for number in range(starts):
        with tempfile.TemporaryDirectory(prefix="glebe-bench-") as directory:
            began = time.perf_counter()
            command = [sys.executable, "-m", "glebe.cli.main", "up", "--data-dir", directory, "--listen", "127.0.0.1:0"]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            try:
                assert process.stdout is not None
                while "is up at" not in (line := process.stdout.readline()):
                    if not line:
                        raise RuntimeError("glebe up ended before it was up")
                times.append(time.perf_counter() - began)
                cpu.append(cpu_seconds(process.pid))
                if number == starts - 1:
                    _idle_load(process.pid, idle, rows)
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(30)
    show(Row("glebe up: process start to ready API, best", min(times), "s", 1.5), rows)
    show(Row("glebe up: process start to ready API, worst", max(times), "s", 1.5), rows)
    show(Row("glebe up: CPU time of that, best", min(cpu), "s"), rows)


def _idle_load(pid: int, seconds: float, rows: list[Row]) -> None:
    time.sleep(4)  # nodes register and become ready
    before = cpu_seconds(pid)
    time.sleep(seconds)
    used = cpu_seconds(pid) - before
    show(Row("17 nodes, idle: resident memory of the whole platform", resident_mb(pid), "MB", 120), rows)
    show(Row("17 nodes, idle: load", 100 * used / seconds, "% core", 1.0), rows)


# --- the large fleet


def fleet_file(nodes: int) -> str:
    return f"""\
apiVersion: glebe.dev/v1alpha1
kind: Fleet
pools:
- name: h100
  count: {nodes}
  gpu: {{model: h100-sxm5-80gb, count: 8}}
  cpu: "192"
  memory: 2Ti
  topology: {{nodesPerRack: {NODES_PER_RACK}, racksPerBlock: {RACKS_PER_BLOCK}}}
  runTime: 10h
"""


def job(name: str, gpus: int, topology: tuple[str, str] | None, hours: float) -> dict[str, Any]:
    """An Indexed Job of ``gpus`` GPUs, 8 to a pod, as ``glebe run`` makes it."""
    from glebe.platform.jobspec import JobRequest, build

    request = JobRequest(
        name=name,
        command=["train"],
        nodes=max(1, gpus // 8),
        gpus_per_node=min(gpus, 8),
        expected=f"{max(60, int(hours * 3600))}s",
        topology=topology,
    )
    return next(obj for obj in build(request) if obj["kind"] == "Job")


async def until(condition: Callable[[], bool], what: str, step: float = 0.02) -> float:
    """Wait until it is so; seconds waited."""
    began = time.perf_counter()
    while not condition():
        if time.perf_counter() - began > _DEADLINE:
            raise TimeoutError(f"not within {_DEADLINE:.0f} s: {what}")
        await asyncio.sleep(step)
    return time.perf_counter() - began


async def in_parallel(jobs: list[Callable[[], Awaitable[object]]], width: int) -> None:
    """All of them, ``width`` at a time."""
    todo = iter(jobs)

    async def worker() -> None:
        for each in todo:
            await each()

    await asyncio.gather(*(worker() for _ in range(width)))


async def large_fleet(rows: list[Row], nodes: int, jobs: int, steps: Steps | None) -> None:
    from glebe.node.fleet import parse_fleet
    from glebe.platform.frontend import open_platform
    from glebe.platform.paths import DataDir

    name = f"{nodes:,} nodes"
    with tempfile.TemporaryDirectory(prefix="glebe-bench-") as directory:
        data = DataDir(Path(directory))
        pulse = Pulse()
        ticking = asyncio.create_task(pulse.run())
        began = time.perf_counter()
        fleet = parse_fleet(fleet_file(nodes), "the benchmark's fleet")
        async with open_platform(data, fleet, "127.0.0.1", 0) as (_, platform):
            show(Row(f"{name}: process ready to ready API", time.perf_counter() - began, "s"), rows)
            pulse.take()
            if steps is not None:
                steps.take()
            run = _Run(platform, pulse, steps, rows, name, nodes, jobs)
            await run.nodes_ready(began)
            await run.fill()
            await run.queue()
            await run.idle()
            await run.turnover()
        ticking.cancel()
        if steps is not None:
            print("\nwhat held the event loop:")
            for where, count in steps.where.most_common(25):
                print(f"  {count:5}  {where}")


class _Run:
    """The steps of one run on the large fleet, in their order."""

    def __init__(
        self, platform: Any, pulse: Pulse, steps: Steps | None, rows: list[Row], name: str, nodes: int, jobs: int
    ) -> None:
        from glebe.kube import resources as r

        self.r, self.platform, self.pulse, self.rows, self.name = r, platform, pulse, rows, name
        self.steps = steps
        self.node_count, self.job_count = nodes, jobs
        self.client = platform.client
        informers = platform.parts._shared  # the platform's own cache: reading it costs nothing
        self.nodes = informers.get(r.NODES).store
        self.workloads = informers.get(r.WORKLOADS).store
        self.pods = informers.get(r.PODS).store

    def _row(self, what: str, value: float, unit: str, bound: float | None = None, at_least: bool = False) -> None:
        show(Row(f"{self.name}: {what}", value, unit, bound, at_least), self.rows)

    def _held(self, during: str) -> None:
        usual, longest = self.pulse.take()
        self._row(f"wait for a turn of the loop, {during}, p99", 1000 * usual, "ms")
        self._row(f"wait for a turn of the loop, {during}, longest", 1000 * longest, "ms")
        if self.steps is not None:
            held, over = self.steps.take()
            self._row(f"one step of the loop, {during}, longest", 1000 * held, "ms", 10)
            self._row(f"steps of the loop over 10 ms, {during}", over, "steps")

    async def nodes_ready(self, began: float) -> None:
        from glebe.kube.objects import condition_is_true

        await until(lambda: len(self.nodes) >= self.node_count, "all nodes are registered")
        await until(lambda: all(condition_is_true(n, "Ready") for n in self.nodes.values()), "all nodes are ready", 0.1)
        self._row("process ready to all nodes ready", time.perf_counter() - began, "s")
        self._held("nodes starting")

    async def fill(self) -> None:
        """Gangs of 64 GPUs within a block until the fleet is full."""
        gangs = self.node_count * 8 // GANG_GPUS
        block = ("required", "block")
        wanted = [job(f"gang-{i}", GANG_GPUS, block, 2 + i / 100) for i in range(gangs)]
        began = time.perf_counter()
        await in_parallel([lambda j=j: self.client.create(self.r.JOBS, j) for j in wanted], 16)  # type: ignore[misc]
        self._row(f"{gangs} gangs of {GANG_GPUS} GPUs submitted", gangs / (time.perf_counter() - began), "jobs/s")
        await until(lambda: self._admitted() >= gangs * 0.95, "the gangs are admitted")
        taken = time.perf_counter() - began
        self._row("gangs admitted (from the first's submission)", self._admitted() / taken, "gangs/s")
        pods = self._admitted() * GANG_GPUS // 8
        await until(lambda: self._running() >= pods, "the pods run", 0.1)
        taken = time.perf_counter() - began
        self._row(f"{pods} pods running (from the first gang's submission)", taken, "s")
        self._row("pods created, released, bound and running", pods / taken, "pods/s")
        self._held("filling the fleet")

    async def queue(self) -> None:
        """``job_count`` more jobs, none of which can start now; each must get a position and a forecast."""
        rng = random.Random(1)
        asks = (("required", "block"), ("preferred", "rack"), None)
        wanted = [
            job(f"job-{i}", 2 ** rng.randint(3, 8), rng.choice(asks), rng.lognormvariate(0.3, 1))
            for i in range(self.job_count)
        ]
        gc.collect()
        began = time.perf_counter()
        await in_parallel([lambda j=j: self.client.create(self.r.JOBS, j) for j in wanted], 16)  # type: ignore[misc]
        taken = time.perf_counter() - began
        self._row(f"{self.job_count:,} jobs submitted", self.job_count / taken, "jobs/s")
        await until(lambda: self._named("job-") >= self.job_count, "all jobs have a Workload", 0.5)
        self._row("all have a Workload (from the first's submission)", time.perf_counter() - began, "s")
        await until(self._all_forecast, "all have a forecast", 0.5)
        self._row("all have position and forecast (same)", time.perf_counter() - began, "s")
        self._held("queueing")
        self._row("resident memory with planner's worker", resident_mb(os.getpid()), "MB")

    async def idle(self, seconds: float = 5.0) -> None:
        began = time.perf_counter()
        while time.perf_counter() - began < 60:  # events and last forecasts are still being written
            before = self.platform.server.store.revision
            await asyncio.sleep(1)
            if self.platform.server.store.revision - before < self.node_count / 5:
                break
        self._row("until the writes that followed were made", time.perf_counter() - began, "s")
        self.pulse.take()
        before = cpu_seconds(os.getpid())
        await asyncio.sleep(seconds)
        used = cpu_seconds(os.getpid()) - before  # the pulse's own share included
        self._row("load with the queue unchanged (heartbeats included)", 100 * used / seconds, "% core")
        self._held("queue unchanged")
        snapshot = self._snapshot()
        began = time.perf_counter()
        found = await self.platform.planner.forecast(snapshot, time.time())
        self._row(f"whole-queue forecast of {len(found):,} jobs", time.perf_counter() - began, "s", 2.0)
        began = time.perf_counter()
        await self.platform.planner.decide(snapshot, time.time())
        self._row("decisions about the whole queue", 1000 * (time.perf_counter() - began), "ms")

    async def turnover(self, gangs: int = 10) -> None:
        """Running gangs are cancelled; their GPUs go to the heads of the queue."""
        before = self._admitted()
        began = time.perf_counter()
        names = [w["metadata"]["ownerReferences"][0]["name"] for w in self.workloads.values() if _holds(w)]
        victims = [n for n in names if n.startswith("gang-")][:gangs]
        for victim in victims:
            await self.client.delete(self.r.JOBS, victim, "default", propagation="Background")
        gone = {f"gang-{v}" for v in victims} | set(victims)

        def replaced() -> bool:
            holding = [w["metadata"]["ownerReferences"][0]["name"] for w in self.workloads.values() if _holds(w)]
            return not gone & set(holding) and any(n.startswith("job-") for n in holding)

        await until(replaced, "freed GPUs are given out")
        self._row(f"{len(victims)} gangs cancelled to the next ones admitted", time.perf_counter() - began, "s")
        await asyncio.sleep(5)
        self._row("admitted after the turnover, more or fewer", self._admitted() - before, "jobs")
        self._held("turnover")

    def _snapshot(self) -> Any:
        """The queue's own picture, so that its workers are asked as they are in operation."""
        return self.platform._admission.oracle.__self__.builder.snapshot()

    def _admitted(self) -> int:
        return sum(_holds(w) for w in self.workloads.values())

    def _running(self) -> int:
        return sum((p.get("status") or {}).get("phase") == "Running" for p in self.pods.values())

    def _named(self, prefix: str) -> int:
        if len(self.workloads) < self.job_count:
            return 0
        return sum(w["metadata"]["ownerReferences"][0]["name"].startswith(prefix) for w in self.workloads.values())

    def _all_forecast(self) -> bool:
        waiting = [w for w in self.workloads.values() if not _holds(w)]
        return all((w.get("status") or {}).get("forecast", {}).get("position") for w in waiting)


def _holds(workload: dict[str, Any]) -> bool:
    return bool((workload.get("status") or {}).get("admission"))


def run(arguments: list[str] | None = None) -> list[Row]:
    """Measure and print; the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("default", "large"), help="only the default fleet, or only the large one")
    parser.add_argument("--nodes", type=int, default=1000, help="of the large fleet")
    parser.add_argument("--jobs", type=int, default=5000, help="queued on the large fleet")
    parser.add_argument("--starts", type=int, default=3, help="cold starts measured")
    parser.add_argument("--idle", type=float, default=10.0, help="seconds over which the idle load is measured")
    parser.add_argument("--stalls", action="store_true", help="time every step of the event loop (slower)")
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    print("platform (wall-clock times)")
    if options.only != "large":
        default_fleet(rows, starts=options.starts, idle=options.idle)
    if options.only != "default":
        import uvloop

        steps = Steps() if options.stalls else None
        if steps is not None:
            steps.install()
        factory = asyncio.new_event_loop if options.stalls else uvloop.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(large_fleet(rows, options.nodes, options.jobs, steps))
    return rows


if __name__ == "__main__":
    run()

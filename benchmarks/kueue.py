"""Kueue's three published scheduler benchmarks, end to end: ``glebe up`` as a process, and a runner that does what
Kueue's own does (see :mod:`kueuerunner`).

Kueue's figures are of its CI: API server and etcd, Kueue's core controllers alone (no jobs, no events of jobs), a
runner; several cores. Ours is everything that ``glebe up`` runs, SQLite with fsync, HTTPS, forecasts, on whatever this
machine has. Time counts from the first object of a queue to the last workload's end, as the runner sees it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from embedded import cpu_seconds, resident_mb
from kueueloads import LOADS, Load

_HERE = Path(__file__).parent
BAR = 5.0


def measure(load: Load, timeout: float, say: bool, wrap: list[str], keep: Path | None = None) -> dict[str, Any]:
    """One run: the runner's results with ``server_cpu`` (seconds) and ``server_mb``."""
    directory = Path(tempfile.mkdtemp(prefix="glebe-bench-"))
    try:
        fleet = directory / "fleet.yaml"
        fleet.write_text(load.fleet(), encoding="utf-8")
        command = [*wrap, sys.executable, "-m", "glebe.cli.main", "up", "--data-dir", str(directory / "data")]
        command += ["--fleet", str(fleet), "--pod-network", "loopback"]
        log = (directory / "log").open("wb")
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert server.stdout is not None
            while "is up at" not in (line := server.stdout.readline()):
                if not line:
                    raise RuntimeError(f"glebe up ended: {(directory / 'log').read_text()[-2000:]}")
            time.sleep(3 + load.nodes / 100)  # nodes register
            before = _cpu(server.pid)
            result = _run(load, directory, timeout, say)
            result["server_cpu"] = _cpu(server.pid) - before
            result["server_mb"] = resident_mb(server.pid)
        finally:
            server.send_signal(signal.SIGINT if wrap else signal.SIGTERM)
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
            log.close()
        result["log"] = (directory / "log").read_text()[-2000:]
        return result
    finally:
        if keep is None:
            shutil.rmtree(directory, ignore_errors=True)
        else:
            shutil.move(directory, keep)


def _run(load: Load, directory: Path, timeout: float, say: bool) -> dict[str, Any]:
    out = directory / "result.json"
    command = [sys.executable, str(_HERE / "kueuerunner.py"), "--kubeconfig", str(directory / "data" / "kubeconfig")]
    command += ["--load", load.name, "--scale", str(load.scale), "--timeout", str(timeout), "--out", str(out)]
    command += ["--queues", str(load.queues_each)]
    subprocess.run([*command, *(["--say"] if say else [])], check=True, timeout=timeout + 60)
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


def _cpu(pid: int) -> float:
    """CPU seconds of a process and its children."""
    total = cpu_seconds(pid)
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text(encoding="ascii").split():
            total += _cpu(int(child))
    return total


def show(load: Load, result: dict[str, Any]) -> None:
    rate = result["finished"] / result["wall"]
    ratio = rate / load.published_rate
    state = "" if result["ended"] else f"   NOT ENDED: {result['finished']} of {result['total']}"
    part = "" if load.scale == 1 else f" (scale {load.scale:g})"
    print(f"{load.name}{part}: {load.total:,} workloads in {load.cohorts * load.queues_each:,} queues{state}")
    verdict = "holds" if ratio >= BAR and result["ended"] else "MISSED"
    print(f"  workloads/s        ours {rate:8.1f}   published {load.published_rate:6.1f}   ratio {ratio:5.2f}", end="")
    print(f"   bar {BAR:g}: {verdict}" if load == LOADS[load.name] else "   (the bar is for the whole load)")
    print(f"  wall, s            ours {result['wall']:8.1f}   published {load.published_wall:6.1f}", end="")
    print(f"   work and arrivals alone take {load.bound:.1f} s")
    for name, each in result["classes"].items():
        text = f"  {name:<26} {each['count']:6} ran, waited {each['mean_wait']:6.2f} s on average"
        print(f"{text}, {each['evictions']} evictions")
    cpu = f"server {result['server_cpu']:.1f} s, runner {result['runner_cpu']:.1f} s of {result['wall']:.1f} s"
    print(f"  CPU: {cpu}; resident {result['server_mb']:.0f} MB; {result['conflicts']} conflicts", end="")
    print(f"; all created after {result['generated']:.1f} s")
    for problem in result["problems"]:
        print(f"  problem: {problem}")
    if result["log"].strip():
        print(result["log"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(LOADS), help="one of the three")
    parser.add_argument("--scale", type=float, default=1.0, help="this part of each set of workloads")
    parser.add_argument("--queues", type=int, help="queues per cohort, for a shorter run")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for one run")
    parser.add_argument("--say", action="store_true", help="tell how it goes")
    parser.add_argument("--wrap", default="", help="a profiler's command line to run the server under")
    parser.add_argument("--keep", type=Path, help="move the server's files there")
    options = parser.parse_args()
    print(f"Kueue's scheduler benchmarks on {os.cpu_count()} cores, API server and runner included")
    for name, load in LOADS.items():
        if options.only in (None, name):
            scaled = load.at_scale(options.scale, options.queues)
            show(scaled, measure(scaled, options.timeout, options.say, options.wrap.split(), options.keep))


if __name__ == "__main__":
    main()

"""How many logical clusters fit into one process, and how fast they come and go.

``python benchmarks/density.py`` starts ``glebe up`` (SQLite, fsync, TLS), creates clusters at a fixed rate and asks
each at once for its namespaces, weighs the process, fills some clusters with objects, and deletes everything. The
bars are the project's own. For scale, what kcp published of its load tests in April 2026 (10,000 workspaces, three
shards): 8 creations per second sustained, 7.4 to 9.8 MiB per empty workspace, about an hour to delete them all, memory
not given back, metric series without bound.

Latencies count from the moment at which a creation was due, whether or not the client could send it then.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import orjson

from embedded import Row, show
from rawhttp import Address, Connection
from servers import Ours

_OBJECT = 1024
"""Bytes of data in each object of a filled cluster."""
_SETTLE = 3.0
_WARM = 1000


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


class Pool:
    """A few connections that take turns."""

    def __init__(self, address: Address, size: int) -> None:
        self.address = address
        self._size = size
        self._free: asyncio.Queue[Connection] = asyncio.Queue()

    async def __aenter__(self) -> Pool:
        for connection in await asyncio.gather(*(Connection.open(self.address) for _ in range(self._size))):
            self._free.put_nowait(connection)
        return self

    async def __aexit__(self, *_: object) -> None:
        while not self._free.empty():
            self._free.get_nowait().close()

    async def ask(self, method: str, path: str, body: bytes = b"", *, status: int) -> bytes:
        connection = await self._free.get()
        try:
            return await connection.expect(self.address.request(method, path, body), status)
        finally:
            self._free.put_nowait(connection)


async def at_rate(count: int, rate: float, one: Callable[[int], asyncio.Future[None] | object]) -> list[float]:
    """Start ``one(i)`` for each i at its time; seconds from each due time to its end."""
    began = time.perf_counter() + 0.05
    latencies: list[float] = []

    async def timed(number: int) -> None:
        due = began + number / rate
        await one(number)  # type: ignore[misc]
        latencies.append(time.perf_counter() - due)

    tasks = []
    for number in range(count):
        wait = began + number / rate - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(timed(number)))
    await asyncio.gather(*tasks)
    return latencies


async def in_parallel(count: int, width: int, one: Callable[[int], object]) -> float:
    """``one(i)`` for each i, ``width`` at a time; seconds for all."""
    began = time.perf_counter()
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await one(number)  # type: ignore[misc]

    await asyncio.gather(*(work() for _ in range(width)))
    return time.perf_counter() - began


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def series(pool: Pool) -> int | None:
    """How many time series the server's metrics have."""
    connection = await Connection.open(pool.address)
    try:
        status, body = await connection.ask(pool.address.request("GET", "/metrics"))
    finally:
        connection.close()
    return sum(1 for line in body.splitlines() if line and line[:1] != b"#") if status == 200 else None


def left_on_disk(database: Path) -> int:
    """Rows of the register of clusters (the root cluster's own is one)."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        return int(
            connection.execute("SELECT count(*) FROM objects WHERE resource = 'clusters.glebe.dev'").fetchone()[0]
        )


async def measure(options: argparse.Namespace, directory: Path) -> list[Row]:
    rows: list[Row] = []
    server = Ours(directory)
    try:
        await server.start()
        async with Pool(server.address, options.connections) as pool:
            await _steps(server, pool, options, directory, rows)
    finally:
        server.stop()
    return rows


async def _steps(server: Ours, pool: Pool, options: argparse.Namespace, directory: Path, rows: list[Row]) -> None:
    count, pid = options.clusters, server._processes[0].pid
    database = next((directory / "data").rglob("*.db"))

    async def create(number: int) -> None:
        body = orjson.dumps({"metadata": {"name": f"t{number}"}})
        await pool.ask("POST", "/clusters", body, status=201)
        await pool.ask("GET", f"/clusters/t{number}/api/v1/namespaces", status=200)

    async def fill(number: int) -> None:
        for each in range(50):
            meta = {"name": f"c{each}", "namespace": "default"}
            body = orjson.dumps(
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"x": "y" * _OBJECT}}
            )
            await pool.ask("POST", f"/clusters/t{number}/api/v1/namespaces/default/configmaps", body, status=201)

    async def delete(number: int) -> None:
        await pool.ask("DELETE", f"/clusters/t{number}", status=200)

    for step in (create, delete):  # bounded caches fill once, whoever comes
        await in_parallel(_WARM, options.connections, step)
    await asyncio.sleep(_SETTLE)
    memory, metrics = server.resident_mib() or 0.0, await series(pool)
    show(Row("memory without tenants", memory, "MiB"), rows)
    began = time.perf_counter()
    latencies = await at_rate(count, options.rate, create)
    taken = time.perf_counter() - began
    show(
        Row(
            f"creations (due at {options.rate:g}/s), each answering at once",
            count / taken,
            "1/s",
            0.98 * options.rate,
            True,
        ),
        rows,
    )
    show(Row("creation until namespaces are answered, p50", percentile(latencies, 0.5) * 1000, "ms"), rows)
    show(Row("creation until namespaces are answered, p99", percentile(latencies, 0.99) * 1000, "ms", 100), rows)
    await asyncio.sleep(_SETTLE)
    empty = server.resident_mib() or 0.0
    show(Row(f"memory with {count} empty clusters", empty, "MiB"), rows)
    show(Row("memory per empty cluster", (empty - memory) / count, "MiB", 0.25), rows)
    spent = cpu_seconds(pid)
    await asyncio.sleep(options.idle)
    show(Row("idle load with all clusters", (cpu_seconds(pid) - spent) / options.idle * 100, "% cpu", 5), rows)
    if metrics is not None:
        show(Row("metric series added", (await series(pool) or 0) - metrics, "", 0), rows)
    began = time.perf_counter()
    await in_parallel(count, options.connections, delete)
    show(Row(f"deleting {count} clusters: out of sight", time.perf_counter() - began, "s"), rows)
    while left_on_disk(database) > 1:  # noqa: ASYNC110 - a file of another process
        await asyncio.sleep(0.2)
    show(Row(f"deleting {count} clusters: nothing left", time.perf_counter() - began, "s", 60), rows)
    await asyncio.sleep(_SETTLE)
    after = server.resident_mib() or 0.0
    show(Row("memory afterwards, of that before", after / memory, "", 1.1), rows)
    await in_parallel(options.filled, options.connections, create)
    await in_parallel(options.filled, options.connections, fill)
    await asyncio.sleep(_SETTLE)
    filled = server.resident_mib() or 0.0
    show(Row("memory per cluster with 50 objects of 1 KiB", (filled - after) / options.filled, "MiB", 1), rows)
    await in_parallel(options.filled, options.connections, delete)
    while left_on_disk(database) > 1:  # noqa: ASYNC110 - a file of another process
        await asyncio.sleep(0.2)
    await asyncio.sleep(_SETTLE)
    show(Row("memory after these are deleted, too", server.resident_mib() or 0.0, "MiB"), rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clusters", type=int, default=10_000)
    parser.add_argument("--filled", type=int, default=200, help="clusters that get 50 objects each")
    parser.add_argument("--rate", type=float, default=500.0, help="creations per second")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--idle", type=float, default=5.0, help="seconds for which the idle load is measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        rows = asyncio.run(measure(options, Path(directory)))
    return 0 if all(r.bound is None or (r.value >= r.bound) == r.at_least or r.value == r.bound for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

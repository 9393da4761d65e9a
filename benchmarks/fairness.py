"""What one tenant feels of another: latencies of a quiet logical cluster, alone and while a loud one floods.

``python benchmarks/fairness.py`` starts ``glebe apiserver`` (SQLite, fsync, TLS) with two logical clusters. The quiet
tenant reads, lists and writes at a fixed rate; the loud one, in a process of its own, does one thing as fast as the
server lets it: reads, lists of thousands of objects, creations, opening watches, or changes that hundreds of its
watchers hear of. The bar: the quiet tenant's p99 moves by less than 2x.

Each measurement is made several times, in turn, and the best counts: other load on the machine only slows down. The
loud clients give way to everybody (SCHED_IDLE), since what is measured is the server and not who gets the clients'
cores.
``control`` is such a client that only uses a processor. On a machine where others work, too, a server that is busy with
a flood gets its core later than one that rests: there the ratios say more about the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

import orjson

from embedded import Row, show
from glebe.apiserver.auth.pki import Pki
from glebe.apiserver.auth.scope import Scope
from glebe.kube.kubeconfig import load_kubeconfig, write_kubeconfig
from rawhttp import Address, Connection
from servers import Ours

SPACE = "/api/v1/namespaces/default/configmaps"
BAR = 2.0
_OBJECTS = 5000
_numbers = count()


def config(name: str, size: int = 512) -> bytes:
    meta = {"name": name, "namespace": "default"}
    return orjson.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"text": "x" * size}})


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


# -- the quiet tenant ------------------------------------------------------------------------------------------------


async def quiet(address: Address, seconds: float, rate: float) -> dict[str, list[float]]:
    """Latencies by what was asked, of reads and writes at a fixed rate."""
    connections = [await Connection.open(address) for _ in range(4)]
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for connection in connections:
        free.put_nowait(connection)
    taken: dict[str, list[float]] = {"reads": [], "writes": []}

    async def one(number: int, due: float) -> None:
        connection = await free.get()
        try:
            if number % 4 == 3:
                body = config(f"q{os.getpid()}-{next(_numbers)}")
                await connection.expect(address.request("POST", SPACE, body), 201)
            else:
                path = f"{SPACE}/quiet" if number % 4 else f"{SPACE}?limit=20"
                await connection.expect(address.request("GET", path), 200)
        finally:
            free.put_nowait(connection)
        taken["writes" if number % 4 == 3 else "reads"].append(time.perf_counter() - due)

    tasks, began = [], time.perf_counter()
    for number in range(int(seconds * rate)):
        due = began + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(number, time.perf_counter())))
    await asyncio.gather(*tasks)
    for connection in connections:
        connection.close()
    return taken


# -- the loud one ----------------------------------------------------------------------------------------------------


async def _each(address: Address, clients: int, ask: Callable[[Connection], Awaitable[None]]) -> None:
    async def go_on() -> None:
        connection = await Connection.open(address)
        while True:
            await ask(connection)

    await asyncio.gather(*(go_on() for _ in range(clients)))


async def reads(address: Address, clients: int) -> None:
    request = address.request("GET", f"{SPACE}/o1")

    async def ask(connection: Connection) -> None:
        await connection.ask(request)

    await _each(address, clients, ask)


async def lists(address: Address, clients: int) -> None:
    request = address.request("GET", SPACE)

    async def ask(connection: Connection) -> None:
        await connection.ask(request)

    await _each(address, max(4, clients // 8), ask)


async def creations(address: Address, clients: int) -> None:
    async def ask(connection: Connection) -> None:
        await connection.ask(address.request("POST", SPACE, config(f"c{os.getpid()}-{next(_numbers)}")))

    await _each(address, clients, ask)


async def watches(address: Address, clients: int) -> None:
    """Open watches, with all objects at their beginning, and close them."""
    request = address.request("GET", f"{SPACE}?watch=1&timeoutSeconds=1")

    async def ask(connection: Connection) -> None:
        await connection.ask(request)

    await _each(address, clients, ask)


async def changes(address: Address, clients: int) -> None:
    """Change one object again and again before 500 watchers."""
    for _ in range(500):
        watcher = await Connection.open(address)
        watcher.on_data = lambda data: None
        request = address.request("GET", f"{SPACE}?watch=1&fieldSelector=metadata.name%3Do1")
        assert watcher._transport is not None
        watcher._transport.write(request)

    async def ask(connection: Connection) -> None:
        body = config("o1", 400 + next(_numbers) % 100)
        await connection.ask(address.request("PUT", f"{SPACE}/o1", body))

    await _each(address, 8, ask)


async def control(address: Address, clients: int) -> None:
    """Ask nothing, and use a processor: what this alone does to the quiet tenant is not the server's doing."""
    while True:
        pass


FLOODS = {each.__name__: each for each in (control, reads, lists, creations, watches, changes)}


def _give_way() -> None:
    """Use only what nobody else wants of the processors: the loud tenant's machine is not the server's."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (AttributeError, OSError):
        os.nice(15)


async def flood(name: str, kubeconfig: Path, clients: int) -> None:
    _give_way()
    address = Address.of(load_kubeconfig(kubeconfig))
    print("ready", flush=True)
    await FLOODS[name](address, clients)


# -- both ------------------------------------------------------------------------------------------------------------


async def tenant(server: Ours, directory: Path, name: str) -> Path:
    """A kubeconfig for the administrator of a new logical cluster."""
    assert server.config is not None
    root = await Connection.open(server.address)
    body = await root.expect(
        server.address.request("POST", "/clusters", orjson.dumps({"metadata": {"name": name}})), 201
    )
    uid = orjson.loads(body)["metadata"]["uid"]
    root.close()
    pki = Pki(directory / "data" / "pki").authority()
    pair = pki.issue_client("admin", ["system:masters"], time.time(), scope=Scope(name, uid))
    path = directory / f"{name}.kubeconfig"
    url = f"{server.config.server.rstrip('/')}/clusters/{name}"
    write_kubeconfig(path, url, ca=pki.ca_pem, certificate=pair.certificate, key=pair.key)
    return path


async def fill(address: Address, number: int) -> None:
    connection = [await Connection.open(address) for _ in range(16)]
    names = iter(range(number))

    async def work(each: Connection) -> None:
        for i in names:
            await each.expect(address.request("POST", SPACE, config(f"o{i}", 2048)), 201)
        each.close()

    await asyncio.gather(*(work(c) for c in connection))


class Best:
    """The best p50 and p99, milliseconds, of what was measured several times."""

    def __init__(self) -> None:
        self.p50: dict[str, float] = {}
        self.p99: dict[str, float] = {}

    def take(self, taken: dict[str, list[float]]) -> None:
        for what, values in taken.items():
            for held, part in ((self.p50, 0.5), (self.p99, 0.99)):
                held[what] = min(held.get(what, 1e9), percentile(values, part) * 1000)


async def measure(options: argparse.Namespace, directory: Path) -> list[Row]:
    server = Ours(directory)
    rows: list[Row] = []
    try:
        await server.start()
        loud, own = await tenant(server, directory, "loud"), await tenant(server, directory, "quiet")
        address = Address.of(load_kubeconfig(own))
        await fill(Address.of(load_kubeconfig(loud)), options.objects)
        connection = await Connection.open(address)
        await connection.expect(address.request("POST", SPACE, config("quiet")), 201)
        connection.close()
        chosen = options.only or list(FLOODS)
        best = {name: Best() for name in ("alone", *chosen)}
        for _ in range(options.rounds):
            for name in best:
                best[name].take(await _measured(name, loud, address, options))
        _report(best, rows)
    finally:
        server.stop()
    return rows


async def _measured(name: str, loud: Path, address: Address, options: argparse.Namespace) -> dict[str, list[float]]:
    if name == "alone":
        return await quiet(address, options.seconds, options.rate)
    command = [sys.executable, __file__, "--flood", name, "--kubeconfig", str(loud), "--clients", str(options.clients)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        await process.stdout.readline()
        await asyncio.sleep(options.settle)
        return await quiet(address, options.seconds, options.rate)
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await asyncio.sleep(0.3)


def _report(best: dict[str, Best], rows: list[Row]) -> None:
    base = best.pop("alone")
    for what in base.p99:
        show(Row(f"alone: {what}, p50", base.p50[what], "ms"), rows)
        show(Row(f"alone: {what}, p99", base.p99[what], "ms"), rows)
    for name, found in best.items():
        for what in base.p99:
            show(Row(f"beside a flood of {name}: {what}, p50", found.p50[what], "ms"), rows)
            show(Row(f"beside a flood of {name}: {what}, p99", found.p99[what], "ms"), rows)
            show(
                Row(f"beside a flood of {name}: {what}, p99 moves by", found.p99[what] / base.p99[what], "x", BAR), rows
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each measurement takes")
    parser.add_argument("--settle", type=float, default=3.0, help="seconds from a flood's begin to the measurement")
    parser.add_argument("--rate", type=float, default=100.0, help="the quiet tenant's requests per second")
    parser.add_argument("--clients", type=int, default=64, help="the loud tenant's connections")
    parser.add_argument("--objects", type=int, default=_OBJECTS, help="what the loud tenant's lists hold")
    parser.add_argument("--only", choices=FLOODS, action="append", help="only this flood; may be repeated")
    parser.add_argument("--flood", choices=FLOODS, help=argparse.SUPPRESS)
    parser.add_argument("--kubeconfig", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.flood:
        asyncio.run(flood(options.flood, options.kubeconfig, options.clients))
        return 0
    with tempfile.TemporaryDirectory() as directory:
        rows = asyncio.run(measure(options, Path(directory)))
    broken = [row.what for row in rows if row.bound is not None and row.value > row.bound]
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

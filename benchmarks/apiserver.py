"""The API server beside upstream's: one client, one machine, JSON over TLS with a client certificate.

``--ours``, ``--etcd`` (two replicas of ours on an etcd) and ``--upstream`` (kube-apiserver and etcd; programs from
``KUBEBUILDER_ASSETS``) are started here, by default all, ``--quick`` without the replicas;
``--kubeconfig [NAME=]FILE`` measures any server, and may be repeated. Each row is measured on one server after the
other before the next row begins, several times, and the best counts: other load on the machine only slows down.
Watch delivery counts from the moment that the write is sent, so that it includes making the write durable.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from apiloads import Load, Measured
from glebe.kube.kubeconfig import load_kubeconfig
from servers import Ours, OursOnEtcd, Server, Upstream, assets


@dataclass(frozen=True, slots=True)
class Bar:
    """What a row's ratio to upstream must be. ``faster``: the ratio is upstream's time over ours."""

    bound: float
    at_least: bool = False
    faster: bool = False

    def ratio(self, ours: float, upstream: float) -> float:
        return upstream / ours if self.faster else ours / upstream

    def holds(self, ratio: float) -> bool:
        return ratio >= self.bound if self.at_least else ratio <= self.bound


@dataclass(slots=True)
class Row:
    """One line of the table: per server (in order) a value, or None where it cannot be measured."""

    what: str
    unit: str
    bar: Bar | None = None
    values: list[float | None] = field(default_factory=list)

    def ratio(self, server: int, base: int | None) -> float | None:
        value, other = self.values[server], None if base is None else self.values[base]
        if self.bar is None or server == base or not value or not other:
            return None
        return self.bar.ratio(value, other)


SAME, READS = Bar(1.0, at_least=True), Bar(1.5, at_least=True)
LISTS, DELIVERY = Bar(5.0, at_least=True, faster=True), Bar(1.0)

Step = tuple[str, Bar, str, Callable[[Load, str], Awaitable[Measured]]]


def steps() -> list[Step]:
    """(label, bar, unit, what to do); rates bring their latencies along."""
    out: list[Step] = []
    for clients in (1, 32):
        crowd_text = f"{clients} client{'s' * (clients > 1)}"
        out.append((f"create, {crowd_text}", SAME, "/s", lambda load, label, n=clients: load.create(label, n)))  # type: ignore[misc]
        out.append((f"PUT, {crowd_text}", SAME, "/s", lambda load, label, n=clients: load.put(label, n)))  # type: ignore[misc]
        out.append((f"GET, {crowd_text}", READS, "/s", lambda load, label, n=clients: load.get(label, n)))  # type: ignore[misc]
    out.append(("create pods, 32 clients", SAME, "/s", lambda load, label: load.create_pods(label)))
    out.append(("LIST of all pods", LISTS, "ms", lambda load, label: load.list_pods(label, 0)))
    out.append(("LIST of all pods in pages of 500", LISTS, "ms", lambda load, label: load.list_pods(label, 500)))
    out.append(("watch, 50 watchers, 200 writes/s", DELIVERY, "ms", lambda load, label: load.watch(label)))
    return out


async def measure(servers: list[Server], options: argparse.Namespace) -> list[Row]:
    """All rows. The servers run when it returns."""
    start, idle = (
        Row("cold start to ready", "s", Bar(1 / 3)),
        Row("idle memory, controllers included", "MiB", Bar(1 / 4)),
    )
    best_start: list[float | None] = [None] * len(servers)
    for last in [False] * (options.starts - 1) + [True]:
        for number, server in enumerate(servers):
            taken, best_so_far = await server.start(), best_start[number]
            best_start[number] = taken if taken is None or best_so_far is None else min(taken, best_so_far)
            if last:
                idle.values.append(await server.idle_mib(options.idle))
            else:
                server.stop()
    start.values = best_start
    rows = [start, idle]
    loads = [Load(server, options.seconds, options.pods) for server in servers]
    for label, bar, unit, step in steps():
        if options.only and not re.search(options.only, label):
            continue
        best: list[Measured] = [{} for _ in servers]
        for _ in range(options.rounds):
            for load, kept in zip(loads, best, strict=True):
                for name, value in (await step(load, label)).items():
                    better = max if unit == "/s" and name == label else min
                    kept[name] = better(kept.get(name, value), value)
        for name in best[0]:
            rate, size = unit == "/s" and name == label, name.endswith(" size")
            main = name == label or (unit == "ms" and not size)
            made = Row(name, "/s" if rate else "MiB" if size else "ms", bar if main else None)
            made.values = [kept[name] for kept in best]
            rows.append(made)
            print(f"  {name}: " + ", ".join(f"{v:.4g}" for v in made.values if v), file=sys.stderr, flush=True)
    rows.append(Row("memory after the load", "MiB", None, [s.resident_mib() for s in servers]))
    return rows


def table(rows: list[Row], servers: list[Server], base: int | None) -> list[str]:
    """The rows as text; a line with a bar ends in ``holds`` or ``MISSED``."""
    lines = ["  " + " " * 42 + "".join(f"{server.name:>12}" for server in servers)]
    for row in rows:
        line = f"  {row.what:<42}" + "".join(f"{'-' if v is None else f'{v:.4g}':>12}" for v in row.values)
        line += f" {row.unit:<4}"
        for number in range(len(servers)):
            ratio = row.ratio(number, base)
            if ratio is not None and row.bar is not None and servers[number].promised:
                sign = ">=" if row.bar.at_least else "<="
                verdict = "holds" if row.bar.holds(ratio) else "MISSED"
                line += f" {ratio:7.2f}x {sign} {row.bar.bound:<4.2g} {verdict}"
        lines.append(line.rstrip())
    return lines


def document(rows: list[Row], servers: list[Server], base: int | None) -> str:
    out = []
    for row in rows:
        values = {server.name: value for server, value in zip(servers, row.values, strict=True)}
        item: dict[str, object] = {"what": row.what, "unit": row.unit, "values": values}
        ratios = {s.name: row.ratio(i, base) for i, s in enumerate(servers) if row.ratio(i, base) is not None}
        if row.bar is not None and ratios:
            item["ratios"] = ratios
            item["bar"] = {"bound": row.bar.bound, "atLeast": row.bar.at_least}
            item["holds"] = {name: row.bar.holds(ratio) for name, ratio in ratios.items() if ratio is not None}
        out.append(item)
    return json.dumps(out, indent=2)


def _servers(options: argparse.Namespace, directory: Path) -> list[Server]:
    chosen = options.ours or options.upstream or options.etcd or options.kubeconfig
    servers: list[Server] = []
    if options.ours or not chosen:
        servers.append(Ours(directory / "ours"))
    folder = assets()
    if folder is None and (options.upstream or options.etcd):
        sys.exit("set KUBEBUILDER_ASSETS to the folder with kube-apiserver and etcd")
    if folder is not None and (options.etcd or not (chosen or options.quick)):
        servers.append(OursOnEtcd(directory / "etcd", folder))
    for text in options.kubeconfig:
        name, _, file = text.rpartition("=")
        servers.append(Server(name or Path(file).stem, load_kubeconfig(file)))
    if folder is not None and (options.upstream or not chosen):
        servers.append(Upstream(directory / "upstream", folder))
    return servers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", action="store_true", help="measure this Glebe")
    parser.add_argument("--etcd", action="store_true", help="measure two replicas of this Glebe on one etcd")
    parser.add_argument("--upstream", action="store_true", help="measure kube-apiserver and etcd")
    parser.add_argument("--kubeconfig", action="append", default=[], metavar="[NAME=]FILE", help="measure that server")
    parser.add_argument("--quick", action="store_true", help="1 round of 1 s instead of 3 of 1.5 s; 1,000 pods")
    parser.add_argument("--rounds", type=int, help="how often each row is measured")
    parser.add_argument("--seconds", type=float, help="how long each crowd asks")
    parser.add_argument("--starts", type=int, help="how often each server is started, with nothing stored")
    parser.add_argument("--pods", type=int, help="how many are created and listed")
    parser.add_argument("--idle", type=float, default=8.0, help="seconds before the idle memory is read")
    parser.add_argument("--only", default="", metavar="REGEX", help="only the rows whose label matches")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.starts = options.starts or (1 if options.quick else 3)
    options.seconds = options.seconds or (1.0 if options.quick else 1.5)
    options.pods = options.pods or (1000 if options.quick else 5000)
    try:
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    except ImportError:
        factory = asyncio.new_event_loop
    with tempfile.TemporaryDirectory(prefix="glebe-bench-") as folder, ExitStack() as stack:
        servers = _servers(options, Path(folder))
        for server in servers:
            stack.callback(server.stop)
        with asyncio.Runner(loop_factory=factory) as runner:
            rows = runner.run(measure(servers, options))
        base = next((i for i, s in enumerate(servers) if isinstance(s, Upstream)), None)
        if options.output == "json":
            print(document(rows, servers, base))
            return 0
        print("API server" + ("" if base is None else " (ratio to upstream)"))
        print("\n".join(table(rows, servers, base)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

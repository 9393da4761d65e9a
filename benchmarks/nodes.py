"""10,000 simulated nodes with 80,000 GPUs at rest: memory and processor time.

``python benchmarks/nodes.py`` measures the whole of ``glebe up`` with such a fleet, then ``glebe agent`` alone against
``glebe apiserver`` and, where ``KUBEBUILDER_ASSETS`` names a folder with kube-apiserver and etcd, against those. The
bars, for one process: 1 GB and 10 % of a core. Every node renews its Lease each 30 s.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

from density import cpu_seconds
from embedded import Row, resident_mb, show
from glebe.kube.client import Client
from glebe.kube.http import HttpTransport
from glebe.kube.kubeconfig import load_kubeconfig
from glebe.kube.objects import condition_is_true
from glebe.kube.resources import NAMESPACES, NODES
from servers import Ours, Server, Upstream, assets

MEMORY, LOAD = 1000.0, 10.0  # MB, % of a core
FLEET = """\
apiVersion: glebe.dev/v1alpha1
kind: Fleet
pools:
- name: n
  count: {count}
  gpu: {{model: h100-sxm5-80gb, count: 8}}
  cpu: "192"
  memory: 2Ti
  topology: {{nodesPerRack: 16, racksPerBlock: 16}}
"""


class Up(Ours):
    """``glebe up`` with the fleet."""

    async def _serve(self, name: str, began: float, *more: str) -> float:
        fleet = self._directory.parent / "fleet.yaml"
        return await self._begin("up", name, began, "--fleet", str(fleet), *more)


async def registered(server: Server, count: int, limit: float) -> None:
    """Wait until all nodes are Ready."""
    assert server.config is not None
    transport = HttpTransport.from_config(server.config)
    try:
        async with asyncio.timeout(limit):
            while True:
                nodes = (await Client(transport).list_all(NODES)).items
                if sum(condition_is_true(node, "Ready") for node in nodes) >= count:
                    return
                del nodes
                await asyncio.sleep(2)
    finally:
        await transport.close()


async def at_rest(what: str, pid: int, options: argparse.Namespace, rows: list[Row]) -> None:
    await asyncio.sleep(options.settle)
    spent = cpu_seconds(pid)
    await asyncio.sleep(options.rest)
    load = (cpu_seconds(pid) - spent) / options.rest * 100
    show(Row(f"{what}: memory", resident_mb(pid), "MB", MEMORY), rows)
    show(Row(f"{what}: at rest", load, "% cpu", LOAD), rows)


async def whole(options: argparse.Namespace, directory: Path, rows: list[Row]) -> None:
    server = Up(directory / "up")
    try:
        await server.start()
        await registered(server, options.nodes, options.limit)
        await at_rest("glebe up", server._processes[0].pid, options, rows)
    finally:
        server.stop()


async def alone(server: Server, options: argparse.Namespace, directory: Path, rows: list[Row]) -> None:
    agent: subprocess.Popen[bytes] | None = None
    try:
        await server.start()
        folder = directory / server.name
        kubeconfig = next(path for path in (folder / "data" / "kubeconfig", folder / "kubeconfig") if path.exists())
        await _namespace(kubeconfig)
        command = [sys.executable, "-m", "glebe.cli.main", "agent", "--simulated", "--quiet"]
        command += ["--fleet", str(directory / "fleet.yaml"), "--kubeconfig", str(kubeconfig)]
        agent = subprocess.Popen(command)  # noqa: ASYNC220
        await registered(server, options.nodes, options.limit)
        await at_rest(f"glebe agent on {server.name}", agent.pid, options, rows)
    finally:
        if agent is not None:
            agent.terminate()
            agent.wait(20)
        server.stop()


async def _namespace(kubeconfig: Path) -> None:
    """Where leases live; upstream's server makes it some seconds after its start."""
    transport = HttpTransport.from_config(load_kubeconfig(kubeconfig))
    client = Client(transport)
    try:
        async with asyncio.timeout(30):
            while not await _is_there(client):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
    finally:
        await transport.close()


async def _is_there(client: Client) -> bool:
    return any(n["metadata"]["name"] == "kube-node-lease" for n in (await client.list(NAMESPACES)).items)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--limit", type=float, default=180.0, help="seconds for the nodes to register")
    parser.add_argument("--settle", type=float, default=40.0, help="seconds between that and the measurement")
    parser.add_argument("--rest", type=float, default=30.0, help="seconds over which load is measured")
    parser.add_argument("--only", choices=("up", "glebe", "upstream"), help="one of the three")
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "fleet.yaml").write_text(FLEET.format(count=options.nodes), encoding="utf-8")
        folder = assets()
        if options.only in (None, "up"):
            asyncio.run(whole(options, directory, rows))
        if options.only in (None, "glebe"):
            asyncio.run(alone(Ours(directory / "glebe"), options, directory, rows))
        if options.only in (None, "upstream"):
            if folder is None:
                print("  kube-apiserver and etcd: not there (KUBEBUILDER_ASSETS), not measured")
            else:
                asyncio.run(alone(Upstream(directory / "upstream", folder), options, directory, rows))
    return 0 if all(r.bound is None or r.value <= r.bound for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

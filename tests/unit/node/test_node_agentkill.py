"""An agent that is killed with SIGKILL again and again: nothing is run twice, nothing is forgotten, nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import node_agent
import pytest
from node_world import World
from test_node_podlife import c, status_of, until

from glebe.apiserver.http import HttpServer
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.resources import NAMESPACES, PODS
from glebe.kube.transport import PLATFORM, Request, User
from glebe.node.containers.supervisor import MARK

pytestmark = pytest.mark.realtime


class Everybody:
    async def authenticate(self, request: Request, cluster: str) -> User | None:
        return PLATFORM


class Served(World):
    """A world whose API server can be reached from other processes."""

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self.server = ApiServer(MemoryStore(), env, TypeRegistry(), authenticator=Everybody())
        self.client = Client(InProcessTransport(self.server.handle))


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[tuple[Served, str]]:
    w = Served(Env.system())
    await w.server.start()
    front = HttpServer(w.server.handle)
    await front.start()
    for name in ("default", "kube-node-lease"):
        with contextlib.suppress(ApiError):
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            await w.client.create(NAMESPACES, body)
    try:
        yield w, front.url
    finally:
        await front.close()
        await w.server.close()


class Agents:
    """One agent at a time on one data directory."""

    def __init__(self, url: str, directory: Path) -> None:
        self._command = [sys.executable, node_agent.__file__, url, str(directory)]
        self._process: subprocess.Popen[bytes] | None = None
        self.errors = directory.parent / "agents.log"

    def start(self) -> None:
        with self.errors.open("ab") as errors:
            self._process = subprocess.Popen(self._command, stdout=errors, stderr=errors)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def marked(directory: Path) -> list[int]:
    """Processes that belong to a run below ``directory``."""
    mark = f"{MARK}={directory}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if any(entry.startswith(mark) for entry in path.read_bytes().split(b"\0")):
                found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("seed", [1])
async def test_pods_live_through_agents_that_are_killed_at_any_moment(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    diary, go, nodes = tmp_path / "diary", tmp_path / "go", tmp_path / "nodes"
    wait = f"while ! test -e {go}; do sleep 0.05; done"

    def said(text: str) -> str:
        return f"echo {text} >> {diary}"

    async with served() as (w, url):
        agents = Agents(url, nodes)
        try:
            init = [c(f"{said('init')}; sleep 0.4", "i")]
            await w.pod("once", "local", initContainers=init, containers=[c(f"{said('once')}; {wait}; exit 5")])
            fails = f"{said('again')}; test -e {tmp_path}/flag && {{ {wait}; exit 0; }}; touch {tmp_path}/flag; exit 1"
            await w.pod("again", "local", containers=[c(fails)], restartPolicy="OnFailure")
            side = [c(f"{said('side')}; sleep 600", "s", restartPolicy="Always")]
            await w.pod("side", "local", initContainers=side, containers=[c(f"{said('main')}; {wait}")])
            hook = {"preStop": {"exec": {"command": ["sh", "-c", f"{said('pre')}; sleep 0.3"]}}}
            script = f"trap '{said('term')}; exit 0' TERM; {said('hooked')}; while :; do sleep 0.05; done"
            await w.pod("hooked", "local", containers=[c(script, lifecycle=hook)], terminationGracePeriodSeconds=30)
            for _ in range(4):
                agents.start()
                await asyncio.sleep(0.5 + rng.random() * 0.6)
                agents.kill()
            agents.start()
            for name in ("once", "again", "side", "hooked"):
                await until(w, name, lambda p: status_of(p)["state"].get("running"), timeout=20)
            await w.client.delete(PODS, "hooked", "default")
            for _ in range(3):
                await asyncio.sleep(rng.random() * 0.8)
                agents.kill()
                agents.start()
            go.touch()
            found: dict[str, Any] = {}
            for name, ended in (("once", "Failed"), ("again", "Succeeded"), ("side", "Succeeded")):
                found[name] = await w.until_phase(name, ended, timeout=20, every=0.05)

            async def gone() -> bool:
                return not any(p["metadata"]["name"] == "hooked" for p in (await w.client.list(PODS, "default")).items)

            await w.until(gone, timeout=20)
            words = sorted(diary.read_text().split())
            # A hook may be lost with the agent that ran it, but is never begun twice.
            assert [word for word in words if word != "pre"] == sorted(
                ["init", "once", "again", "again", "side", "main", "hooked", "term"]
            )
            assert words.count("pre") <= 1
            assert status_of(found["once"])["restartCount"] == 0
            assert status_of(found["once"])["state"]["terminated"]["exitCode"] == 5
            assert status_of(found["again"])["restartCount"] == 1
            for name in found:
                await w.client.delete(PODS, name, "default")

            async def clean() -> bool:
                return not list((nodes / "local" / "pods").iterdir()) and not marked(nodes)

            await w.until(clean, timeout=10)
        except BaseException:
            print(agents.errors.read_text()[-4000:] if agents.errors.exists() else "")
            raise
        finally:
            agents.kill()

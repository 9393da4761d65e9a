"""Pods and a Service on a whole platform, in both modes; and agents that are killed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import network_agent
import pytest
from netmachine import POD_CIDR, need_namespaces
from test_node_agentkill import served

from glebe.apiserver.store import MemoryStore
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object
from glebe.kube.resources import NODES, PODS, SERVICES
from glebe.node.fleet import parse_fleet
from glebe.node.network import links, network, nftables, undo
from glebe.node.network.options import NetworkOptions
from glebe.platform.embedded import Platform, PlatformConfig

pytestmark = pytest.mark.realtime

FLEET = "apiVersion: glebe.dev/v1alpha1\nkind: Fleet\npools: []\nlocal: {enabled: true, name: local}\n"

SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
        self.wfile.write((os.environ["POD_IP"] + " " + self.client_address[0]).encode())
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer((os.environ["POD_IP"], 8080), Handler).serve_forever()
"""
CLIENT = """
import os, sys, time, urllib.request
while True:
    try:
        text = urllib.request.urlopen("http://" + os.environ["ASK"], timeout=2).read().decode()
        break
    except OSError as error:
        print(error, flush=True); time.sleep(0.1)
open(sys.argv[1] + ".tmp", "w").write(text); os.rename(sys.argv[1] + ".tmp", sys.argv[1])
"""


def pod(name: str, program: str, *arguments: str, env: dict[str, str] | None = None, **more: Any) -> Object:
    variables = [{"name": key, "value": value} for key, value in (env or {}).items()]
    command = [sys.executable, "-S", "-c", program, *arguments]
    body = {"name": "c", "image": "i", "command": command, "env": variables, **more}
    meta = {"name": name, "namespace": "default", "labels": {"app": name}}
    spec = {"containers": [body], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def web_service(port: int, node_port: bool = True) -> Object:
    spec = {
        "selector": {"app": "web"},
        "type": "NodePort" if node_port else "ClusterIP",
        "ports": [{"name": "http", "port": port, "targetPort": "http"}],
    }
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"}, "spec": spec}


@contextlib.asynccontextmanager
async def platform(tmp_path: Path, mode: str) -> AsyncIterator[Platform]:
    network = NetworkOptions(mode, POD_CIDR)
    config = PlatformConfig(fleet=parse_fleet(FLEET), nodes_dir=tmp_path / "data" / "nodes", network=network)
    async with Platform(config, Env.system(), MemoryStore()) as made:
        try:
            yield made
        finally:
            for each in (await made.client.list(PODS, "default")).items:
                with contextlib.suppress(ApiError):
                    await made.client.delete(PODS, each["metadata"]["name"], "default")
            await until(lambda: not any((tmp_path / "data" / "nodes" / "local" / "pods").iterdir()))


async def until(check: Callable[[], Any], timeout: float = 20) -> Any:
    async with asyncio.timeout(timeout):
        while not (value := check()):  # noqa: ASYNC110 - files and sockets of others give no event
            await asyncio.sleep(0.05)
        return value


async def running(made: Any, name: str) -> str:
    """The pod's address, as soon as it runs."""
    async with asyncio.timeout(20):
        while True:
            status = (await made.client.get(PODS, name, "default")).get("status") or {}
            if status.get("phase") == "Running" and status.get("podIP"):
                return str(status["podIP"])
            await asyncio.sleep(0.05)


def get(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return str(response.read().decode())
    except OSError:
        return ""


async def ask_until(url: str) -> str:
    async with asyncio.timeout(20):
        while not (text := await asyncio.to_thread(get, url)):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        return text


async def test_pods_find_a_service_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_namespaces()
    monkeypatch.setattr(network, "_LOOK", 0.2)
    async with platform(tmp_path, "namespace") as made:
        service = await made.client.create(SERVICES, web_service(80))
        await made.client.create(PODS, pod("web", SERVER, ports=[{"name": "http", "containerPort": 8080}]))
        out = tmp_path / "out"
        await made.client.create(PODS, pod("client", CLIENT, str(out), env={"ASK": "web.default"}))
        web, client = await running(made, "web"), await running(made, "client")
        await until(out.exists)
        assert out.read_text() == f"{web} {client}"
        directory = tmp_path / "data" / "nodes" / "local" / "network"
        await until(lambda: len(undo.known_pods(directory)) == 1)  # the client has ended, and its network with it
        node_port = service["spec"]["ports"][0]["nodePort"]
        gateway = (await ask_until(f"http://127.0.0.1:{node_port}")).split()
        assert gateway[0] == web
        assert (await ask_until(f"http://{service['spec']['clusterIP']}")).split()[0] == web
        node = await made.client.get(NODES, "local")
        assert gateway[1].rpartition(".")[0] == node["spec"]["podCIDR"].rpartition(".")[0]
        state = undo.read_state(directory)
        assert state is not None
        nftables.delete_table(state.table)  # as "nft flush ruleset" does
        assert not await asyncio.to_thread(get, f"http://127.0.0.1:{node_port}")
        await ask_until(f"http://127.0.0.1:{node_port}")
        await made.client.delete(SERVICES, "web", "default")
        await until(lambda: not get(f"http://127.0.0.1:{node_port}"))
    assert undo.read_state(tmp_path / "data" / "nodes" / "local" / "network") is None  # nobody left, nothing left


async def test_pods_on_the_loopback_find_a_service_by_its_variables(tmp_path: Path) -> None:
    async with platform(tmp_path, "loopback") as made:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("", 0))
            other.bind(("", 0))
            port, own = one.getsockname()[1], other.getsockname()[1]
        service = await made.client.create(SERVICES, web_service(port))
        await made.client.create(
            PODS, pod("web", SERVER.replace("8080", str(own)), ports=[{"name": "http", "containerPort": own}])
        )
        out = tmp_path / "out"
        ask = {"ASK": "$(WEB_SERVICE_HOST):$(WEB_SERVICE_PORT)"}
        await made.client.create(PODS, pod("client", CLIENT, str(out), env=ask))
        web = await running(made, "web")
        await until(out.exists)
        assert out.read_text().split()[0] == web
        assert web.startswith("127.")
        node_port = service["spec"]["ports"][0]["nodePort"]
        assert (await ask_until(f"http://127.0.0.1:{node_port}")).split()[0] == web


async def test_an_agent_that_is_killed_leaves_its_pods_connected_and_in_the_end_nothing(tmp_path: Path) -> None:
    need_namespaces()
    nodes = tmp_path / "nodes"
    directory = nodes / "local" / "network"
    async with served() as (w, url):
        command = [sys.executable, network_agent.__file__, url, str(nodes), "2", POD_CIDR]

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def kill() -> None:
            agent.kill()
            agent.wait()

        async def bound(name: str) -> str:
            body = pod(name, SERVER)
            body["spec"]["nodeName"] = "local"
            await w.client.create(PODS, body)
            return await running(w, name)

        agent = start()
        try:
            address = await bound("first")
            await ask_until(f"http://{address}:8080")
            kill()
            assert get(f"http://{address}:8080")  # nobody is needed for it
            agent = start()
            second = await bound("second")
            assert second != address
            assert await ask_until(f"http://{second}:8080")
            assert get(f"http://{address}:8080")
            await w.client.delete(PODS, "second", "default")
            await until(lambda: len(undo.known_pods(directory)) == 1)
            assert get(f"http://{address}:8080")
        finally:
            kill()
        state = undo.read_state(directory)
        assert state is not None
        directory = nodes.rename(tmp_path / "elsewhere") / "local" / "network"
        await until(lambda: undo.read_state(directory) is None)  # nobody came back: the guard
        assert [name for name in links.names() if name.startswith(state.wires) or name == state.sink] == []
        assert undo.known_pods(directory) == []


async def test_an_agent_that_is_killed_while_it_tries_the_network_leaves_nothing(tmp_path: Path) -> None:
    need_namespaces()
    directory = tmp_path / "nodes" / "local" / "network"
    async with served() as (_, url):
        command = [sys.executable, network_agent.__file__, url, str(tmp_path / "nodes"), "1", POD_CIDR]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        agent = await asyncio.create_subprocess_exec(*command, **quiet)
        try:
            await until(lambda: undo.read_state(directory) is not None and undo.known_pods(directory))
        finally:
            agent.kill()
            await agent.wait()
        state = undo.read_state(directory)
        assert state is not None
        await until(lambda: undo.read_state(directory) is None)
        assert [name for name in links.names() if name.startswith(state.wires) or name == state.sink] == []
        assert undo.known_pods(directory) == []

"""A process agent elsewhere: it comes with a kubeconfig, by its own address and port."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from glebe_up import Up

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.http import HttpTransport
from glebe.kube.kubeconfig import load_kubeconfig
from glebe.node.kubelet.kubelet import KubeletOptions
from glebe.node.process.node import ProcessNode
from glebe.node.spec import NodeSpec, standard_labels

pytestmark = [pytest.mark.realtime, pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")]
FLEET = "apiVersion: glebe.dev/v1alpha1\nkind: Fleet\npools: []\nlocal: {enabled: false}\n"


def own_address() -> str:
    """An address of this machine that others could use; "" when there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # nothing is sent
        address = str(probe.getsockname()[0])
        return "" if address.startswith("127.") or address == "0.0.0.0" else address
    return ""


@contextlib.asynccontextmanager
async def agent(up: Up, data: Path, address: str) -> AsyncIterator[None]:
    config = load_kubeconfig(up.kubeconfig)
    client = Client(HttpTransport.from_config(config))
    spec = NodeSpec(
        "elsewhere",
        {"cpu": "2", "memory": "4Gi", "pods": "110"},
        standard_labels("elsewhere", "process"),
        address=address,
    )
    options = KubeletOptions(client_ca=config.ca)
    node = ProcessNode(client, Env.system(), spec, data, window=2.0, kubelet=options)
    task = asyncio.create_task(node.run())
    try:
        await node.wait_registered()
        yield
        async with asyncio.timeout(10):
            await node.drain(0.0)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()


@pytest.mark.skipif(not own_address(), reason="this machine has no address but its loopback")
async def test_an_agent_with_a_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text(FLEET)
    up = await asyncio.to_thread(Up, tmp_path / "up", "--fleet", str(tmp_path / "fleet.yaml"))

    async def kubectl(*arguments: str, expect: int = 0, stdin: str | None = None) -> str:
        return await asyncio.to_thread(up.run, "kubectl", *arguments, expect=expect, stdin=stdin)

    try:
        async with agent(up, tmp_path / "agent", own_address()):
            pod: dict[str, Any] = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "p"},
                "spec": {"containers": [{"name": "c", "image": "i", "command": ["sh", "-c", "echo hi; sleep 60"]}]},
            }
            await kubectl("apply", "-f", "-", stdin=json.dumps(pod))
            await kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=30s")
            assert await kubectl("logs", "p") == "hi\n"
            refused = await kubectl("logs", "p", "--previous", expect=1)
            assert 'Error from server (BadRequest): previous terminated container "c" in pod "p" not found' in refused
            assert await kubectl("exec", "-i", "p", "--", "cat", stdin="through the network") == "through the network"
            assert "exit code 6" in await kubectl("exec", "p", "--", "sh", "-c", "exit 6", expect=6)
            assert (await kubectl("top", "pods", "--no-headers")).split()[0] == "p"
            assert (await kubectl("top", "nodes", "--no-headers")).split()[0] == "elsewhere"
            await kubectl("delete", "pod", "p", "--now")
    finally:
        await asyncio.to_thread(up.stop)

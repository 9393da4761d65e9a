"""`glebe controller` as a process against real Kubernetes, driven by the command line; only kubelets are simulated."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kube_peer import Peer, assets, real_kubernetes
from test_cluster_queue import controllers, until

from glebe.kube import resources as r
from glebe.kube.clock import Env
from glebe.node.fleet import parse_fleet
from glebe.node.simulated.nodes import SimulatedNodes
from glebe.platform.bootstrap import default_objects

pytestmark = [pytest.mark.cluster, pytest.mark.realtime]

FLEET = """\
apiVersion: glebe.dev/v1alpha1
kind: Fleet
pools:
- name: h100
  count: 4
  gpu: {model: h100-sxm5-80gb, count: 8}
  topology: {nodesPerRack: 2}
"""
GLEBE = [sys.executable, "-m", "glebe.cli.main"]


@contextmanager
def glebe_controller(kubeconfig: Path, data: Path, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """The process, from its first word to its clean end."""
    command = [*GLEBE, "controller", "--kubeconfig", str(kubeconfig), "--ledger", str(data / "ledger.db"), *more]
    with (data / "glebe.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield process
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0, (data / "glebe.log").read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


async def glebe(kubeconfig: Path, *arguments: str, expect: int = 0) -> str:
    process = await asyncio.create_subprocess_exec(
        *GLEBE,
        *arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "KUBECONFIG": str(kubeconfig)},
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == expect, (arguments, out.decode(), err.decode())
    return out.decode()


async def said(log: Path, word: str) -> bool:
    return word in await asyncio.to_thread(log.read_text)


async def shows(kubeconfig: Path, verb: str, word: str) -> bool:
    return word in await glebe(kubeconfig, verb)


async def story(peer: Peer, kubeconfig: Path, log: Path) -> None:
    client, env = peer.client(), Env.system()
    await until(lambda: said(log, "leads"))
    fleet = parse_fleet(FLEET)
    for resource, obj in default_objects(fleet.nodes):
        await client.create(resource, obj)
    nodes = SimulatedNodes(client, env, fleet.nodes)
    running = asyncio.create_task(nodes.run())
    try:
        await asyncio.wait_for(nodes.wait_registered(), 30)
        await glebe(kubeconfig, "run", "--name", "big", "--nodes", "9", "--gpus-per-node", "8", "--", "x", expect=5)
        await glebe(kubeconfig, "cancel", "big")
        told = await glebe(
            kubeconfig, "run", "--name", "first", "--nodes", "4", "--gpus-per-node", "8", "-d", "--", "x"
        )
        assert "4 pods, 32 GPUs, together" in told
        job = await client.get(r.JOBS, "first", "default")
        template = {**job["spec"]["template"]}
        template["metadata"] = {**template["metadata"], "annotations": {"sim.glebe.dev/run-time": "5s"}}
        body = {key: job[key] for key in ("apiVersion", "kind")} | {
            "metadata": {"name": "second", "namespace": "default", "labels": job["metadata"]["labels"]},
            "spec": {"parallelism": 4, "completions": 4, "completionMode": "Indexed"},
        }
        for key in ("controller-uid", "job-name"):
            for prefix in ("", "batch.kubernetes.io/"):
                template["metadata"]["labels"].pop(prefix + key, None)
        body["spec"]["template"] = template
        await client.create(r.JOBS, body)
        await until(lambda: shows(kubeconfig, "queue", "second"))
        await glebe(kubeconfig, "why", "second")
        await glebe(kubeconfig, "cancel", "first")
        await until(lambda: shows(kubeconfig, "jobs", "Succeeded"), 90)
        assert "allocated" in await glebe(kubeconfig, "usage")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await client.close()


async def test_the_queue_on_real_kubernetes(tmp_path: Path) -> None:
    with real_kubernetes(tmp_path) as peer:
        client = peer.client()
        await peer.ready(client)
        await client.close()
        with controllers(peer, assets(), tmp_path, "node-lifecycle-controller"):
            kubeconfig = tmp_path / "kubeconfig"
            with glebe_controller(kubeconfig, tmp_path):
                await story(peer, kubeconfig, tmp_path / "glebe.log")

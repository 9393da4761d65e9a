"""``glebe agent``: simulated nodes of a process of their own, on a real kube-apiserver with upstream's controllers."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kube_peer import TOKEN, Peer, assets, real_kubernetes

from glebe.kube.objects import condition_is_true, get_condition
from glebe.kube.resources import DEPLOYMENTS, EVENTS, NODES, PODS

pytestmark = pytest.mark.realtime

FLEET = """\
apiVersion: glebe.dev/v1alpha1
kind: Fleet
pools:
- {name: sim, count: 3, gpu: {model: h100-sxm5-80gb, count: 8}, startDelay: 200ms}
"""
SCENARIO = """\
apiVersion: glebe.dev/v1alpha1
kind: Scenario
nodes: [{do: xid, names: [sim-02], code: 79, gpu: 0, at: 1s}]
pods: [{images: ["*broken*"], imagePullError: forever}]
"""


@contextmanager
def agent(peer: Peer, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    (folder / "fleet.yaml").write_text(FLEET)
    (folder / "scenario.yaml").write_text(SCENARIO)
    (folder / "kubeconfig").write_text(_kubeconfig(peer))
    command = [sys.executable, "-m", "glebe.cli.main", "agent", "--simulated", "--fleet", str(folder / "fleet.yaml")]
    command += ["--scenario", str(folder / "scenario.yaml"), "--kubeconfig", str(folder / "kubeconfig")]
    with (folder / "agent.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(10)
        assert code == 0, (folder / "agent.log").read_text()


def _kubeconfig(peer: Peer) -> str:
    server = peer.config.server
    return f"""\
apiVersion: v1
kind: Config
current-context: peer
clusters: [{{name: peer, cluster: {{server: "{server}", insecure-skip-tls-verify: true}}}}]
users: [{{name: peer, user: {{token: {TOKEN}}}}}]
contexts: [{{name: peer, context: {{cluster: peer, user: peer}}}}]
"""


def _deployment(name: str, image: str) -> dict[str, Any]:
    labels = {"app": name}
    limits = {"nvidia.com/gpu": "1"}
    container = {"name": "main", "image": image, "resources": {"limits": limits}}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": 4, "selector": {"matchLabels": labels}, "template": template}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


async def test_an_agents_nodes_serve_a_real_kubernetes(tmp_path: Path) -> None:
    folder = assets()
    for program in ("kube-controller-manager", "kube-scheduler"):
        if not (folder / program).exists():
            pytest.skip(f"needs {program}")
    with real_kubernetes(tmp_path) as peer:
        client = peer.client()
        await peer.ready(client)
        (tmp_path / "upstream").write_text(_kubeconfig(peer))
        more = [
            peer._spawn(
                program,
                f"--kubeconfig={tmp_path / 'upstream'}",
                f"--authentication-kubeconfig={tmp_path / 'upstream'}",
                f"--authorization-kubeconfig={tmp_path / 'upstream'}",
                "--leader-elect=false",
                "--secure-port=0",
            )
            for program in ("kube-controller-manager", "kube-scheduler")
        ]
        try:
            with agent(peer, tmp_path):
                async with asyncio.timeout(60):
                    while sum(condition_is_true(n, "Ready") for n in (await client.list(NODES)).items) < 3:  # noqa: ASYNC110
                        await asyncio.sleep(0.2)
                    await client.create(DEPLOYMENTS, _deployment("web", "registry.example/web:1"))
                    await client.create(DEPLOYMENTS, _deployment("sick", "registry.example/broken:1"))
                    while not condition_is_true(await client.get(DEPLOYMENTS, "web", "default"), "Available"):  # noqa: ASYNC110
                        await asyncio.sleep(0.2)
                    while (sick := await _waiting(client)) != {"ImagePullBackOff"}:
                        assert sick <= {"", "ContainerCreating", "ErrImagePull", "ImagePullBackOff"}
                        await asyncio.sleep(0.2)
                    while (node := await client.get(NODES, "sim-02"))["status"]["allocatable"]["nvidia.com/gpu"] != "7":  # noqa: ASYNC110
                        await asyncio.sleep(0.2)
                    assert (get_condition(node, "GPUProblem") or {})["reason"] == "XidCriticalError"
                    reasons = {e["reason"] for e in (await client.list(EVENTS, "default")).items}
                    assert "XidCriticalError" in reasons
                    for name in ("web", "sick"):
                        await client.delete(DEPLOYMENTS, name, "default", propagation="Background")
                    while (await client.list(PODS, "default")).items:  # noqa: ASYNC110
                        await asyncio.sleep(0.2)
            text = (tmp_path / "agent.log").read_text()
            assert "3 simulated nodes are registered" in text
        finally:
            for process in more:
                process.kill()
                process.wait()
            await client.close()


async def _waiting(client: Any) -> set[str]:
    pods = (await client.list(PODS, "default", label_selector="app=sick")).items
    states = [s["state"] for p in pods for s in p.get("status", {}).get("containerStatuses") or ({"state": {}},)]
    return {(state.get("waiting") or {}).get("reason", "") for state in states}


def test_what_is_wrong_is_said_before_anything_starts(tmp_path: Path) -> None:
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text("apiVersion: glebe.dev/v1alpha1\nkind: Fleet\npools: []\n")
    command = [sys.executable, "-m", "glebe.cli.main", "agent", "--fleet", str(fleet)]
    for more, words in (([], "--simulated"), (["--simulated"], "no simulated nodes")):
        done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 2
        assert words in done.stderr

"""Pods as real processes, against the real API server in memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from node_world import World, world

from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object, condition_is_true
from glebe.kube.resources import CONFIGMAPS, EVENTS, NODES, PODS, SECRETS
from glebe.node import backoff
from glebe.node.containers import supervisor
from glebe.node.containers.rundir import Run
from glebe.node.network.options import NetworkOptions
from glebe.node.process.node import ProcessNode
from glebe.node.process.remains import NodeDirBusy
from glebe.node.spec import NodeSpec, standard_labels

pytestmark = pytest.mark.realtime
SPEC = NodeSpec("local", {"cpu": "2", "memory": "4Gi", "pods": "110"}, standard_labels("local", "process"))


@contextlib.asynccontextmanager
async def machine(tmp: Path, isolate: bool = True) -> AsyncIterator[tuple[World, ProcessNode]]:
    async with world(Env.system()) as w:
        node = ProcessNode(w.client, w.env, SPEC, tmp, window=2.0, isolate=isolate, network=NetworkOptions())
        w.spawn(node.run())
        await node.wait_registered()
        try:
            yield w, node
        finally:
            async with asyncio.timeout(5):
                await node.drain(0.0)


def sh(script: str, **more: Any) -> dict[str, Any]:
    return {"containers": [{"name": "c", "image": "i", "command": ["sh", "-c", script], **more}]}


async def log_of(node: ProcessNode, pod: Object, **options: Any) -> str:
    return b"".join([chunk async for chunk in node.logs(pod, "c", **options)]).decode()


async def phase(w: World, name: str, wanted: str) -> Object:
    return await w.until_phase(name, wanted, timeout=8, every=0.01)


def ended(pod: Object) -> dict[str, Any]:
    return dict(pod["status"]["containerStatuses"][0]["state"]["terminated"])


async def gone(w: World, name: str) -> None:
    async def check() -> bool:
        try:
            await w.get(name)
        except ApiError:
            return True
        return False

    await w.until(check, timeout=5, every=0.01)


async def test_environment_exit_code_and_logs(tmp_path: Path) -> None:
    env = [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)-$(NONE)-$$(A)"},
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
    ]
    script = 'echo $A $B $NAME $KEY $1; test "$IP" = "$POD_IP" && echo "gpus=[$CUDA_VISIBLE_DEVICES]"; exit 4'
    async with machine(tmp_path) as (w, node):
        node_object = await w.client.get(NODES, "local")
        assert condition_is_true(node_object, "Ready")
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"}}
        await w.client.create(SECRETS, {**secret, "data": {"k": "c2VjcmV0"}})
        spec = sh(script, env=env, envFrom=[{"configMapRef": {"name": "no", "optional": True}}])
        spec["containers"][0]["args"] = ["zero", "arg-$(A)"]
        await w.pod("p", "local", **spec)
        pod = await phase(w, "p", "Failed")
        assert (ended(pod)["exitCode"], ended(pod)["reason"]) == (4, "Error")
        assert pod["status"]["podIP"].startswith("127.")
        assert await log_of(node, pod) == "1 1-$(NONE)-$(A) p secret arg-1\ngpus=[]\n"
        assert (await log_of(node, pod, tail_lines=1, timestamps=True)).split(" ", 1)[1] == "gpus=[]\n"
        with pytest.raises(ApiError, match='previous terminated container "c" in pod "p" not found'):
            await log_of(node, pod, previous=True)


async def test_follow_ends_with_the_container(tmp_path: Path) -> None:
    async with machine(tmp_path) as (w, node):
        await w.pod("p", "local", **sh("echo a; sleep 0.3; echo b"))
        pod = await phase(w, "p", "Running")
        assert await log_of(node, pod, follow=True) == "a\nb\n"


async def test_commands_that_cannot_run(tmp_path: Path) -> None:
    async with machine(tmp_path) as (w, _):
        await w.pod("p", "local", containers=[{"name": "c", "image": "i", "command": ["/no/such"]}])
        end = ended(await phase(w, "p", "Failed"))
        assert (end["exitCode"], end["reason"]) == (127, "StartError")
        assert "/no/such" in end["message"]
        await w.pod("q", "local")

        async def waiting() -> Any:
            status = ((await w.get("q")).get("status") or {}).get("containerStatuses")
            return status and status[0]["state"].get("waiting", {}).get("message")

        assert "names no command" in await w.until(waiting, timeout=3)


async def test_volumes_init_containers_and_config_that_comes_later(tmp_path: Path) -> None:
    mounts = [{"name": "code", "mountPath": "/code"}, {"name": "tmp", "mountPath": "/scratch"}]
    spec = {
        "volumes": [{"name": "code", "configMap": {"name": "late"}}, {"name": "tmp", "emptyDir": {}}],
        "initContainers": [
            {"name": "i", "image": "i", "command": ["cp", "/code/x", "/scratch/y"], "volumeMounts": mounts}
        ],
        "containers": [
            {"name": "c", "image": "i", "command": ["cat", "/scratch/y", "./code/x"], "volumeMounts": mounts}
        ],
    }
    async with machine(tmp_path) as (w, node):
        await w.pod("p", "local", **spec)

        async def held() -> Any:
            events = (await w.client.list(EVENTS, "default")).items
            return [e["message"] for e in events if e["reason"] == "FailedMount"]

        text = 'MountVolume.SetUp failed for volume "code" : configmap "late" not found'
        assert (await w.until(held, timeout=3))[0] == text

        async def shown() -> Any:
            init = ((await w.get("p")).get("status") or {}).get("initContainerStatuses")
            return init and init[0]["state"]["waiting"]

        assert (await w.until(shown, timeout=3))["reason"] == "PodInitializing"
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late", "namespace": "default"}}
        await w.client.create(CONFIGMAPS, {**config, "data": {"x": "hello\n"}})
        pod = await phase(w, "p", "Succeeded")
        assert await log_of(node, pod) == "hello\nhello\n"
        assert pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 0


async def test_deletion_is_graceful_and_frees_everything(tmp_path: Path) -> None:
    async with machine(tmp_path) as (w, node):
        script = "trap 'echo bye > out; exit 0' TERM; echo up; while :; do sleep 0.02; done"
        out = tmp_path / "work"
        out.mkdir()
        pod = await w.pod("p", "local", **sh(script, workingDir=str(out)), terminationGracePeriodSeconds=5)
        pod = await phase(w, "p", "Running")
        await w.until(lambda: _has(node, pod, "up"), timeout=3, every=0.01)
        await w.client.delete(PODS, "p", "default")
        await gone(w, "p")
        assert (out / "out").read_text() == "bye\n"
        await w.until(lambda: _empty(tmp_path / "local" / "pods"), timeout=3, every=0.01)


async def _has(node: ProcessNode, pod: Object, text: str) -> bool:
    return text in await log_of(node, pod)


async def _empty(directory: Path) -> bool:
    return not os.listdir(directory)


async def test_restart_on_failure(tmp_path: Path) -> None:
    async with machine(tmp_path) as (w, node):
        script = f"test -e {tmp_path}/flag && exit 0; touch {tmp_path}/flag; echo first; exit 1"
        await w.pod("p", "local", **sh(script), restartPolicy="OnFailure")
        pod = await phase(w, "p", "Succeeded")
        status = pod["status"]["containerStatuses"][0]
        assert status["restartCount"] == 1
        assert status["lastState"]["terminated"]["exitCode"] == 1
        assert await log_of(node, pod, previous=True) == "first\n"


async def test_old_attempts_do_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST", 0.01)
    async with machine(tmp_path) as (w, node):
        script = f"echo x >> {tmp_path}/n; echo try $(wc -l < {tmp_path}/n); test $(wc -l < {tmp_path}/n) -ge 5"
        await w.pod("p", "local", **sh(script), restartPolicy="OnFailure")
        pod = await phase(w, "p", "Succeeded")
        assert pod["status"]["containerStatuses"][0]["restartCount"] == 4
        attempts = tmp_path / "local" / "pods" / pod["metadata"]["uid"] / "c"
        assert sorted(name for name in os.listdir(attempts) if name.isdigit()) == ["3", "4"]
        assert (await log_of(node, pod), await log_of(node, pod, previous=True)) == ("try 5\n", "try 4\n")


async def test_active_deadline(tmp_path: Path) -> None:
    async with machine(tmp_path) as (w, _):
        await w.pod("p", "local", **sh("sleep 60"), activeDeadlineSeconds=1)
        pod = await phase(w, "p", "Failed")
        assert pod["status"]["reason"] == "DeadlineExceeded"


async def test_pods_have_addresses_of_their_own_and_find_each_other(tmp_path: Path) -> None:
    program = (
        "import os, socket\n"
        "rank, master = int(os.environ['RANK']), os.environ['MASTER_ADDR']\n"
        "if rank == 0:\n"
        "    s = socket.create_server((os.environ['POD_IP'], 29512)); c, _ = s.accept(); print(c.recv(9).decode())\n"
        "else:\n"
        "    import time\n"
        "    for _ in range(200):\n"
        "        try: s = socket.create_connection((master, 29512), source_address=(os.environ['POD_IP'], 0)); break\n"
        "        except OSError: time.sleep(0.02)\n"
        "    s.sendall(b'hello')\n"
    )
    async with machine(tmp_path) as (w, node):
        for rank in (1, 0):
            env = [{"name": "RANK", "value": str(rank)}, {"name": "MASTER_ADDR", "value": "job-0.job"}]
            spec: dict[str, Any] = {
                "containers": [
                    {"name": "c", "image": "i", "command": [sys.executable, "-S", "-c", program], "env": env}
                ],
                "hostname": f"job-{rank}",
                "subdomain": "job",
            }
            await w.pod(f"job-{rank}", "local", **spec)
        first, second = await phase(w, "job-0", "Succeeded"), await phase(w, "job-1", "Succeeded")
        assert first["status"]["podIP"] != second["status"]["podIP"]
        assert await log_of(node, first) == "hello\n"


async def test_containers_go_on_while_the_platform_is_away(tmp_path: Path) -> None:
    async with world(Env.system()) as w:
        first = ProcessNode(w.client, w.env, SPEC, tmp_path, window=10.0)
        task = w.spawn(first.run())
        await first.wait_registered()
        await w.pod(
            "p", "local", **sh(f"echo on; while ! test -e {tmp_path}/go; do sleep 0.02; done; echo off; exit 5")
        )
        await w.pod("lost", "local", **sh("sleep 60"))
        pod = await phase(w, "p", "Running")
        lost = await phase(w, "lost", "Running")
        (run_dir,) = (tmp_path / "local" / "pods" / lost["metadata"]["uid"]).glob("c/0")
        command = Run(run_dir).command
        assert command is not None
        await w.stop(task)
        await w.client.delete(PODS, "lost", "default", grace_period=0)
        (tmp_path / "go").touch()
        second = ProcessNode(w.client, w.env, SPEC, tmp_path, window=10.0)
        w.spawn(second.run())
        pod = await phase(w, "p", "Failed")
        status = pod["status"]["containerStatuses"][0]
        assert (status["restartCount"], ended(pod)["exitCode"]) == (0, 5)
        assert await log_of(second, pod) == "on\noff\n"
        await w.until(lambda: _dead(command.pid), timeout=3, every=0.01)
        assert command.alive is False


async def _dead(pid: int) -> bool:
    return not supervisor.start_time(pid)


async def test_one_platform_per_directory(tmp_path: Path) -> None:
    async with machine(tmp_path) as (w, _):
        with pytest.raises(NodeDirBusy, match="in use by another platform"):
            await ProcessNode(w.client, w.env, SPEC, tmp_path).run()


async def test_pod_whose_platform_stayed_away_is_marked_as_disrupted(tmp_path: Path) -> None:
    async with world(Env.system()) as w:
        node = ProcessNode(w.client, w.env, SPEC, tmp_path, window=0.2)
        w.spawn(node.run())
        await node.wait_registered()
        (tmp_path / "local" / "agent").write_text("4194305 1")  # as if this platform had died
        await w.pod("p", "local", **sh("sleep 60"))
        pod = await phase(w, "p", "Failed")
        assert (ended(pod)["reason"], ended(pod)["exitCode"]) == ("PlatformGone", 143)
        assert condition_is_true(pod, "DisruptionTarget")


async def test_pod_that_somebody_else_ended_is_stopped(tmp_path: Path) -> None:
    async with machine(tmp_path) as (w, _):
        await w.pod("p", "local", **sh("sleep 60"))
        pod = await phase(w, "p", "Running")
        (run_dir,) = (tmp_path / "local" / "pods" / pod["metadata"]["uid"]).glob("c/0")
        command = Run(run_dir).command
        assert command is not None
        await w.client.patch(PODS, "p", {"status": {"phase": "Failed"}}, "default", subresource="status")
        await w.until(lambda: _dead(command.pid), timeout=3, every=0.01)
        await w.client.delete(PODS, "p", "default")
        await gone(w, "p")


async def test_deletion_before_the_start_and_of_an_always_restarting_pod(tmp_path: Path) -> None:
    async with machine(tmp_path) as (w, _):
        missing = [{"configMapRef": {"name": "none"}}]
        await w.pod("held", "local", **sh("true", envFrom=missing))
        await w.pod("again", "local", **sh("exit 1"), restartPolicy="Always")

        async def crashed() -> bool:
            status = ((await w.get("again")).get("status") or {}).get("containerStatuses")
            return bool(status) and status[0]["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff"

        await w.until(crashed, timeout=3, every=0.01)
        for name in ("held", "again"):
            await w.client.delete(PODS, name, "default")
            await gone(w, name)

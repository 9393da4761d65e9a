"""Pods that run from images, on a process node, against the real API server in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from container_world import machine as allowed
from image_world import Blobs, busybox
from node_world import World, world

from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.resources import EVENTS, NODES, RUNTIME_CLASSES
from glebe.node.process.node import ProcessNode
from glebe.node.spec import NodeSpec, standard_labels

pytestmark = [
    pytest.mark.realtime,
    pytest.mark.skipif(
        not allowed().images or busybox() is None, reason="needs root, crun or runc, overlayfs and a static busybox"
    ),
]
SPEC = NodeSpec("local", {"cpu": "2", "memory": "4Gi", "pods": "110"}, standard_labels("local", "process"))


@contextlib.asynccontextmanager
async def machine(tmp: Path, **changes: Any) -> AsyncIterator[tuple[World, ProcessNode]]:
    program = busybox()
    assert program is not None
    blobs = Blobs()
    settings = {"Cmd": ["sh", "-c", "echo $WORD; id -u; cat /etc/config/k; pwd"], "User": "web", "Env": ["WORD=image"]}
    image = blobs.image([program], compression="", WorkingDir="/etc", **settings)
    blobs.write(tmp / "local" / "images" / "local" / "app", (image, "v1"))
    async with world(Env.system()) as w:
        node = ProcessNode(w.client, w.env, replace(SPEC, **changes), tmp, window=2.0)
        w.spawn(node.run())
        await node.wait_registered()
        try:
            yield w, node
        finally:
            async with asyncio.timeout(5):
                await node.drain(0.0)


async def said(w: World, pod: str, reason: str, part: str = "") -> str:
    """The message of the first event of that reason about a pod (that has ``part`` in it)."""

    async def found() -> str:
        events = (await w.client.list(EVENTS, "default")).items
        texts = [e["message"] for e in events if (e["involvedObject"]["name"], e["reason"]) == (pod, reason)]
        return next((text for text in texts if part in text), "")

    return str(await w.until(found, timeout=8, every=0.02))


async def offered(w: World) -> None:
    """The node has made its RuntimeClasses."""

    async def there() -> bool:
        with contextlib.suppress(ApiError):
            handlers = [(await w.client.get(RUNTIME_CLASSES, name))["handler"] for name in ("container", "process")]
            return handlers == ["container", "process"]
        return False

    await w.until(there, timeout=5, every=0.02)


async def test_a_pod_runs_from_its_image(tmp_path: Path) -> None:
    volumes = [{"name": "v", "downwardAPI": {"items": [{"path": "k", "fieldRef": {"fieldPath": "metadata.name"}}]}}]
    container = {"name": "c", "image": "app:v1", "volumeMounts": [{"name": "v", "mountPath": "/etc/config"}]}
    async with machine(tmp_path) as (w, node):
        await offered(w)
        await w.pod("p", "local", runtimeClassName="container", containers=[container], volumes=volumes)
        pod = await w.until_phase("p", "Succeeded", timeout=8, every=0.02)
        text = b"".join([chunk async for chunk in node.logs(pod, "c")]).decode()
        assert text == "image\n101\np/etc\n"
        status = pod["status"]["containerStatuses"][0]
        assert status["imageID"].startswith("docker.io/library/app@sha256:")
        assert await said(w, "p", "Pulled") == 'Container image "app:v1" already present on machine'

        async def listed() -> Any:
            return (await w.client.get(NODES, "local"))["status"].get("images")

        images = await w.until(listed, timeout=5, every=0.05)
        assert images[0]["names"] == [status["imageID"], "docker.io/library/app:v1"]


async def test_images_and_handlers_that_cannot_be_had(tmp_path: Path) -> None:
    gvisor = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "g"}, "handler": "runsc"}
    async with machine(tmp_path, runtime="container") as (w, _):
        await w.client.create(RUNTIME_CLASSES, gvisor)
        await offered(w)
        never = {"name": "c", "image": "none", "imagePullPolicy": "Never"}
        await w.pod("never", "local", containers=[never])
        await w.pod("back", "local", containers=[{"name": "c", "image": "127.0.0.1:9/none:v1"}])
        await w.pod("bad", "local", containers=[{"name": "c", "image": "Bad/NAME"}])
        await w.pod("g", "local", runtimeClassName="g", containers=[never])
        await w.pod("plain", "local", runtimeClassName="process", containers=[{**never, "command": ["true"]}])

        async def waiting(name: str, reason: str) -> None:
            async def reached() -> bool:
                statuses = ((await w.get(name)).get("status") or {}).get("containerStatuses") or [{}]
                return bool(statuses[0].get("state", {}).get("waiting", {}).get("reason") == reason)

            await w.until(reached, timeout=8, every=0.02)

        await waiting("never", "ErrImageNeverPull")
        await waiting("bad", "InvalidImageName")
        await waiting("back", "ImagePullBackOff")
        assert "127.0.0.1:9/none:v1" in await said(w, "back", "Failed", "Failed to pull image")
        text = 'Failed to create pod sandbox: failed to get sandbox runtime: no runtime for "runsc" is configured'
        assert await said(w, "g", "FailedCreatePodSandBox") == text
        await w.until_phase("plain", "Succeeded", timeout=8, every=0.02)

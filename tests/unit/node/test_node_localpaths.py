"""Directories that a node makes for claims: made once, removed last, and nothing else is ever removed."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from node_world import World, world

from glebe.kube.clock import Env
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, annotations_of
from glebe.kube.resources import PERSISTENT_VOLUME_CLAIMS as CLAIMS
from glebe.kube.storage import CLASSES, FINALIZER, LOCAL_PATH, PROVISIONER, SELECTED_NODE, VOLUMES
from glebe.node.spec import NodeSpec
from glebe.node.volumes.localpaths import LocalPaths

pytestmark = pytest.mark.realtime
SPEC = NodeSpec("here", {}, {"kubernetes.io/hostname": "here"})


@asynccontextmanager
async def node(w: World, root: Path) -> Any:
    informers = Informers(w.client, w.env)
    made = LocalPaths(w.client, informers, w.env, SPEC, root)
    tasks = [w.spawn(c.run()) for c in made.controllers] + [w.spawn(informers.run())]
    try:
        yield made
    finally:
        for task in tasks:
            await w.stop(task)


async def a_class(w: World, policy: str = "Delete") -> None:
    meta = {"name": "local-path"}
    body = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": meta, "provisioner": LOCAL_PATH}
    await w.client.create(CLASSES, {**body, "reclaimPolicy": policy, "volumeBindingMode": "WaitForFirstConsumer"})


async def a_claim(w: World, name: str, where: str = "here", **spec: Any) -> Object:
    marks = {SELECTED_NODE: where, PROVISIONER: LOCAL_PATH}
    body = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "default", "annotations": marks},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "local-path",
            **spec,
        },
    }
    return await w.client.create(CLAIMS, body)


async def released(w: World, name: str) -> None:
    volume = await w.client.get(VOLUMES, name)
    await w.client.update_status(VOLUMES, {**volume, "status": {"phase": "Released"}})


async def unprotect(w: World, name: str) -> None:
    """What the protection controller does."""
    volume = await w.client.get(VOLUMES, name)
    kept = [f for f in volume["metadata"].get("finalizers") or () if f != "kubernetes.io/pv-protection"]
    await w.client.update(VOLUMES, {**volume, "metadata": {**volume["metadata"], "finalizers": kept}})


async def exists(w: World, name: str) -> bool:
    try:
        await w.client.get(VOLUMES, name)
    except ApiError as error:
        return not is_not_found(error)
    return True


async def test_a_claim_of_this_node_gets_a_directory_and_a_volume(tmp_path: Path) -> None:
    root = tmp_path / "claims"
    async with world(Env.system()) as w, node(w, root):
        mine, other = await a_claim(w, "mine"), await a_claim(w, "other", where="elsewhere")
        await asyncio.sleep(0.15)
        assert not root.exists()  # without its class nobody knows what it shall be
        await a_class(w)
        await asyncio.sleep(0.15)
        name = f"pvc-{mine['metadata']['uid']}"
        assert [p.name for p in root.iterdir()] == [name]
        volume = await w.client.get(VOLUMES, name)
        assert volume["spec"]["local"] == {"path": str(root / name)}
        assert volume["spec"]["claimRef"]["uid"] == mine["metadata"]["uid"]
        assert volume["spec"]["capacity"] == {"storage": "1Gi"}
        assert FINALIZER in volume["metadata"]["finalizers"]
        assert annotations_of(volume)["pv.kubernetes.io/provisioned-by"] == LOCAL_PATH
        assert not await exists(w, f"pvc-{other['metadata']['uid']}")
        await a_claim(w, "block", volumeMode="Block")
        await asyncio.sleep(0.15)
        assert len(list(root.iterdir())) == 1


async def test_data_goes_before_the_object_and_an_agent_that_was_away_makes_up_for_it(tmp_path: Path) -> None:
    root = tmp_path / "claims"
    async with world(Env.system()) as w:
        await a_class(w)
        async with node(w, root):
            claim = await a_claim(w, "c")
            name = f"pvc-{claim['metadata']['uid']}"
            await asyncio.sleep(0.15)
            (root / name / "precious").write_text("x")
            await w.client.update_status(VOLUMES, {**await w.client.get(VOLUMES, name), "status": {"phase": "Bound"}})
            await w.client.delete(VOLUMES, name)  # somebody deletes what is in use
            await asyncio.sleep(0.15)
            assert (root / name / "precious").exists()
        await released(w, name)
        await unprotect(w, name)
        assert await exists(w, name)  # nobody is there to remove the data
        async with node(w, root):
            await asyncio.sleep(0.15)
            assert not (root / name).exists()
            assert not await exists(w, name)


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
async def test_what_is_to_be_retained_stays(tmp_path: Path, policy: str) -> None:
    root = tmp_path / "claims"
    async with world(Env.system()) as w, node(w, root):
        await a_class(w, policy)
        claim = await a_claim(w, "c")
        name = f"pvc-{claim['metadata']['uid']}"
        await asyncio.sleep(0.15)
        await released(w, name)
        await asyncio.sleep(0.15)
        assert (root / name).exists() == (policy == "Retain")
        await unprotect(w, name)
        if policy == "Retain":
            await w.client.delete(VOLUMES, name)
            await asyncio.sleep(0.15)
            assert (root / name).exists()
        await asyncio.sleep(0.15)
        assert not await exists(w, name)

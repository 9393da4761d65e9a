"""Our volume controllers and Kubernetes' own, one after the other on a real API server: same states, same words.

Needs kube-controller-manager beside kube-apiserver.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from kube_peer import real_kubernetes, upstream

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, annotations_of
from glebe.kube.resources import EVENTS, NAMESPACES
from glebe.kube.resources import PERSISTENT_VOLUME_CLAIMS as CLAIMS
from glebe.kube.storage import CLASSES, VOLUMES
from glebe.workloads.volumes.controller import Binding

pytestmark = [pytest.mark.cluster, pytest.mark.realtime]

SETTLE = 6.0
"""Seconds of rest after each step: upstream looks at everything again each second here."""
UPSTREAM = (
    "kube-controller-manager",
    "--controllers=persistentvolume-binder-controller",
    "--pvclaimbinder-sync-period=1s",
)


@asynccontextmanager
async def ours(client: Client) -> AsyncIterator[None]:
    env = Env.system()
    informers = Informers(client, env)
    tasks = [asyncio.create_task(c.run()) for c in Binding(client, informers, env).controllers()]
    tasks.append(asyncio.create_task(informers.run()))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Story:
    """The same names in a namespace of its own; volumes and classes have its prefix."""

    def __init__(self, client: Client, name: str) -> None:
        self.client, self.name = client, name

    async def volume(self, name: str, size: str, modes: str = "ReadWriteOnce", **spec: Any) -> None:
        body = {
            "capacity": {"storage": size},
            "accessModes": modes.split(),
            "storageClassName": f"{self.name}-plain",
            "hostPath": {"path": f"/nowhere/{name}"},
            "persistentVolumeReclaimPolicy": "Retain",
            **spec,
        }
        meta = {"name": f"{self.name}-{name}", "labels": {"disk": name}}
        await self.client.create(
            VOLUMES, {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": meta, "spec": body}
        )

    async def claim(self, name: str, size: str, modes: str = "ReadWriteOnce", kind: str = "plain", **spec: Any) -> None:
        body = {
            "accessModes": modes.split(),
            "resources": {"requests": {"storage": size}},
            "storageClassName": f"{self.name}-{kind}" if kind else "",
            **spec,
        }
        if "volumeName" in body:
            body["volumeName"] = f"{self.name}-{body['volumeName']}"
        meta = {"name": name, "namespace": self.name}
        await self.client.create(
            CLAIMS, {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": body}
        )

    async def storage_class(self, name: str, provisioner: str, mode: str) -> None:
        body = {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": f"{self.name}-{name}"},
            "provisioner": provisioner,
            "volumeBindingMode": mode,
        }
        await self.client.create(CLASSES, body)

    async def play(self) -> list[Any]:
        """What is seen after each chapter."""
        meta = {"name": self.name}
        await self.client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
        await self.storage_class("late", "kubernetes.io/no-provisioner", "WaitForFirstConsumer")
        await self.storage_class("never", "kubernetes.io/no-provisioner", "Immediate")
        await self.storage_class("elsewhere", "example.com/disks", "Immediate")
        for name, size, modes in (
            ("one", "1Gi", "ReadWriteOnce"),
            ("two", "2Gi", "ReadWriteOnce"),
            ("five", "5Gi", "ReadWriteOnce"),
            ("shared", "1Gi", "ReadWriteOnce ReadWriteMany"),
            ("deleted", "9Gi", "ReadWriteOnce"),
        ):
            policy = "Delete" if name == "deleted" else "Retain"
            await self.volume(name, size, modes, persistentVolumeReclaimPolicy=policy)
        await self.volume("reserved", "3Gi", claimRef={"namespace": self.name, "name": "owner"})
        await self.volume("raw", "3Gi", volumeMode="Block")
        await self.volume("lonely", "20Gi", storageClassName="")
        await asyncio.sleep(SETTLE)
        out = [await self.seen()]
        await self.claim("fits", "2Gi")
        await self.claim("many", "1Gi", "ReadWriteMany")
        await self.claim("huge", "50Gi")
        await self.claim("owner", "1Gi")
        await self.claim("block", "1Gi", volumeMode="Block")
        await self.claim("labelled", "1Gi", selector={"matchLabels": {"disk": "five"}})
        await self.claim("toosmall", "3Gi", volumeName="one")
        await self.claim("absent", "1Gi", volumeName="nothing")
        await self.claim("taken", "1Gi", volumeName="reserved")
        await self.claim("classless", "30Gi", kind="")
        await self.claim("late", "1Gi", kind="late")
        await self.claim("never", "1Gi", kind="never")
        await self.claim("elsewhere", "1Gi", kind="elsewhere")
        await self.claim("goes", "9Gi", volumeName="deleted")
        await self.claim("lost", "20Gi", kind="", volumeName="lonely")
        await asyncio.sleep(SETTLE)
        out.append(await self.seen())
        for name in ("fits", "goes"):
            await self.drop(CLAIMS, name, self.name)
        await self.drop(VOLUMES, f"{self.name}-lonely", None)
        await asyncio.sleep(SETTLE)
        out.append(await self.seen())
        return out

    async def drop(self, resource: Any, name: str, namespace: str | None) -> None:
        """Delete it, protected or not."""
        await self.client.delete(resource, name, namespace)
        await self.client.patch(resource, name, {"metadata": {"finalizers": None}}, namespace)

    async def seen(self) -> dict[str, Any]:
        claims = {c["metadata"]["name"]: _claim(c) for c in (await self.client.list(CLAIMS, self.name)).items}
        volumes = {v["metadata"]["name"]: _volume(v) for v in (await self.client.list(VOLUMES)).items}
        events = (await self.client.list(EVENTS)).items
        told = {
            (e["involvedObject"]["name"], e["type"], e["reason"], e["message"])
            for e in events
            if e["involvedObject"]["kind"] in ("PersistentVolumeClaim", "PersistentVolume")
            and self.name in (e["involvedObject"].get("namespace"), e["involvedObject"]["name"].split("-")[0])
        }
        text = {"claims": claims, "volumes": {k: v for k, v in volumes.items() if k.startswith(self.name)}}
        return {**_renamed(text, self.name), "events": sorted(_renamed(sorted(told), self.name))}


def _claim(claim: Object) -> Any:
    return annotations_of(claim), claim["spec"].get("volumeName"), claim.get("status")


def _volume(volume: Object) -> Any:
    status = {k: v for k, v in (volume.get("status") or {}).items() if k != "lastPhaseTransitionTime"}
    ref = volume["spec"].get("claimRef")
    named = {k: v for k, v in (ref or {}).items() if k not in ("uid", "resourceVersion")}
    return annotations_of(volume), named, bool((ref or {}).get("uid")), status


def _renamed(value: Any, name: str) -> Any:
    if isinstance(value, str):
        return value.replace(name, "NAME")
    if isinstance(value, dict):
        return {_renamed(k, name): _renamed(v, name) for k, v in value.items()}
    return [_renamed(v, name) for v in value] if isinstance(value, list | tuple) else value


async def test_claims_and_volumes_as_upstream_has_them(tmp_path: Path) -> None:
    with real_kubernetes(tmp_path) as peer:
        client = peer.client()
        try:
            await peer.ready(client)
            with upstream(peer, tmp_path, UPSTREAM):
                theirs = await Story(client, "upstreamns").play()
            async with ours(client):
                mine = await Story(client, "glebens").play()
        finally:
            await client.close()
    for chapter, (expected, found) in enumerate(zip(theirs, mine, strict=True)):
        for kind in ("claims", "volumes"):
            for name in sorted({*expected[kind], *found[kind]}):
                assert found[kind].get(name) == expected[kind].get(name), (chapter, kind, name)
        assert found["events"] == expected["events"], chapter

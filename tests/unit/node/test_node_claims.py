"""StatefulSets with claims on a whole platform with a process node: data stays, and goes when it is to go."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from glebe.apiserver.store import MemoryStore
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object, annotations_of
from glebe.kube.resources import CONFIGMAPS, EVENTS, PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS
from glebe.kube.storage import VOLUMES
from glebe.node.fleet import parse_fleet
from glebe.platform.embedded import Platform, PlatformConfig

pytestmark = pytest.mark.realtime
FLEET = "apiVersion: glebe.dev/v1alpha1\nkind: Fleet\npools: []\nlocal: {enabled: true, name: local}\n"


@contextlib.asynccontextmanager
async def platform(tmp_path: Path) -> AsyncIterator[Platform]:
    config = PlatformConfig(fleet=parse_fleet(FLEET), nodes_dir=tmp_path / "nodes")
    async with Platform(config, Env.system(), MemoryStore()) as made:
        try:
            yield made
        finally:
            with contextlib.suppress(TimeoutError):
                for each in (await made.client.list(PODS, "default")).items:
                    meta = each["metadata"]
                    with contextlib.suppress(ApiError):
                        await made.client.delete(PODS, meta["name"], "default", grace_period=0)
                async with asyncio.timeout(5):
                    while any((tmp_path / "nodes" / "local" / "pods").iterdir()):  # noqa: ASYNC110
                        await asyncio.sleep(0.05)


def stateful_set(script: str) -> Object:
    labels = {"app": "db"}
    mounts = [{"name": "data", "mountPath": "/data"}]
    container = {"name": "c", "image": "i", "command": ["sh", "-c", script], "volumeMounts": mounts}
    container["env"] = [{"name": "DATA", "value": "/data"}]
    amount = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {
            "replicas": 1,
            "serviceName": "db",
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
            },
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": amount}],
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"},
        },
    }


async def until(what: Any, seconds: float = 15.0) -> Any:
    async with asyncio.timeout(seconds):
        while not (value := await what()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        return value


async def test_data_outlives_pods_and_goes_with_its_claim(tmp_path: Path) -> None:
    script = "echo $HOSTNAME >> $DATA/starts; trap 'exit 0' TERM; while :; do sleep 0.05; done"
    async with platform(tmp_path) as p:
        await p.client.create(STATEFUL_SETS, stateful_set(script))

        async def running() -> Object | None:
            try:
                found = await p.client.get(PODS, "db-0", "default")
            except ApiError:
                return None
            return found if (found.get("status") or {}).get("phase") == "Running" else None

        first = await until(running)
        claim = await p.client.get(PERSISTENT_VOLUME_CLAIMS, "data-db-0", "default")
        name = claim["spec"]["volumeName"]
        directory = tmp_path / "nodes" / "local" / "claims" / name

        async def starts(count: int) -> bool:
            with contextlib.suppress(OSError):
                return (directory / "starts").read_text() == "db-0\n" * count
            return False

        await until(lambda: starts(1))
        await p.client.delete(PODS, "db-0", "default")

        async def another() -> bool:
            now = await running()
            return now is not None and now["metadata"]["uid"] != first["metadata"]["uid"]

        await until(another)
        await until(lambda: starts(2))
        volume = await p.client.get(VOLUMES, name)
        assert volume["spec"]["local"]["path"] == str(directory)
        assert annotations_of(volume)["pv.kubernetes.io/provisioned-by"] == "glebe.dev/local-path"
        await p.client.delete(STATEFUL_SETS, "db", "default", propagation="Background")

        async def clean() -> bool:
            return not (await p.client.list(VOLUMES)).items and not directory.exists()

        await until(clean)


async def test_what_is_missing_is_told_and_a_full_volume_evicts(tmp_path: Path, monkeypatch: Any) -> None:
    from glebe.node.volumes import volumes

    monkeypatch.setattr(volumes, "MEASURE", 0.2)
    async with platform(tmp_path) as p:
        mounts = [{"name": "v", "mountPath": "/v"}]
        script = "head -c 300000 /dev/zero > $V/f; sleep 60"
        container = {"name": "c", "image": "i", "command": ["sh", "-c", script], "volumeMounts": mounts}
        container["env"] = [{"name": "V", "value": "/v"}]
        for name, volume in (("full", {"emptyDir": {"sizeLimit": "100Ki"}}), ("late", {"configMap": {"name": "late"}})):
            spec = {"containers": [container], "volumes": [{"name": "v", **volume}], "restartPolicy": "Never"}
            meta = {"name": name, "namespace": "default"}
            await p.client.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})

        async def told() -> list[tuple[str, str]]:
            return [(e["reason"], e["message"]) for e in (await p.client.list(EVENTS, "default")).items]

        text = 'MountVolume.SetUp failed for volume "v" : configmap "late" not found'
        await until(lambda: _has(told, ("FailedMount", text)))

        async def creating() -> bool:
            status = (await p.client.get(PODS, "late", "default")).get("status") or {}
            states = [s["state"].get("waiting", {}).get("reason") for s in status.get("containerStatuses") or ()]
            return states == ["ContainerCreating"]

        await until(creating)
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late", "namespace": "default"}}
        await p.client.create(CONFIGMAPS, {**config, "data": {}})

        async def evicted() -> Object | None:
            found = await p.client.get(PODS, "full", "default")
            return found if found["status"].get("phase") == "Failed" else None

        status = (await until(evicted))["status"]
        assert status["reason"] == "Evicted"
        assert status["message"] == 'Usage of EmptyDir volume "v" exceeds the limit "100Ki". '
        assert "Evicted" in dict(await told())

        async def started() -> bool:
            return bool((await p.client.get(PODS, "late", "default"))["status"].get("phase") != "Pending")

        await until(started)


async def _has(told: Any, wanted: tuple[str, str]) -> bool:
    return wanted in await told()

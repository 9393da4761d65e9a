"""The volume by which a pod says who it is: token, certificate of the API, namespace."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from node_world import World

from glebe.apiserver.admission.serviceaccount import token_volume
from glebe.kube.clock import Env
from glebe.kube.objects import Object
from glebe.kube.resources import CONFIGMAPS, PODS, SERVICE_ACCOUNTS
from glebe.node.contracts import VolumeError
from glebe.node.spec import NodeSpec
from glebe.node.volumes.volumes import Volumes


class Issuer:
    """Hands out what shows for whom it was asked."""

    def issue(self, cluster: str, service_account: Object, request: Object) -> Object:
        spec = request["spec"]
        bound = spec["boundObjectRef"]
        token = f"{service_account['metadata']['name']}/{bound['name']}/{spec['expirationSeconds']}"
        return {**request, "status": {"token": token, "expirationTimestamp": "2030-01-01T00:00:00Z"}}


async def made(world: World) -> Object:
    meta = {"name": "p", "namespace": "default"}
    spec: dict[str, Any] = {"containers": [{"name": "c", "image": "i"}]}
    return await world.client.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})


async def test_a_pod_has_its_token(tmp_path: Path) -> None:
    world = World(Env.seeded(1))
    await world.server.start()
    world.server.token_issuer = Issuer()
    pod = await made(world)
    volumes = Volumes(world.client, world.env, NodeSpec("local", {}))
    with pytest.raises(VolumeError, match="not found"):
        await volumes.provide(pod, tmp_path)  # the account is not there yet
    meta = {"name": "default", "namespace": "default"}
    await world.client.create(SERVICE_ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {**meta, "name": "kube-root-ca.crt"}}
    await world.client.create(CONFIGMAPS, {**config, "data": {"ca.crt": "PEM"}})
    await asyncio.sleep(1)  # the watch tells of the certificate
    found = await volumes.provide(pod, tmp_path)
    folder = next(iter(found.values()))
    assert {f.name: f.read_text() for f in folder.iterdir() if not f.name.startswith("..")} == {
        "token": "default/p/3607",
        "ca.crt": "PEM",
        "namespace": "default",
    }
    volumes.close()


async def test_without_certificates_there_is_only_the_namespace(tmp_path: Path) -> None:
    world = World(Env.seeded(1))
    await world.server.start()
    pod = await made(world)
    volumes = Volumes(world.client, world.env, NodeSpec("local", {}))
    folder = next(iter((await volumes.provide(pod, tmp_path)).values()))
    assert [f.name for f in folder.iterdir() if not f.name.startswith("..")] == ["namespace"]
    volumes.close()
    assert len(token_volume()["sources"]) == 3

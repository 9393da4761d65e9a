"""The volume by which a pod says who it is: token, certificate of the API, namespace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from node_world import World

from glebe.apiserver.admission.serviceaccount import token_volume
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object
from glebe.kube.resources import CONFIGMAPS, PODS, SERVICE_ACCOUNTS
from glebe.node.values import sources
from glebe.node.volumes import materialise as volumes


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
    with pytest.raises(ApiError):
        await sources.fetch(world.client, pod)  # the account is not there yet
    meta = {"name": "default", "namespace": "default"}
    await world.client.create(SERVICE_ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {**meta, "name": "kube-root-ca.crt"}}
    await world.client.create(CONFIGMAPS, {**config, "data": {"ca.crt": "PEM"}})
    found = volumes.materialise(pod, tmp_path, await sources.fetch(world.client, pod))
    folder = next(iter(found.values()))
    assert {f.name: f.read_text() for f in folder.iterdir()} == {
        "token": "default/p/3607",
        "ca.crt": "PEM",
        "namespace": "default",
    }
    assert (folder / "token").stat().st_mode & 0o077 == 0


async def test_without_certificates_there_is_only_the_namespace(tmp_path: Path) -> None:
    world = World(Env.seeded(1))
    await world.server.start()
    pod = await made(world)
    found = volumes.materialise(pod, tmp_path, await sources.fetch(world.client, pod))
    assert [f.name for f in next(iter(found.values())).iterdir()] == ["namespace"]
    assert len(token_volume()["sources"]) == 3

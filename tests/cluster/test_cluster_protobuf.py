"""What a real kube-apiserver writes as protobuf decodes to what it writes as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from kube_peer import real_kubernetes

from glebe.apiserver.protobuf.decode import decode
from glebe.apiserver.types.registry import builtins
from glebe.kube.client import Client
from glebe.kube.errors import ApiError

pytestmark = [pytest.mark.cluster, pytest.mark.realtime]

PROTOBUF = "application/vnd.kubernetes.protobuf"
OBJECTS = list(yaml.safe_load_all((Path(__file__).parent / "protobuf_objects.yaml").read_text(encoding="utf-8")))


def comparable(obj: Any) -> Any:
    """An object without what a write in between would change, and what protobuf never has: types in a template."""
    obj["metadata"].pop("resourceVersion", None)
    if obj["kind"] == "StatefulSet":
        for claim in obj["spec"]["volumeClaimTemplates"]:
            claim.pop("apiVersion", None)
            claim.pop("kind", None)
    return obj


def path_of(info: Any, namespace: str, name: str) -> str:
    base = f"/apis/{info.group}/{info.version}" if info.group else "/api/v1"
    space = f"/namespaces/{namespace}" if info.namespaced else ""
    return f"{base}{space}/{info.plural}/{name}".rstrip("/")


async def create_all(client: Client) -> None:
    by_kind = {(i.api_version, i.kind): i for i in builtins()}
    refused = []
    for obj in OBJECTS:
        info = by_kind[obj["apiVersion"], obj["kind"]]
        try:
            await client.raw("POST", path_of(info, "default", ""), body=obj)
        except ApiError as error:
            refused.append(str(error))
    assert refused == []


async def compare_all(client: Client) -> dict[str, int]:
    """How many objects of each kind were compared."""
    seen: dict[str, int] = {}
    differing: dict[str, tuple[Any, Any]] = {}
    for info in builtins():
        if "list" not in info.verbs:
            continue
        try:
            listed = orjson.loads((await client.raw("GET", path_of(info, "", "").replace("/namespaces/", ""))).body)
        except ApiError as error:
            assert error.code == 404, error  # a group that this server does not serve
            continue
        for item in listed["items"]:
            path = path_of(info, item["metadata"].get("namespace", ""), item["metadata"]["name"])
            binary = (await client.raw("GET", path, accept=PROTOBUF)).body
            plain = orjson.loads((await client.raw("GET", path)).body)
            decoded, unknown = decode(binary)
            assert unknown == [], path
            if comparable(decoded) != comparable(plain):
                differing[path] = (decoded, plain)
            seen[info.kind] = seen.get(info.kind, 0) + 1
    assert differing == {}
    return seen


async def test_protobuf_and_json_of_a_real_server_agree(tmp_path: Path) -> None:
    with real_kubernetes(tmp_path) as peer:
        client = peer.client()
        try:
            await peer.ready(client)
            await create_all(client)
            seen = await compare_all(client)
        finally:
            await client.close()
    assert set(seen) >= {obj["kind"] for obj in OBJECTS}

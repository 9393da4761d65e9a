"""The rights that docs/production.md gives to the controller are enough: the story runs with exactly them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from kube_peer import Peer, assets, real_kubernetes
from test_cluster_controller import glebe_controller, story
from test_cluster_queue import controllers

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.resources import Resource

pytestmark = [pytest.mark.cluster, pytest.mark.realtime]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "production.md"
RBAC = {
    kind: Resource("rbac.authorization.k8s.io", "v1", f"{kind.lower()}s", kind, not kind.startswith("Cluster"))
    for kind in ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
}


async def grant(client: Client) -> str:
    """Create what the page shows; a token of its service account."""
    known = {"Namespace": r.NAMESPACES, "ServiceAccount": r.SERVICE_ACCOUNTS, **RBAC}
    block = re.search(r"```yaml\n(apiVersion: v1\nkind: Namespace\n.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert block
    for obj in yaml.safe_load_all(block[1]):
        await client.create(known[obj["kind"]], obj)
    path = "/api/v1/namespaces/glebe-system/serviceaccounts/glebe-controller/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = await client.raw("POST", path, body=yaml.safe_dump(request).encode(), content_type="application/yaml")
    return str(yaml.safe_load(answer.body)["status"]["token"])


def kubeconfig_with(peer: Peer, token: str, path: Path) -> Path:
    cluster = {"server": peer.config.server, "insecure-skip-tls-verify": True}
    text = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "peer", "cluster": cluster}],
        "users": [{"name": "glebe", "user": {"token": token}}],
        "contexts": [{"name": "peer", "context": {"cluster": "peer", "user": "glebe"}}],
        "current-context": "peer",
    }
    path.write_text(yaml.safe_dump(text), encoding="utf-8")
    return path


async def test_the_documented_rights_are_enough(tmp_path: Path) -> None:
    with real_kubernetes(tmp_path) as peer:
        client = peer.client()
        await peer.ready(client)
        own = kubeconfig_with(peer, await grant(client), tmp_path / "own-kubeconfig")
        await client.close()
        with controllers(peer, assets(), tmp_path, "node-lifecycle-controller"), glebe_controller(own, tmp_path):
            await story(peer, tmp_path / "kubeconfig", tmp_path / "glebe.log")
        said = (tmp_path / "glebe.log").read_text(encoding="utf-8")
        assert "forbidden" not in said, said

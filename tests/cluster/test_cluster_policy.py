"""The bootstrap policy beside the one that a real API server of the same version makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from kube_peer import real_kubernetes

from glebe.apiserver.auth import bootstrap
from glebe.kube.objects import Object
from glebe.kube.resources import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES

pytestmark = [pytest.mark.cluster, pytest.mark.realtime]
_PAIRS = (
    (CLUSTER_ROLES, bootstrap.CLUSTER_ROLES),
    (CLUSTER_ROLE_BINDINGS, bootstrap.CLUSTER_BINDINGS),
    (ROLES, bootstrap.ROLES),
    (ROLE_BINDINGS, bootstrap.BINDINGS),
)


def meaning(obj: Object) -> Any:
    """What the policy is about; an aggregated role's rules are a controller's, which does not run here."""
    rules: Any = None
    if not obj.get("aggregationRule"):
        rules = sorted(orjson.dumps(r, option=orjson.OPT_SORT_KEYS) for r in obj.get("rules") or ())
    labels = obj["metadata"].get("labels") or {}
    return rules, obj.get("aggregationRule"), obj.get("roleRef"), obj.get("subjects"), labels


async def test_every_role_and_binding_is_upstreams(tmp_path: Path) -> None:
    with real_kubernetes(tmp_path) as peer:
        client = peer.client()
        await peer.ready(client)
        version = orjson.loads((await client.raw("GET", "/version")).body)
        if (version["major"], version["minor"].rstrip("+")) != ("1", "36"):
            pytest.skip("the policy is that of 1.36")
        for resource, name in _PAIRS:
            found = {}
            for obj in (await client.list(resource)).items:
                meta = obj["metadata"]
                if "openshift" not in meta["name"]:  # a distribution's own
                    found[meta.get("namespace", ""), meta["name"]] = meaning(obj)
            ours = {a: meaning(o) for a, o in bootstrap.policy()[name].items() if not a[1].startswith("glebe:")}
            assert ours.keys() == found.keys()
            assert {a for a in ours if ours[a] != found[a]} == set()
        await client.close()

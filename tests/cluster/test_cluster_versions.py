"""v1beta1 of Kueue's kinds on a real kube-apiserver, converted by the webhook of ``glebe controller``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from kube_peer import real_kubernetes

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.platform import bootstrap
from glebe.platform.door import open_door, point_conversion

pytestmark = [pytest.mark.cluster, pytest.mark.realtime]

BASE = "/apis/kueue.x-k8s.io/v1beta1"
QUEUE = {
    "apiVersion": "kueue.x-k8s.io/v1beta1",
    "kind": "ClusterQueue",
    "metadata": {"name": "team"},
    "spec": {
        "cohort": "all",
        "namespaceSelector": {},
        "admissionChecks": ["approved"],
        "resourceGroups": [
            {
                "coveredResources": ["cpu"],
                "flavors": [
                    {"name": "f", "resources": [{"name": "cpu", "nominalQuota": "9", "borrowingLimit": "1"}]},
                ],
            }
        ],
    },
}


async def get(client: Client, what: str) -> Any:
    return orjson.loads((await client.raw("GET", f"{BASE}/{what}")).body)


async def test_conversion_by_the_controllers_webhook(tmp_path: Path) -> None:
    with real_kubernetes(tmp_path) as peer:
        client = peer.client()
        await peer.ready(client)
        await bootstrap.install_crds(client)
        await bootstrap.wait_established(client)
        await client.create(r.CLUSTER_QUEUES, {**_plain("plain"), "spec": {"cohortName": "all"}})
        with pytest.raises(ApiError, match="conversion webhook"):
            await client.raw("POST", f"{BASE}/clusterqueues", body=QUEUE)
        async with open_door(Env.system(), "127.0.0.1:0") as door:
            await point_conversion(client, door)
            await bootstrap.install_crds(client)
            made = orjson.loads((await client.raw("POST", f"{BASE}/clusterqueues", body=QUEUE)).body)
            assert made["spec"]["cohort"] == "all"
            assert made["spec"]["admissionChecks"] == ["approved"]
            stored = await client.get(r.CLUSTER_QUEUES, "team")
            assert stored["spec"]["admissionChecksStrategy"]["admissionChecks"] == [{"name": "approved"}]
            status = {"clusterQueue": "team", "podSetAssignments": [{"name": "main", "topologyAssignment": _SLICES}]}
            workload = await client.create(r.WORKLOADS, _workload())
            await client.update_status(r.WORKLOADS, {**workload, "status": {"admission": status}})
            seen = await get(client, "namespaces/default/workloads/w")
            assigned = seen["status"]["admission"]["podSetAssignments"][0]["topologyAssignment"]
            assert assigned["domains"] == [{"values": ["n1"], "count": 2}, {"values": ["n2"], "count": 2}]
            seen["spec"]["active"] = False
            await client.raw("PUT", f"{BASE}/namespaces/default/workloads/w", body=seen)
            kept = await client.get(r.WORKLOADS, "w", "default")
            assert kept["spec"]["active"] is False
            assert kept["spec"]["preemptionGates"] == [{"name": "g"}]
            assert [q["metadata"]["name"] for q in (await get(client, "clusterqueues"))["items"]] == ["plain", "team"]
        await client.close()


def _plain(name: str) -> dict[str, Any]:
    return {"apiVersion": r.CLUSTER_QUEUES.api_version, "kind": "ClusterQueue", "metadata": {"name": name}}


def _workload() -> dict[str, Any]:
    template = {"spec": {"containers": [{"name": "c", "image": "x"}]}}
    return {
        "apiVersion": r.WORKLOADS.api_version,
        "kind": "Workload",
        "metadata": {"name": "w", "namespace": "default"},
        "spec": {"podSets": [{"name": "main", "count": 4, "template": template}], "preemptionGates": [{"name": "g"}]},
    }


_SLICES = {
    "levels": ["kubernetes.io/hostname"],
    "slices": [
        {
            "domainCount": 2,
            "valuesPerLevel": [{"individual": {"prefix": "n", "roots": ["1", "2"]}}],
            "podCounts": {"universal": 2},
        }
    ],
}

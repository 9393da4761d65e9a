"""What Deployments, StatefulSets and DaemonSets may ask of their roll-outs; the words are upstream's."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store.memory import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import Object
from glebe.kube.resources import DAEMON_SETS, DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS

RESOURCES = {r.kind: r for r in (DEPLOYMENTS, STATEFUL_SETS, DAEMON_SETS, REPLICA_SETS)}
CLAIM = {
    "metadata": {"name": "data"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}
MOUNT = {"containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "data", "mountPath": "/d"}]}]}
KEPT = (
    "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
    "'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are "
    "forbidden"
)


@asynccontextmanager
async def api() -> AsyncIterator[Client]:
    server = ApiServer(MemoryStore(), Env.seeded(1), TypeRegistry())
    await server.start()
    try:
        yield Client(InProcessTransport(server.handle))
    finally:
        await server.close()


def make(kind: str, pod: Object | None = None, **spec: Any) -> Object:
    own = {"containers": [{"name": "c", "image": "i"}], **copy.deepcopy(pod or {})}
    body = {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": own},
        **({"serviceName": "s"} if kind == "StatefulSet" else {}),
        **spec,
    }
    meta = {"name": "x", "namespace": "default"}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": meta, "spec": body}


def rolling(**how: Any) -> Object:
    return {"type": "RollingUpdate", "rollingUpdate": how}


REFUSED = [
    (
        make("Deployment", strategy=rolling(maxUnavailable="0%", maxSurge=0)),
        'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0',
    ),
    (
        make("Deployment", strategy=rolling(maxUnavailable="101%")),
        'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%',
    ),
    (
        make("Deployment", strategy=rolling(maxSurge=-1)),
        "spec.strategy.rollingUpdate.maxSurge: Invalid value: -1: must be greater than or equal to 0",
    ),
    (
        make("Deployment", strategy={"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}),
        "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
    ),
    (
        make("Deployment", progressDeadlineSeconds=5, minReadySeconds=5),
        "spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds",
    ),
    (
        make("Deployment", {"activeDeadlineSeconds": 5}),
        "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
    ),
    (
        make("DaemonSet", updateStrategy=rolling(maxUnavailable=1, maxSurge=1)),
        "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
    ),
    (
        make("DaemonSet", updateStrategy=rolling(maxUnavailable=0, maxSurge=0)),
        "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
    ),
    (
        make("StatefulSet", updateStrategy=rolling(partition=-1)),
        "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
    ),
    (
        make("StatefulSet", persistentVolumeClaimRetentionPolicy={"whenScaled": "Bogus"}),
        'spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: "Bogus": supported values: "Retain", '
        '"Delete"',
    ),
    (
        make(
            "StatefulSet",
            volumeClaimTemplates=[{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}],
        ),
        "spec.volumeClaimTemplates[0].spec.resources[storage]: Required value",
    ),
    (
        make("StatefulSet", MOUNT),
        'spec.template.spec.containers[0].volumeMounts[0].name: Not found: "data"',
    ),
]


@pytest.mark.parametrize(("obj", "why"), REFUSED, ids=[why.split(":")[0] for _, why in REFUSED])
async def test_what_is_refused(obj: Object, why: str) -> None:
    async with api() as client:
        with pytest.raises(ApiError) as caught:
            await client.create(RESOURCES[obj["kind"]], obj)
        assert caught.value.message == f'{obj["kind"]}.apps "x" is invalid: {why}'


async def test_containers_may_mount_what_claim_templates_make() -> None:
    async with api() as client:
        named = {**MOUNT, "hostname": "Not A Name", "volumes": [{"name": "data", "emptyDir": {}}]}
        await client.create(STATEFUL_SETS, make("StatefulSet", named, volumeClaimTemplates=[CLAIM]))


@pytest.mark.parametrize(
    ("spec", "fine"),
    [
        ({"replicas": 3}, True),
        ({"volumeClaimTemplates": [CLAIM]}, True),
        ({"ordinals": {"start": 2}, "minReadySeconds": 3, "revisionHistoryLimit": 4}, True),
        ({"serviceName": "t"}, False),
        ({"podManagementPolicy": "Parallel"}, False),
        ({"volumeClaimTemplates": None}, False),
        ({"volumeClaimTemplates": [{**CLAIM, "spec": {**CLAIM["spec"], "accessModes": ["ReadWriteMany"]}}]}, False),
    ],
)
async def test_what_an_update_of_a_stateful_set_may_change(spec: Object, fine: bool) -> None:
    async with api() as client:
        await client.create(STATEFUL_SETS, make("StatefulSet", MOUNT, volumeClaimTemplates=[CLAIM]))
        change = client.patch(STATEFUL_SETS, "x", {"spec": spec}, "default")
        if fine:
            await change
            return
        with pytest.raises(ApiError) as caught:
            await change
        assert KEPT in caught.value.message

"""Kueue's visibility API on a whole platform: order, offset and limit, forecasts, rights."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from test_platform_embedded import job, platform

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.errors import ApiError

BASE = "/apis/visibility.kueue.x-k8s.io"
CLASS = {"apiVersion": r.WORKLOAD_PRIORITY_CLASSES.api_version, "kind": "WorkloadPriorityClass"}


async def ask(client: Client, what: str, version: str = "v1beta2", **query: object) -> Any:
    options = [(k, str(v)) for k, v in query.items()]
    answer = orjson.loads((await client.raw("GET", f"{BASE}/{version}/{what}/pendingworkloads", query=options)).body)
    assert answer["kind"] == "PendingWorkloadsSummary"
    assert answer["apiVersion"] == f"{BASE.removeprefix('/apis/')}/{version}"
    return answer["items"]


def jobs_of(items: list[Any]) -> list[str]:
    return [item["metadata"]["ownerReferences"][0]["name"] for item in items]


async def test_who_waits_in_which_order() -> None:
    async with platform(count=1) as p:
        await asyncio.sleep(3)
        await p.client.create(r.WORKLOAD_PRIORITY_CLASSES, {**CLASS, "metadata": {"name": "urgent"}, "value": 10})
        other = {"apiVersion": r.LOCAL_QUEUES.api_version, "kind": "LocalQueue", "metadata": {"name": "other"}}
        await p.client.create(r.LOCAL_QUEUES, {**other, "spec": {"clusterQueue": "default"}}, "default")
        for name in ("runs", "a", "b", "c", "d"):
            made = job(name, 1)
            if name == "c":
                made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "other"
            if name == "d":
                made["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] = "urgent"
                made["metadata"]["labels"].pop("glebe.dev/class", None)
            await p.client.create(r.JOBS, made)
            await asyncio.sleep(1)
        await asyncio.sleep(5)
        everybody = await ask(p.client, "clusterqueues/default")
        assert jobs_of(everybody) == ["d", "a", "b", "c"]
        assert [i["positionInClusterQueue"] for i in everybody] == [0, 1, 2, 3]
        assert [i["positionInLocalQueue"] for i in everybody] == [0, 1, 2, 0]
        assert [i["localQueueName"] for i in everybody] == ["default", "default", "default", "other"]
        assert everybody[0]["priority"] == 10
        assert everybody[1]["forecast"]["startP50"] < everybody[2]["forecast"]["startP50"]
        assert everybody[1]["forecast"]["gpusAhead"] == 8
        assert jobs_of(await ask(p.client, "clusterqueues/default", offset=1, limit=2)) == ["a", "b"]
        assert jobs_of(await ask(p.client, "clusterqueues/default", version="v1beta1", offset=9)) == []
        own = await ask(p.client, "namespaces/default/localqueues/default", offset=1)
        assert [(i["positionInClusterQueue"], i["positionInLocalQueue"]) for i in own] == [(1, 1), (2, 2)]
        assert jobs_of(await ask(p.client, "namespaces/default/localqueues/other")) == ["c"]


async def test_what_is_not_there_or_not_asked_for_rightly() -> None:
    async with platform(count=1) as p:
        await asyncio.sleep(2)
        for what, query in (("clusterqueues/none", {}), ("namespaces/default/localqueues/none", {})):
            with pytest.raises(ApiError) as missing:
                await ask(p.client, what, **query)
            assert missing.value.code == 404
        with pytest.raises(ApiError) as wrong:
            await ask(p.client, "clusterqueues/default", limit="many")
        assert wrong.value.code == 400
        with pytest.raises(ApiError) as verb:
            await p.client.raw("GET", f"{BASE}/v1beta2/clusterqueues")
        assert verb.value.code == 405
        listed = orjson.loads((await p.client.raw("GET", f"{BASE}/v1beta2")).body)
        names = {one["name"]: one["verbs"] for one in listed["resources"]}
        assert names["clusterqueues/pendingworkloads"] == ["get"]
        assert names["localqueues/pendingworkloads"] == ["get"]
        index = orjson.loads((await p.client.raw("GET", "/apis")).body)
        groups = [group["name"] for group in index["groups"]]
        assert groups.index("kueue.x-k8s.io") < groups.index("visibility.kueue.x-k8s.io"), "kubectl get clusterqueues"
        [group] = [g for g in index["groups"] if g["name"] == "visibility.kueue.x-k8s.io"]
        assert group["preferredVersion"]["version"] == "v1beta2"

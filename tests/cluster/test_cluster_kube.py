"""The client side against a real kube-apiserver."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest
from kube_peer import real_kubernetes

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.events import EventRecorder
from glebe.kube.informer import Informer
from glebe.kube.lease import LeaderElector
from glebe.kube.objects import Object
from glebe.kube.resources import CONFIGMAPS, EVENTS, LEASES

pytestmark = [pytest.mark.cluster, pytest.mark.realtime]


def config_map(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.05)


def versions(informer: Informer) -> dict[str, str]:
    return {key.name: obj["metadata"]["resourceVersion"] for key, obj in informer.store.items()}


async def verbs(client: Client) -> None:
    for number in range(5):
        await client.create(CONFIGMAPS, config_map(f"c{number}", a="1"))
    everything = await client.list_all(CONFIGMAPS, "default", page_size=2)
    assert [item["kind"] for item in everything.items] == ["ConfigMap"] * 5
    page = await client.list(CONFIGMAPS, "default", limit=2)
    assert (len(page.items), page.remaining, page.continue_ != "") == (2, 3, True)

    await client.apply(CONFIGMAPS, config_map("applied", x="1"), field_manager="one")
    with pytest.raises(ApiError, match=r'conflict with "one": \.data\.x') as caught:
        await client.apply(CONFIGMAPS, config_map("applied", x="2"), field_manager="two")
    assert caught.value.code == 409
    await client.apply(CONFIGMAPS, config_map("applied", x="2"), field_manager="two", force=True)

    await client.patch(CONFIGMAPS, "c1", {"data": {"b": "2"}}, "default")
    await client.patch(CONFIGMAPS, "c1", [{"op": "add", "path": "/data/c", "value": "3"}], "default", kind="json")
    patched = await client.patch(CONFIGMAPS, "c1", {"data": {"a": None}}, "default", kind="strategic")
    assert patched["data"] == {"b": "2", "c": "3"}
    with pytest.raises(ApiError) as caught:
        await client.update(CONFIGMAPS, everything.items[1])
    assert caught.value.reason == "Conflict"
    await client.delete(CONFIGMAPS, "c0", "default", propagation="Background")
    await client.delete_collection(CONFIGMAPS, "default", field_selector="metadata.name=c2")


async def events_and_leases(client: Client, env: Env) -> None:
    recorder = EventRecorder(client, env, "glebe-test")
    about = await client.get(CONFIGMAPS, "c3", "default")
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}
    for _ in range(3):
        await recorder.event(about, "Normal", "Tested", "hello")
    await recorder.event(node, "Warning", "Tested", "a cluster-scoped object")
    seen = await client.list(EVENTS, "default", field_selector="reason=Tested")
    assert sorted(event["count"] for event in seen.items) == [1, 3]
    assert recorder.dropped == 0

    elector = LeaderElector(client, env, "glebe", "default", "me", 5, 3, 0.5)

    async def work() -> None:
        assert elector.is_leader()

    await elector.run(work)
    await elector.run(work)
    spec = (await client.get(LEASES, "glebe", "default"))["spec"]
    assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("", 1)


async def test_against_a_real_api_server(tmp_path: Path) -> None:
    env = Env.system()
    with real_kubernetes(tmp_path) as peer:
        client = peer.client()
        await peer.ready(client)
        informer = Informer(client, CONFIGMAPS, env, namespace="default", page_size=2)
        task = asyncio.create_task(informer.run())
        await informer.wait_synced()
        await verbs(client)
        await events_and_leases(client, env)

        async def current() -> dict[str, str]:
            items = (await client.list(CONFIGMAPS, "default")).items
            return {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in items}

        want = await current()
        assert "c0" not in want
        assert "c2" not in want
        await until(lambda: versions(informer) == want)
        stored = next(obj for obj in informer.store.values() if obj["metadata"]["name"] == "c4")
        assert "managedFields" not in stored["metadata"]
        updated = await client.update(CONFIGMAPS, {**stored, "data": {"q": "1"}})
        assert [entry["manager"] for entry in updated["metadata"]["managedFields"]] == ["glebe"]

        peer.restart_api()
        await peer.ready(client)
        version = (await client.list(CONFIGMAPS, limit=1)).resource_version
        await client.create(CONFIGMAPS, config_map("after"))
        want = await current()
        await until(lambda: versions(informer) == want)
        async with aclosing(client.watch(CONFIGMAPS, "default", resource_version=version, timeout=30)) as events:
            assert (await anext(events)).type == "ADDED"
        task.cancel()
        await client.close()

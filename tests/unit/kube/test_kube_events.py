from __future__ import annotations

import asyncio

from kube_fake import FakeServer, make

from glebe.kube import errors
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.events import NORMAL, WARNING, EventRecorder
from glebe.kube.objects import Object
from glebe.kube.transport import ConnectionLost, Request, Response


def recorded(server: FakeServer) -> list[Object]:
    return [obj for key, obj in server.objects.items() if key[0] == "events"]


async def test_an_event_says_what_happened_to_whom() -> None:
    server = FakeServer()
    pod = server.put(make("a", "x"))
    await EventRecorder(Client(server), Env.seeded(1), "glebe-test").event(pod, WARNING, "Failed", "it broke")
    (event,) = recorded(server)
    assert event["metadata"]["namespace"] == "x"
    assert event["involvedObject"]["uid"] == pod["metadata"]["uid"]
    assert event["involvedObject"]["kind"] == "Pod"
    assert (event["type"], event["reason"], event["message"], event["count"]) == ("Warning", "Failed", "it broke", 1)
    assert event["source"] == {"component": "glebe-test"}
    assert event["firstTimestamp"] == event["lastTimestamp"] == "2026-01-01T00:00:00Z"


async def test_repetitions_are_counted_on_one_object() -> None:
    server = FakeServer()
    pod = server.put(make("a", "x"))
    recorder = EventRecorder(Client(server), Env.seeded(1), "glebe-test")
    for _ in range(3):
        await recorder.event(pod, NORMAL, "Waiting", "not yet")
        await asyncio.sleep(60)
    await recorder.event(pod, NORMAL, "Waiting", "something else")
    first, second = recorded(server)
    assert (first["count"], first["firstTimestamp"], first["lastTimestamp"]) == (
        3,
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:02:00Z",
    )
    assert second["count"] == 1
    server.drop(first["metadata"]["name"], "x", "events")  # events expire on the server
    await recorder.event(pod, NORMAL, "Waiting", "not yet")
    assert len(recorded(server)) == 2


async def test_cluster_scoped_objects_and_long_messages() -> None:
    server = FakeServer()
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}
    await EventRecorder(Client(server), Env.seeded(1), "c").event(node, NORMAL, "Long", "ü" * 2000)
    (event,) = recorded(server)
    assert event["metadata"]["namespace"] == "default"
    assert "namespace" not in event["involvedObject"]
    assert event["message"] == "ü" * 512


async def test_a_flood_about_one_object_is_thinned() -> None:
    server = FakeServer()
    pod, other = server.put(make("a", "x")), server.put(make("b", "x"))
    recorder = EventRecorder(Client(server), Env.seeded(1), "c")
    for number in range(100):
        await recorder.event(pod, NORMAL, "Flood", f"number {number}")
    assert len(recorded(server)) == 25
    assert recorder.dropped == 75
    await recorder.event(other, NORMAL, "Flood", "number 1")
    await asyncio.sleep(301)
    await recorder.event(pod, NORMAL, "Flood", "later")
    assert len(recorded(server)) == 27


async def test_recording_never_raises_and_never_hangs() -> None:
    server = FakeServer()
    pod = server.put(make("a", "x"))
    recorder = EventRecorder(Client(server), Env.seeded(1), "c")
    for error in (ConnectionLost("down"), errors.forbidden("", "events", "", "no"), RuntimeError("bug")):

        def fail(request: Request, error: Exception = error) -> Response | None:
            raise error

        server.fault = fail
        await recorder.event(pod, NORMAL, "R", "m")

    class Hanging:
        async def send(self, request: Request) -> Response:
            await asyncio.sleep(10**6)
            raise AssertionError

        async def close(self) -> None: ...

    began = asyncio.get_running_loop().time()
    await EventRecorder(Client(Hanging()), Env.seeded(1), "c").event(pod, NORMAL, "R", "m")
    assert asyncio.get_running_loop().time() - began == 10
    assert recorder.dropped == 3

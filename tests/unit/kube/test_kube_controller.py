from __future__ import annotations

import asyncio
import logging

import pytest
from kube_fake import FakeServer, make

from glebe.kube import errors
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey
from glebe.kube.resources import CONFIGMAPS, PODS
from glebe.kube.transport import ConnectionLost


class House:
    """A server, informers and whatever a test runs on them."""

    def __init__(self) -> None:
        self.server = FakeServer()
        self.env = Env.seeded(1)
        self.informers = Informers(Client(self.server), self.env)
        self.tasks: list[asyncio.Task[None]] = []

    def start(self, *controllers: Controller) -> None:
        self.tasks = [asyncio.create_task(c.run()) for c in controllers]
        self.tasks.append(asyncio.create_task(self.informers.run()))

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)
        for task in self.tasks:
            if not task.cancelled():
                task.result()


def name(obj: str) -> ObjectKey:
    return ObjectKey("", "default", obj)


async def test_works_on_initial_and_changed_objects_after_the_sync() -> None:
    house = House()
    house.server.put(make("a"))
    house.server.put({**make("c"), "kind": "ConfigMap"}, "configmaps")
    pods, maps = house.informers.get(PODS), house.informers.get(CONFIGMAPS)
    seen: list[tuple[str, bool]] = []

    async def reconcile(key: ObjectKey) -> None:
        assert pods.has_synced
        assert maps.has_synced
        seen.append((key.name, key in pods.store))

    controller = Controller("test", reconcile, house.env)
    controller.watch(pods)
    controller.watch(maps, lambda obj: [name(f"for-{obj['metadata']['name']}")])
    house.start(controller)
    await asyncio.sleep(1)
    assert seen == [("a", True), ("for-c", False)]
    seen.clear()
    house.server.put(make("a", v="2"))
    house.server.drop("a")
    await asyncio.sleep(1)
    assert seen[-1] == ("a", False)
    await house.stop()
    assert controller.queue.shutting_down


async def test_keys_of_the_old_object_count_too() -> None:
    house = House()
    house.server.put(make("a", owner="one"))
    pods = house.informers.get(PODS)
    seen: list[str] = []

    async def reconcile(key: ObjectKey) -> None:
        seen.append(key.name)

    controller = Controller("test", reconcile, house.env)
    controller.watch(
        pods,
        lambda obj: [name(obj["metadata"]["labels"]["owner"])],
        when=lambda old, new: new is None or new["metadata"]["labels"].get("ignore") is None,
    )
    house.start(controller)
    await asyncio.sleep(1)
    house.server.put(make("a", owner="two"))
    house.server.put(make("b", owner="three", ignore="yes"))
    await asyncio.sleep(1)
    assert seen == ["one", "one", "two"]
    await house.stop()


@pytest.mark.parametrize("error", [errors.internal("down"), ConnectionLost("reset"), RuntimeError("bug")])
async def test_failures_are_retried_and_said_once(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    house = House()
    house.server.put(make("a"))
    attempts: list[float] = []

    async def reconcile(key: ObjectKey) -> None:
        attempts.append(asyncio.get_running_loop().time())
        if len(attempts) < 8:
            raise error

    controller = Controller("test", reconcile, house.env)
    controller.watch(house.informers.get(PODS))
    with caplog.at_level(logging.DEBUG, "glebe.controller"):
        house.start(controller)
        await asyncio.sleep(60)
    assert len(attempts) == 8
    assert attempts[-1] - attempts[-2] > 4 * (attempts[4] - attempts[3])
    assert len([r for r in caplog.records if r.name == "glebe.controller.test"]) == 1
    assert (controller.failed, controller.reconciled) == (7, 1)
    assert controller.queue.failures(name("a")) == 0
    await house.stop()


async def test_requeue_after_and_resync() -> None:
    house = House()
    house.server.put(make("a"))
    times: dict[str, list[float]] = {"requeue": [], "resync": []}

    async def requeue(key: ObjectKey) -> Result:
        times["requeue"].append(asyncio.get_running_loop().time())
        return Result(requeue_after=10)

    async def plain(key: ObjectKey) -> None:
        times["resync"].append(asyncio.get_running_loop().time())

    first = Controller("first", requeue, house.env)
    second = Controller("second", plain, house.env, resync=20)
    for controller in (first, second):
        controller.watch(house.informers.get(PODS))
    house.start(first, second)
    await asyncio.sleep(45)
    assert [round(t) for t in times["requeue"]] == [0, 10, 20, 30, 40]
    assert [round(t) for t in times["resync"]] == [0, 20, 40]
    await house.stop()


async def test_workers_work_at_once_but_never_on_one_key() -> None:
    house = House()
    for number in range(6):
        house.server.put(make(f"p{number}"))
    busy: set[ObjectKey] = set()
    most = 0

    async def reconcile(key: ObjectKey) -> None:
        nonlocal most
        assert key not in busy
        busy.add(key)
        most = max(most, len(busy))
        await asyncio.sleep(1)
        busy.discard(key)

    controller = Controller("test", reconcile, house.env, workers=3)
    controller.watch(house.informers.get(PODS))
    house.start(controller)
    for number in range(20):
        house.server.put(make(f"p{number % 6}", v=str(number)))
        await asyncio.sleep(0.3)
    assert most == 3
    await house.stop()


async def test_a_stopped_controller_hears_nothing_more() -> None:
    house = House()
    pods = house.informers.get(PODS)
    calls: list[Object | None] = []

    async def reconcile(key: ObjectKey) -> None:
        calls.append(None)

    controller = Controller("test", reconcile, house.env)
    controller.watch(pods)
    house.start(controller)
    await asyncio.sleep(1)
    house.tasks[0].cancel()
    await asyncio.sleep(1)
    house.server.put(make("a"))
    await asyncio.sleep(1)
    assert calls == []
    assert controller.queue.added == 0
    await house.stop()


async def test_a_cancellation_from_inside_does_not_end_the_worker() -> None:
    house = House()
    house.server.put(make("a"))
    attempts = 0

    async def reconcile(key: ObjectKey) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            helper = asyncio.ensure_future(asyncio.sleep(10))
            helper.cancel()
            await helper

    controller = Controller("test", reconcile, house.env)
    controller.watch(house.informers.get(PODS))
    house.start(controller)
    await asyncio.sleep(1)
    assert (attempts, controller.failed, controller.reconciled) == (2, 1, 1)
    await house.stop()


async def test_a_full_queue_lets_others_run() -> None:
    house = House()
    for number in range(200):
        house.server.put(make(f"p{number:03}"))
    done: list[str] = []

    async def reconcile(key: ObjectKey) -> None:  # never suspends
        done.append(key.name)

    controller = Controller("test", reconcile, house.env)
    controller.watch(house.informers.get(PODS))
    house.start(controller)
    most, before = 0, 0
    while len(done) < 200:
        await asyncio.sleep(0)
        most, before = max(most, len(done) - before), len(done)
    assert most <= 32
    await house.stop()

"""The garbage collector: what must go goes, what has a live owner stays."""

from __future__ import annotations

import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st
from workloads_fakes import FakeApi, FakeClient, FakeInformers

from glebe.kube import virtualtime
from glebe.kube.clock import Env
from glebe.kube.errors import internal
from glebe.kube.objects import Object
from glebe.kube.resources import CONFIGMAPS, JOBS, PODS, Resource
from glebe.kube.transport import ConnectionLost
from glebe.workloads.garbage import collector


def thing(name: str, *owners: Object, blocks: bool = True) -> Object:
    references = [
        {
            "apiVersion": o["apiVersion"],
            "kind": o["kind"],
            "name": o["metadata"]["name"],
            "uid": o["metadata"]["uid"],
            "blockOwnerDeletion": blocks,
        }
        for o in owners
    ]
    return {"metadata": {"name": name, "namespace": "n", "ownerReferences": references}}


class World:
    def __init__(self, seed: int = 1) -> None:
        self.env = Env.seeded(seed)
        self.api = FakeApi(self.env)

    def start(self, client: FakeClient | None = None, informers: FakeInformers | None = None) -> asyncio.Task[None]:
        controller = collector.build(client or FakeClient(self.api), informers or FakeInformers(self.api), self.env)  # type: ignore[arg-type]
        return asyncio.create_task(controller.run())

    def names(self) -> set[str]:
        return {name for _, _, name in self.api.objects}


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_dependents_follow_in_the_background_through_generations() -> None:
    w = World()
    run = w.start()
    job = w.api.create(JOBS, thing("job"))
    pod = w.api.create(PODS, thing("pod", job))
    w.api.create(CONFIGMAPS, thing("config", pod))
    w.api.create(CONFIGMAPS, thing("unrelated"))
    await asyncio.sleep(1)
    assert w.names() == {"job", "pod", "config", "unrelated"}
    w.api.delete(JOBS, "job", "n")
    await asyncio.sleep(1)
    assert w.names() == {"unrelated"}
    await _stop(run)


async def test_an_object_with_another_owner_stays_and_forgets_the_lost_one() -> None:
    w = World()
    run = w.start()
    first, second = w.api.create(JOBS, thing("first")), w.api.create(JOBS, thing("second"))
    w.api.create(PODS, thing("pod", first, second))
    await asyncio.sleep(1)
    w.api.delete(JOBS, "first", "n")
    await asyncio.sleep(1)
    references = w.api.read(PODS, "pod", "n")["metadata"]["ownerReferences"]
    assert [r["name"] for r in references] == ["second"]
    await _stop(run)


async def test_foreground_waits_for_blocking_dependents() -> None:
    w = World()
    run = w.start()
    job = w.api.create(JOBS, thing("job"))
    held = thing("pod", job)
    held["metadata"]["finalizers"] = ["example.org/busy"]
    w.api.create(PODS, held)
    await asyncio.sleep(1)
    w.api.delete(JOBS, "job", "n", propagation="Foreground")
    await asyncio.sleep(5)
    assert w.names() == {"job", "pod"}
    assert "deletionTimestamp" in w.api.read(PODS, "pod", "n")["metadata"]
    w.api.patch(PODS, "pod", "n", {"metadata": {"finalizers": None}}, None)
    await asyncio.sleep(5)
    assert w.names() == set()
    await _stop(run)


async def test_orphans_stay_without_the_reference() -> None:
    w = World()
    run = w.start()
    job = w.api.create(JOBS, thing("job"))
    w.api.create(PODS, thing("pod", job))
    await asyncio.sleep(1)
    w.api.delete(JOBS, "job", "n", propagation="Orphan")
    await asyncio.sleep(5)
    assert w.names() == {"pod"}
    assert w.api.read(PODS, "pod", "n")["metadata"]["ownerReferences"] == []
    await _stop(run)


async def test_a_namesake_of_the_owner_is_not_the_owner() -> None:
    w = World()
    job = w.api.create(JOBS, thing("job"))
    w.api.create(PODS, thing("pod", job))
    w.api.delete(JOBS, "job", "n")
    w.api.create(JOBS, thing("job"))
    run = w.start()
    await asyncio.sleep(5)
    assert w.names() == {"job"}
    await _stop(run)


async def test_an_owner_of_an_unknown_kind_is_no_reason_to_delete() -> None:
    w = World()
    stranger = {"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": "x", "uid": "unknown"}}
    w.api.create(PODS, thing("pod", stranger))
    run = w.start()
    await asyncio.sleep(5)
    assert w.names() == {"pod"}
    await _stop(run)


class LateError(ConnectionLost):
    late = True


async def _storm(seed: int) -> None:
    w, rng = World(seed), random.Random(seed)
    calm = False
    wrongs: list[str] = []

    def fault(verb: str, resource: Resource, name: str) -> BaseException | None:
        if not calm and rng.random() < 0.15:
            return rng.choice([LateError("lost"), ConnectionLost("down"), internal("etcd")])
        if verb == "delete":
            found = w.api.find(resource, name, "n")
            for reference in (found or {"metadata": {}})["metadata"].get("ownerReferences") or ():
                owner = next((o for o in w.api.objects.values() if o["metadata"]["uid"] == reference["uid"]), None)
                if owner is not None and "foregroundDeletion" not in owner["metadata"].get("finalizers", ()):
                    wrongs.append(f"{name} has the live owner {reference['name']}")
        return None

    def lag() -> float:
        return 0.0 if calm else rng.choice([0.0, 0.1, 1.0])

    serial = 0
    for life in range(3):
        informers = FakeInformers(w.api, lag)
        run = w.start(FakeClient(w.api, fault), informers)
        for _ in range(25):
            await asyncio.sleep(rng.uniform(0, 0.7))
            resource = rng.choice([JOBS, PODS, CONFIGMAPS])
            existing = sorted(w.api.objects)
            if not existing or rng.random() < 0.65:
                serial += 1
                owners = [w.api.objects[k] for k in rng.sample(existing, min(len(existing), rng.randint(0, 2)))]
                w.api.create(resource, thing(f"o{serial}", *owners, blocks=rng.random() < 0.5))
            else:
                plural, space, name = rng.choice(existing)
                kind = next(r for r in (JOBS, PODS, CONFIGMAPS) if r.plural == plural)
                w.api.delete(kind, name, space, propagation=rng.choice(["Background", "Foreground", "Orphan"]))
        if life == 2:
            calm = True
            await asyncio.sleep(2000)
        await _stop(run)
        informers.close()
    assert not wrongs
    uids = {o["metadata"]["uid"] for o in w.api.objects.values()}
    for obj in w.api.objects.values():
        meta = obj["metadata"]
        assert "deletionTimestamp" not in meta, f"{meta['name']} is stuck"
        assert {r["uid"] for r in meta["ownerReferences"]} <= uids, f"{meta['name']} has an owner that is gone"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_nothing_with_a_live_owner_goes_and_nothing_is_left_over(seed: int) -> None:
    virtualtime.run(_storm(seed))


async def test_a_circle_of_owners_does_not_wait_for_itself() -> None:
    w = World()
    run = w.start()
    pods = [w.api.create(PODS, thing(f"pod{i}")) for i in range(3)]
    for i, pod in enumerate(pods):
        references = thing("x", pods[i - 1])["metadata"]["ownerReferences"]
        w.api.patch(PODS, pod["metadata"]["name"], "n", {"metadata": {"ownerReferences": references}}, None)
    await asyncio.sleep(1)
    w.api.delete(PODS, "pod0", "n", propagation="Foreground")
    await asyncio.sleep(1)
    assert w.names() == set()
    await _stop(run)

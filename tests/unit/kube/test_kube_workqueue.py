from __future__ import annotations

import asyncio
from collections import Counter

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from glebe.kube import virtualtime
from glebe.kube.clock import Env
from glebe.kube.objects import ObjectKey
from glebe.kube.workqueue import QueueShutDown, WorkQueue


def key(name: str, cluster: str = "") -> ObjectKey:
    return ObjectKey(cluster, "x", name)


def queue() -> WorkQueue[ObjectKey]:
    return WorkQueue(Env.seeded(1))


async def test_many_additions_are_one_piece_of_work() -> None:
    q = queue()
    for _ in range(3):
        q.add(key("a"))
    q.add(key("b"))
    assert len(q) == 2
    assert await q.get() == key("a")
    assert await q.get() == key("b")
    assert len(q) == 0


async def test_what_is_added_while_worked_on_comes_again_afterwards() -> None:
    q = queue()
    q.add(key("a"))
    assert await q.get() == key("a")
    q.add(key("a"))
    assert len(q) == 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await q.get()
    q.done(key("a"))
    assert await q.get() == key("a")


async def test_delays_and_the_earliest_counts() -> None:
    q = queue()
    q.add_after(key("a"), 10)
    q.add_after(key("a"), 5)
    q.add_after(key("a"), 7)
    q.add_after(key("b"), 0)
    loop = asyncio.get_running_loop()
    assert await q.get() == key("b")
    assert await q.get() == key("a")
    assert loop.time() == 5
    q.done(key("a"))
    await asyncio.sleep(20)
    assert len(q) == 0
    assert q.delayed == 0


async def test_failures_double_the_delay_until_forgotten() -> None:
    q: WorkQueue[ObjectKey] = WorkQueue(Env.seeded(1), base_delay=1, max_delay=10)
    loop = asyncio.get_running_loop()
    delays = []
    for _ in range(6):
        began = loop.time()
        q.add_rate_limited(key("a"))
        q.done(await q.get())
        delays.append(loop.time() - began)
    for delay, least in zip(delays, [1, 2, 4, 8, 10, 10], strict=True):
        assert least <= delay <= least * 1.1
    assert q.failures(key("a")) == 6
    q.forget(key("a"))
    began = loop.time()
    q.add_rate_limited(key("a"))
    await q.get()
    assert loop.time() - began <= 1.1


async def test_clusters_take_turns() -> None:
    q = queue()
    for number in range(100):
        q.add(key(f"n{number:03}", "noisy"))
    q.add(key("a", "quiet"))
    q.add(key("a", "calm"))
    order = []
    for _ in range(5):
        got = await q.get()
        q.done(got)
        order.append(got.cluster)
    assert order == ["noisy", "quiet", "calm", "noisy", "noisy"]
    q.add(key("b", "quiet"))  # one that comes back later waits for one turn only
    assert [(await q.get()).cluster for _ in range(2)] == ["noisy", "quiet"]


async def test_shutdown_gives_out_what_is_ready_and_then_ends() -> None:
    q = queue()
    q.add(key("a"))
    q.add_after(key("b"), 5)
    waiting = queue()
    waiter = asyncio.create_task(waiting.get())
    await asyncio.sleep(0)
    waiting.shutdown()
    with pytest.raises(QueueShutDown):
        await waiter
    q.shutdown()
    q.add(key("c"))
    assert await q.get() == key("a")
    with pytest.raises(QueueShutDown):
        await q.get()
    q.done(key("a"))
    await q.drained()
    await asyncio.sleep(10)
    assert len(q) == 0


async def test_a_cancelled_worker_passes_its_turn_on() -> None:
    q = queue()
    first, second = asyncio.create_task(q.get()), asyncio.create_task(q.get())
    await asyncio.sleep(0)
    q.add(key("a"))  # wakes the first
    first.cancel()
    async with asyncio.timeout(1):
        assert await second == key("a")
    third = asyncio.create_task(q.get())
    await asyncio.sleep(0)
    third.cancel()
    await asyncio.sleep(0)
    q.add(key("b"))
    assert await q.get() == key("b")


STEPS = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 5), st.just(0.0)),
    st.tuples(st.just("add_after"), st.integers(0, 5), st.sampled_from([0.0, 0.5, 3.0])),
    st.tuples(st.just("rate_limited"), st.integers(0, 5), st.just(0.0)),
    st.tuples(st.just("wait"), st.just(0), st.sampled_from([0.0, 0.1, 1.0, 10.0])),
    st.tuples(st.just("cancel"), st.integers(0, 2), st.just(0.0)),
)


async def never_twice_never_lost(steps: list[tuple[str, int, float]], work_time: float) -> None:
    q = queue()
    keys = [key(f"k{n}", f"c{n % 2}") for n in range(6)]
    asked: Counter[ObjectKey] = Counter()  # how often added so far ...
    seen: Counter[ObjectKey] = Counter()  # ... and how many of those were known when work last began
    busy: set[ObjectKey] = set()

    async def work() -> None:
        while True:
            got = await q.get()
            assert got not in busy, "one key twice at once"
            busy.add(got)
            seen[got] = asked[got]
            try:
                await asyncio.sleep(work_time)
            except asyncio.CancelledError:
                asked[got] += 1
                q.add(got)  # as a controller does with work that was cut short
                raise
            finally:
                busy.discard(got)
                q.done(got)

    workers = [asyncio.create_task(work()) for _ in range(3)]
    for step, number, value in steps:
        match step:
            case "add":
                asked[keys[number]] += 1
                q.add(keys[number])
            case "add_after":
                asked[keys[number]] += 1
                q.add_after(keys[number], value)
            case "rate_limited":
                asked[keys[number]] += 1
                q.add_rate_limited(keys[number])
            case "wait":
                await asyncio.sleep(value)
            case "cancel":
                workers[number].cancel()
                workers[number] = asyncio.create_task(work())
    await asyncio.sleep(200)
    assert seen == asked, "an addition was lost"
    assert len(q) == q.working == q.delayed == 0
    await q.drained()
    q.shutdown()
    for result in await asyncio.gather(*workers, return_exceptions=True):
        assert isinstance(result, QueueShutDown)


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(STEPS, max_size=40), work_time=st.sampled_from([0.0, 0.3, 2.0]))
def test_never_twice_at_once_and_never_lost(steps: list[tuple[str, int, float]], work_time: float) -> None:
    virtualtime.run(never_twice_never_lost(steps, work_time))


@pytest.mark.realtime
def test_the_shortest_delays_work_on_uvloop_too() -> None:
    async def play() -> None:
        q = queue()
        for _ in range(2):  # uvloop makes no timer of less than half a millisecond
            q.add_after(key("a"), 0.0004)
            q.add_after(key("a"), 0.0003)
        assert await asyncio.wait_for(q.get(), 5) == key("a")
        q.shutdown()

    uvloop.run(play())

"""Who asks for little is not kept waiting by what others have waiting, and not for ever."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glebe.apiserver.fairness.recent import Recent
from glebe.apiserver.sharing.courtesy import Courtesy
from glebe.apiserver.sharing.pieces import Line, Pieces


def now() -> float:
    return asyncio.get_running_loop().time()


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_others_rest_while_a_guest_asks() -> None:
    manners = Courtesy()
    line, done = Line(manners, 1, 1), []
    for cluster in ("loud", "loud", "guest"):
        line.add(cluster, lambda cluster=cluster: done.append(cluster))  # type: ignore[misc]
    manners.begin("guest", now())
    await turns(5)
    assert done == ["guest"]
    manners.end("guest")
    await turns(5)
    assert done == ["guest", "loud", "loud"]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 20))
def test_each_cluster_has_its_share_of_every_turn(numbers: list[int], most: int) -> None:
    async def go() -> list[list[int]]:
        line, done, seen = Line(Courtesy(), most, 1), [], []
        for cluster, number in enumerate(numbers):
            for _ in range(number):
                line.add(str(cluster), lambda cluster=cluster: done.append(cluster))  # type: ignore[misc]
        while sum(map(len, seen)) < sum(numbers):
            await asyncio.sleep(0)
            seen.append(list(done))
            done.clear()
        return [each for each in seen if each]

    seen = asyncio.run(go())
    assert [sum(each.count(cluster) for each in seen) for cluster in range(len(numbers))] == numbers
    assert all(len(each) <= most for each in seen)
    assert len(set(seen[0])) == min(most, len(numbers))


async def test_what_a_guest_brings_meanwhile_goes_on() -> None:
    manners = Courtesy()
    pieces, done = Pieces(manners), []

    async def work(cluster: str) -> None:
        for _ in range(3):
            await pieces.turn(cluster)
            done.append(cluster)

    loud = asyncio.create_task(work("loud"))
    await turns(1)
    manners.begin("guest", now())
    await turns(5)
    assert done == ["loud"]
    await work("guest")
    assert done == ["loud", "guest", "guest", "guest"]
    manners.end("guest")
    await loud


async def test_a_slow_guest_is_not_waited_for() -> None:
    manners = Courtesy()
    line, done = Line(manners, 1, 1), []
    line.add("loud", lambda: done.append(now()))
    began = now()
    manners.begin("guest", began)
    await asyncio.sleep(1.0)
    assert 0 < done[0] - began < 0.01
    manners.end("guest")  # harmless: it was over
    assert not manners.guests


async def test_courtesy_takes_a_part_of_the_time_only() -> None:
    manners = Courtesy()
    held = 0.0
    begin = now()
    for _ in range(1000):
        manners.begin("guest", now())
        was = bool(manners.guests)
        await asyncio.sleep(0.002)
        held += 0.002 * was
        manners.end("guest")
    assert 0.2 < held / (now() - begin) < 0.4


@pytest.mark.parametrize(("rest", "rate"), [(0.0, 11.0), (0.6, 11.0), (5.0, 1.0)])
def test_recent_work_is_forgotten(rest: float, rate: float) -> None:
    recent = Recent()
    for i in range(10):
        recent.add(1.0, 100.0 + i / 100)
    recent.add(1.0, 100.1 + rest)
    assert recent.rate == rate

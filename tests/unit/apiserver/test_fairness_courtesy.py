"""Who asks for little is not kept waiting by what others have waiting, and not for ever."""

from __future__ import annotations

import asyncio

import pytest

from glebe.apiserver.fairness.courtesy import Courtesy
from glebe.apiserver.fairness.pieces import Line, Pieces
from glebe.apiserver.fairness.recent import Recent


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

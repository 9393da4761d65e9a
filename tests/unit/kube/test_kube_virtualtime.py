"""Virtual time: timers fall due, exactly, in their order, and nobody waits for ever for what is nearly now."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glebe.kube.virtualtime import Stalled, run

SECONDS = st.floats(1e-3, 1e5, allow_nan=False)


@settings(max_examples=50, deadline=None)
@given(st.lists(SECONDS, min_size=1, max_size=20))
def test_a_timer_is_never_early_however_busy_the_loop_is(waits: list[float]) -> None:
    async def some_turns() -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for wait in waits:
            deadline = loop.time() + wait / 3
            for nearly in (deadline - 1e-12, deadline, deadline + 1e-12):
                loop.call_at(nearly, lambda: asyncio.ensure_future(some_turns()))
            due = loop.create_future()
            loop.call_at(deadline, due.set_result, None)
            await due
            assert deadline <= loop.time() < deadline + 1e-6

    run(main())


def test_times_that_people_write_are_kept() -> None:
    async def main() -> list[float]:
        loop, seen = asyncio.get_running_loop(), []
        for wait in (0.1, 0.3, 1.5, 60.0, 3600.0):
            begun = loop.time()
            await asyncio.sleep(wait)
            seen.append(loop.time() - begun)
        return seen

    assert run(main()) == pytest.approx([0.1, 0.3, 1.5, 60.0, 3600.0], abs=1e-8)


def test_who_waits_for_nothing_is_told() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Stalled):
        run(main())

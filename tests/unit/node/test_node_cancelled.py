"""Whoever is cancelled at the very moment for which it waited ends all the same."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from glebe.node.process.context import PodContext
from glebe.node.process.machine import Machine
from glebe.node.status import PodState


class Recorder:
    """The machine, as far as events need it."""

    def __init__(self) -> None:
        self.events = self
        self.gate = asyncio.Event()

    async def event(self, *_: Any) -> None:
        await self.gate.wait()


async def test_an_end_is_heard_while_the_last_event_is_told(tmp_path: Path) -> None:
    machine = Recorder()
    pod = {"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"containers": []}}
    context = PodContext(cast(Machine, machine), pod, tmp_path, PodState([], [], 0.0, "", "", sandbox=False))
    teller = asyncio.create_task(context.tell())
    context.say("Normal", "Killing", "Stopping container c")
    last = asyncio.create_task(context.told())
    await asyncio.sleep(0)
    machine.gate.set()
    while context._events._unfinished_tasks:  # noqa: ASYNC110
        await asyncio.sleep(0)
    last.cancel()
    with pytest.raises(asyncio.CancelledError):
        await last
    teller.cancel()


async def test_an_end_is_heard_while_a_pause_is_over(tmp_path: Path) -> None:
    pod = {"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"containers": []}}
    context = PodContext(cast(Machine, Recorder()), pod, tmp_path, PodState([], [], 0.0, "", "", sandbox=False))
    pausing = asyncio.create_task(context.pause(60.0))
    await asyncio.sleep(0)
    context.ending.set()
    for _ in range(2):
        await asyncio.sleep(0)
    done_before = pausing.done()
    pausing.cancel()
    if not done_before:
        with pytest.raises(asyncio.CancelledError):
            await pausing

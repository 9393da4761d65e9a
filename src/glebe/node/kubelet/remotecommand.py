"""exec and attach: a client's dialogue with a process of a container (``remotecommand`` of upstream's streaming).

Whoever leaves takes the process that he started with him: nothing of an ``exec`` outlives its client.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from glebe.kube.transport import Request
from glebe.node.contracts import Streams
from glebe.node.kubelet.dialogue import RESIZE, STDERR, STDIN, STDOUT, Dialogue

_SIGN = 5.0  # seconds between signs of life while the process takes no input


@dataclass(frozen=True, slots=True)
class Options:
    """Which streams the client wants, in the kubelet's names for them."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    @property
    def streams(self) -> int:
        """How many streams a client of SPDY makes, besides those of sizes."""
        return 1 + self.stdin + self.stdout + self.stderr


def options_of(request: Request) -> Options | str:
    """What the query says, or what is wrong with it."""
    tty = request.param("tty") == "1"
    found = Options(
        request.param("input") == "1",
        request.param("output") == "1",
        request.param("error") == "1" and not tty,  # a terminal has one output
        tty,
    )
    if not (found.stdin or found.stdout or found.stderr):
        return "you must specify at least 1 of stdin, stdout, stderr"
    return found


SUCCESS: Mapping[str, Any] = {"metadata": {}, "status": "Success"}


def ended(code: int) -> Mapping[str, Any]:
    """The ``Status`` of a process that ended with ``code``."""
    if code == 0:
        return SUCCESS
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: command terminated with exit code {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def failed(what: str) -> Mapping[str, Any]:
    """The ``Status`` of something that never came to run."""
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {what}",
        "reason": "InternalError",
        "details": {"causes": [{"message": what}]},
        "code": 500,
    }


async def converse(dialogue: Dialogue, process: Streams, options: Options, *, attached: bool = False) -> None:
    """Carry input and output until the process has ended or the client leaves."""
    output = asyncio.ensure_future(_output(dialogue, process, options))
    listening = asyncio.ensure_future(_input(dialogue, process, options))
    ending = asyncio.ensure_future(process.wait())
    tasks = (output, listening, ending)
    try:
        await asyncio.wait({ending, listening}, return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            await asyncio.wait({output, listening}, return_when=asyncio.FIRST_COMPLETED)
            if output.done():
                listening.cancel()  # the farewell reads what the client says last
                await asyncio.gather(listening, return_exceptions=True)
                await dialogue.finish(SUCCESS if attached else ended(ending.result()))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await process.close()


async def _output(dialogue: Dialogue, process: Streams, options: Options) -> None:
    wanted = {STDOUT: options.stdout, STDERR: options.stderr}
    with contextlib.suppress(OSError):
        async for channel, data in process.output():
            if wanted.get(channel):
                await dialogue.tell(channel, data)


async def _input(dialogue: Dialogue, process: Streams, options: Options) -> None:
    """Until the client leaves."""
    with contextlib.suppress(OSError):
        async for kind, what in dialogue.said():
            if kind == RESIZE:
                await process.resize(*what)
            elif kind == STDIN and options.stdin:
                with contextlib.suppress(OSError):  # the process may have closed its input
                    await _patiently(dialogue, process.write(what) if what else process.close_input())


async def _patiently(dialogue: Dialogue, work: Any) -> None:
    """Wait for ``work``; meanwhile nothing is read, so that only a sign of life tells whether anybody is there."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=_SIGN))[0]:
            await dialogue.still_there()
        task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

"""exec and attach: a client's dialogue with a process of a container (``remotecommand`` of upstream's streaming).

Whoever leaves takes the process that he started with him: nothing of an ``exec`` outlives its client.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from glebe.kube.transport import Request
from glebe.node.contracts import Streams
from glebe.node.kubelet.dialogue import RESIZE, STDERR, STDIN, STDOUT, Dialogue

_SIGN = 5.0  # seconds between signs of life while the process takes no input
_AHEAD = 1 << 20  # bytes of input that are held for a process


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
    """Until the client leaves. What the process has not taken yet is held, so that its leaving is seen behind that."""
    feed = _Feed(process)
    try:
        with contextlib.suppress(OSError):
            async for kind, what in dialogue.said():
                if kind == RESIZE:
                    await process.resize(*what)
                elif kind == STDIN and options.stdin:
                    feed.add(what)
                    while not await feed.has_room(_SIGN):
                        await dialogue.still_there()  # nothing is read meanwhile
    finally:
        await feed.stop()


class _Feed:
    """Input on its way to a process; an empty piece is its end."""

    def __init__(self, process: Streams) -> None:
        self._process = process
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._task = asyncio.ensure_future(self._run())

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._held += len(piece)
        if self._held > _AHEAD and not self._task.done():
            self._room.clear()
        self._news.set()

    async def has_room(self, seconds: float) -> bool:
        """Whether more may come, waiting for it so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._room.wait()
        return self._room.is_set()

    async def _run(self) -> None:
        try:
            while True:
                while self._pieces:
                    piece = self._pieces.popleft()
                    await (self._process.write(piece) if piece else self._process.close_input())
                    self._held -= len(piece)
                    if self._held <= _AHEAD:
                        self._room.set()
                self._news.clear()
                await self._news.wait()
        except OSError:
            pass  # the process has closed its input: what else comes is dropped
        finally:
            self._room.set()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

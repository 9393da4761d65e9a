"""The agent's end of a supervisor's socket: further processes in a container, and those attached to it."""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from glebe.node.containers.streams import Closed, FdStreams
from glebe.node.containers.supervise import sessions

_PACKET = 1 << 20
_PIECE = 32 * 1024


class NotRunning(Exception):
    """There is no running process to talk to."""


class CannotExecute(Exception):
    """The command could not be started in the container; ``exit_code`` as a shell says it (127, 126)."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


async def execute(run_dir: Path, argv: Sequence[str], *, tty: bool, stdin: bool) -> FdStreams:
    """A further process; its pipes or its terminal are ours, so that nothing passes through the supervisor.

    :raises NotRunning: nobody listens there. :raises CannotExecute: the command cannot be started.
    """
    connection = _connect(run_dir)
    ours, theirs = _pipes(tty, stdin)
    try:
        fds = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", theirs))]
        connection.sendmsg([orjson.dumps({"do": "exec", "argv": list(argv), "tty": tty})], fds)
        answer, terminal = await _first_answer(connection)
        if "error" in answer:
            raise CannotExecute(int(answer["code"]), answer["error"])
        if terminal:  # one that was made in the container
            os.close(ours[0])
            ours = terminal
    except BaseException as error:
        connection.close()
        for fd in set(ours) - {-1}:
            os.close(fd)
        if isinstance(error, OSError) and error.errno == errno.EMSGSIZE:
            raise CannotExecute(126, f"{argv[0]}: argument list too long") from error
        if isinstance(error, OSError):
            raise NotRunning(str(error)) from error
        raise
    finally:
        for fd in set(theirs):
            os.close(fd)

    async def end() -> None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)

    code = _exit_code(connection)
    if tty:
        return FdStreams(ours[0] if stdin else -1, {ours[0]: 1}, code, end, terminal=ours[0])
    return FdStreams(ours[0], {ours[1]: 1, ours[2]: 2}, code, end)


def _connect(run_dir: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.setblocking(False)
    try:
        directory = os.open(run_dir, os.O_PATH | os.O_DIRECTORY)
        try:
            connection.connect(f"/proc/self/fd/{directory}/{sessions.NAME}")  # its own path may be too long
        finally:
            os.close(directory)
    except OSError:
        connection.close()
        raise NotRunning("container not running") from None
    return connection


def _pipes(tty: bool, stdin: bool) -> tuple[list[int], list[int]]:
    """Our ends and theirs of standard input, output and error."""
    if tty:
        master, slave = os.openpty()
        return [master], [slave, slave, slave]
    ours, theirs = [-1], [os.open(os.devnull, os.O_RDONLY)]
    if stdin:
        os.close(theirs[0])
        theirs[0], ours[0] = os.pipe()
    for _ in range(2):
        read, write = os.pipe()
        ours.append(read)
        theirs.append(write)
    return ours, theirs


async def _first_answer(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """An answer that may have a descriptor beside it."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(connection.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection.fileno())
    data, fds, _, _ = socket.recv_fds(connection, _PACKET, 1, socket.MSG_CMSG_CLOEXEC)
    if not data:
        raise NotRunning("container not running")
    return orjson.loads(data), list(fds)


async def _answer(connection: socket.socket) -> dict[str, Any]:
    data = await asyncio.get_running_loop().sock_recv(connection, _PACKET)
    if not data:
        raise NotRunning("container not running")
    value: dict[str, Any] = orjson.loads(data)
    return value


async def _exit_code(connection: socket.socket) -> int:
    try:
        return int((await _answer(connection))["exit"])
    except (OSError, NotRunning):
        return 137  # it was killed with its container, or because we left
    finally:
        connection.close()


async def attach(run_dir: Path, *, stdin: bool) -> AttachedStreams:
    """Talk to the container's own process.

    :raises NotRunning: nobody listens there.
    """
    connection = _connect(run_dir)
    try:
        connection.send(orjson.dumps({"do": "attach", "stdin": stdin}))
        answer = await _answer(connection)
    except BaseException as error:
        connection.close()
        if isinstance(error, OSError):
            raise NotRunning(str(error)) from error
        raise
    return AttachedStreams(connection, bool(answer["tty"]))


class AttachedStreams:
    """One of those who are attached; ``wait`` tells that the container has ended, not how (its status does)."""

    def __init__(self, connection: socket.socket, tty: bool) -> None:
        self._connection = connection
        self.tty = tty
        self._over = asyncio.Event()

    async def _send(self, packet: bytes) -> None:
        try:
            await asyncio.get_running_loop().sock_sendall(self._connection, packet)
        except OSError as error:
            raise Closed(str(error)) from None

    async def write(self, data: bytes) -> None:
        """To the container's standard input.

        :raises Closed: it has ended.
        """
        for start in range(0, len(data), _PIECE):
            await self._send(b"\0" + data[start : start + _PIECE])

    async def close_input(self) -> None:
        """This client gives no more; with ``stdinOnce`` it is the end of the container's input."""
        with contextlib.suppress(Closed):
            await self._send(b"\4")

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """``(stream, bytes)`` from now on, until the container ends."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                packet = await loop.sock_recv(self._connection, _PACKET)
            except OSError:
                packet = b""
            if not packet:
                self._over.set()
                return
            yield packet[0], packet[1:]

    async def resize(self, columns: int, rows: int) -> None:
        """The size of the container's terminal."""
        with contextlib.suppress(Closed):
            await self._send(b"\5" + (columns & 0xFFFF).to_bytes(2, "big") + (rows & 0xFFFF).to_bytes(2, "big"))

    async def wait(self) -> int:
        """0 when the connection is over."""
        await self._over.wait()
        return 0

    async def close(self) -> None:
        """Leave the container to itself."""
        self._over.set()
        self._connection.close()

"""Connecting to a port of a pod from its node, as from within the pod: what listens on its loopback is reached, too."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import threading

from glebe.node.contracts import PodNetwork

_CLONE_NEWNET = 0x40000000
_SECONDS = 10.0
_WINDOW = 256 * 1024


async def connect(
    place: PodNetwork, port: int, *, of_machine: bool = False
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """
    In a network namespace of its own the pod's loopback is tried, as upstream does; without one only the pod's
    address, since the loopback belongs to everybody. ``of_machine``: the pod shares the machine's network.

    :raises OSError: nothing takes the connection.
    """
    loop = asyncio.get_running_loop()
    if of_machine:
        targets = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
    elif place.namespace:
        targets = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET, place.address)]
    else:
        targets = [(socket.AF_INET6 if ":" in place.address else socket.AF_INET, place.address)]
    problem: OSError = ConnectionRefusedError("the pod has no address")
    for family, address in targets:
        if not address:
            continue
        try:
            sock = await _socket(family, place.namespace if not of_machine else "")
        except OSError as error:
            problem = error
            continue
        try:
            async with asyncio.timeout(_SECONDS):
                await loop.sock_connect(sock, (address, port))
                return await asyncio.open_connection(sock=sock, limit=_WINDOW)
        except (OSError, TimeoutError) as error:
            sock.close()
            problem = error if isinstance(error, OSError) else TimeoutError("connection timed out")
    raise problem


async def _socket(family: socket.AddressFamily, namespace: str) -> socket.socket:
    """
    :raises OSError: the namespace cannot be entered.
    """
    if not namespace:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        return sock
    loop = asyncio.get_running_loop()
    made: asyncio.Future[socket.socket] = loop.create_future()

    def settle(sock: socket.socket | None, error: OSError | None) -> None:
        if made.cancelled():
            if sock is not None:
                sock.close()
        elif sock is not None:
            made.set_result(sock)
        else:
            made.set_exception(error or OSError("no socket"))

    def make() -> None:
        # A thread of its own: entering a namespace changes the whole thread, and this one ends here.
        try:
            sock = _socket_in(family, namespace)
        except OSError as error:
            loop.call_soon_threadsafe(settle, None, error)
        else:
            loop.call_soon_threadsafe(settle, sock, None)

    threading.Thread(target=make, name="port-forward", daemon=True).start()
    return await made


def _socket_in(family: socket.AddressFamily, namespace: str) -> socket.socket:
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(fd, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(fd)
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    return sock

"""Ranks that find each other by MASTER_ADDR and sum arrays around a ring of TCP connections.

Ring all-reduce: every rank holds an array, cut into as many chunks as there are ranks. In ``n - 1`` steps each rank
passes one chunk to its right neighbour and adds the one that comes from the left; then every chunk is whole on one
rank, and ``n - 1`` more steps hand the whole chunks round. Each rank sends ``2 (n - 1) / n`` of the array, however many
ranks there are; and since every chunk is added up once, in one order, the result is the same bits on all ranks.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import time
from collections.abc import Mapping

import numpy as np

RENDEZVOUS_SECONDS = 120.0
STEP_SECONDS = 60.0


class Ring:
    """``n`` ranks, each with a connection to its right and one from its left neighbour."""

    def __init__(self, rank: int, size: int, right: socket.socket | None, left: socket.socket | None) -> None:
        self.rank = rank
        self.size = size
        self._right = right
        self._left = left

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> Ring:
        """Meet the others as MASTER_ADDR, MASTER_PORT, WORLD_SIZE and RANK say."""
        rank, size = int(env.get("RANK", "0")), int(env.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls(0, 1, None, None)
        master = (env["MASTER_ADDR"], int(env["MASTER_PORT"]))
        # a pod on Glebe's process node has a loopback address of its own; elsewhere the route to the master tells
        mine = env.get("POD_IP") or env.get("GLEBE_POD_IP") or _address_towards(master)
        deadline = time.monotonic() + RENDEZVOUS_SECONDS
        with socket.create_server((mine, 0)) as listener:
            listener.settimeout(RENDEZVOUS_SECONDS)
            addresses = _exchange(rank, size, master, mine, listener.getsockname()[:2], deadline)
            right = _connect(tuple(addresses[(rank + 1) % size]), deadline)
            left, _ = listener.accept()
        for connection in (right, left):
            connection.settimeout(STEP_SECONDS)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(rank, size, right, left)

    def all_reduce_mean(self, array: np.ndarray) -> np.ndarray:
        """The mean of all ranks' ``array`` (float64, any shape), bit for bit the same everywhere."""
        chunks = np.array_split(array.astype(np.float64).ravel(), self.size)
        for step in range(self.size - 1):  # reduce-scatter
            arrived = self._pass_on(chunks[(self.rank - step) % self.size].tobytes())
            chunks[(self.rank - step - 1) % self.size] += np.frombuffer(arrived)
        for step in range(self.size - 1):  # all-gather
            arrived = self._pass_on(chunks[(self.rank + 1 - step) % self.size].tobytes())
            chunks[(self.rank - step) % self.size] = np.frombuffer(arrived)
        return np.concatenate(chunks).reshape(array.shape) / self.size

    def all_gather(self, message: bytes) -> list[bytes]:
        """Every rank's ``message``, by rank."""
        messages = [b""] * self.size
        messages[self.rank] = message
        for step in range(self.size - 1):
            message = self._pass_on(message)
            messages[(self.rank - step - 1) % self.size] = message
        return messages

    def close(self) -> None:
        for connection in (self._right, self._left):
            if connection is not None:
                connection.close()

    def _pass_on(self, payload: bytes) -> bytes:
        """Send to the right while receiving from the left (either alone would dead-lock on full buffers)."""
        assert self._right is not None
        assert self._left is not None
        outgoing = memoryview(struct.pack("!Q", len(payload)) + payload)
        incoming = bytearray()
        wanted: int | None = None
        while outgoing or wanted is None or len(incoming) < wanted + 8:
            readable, writable, _ = select.select([self._left], [self._right] if outgoing else [], [], STEP_SECONDS)
            if not readable and not writable:
                raise TimeoutError(f"rank {self.rank}: the neighbours are silent for {STEP_SECONDS:.0f} s")
            if writable:
                outgoing = outgoing[self._right.send(outgoing[: 1 << 16]) :]
            if readable:
                data = self._left.recv(
                    min(1 << 16, 8 - len(incoming) if wanted is None else wanted + 8 - len(incoming))
                )
                if not data:
                    raise ConnectionError(f"rank {self.rank}: the left neighbour has gone")
                incoming += data
                if wanted is None and len(incoming) == 8:
                    wanted = struct.unpack("!Q", incoming)[0]
        return bytes(incoming[8:])


def _exchange(
    rank: int,
    size: int,
    master: tuple[str, int],
    mine: str,
    listening_at: tuple[str, int],
    deadline: float,
) -> list[tuple[str, int]]:
    """Rank 0 collects where everybody listens and tells everybody."""
    if rank == 0:
        found: dict[int, tuple[str, int]] = {0: listening_at}
        connections = []
        with socket.create_server((mine, master[1]), backlog=size) as server:
            server.settimeout(max(1.0, deadline - time.monotonic()))
            while len(found) < size:
                connection, _ = server.accept()
                hello = json.loads(_read_line(connection))
                found[int(hello["rank"])] = (hello["host"], int(hello["port"]))
                connections.append(connection)
            answer = json.dumps([found[i] for i in range(size)]).encode() + b"\n"
            for connection in connections:
                connection.sendall(answer)
                connection.close()
        return [found[i] for i in range(size)]
    with _connect(master, deadline) as connection:
        hello = {"rank": rank, "host": listening_at[0], "port": listening_at[1]}
        connection.sendall(json.dumps(hello).encode() + b"\n")
        connection.settimeout(max(1.0, deadline - time.monotonic()))
        return [(host, int(port)) for host, port in json.loads(_read_line(connection))]


def _connect(address: tuple[str, int], deadline: float) -> socket.socket:
    """Connect, trying again while the other side is still starting."""
    while True:
        try:
            return socket.create_connection(address, timeout=5.0)
        except OSError as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"nobody answers at {address[0]}:{address[1]}: {error}") from error
            time.sleep(0.1)


def _read_line(connection: socket.socket) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = connection.recv(4096)
        if not byte:
            raise ConnectionError("the connection closed during the rendezvous")
        line += byte
    return bytes(line)


def _address_towards(master: tuple[str, int]) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(master)  # sends nothing: it only picks the route
        return str(probe.getsockname()[0])

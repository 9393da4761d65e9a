"""What ``apiserver.py`` asks of one server: each method is one measurement, and gives its rows' values by label."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable

from rawhttp import Address, Connection, crowd
from servers import Server

SPACE = "/api/v1/namespaces/default"
_CHUNK_HEAD = re.compile(rb"\r\n[0-9a-f]+\r\n")
_SEQUENCE = re.compile(rb'"seq":"(\d+)"')
Measured = dict[str, float]
"""Values by the label of their row."""


def config_map(name: str, value: str) -> bytes:
    """A ConfigMap of 1 KiB."""
    text = {"payload": "x" * 900, "seq": value}
    meta = {"name": name, "namespace": "default"}
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": text}
    return json.dumps(obj, separators=(",", ":")).encode()


def pod(name: str) -> bytes:
    """A pod that nobody schedules, with the size of an ordinary one."""
    container = {
        "name": "main",
        "image": "registry.example/app:1.0",
        "command": ["serve", "--port=8080"],
        "env": [{"name": f"SETTING_{i}", "value": f"value-{i}"} for i in range(6)],
        "ports": [{"containerPort": 8080, "name": "http"}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}},
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
    }
    spec = {
        "schedulerName": "nobody",
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [{"name": "scratch", "emptyDir": {}}],
    }
    meta = {"name": name, "labels": {"app": "load", "tier": "backend"}, "annotations": {"note": "made by a benchmark"}}
    return json.dumps(
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}, separators=(",", ":")
    ).encode()


def percentile(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


class Load:
    """What is asked of one server."""

    def __init__(self, server: Server, seconds: float, pods: int) -> None:
        self.server = server
        self.address: Address = server.address
        self.seconds = seconds
        self.pods = pods
        self._round = 0

    async def create(self, label: str, clients: int) -> Measured:
        self._round += 1
        stem = f"c{self._round}"

        def request(client: int, turn: int) -> bytes:
            return self.address.request("POST", f"{SPACE}/configmaps", config_map(f"{stem}-{client}-{turn}", "0"))

        return await self._crowd(label, clients, request, 201)

    async def put(self, label: str, clients: int) -> Measured:
        self._round += 1
        await self._objects(clients, 8)
        stamp = self._round

        def request(client: int, turn: int) -> bytes:
            name = f"held-{client}-{turn % 8}"
            body = config_map(name, f"{stamp}{turn:06}")
            return self.address.request("PUT", f"{SPACE}/configmaps/{name}", body)

        return await self._crowd(label, clients, request, 200)

    async def get(self, label: str, clients: int) -> Measured:
        await self._objects(clients, 8)
        asked = [
            [self.address.request("GET", f"{SPACE}/configmaps/held-{c}-{n}") for n in range(8)] for c in range(clients)
        ]
        return await self._crowd(label, clients, lambda client, turn: asked[client][turn % 8], 200)

    async def _crowd(self, label: str, clients: int, request: Callable[[int, int], bytes], status: int) -> Measured:
        began = time.perf_counter()
        latencies = await crowd(self.address, clients, self.seconds, request, status)
        return _rates(label, latencies, time.perf_counter() - began)

    async def _objects(self, clients: int, each: int) -> None:
        connection = await Connection.open(self.address)
        for client in range(clients):
            for number in range(each):
                name = f"held-{client}-{number}"
                body = config_map(name, "0")
                status, answer = await connection.ask(self.address.request("POST", f"{SPACE}/configmaps", body))
                if status not in (201, 409):
                    raise RuntimeError(f"{status} {answer!r}")
        connection.close()

    async def create_pods(self, label: str) -> Measured:
        """All pods, once."""
        if self._round >= 1000:
            return {}
        self._round += 1000
        connections = await asyncio.gather(*(Connection.open(self.address) for _ in range(32)))
        numbers = iter(range(self.pods))
        latencies: list[float] = []

        async def one(connection: Connection) -> None:
            for number in numbers:
                began = time.perf_counter()
                request = self.address.request("POST", f"{SPACE}/pods", pod(f"pod-{number:05}"))
                await connection.expect(request, 201)
                latencies.append(time.perf_counter() - began)

        began = time.perf_counter()
        await asyncio.gather(*(one(c) for c in connections))
        taken = time.perf_counter() - began
        for connection in connections:
            connection.close()
        return _rates(label, latencies, taken)

    async def list_pods(self, label: str, page: int, times: int = 3) -> Measured:
        """The quickest of a few lists, and how much it brings."""
        connection = await Connection.open(self.address)
        lists = [await self._list(connection, page) for _ in range(times)]
        connection.close()
        taken, size = min(lists)
        return {label: 1000 * taken, f"{label} size": size / 2**20}

    async def _list(self, connection: Connection, page: int) -> tuple[float, int]:
        """(seconds, bytes)."""
        began = time.perf_counter()
        token, size = "", 0
        while True:
            query = f"?limit={page}" + (f"&continue={token}" if token else "") if page else ""
            body = await connection.expect(self.address.request("GET", f"{SPACE}/pods{query}"), 200)
            size += len(body)
            found = re.search(rb'"continue":"([^"]+)"', body[:1000]) if page else None
            if found is None:
                return time.perf_counter() - began, size
            token = found.group(1).decode()

    async def watch(self, label: str, watchers: int = 50, rate: int = 200) -> Measured:
        """Watchers of one namespace's ConfigMaps while a writer replaces them at ``rate`` per second."""
        self._round += 1
        await self._objects(1, 8)
        sent: dict[bytes, float] = {}
        delays: list[float] = []

        def watcher() -> Callable[[bytes], None]:
            rest = b""

            def seen(data: bytes) -> None:
                nonlocal rest
                now = time.perf_counter()
                data = rest + data
                end = data.rfind(b"}\n") + 2
                if end < 2:
                    rest = data
                    return
                rest = data[end:]
                for number in _SEQUENCE.findall(_CHUNK_HEAD.sub(b"", data[:end])):  # a chunk may begin in a value
                    began = sent.get(number)
                    if began is not None:
                        delays.append(now - began)

            return seen

        connections = await asyncio.gather(*(Connection.open(self.address) for _ in range(watchers)))
        listed = await connections[0].expect(self.address.request("GET", f"{SPACE}/configmaps?limit=1"), 200)
        version = re.search(rb'"resourceVersion":"(\d+)"', listed)
        assert version is not None
        opened = [asyncio.Event() for _ in connections]
        path = f"{SPACE}/configmaps?watch=1&resourceVersion={version.group(1).decode()}"
        for connection, event in zip(connections, opened, strict=True):
            connection.on_data = lambda data, event=event: event.set()
            assert connection._transport is not None
            connection._transport.write(self.address.request("GET", path))
        async with asyncio.timeout(10):
            await asyncio.gather(*(event.wait() for event in opened))
        for connection in connections:
            connection.on_data = watcher()
        total = await self._write_steadily(rate, sent)
        end = time.perf_counter() + 5
        while len(delays) < total * watchers and time.perf_counter() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        for connection in connections:
            connection.close()
        if len(delays) < total * watchers:
            raise RuntimeError(f"{self.server.name}: {total * watchers - len(delays)} events were not delivered")
        return {f"{label}, p50": 1000 * percentile(delays, 0.5), f"{label}, p99": 1000 * percentile(delays, 0.99)}

    async def _write_steadily(self, rate: int, sent: dict[bytes, float]) -> int:
        """Writes on a schedule, each on a free connection; how many."""
        free: asyncio.Queue[Connection] = asyncio.Queue()
        for _ in range(8):
            free.put_nowait(await Connection.open(self.address))
        tasks = []

        async def write(number: int, connection: Connection) -> None:
            name = f"held-0-{number % 8}"
            text = f"{self._round}{number:06}"
            request = self.address.request("PUT", f"{SPACE}/configmaps/{name}", config_map(name, text))
            sent[text.encode()] = time.perf_counter()
            await connection.expect(request, 200)
            free.put_nowait(connection)

        total = int(rate * max(2.0, self.seconds))
        began = time.perf_counter()
        for number in range(total):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            tasks.append(asyncio.create_task(write(number, await free.get())))
        await asyncio.gather(*tasks)
        while not free.empty():
            free.get_nowait().close()
        return total


def _rates(label: str, latencies: list[float], taken: float) -> Measured:
    return {
        label: len(latencies) / taken,
        f"{label}, p50": 1000 * percentile(latencies, 0.5),
        f"{label}, p99": 1000 * percentile(latencies, 0.99),
    }

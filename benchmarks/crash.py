"""Kills an API server with SIGKILL under write load, again and again, and checks what it promised.

    python -m benchmarks.crash --store sqlite --kills 200
    python -m benchmarks.crash --store etcd --kills 200     # two replicas; every third time etcd dies, too

After each kill the server starts again on the same data, and

- every acknowledged write is there, or a later one of the same writer that was on its way;
- no object is half of one write and half of another (each carries its content twice, with a checksum);
- what watchers saw is strictly in order, each acknowledged revision up to the last seen exactly once.

With etcd a second replica lives on: its watch must bring every acknowledged revision of the whole run exactly once.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import orjson

WRITERS, NAMES = 8, 6
_BASE = "/api/v1/namespaces/default/configmaps"
_GONE = (aiohttp.ClientError, OSError, TimeoutError, asyncio.IncompleteReadError)


class Broken(AssertionError):
    """A promise was not kept."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(slots=True)
class Write:
    """What a writer knows of one name. ``content`` "" means that it was deleted."""

    revision: int = 0
    content: str = ""
    under_way: set[str] = field(default_factory=set)
    """What may have been written since, without an answer."""


class Server:
    """One ``glebe apiserver``."""

    def __init__(self, folder: Path, name: str, pki: Path, storage: list[str]) -> None:
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self._pki = pki
        self._command = [sys.executable, "-m", "glebe.cli.main", "apiserver", "--quiet", "--no-controllers"]
        self._command += ["--data-dir", str(folder / name), "--pki-dir", str(pki)]
        self._command += ["--listen", f"127.0.0.1:{self.port}", *storage]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(self._command)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def session(self) -> aiohttp.ClientSession:
        context = ssl.create_default_context(cafile=str(self._pki / "ca.crt"))
        context.load_cert_chain(self._pki / "admin.crt", self._pki / "admin.key")
        connector = aiohttp.TCPConnector(ssl=context, limit=0)
        return aiohttp.ClientSession(self.url, connector=connector, timeout=aiohttp.ClientTimeout(total=20))

    async def ready(self) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if self.process is not None and self.process.poll() is not None:
                raise Broken(f"the server did not start again: exit code {self.process.returncode}")
            with suppress(*_GONE, FileNotFoundError):
                async with self.session() as session, session.get("/readyz") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.05)
        raise Broken("the server is not ready after a minute")


class Etcd:
    """One etcd with fsync, as in production."""

    def __init__(self, program: str, folder: Path) -> None:
        client, peer = free_port(), free_port()
        self.url, peer_url = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
        self._command = [program, "--data-dir", str(folder / "etcd"), "--log-level", "error"]
        self._command += ["--listen-client-urls", self.url, "--advertise-client-urls", self.url]
        self._command += ["--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url]
        self._command += ["--initial-cluster", f"default={peer_url}"]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    async def ready(self) -> None:
        async with aiohttp.ClientSession() as session:
            for _ in range(600):
                with suppress(*_GONE):
                    async with session.get(self.url + "/health") as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(0.05)
        raise Broken("etcd is not ready after half a minute")

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def content_of(worker: int, count: int, rng: random.Random) -> str:
    text = f"{worker}-{count}-" + "x" * rng.randrange(10, 3000)
    return text + "#" + hashlib.sha256(text.encode()).hexdigest()[:16]


def checked(obj: dict[str, Any]) -> str:
    """The content of an object, which must be whole."""
    data = obj["data"]
    text, _, digest = data["one"].rpartition("#")
    if data["one"] != data["two"] or hashlib.sha256(text.encode()).hexdigest()[:16] != digest:
        raise Broken(f"half a write is visible: {obj}")
    return str(data["one"])


class Load:
    """Writers and a watcher against one server, until it dies."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.known: dict[str, Write] = {}
        self.acknowledged: list[int] = []
        """Revisions, of the whole run."""
        self._count = 0

    async def write(self, session: aiohttp.ClientSession, worker: int) -> None:
        with suppress(*_GONE):
            while True:
                name = f"w{worker}-{self._rng.randrange(NAMES)}"
                state = self.known.setdefault(name, Write())
                self._count += 1
                if state.content and not state.under_way and self._rng.random() < 0.15:
                    await self._send(session, "DELETE", name, state, "")
                    continue
                content = content_of(worker, self._count, self._rng)
                exists = bool(state.content)
                await self._send(session, "PUT" if exists else "POST", name, state, content)

    async def _send(self, session: aiohttp.ClientSession, method: str, name: str, state: Write, content: str) -> None:
        body: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
        body["data"] = {"one": content, "two": content}
        path = _BASE if method == "POST" else f"{_BASE}/{name}"
        state.under_way.add(content)
        data = None if method == "DELETE" else orjson.dumps(body)
        async with session.request(method, path, data=data, headers={"content-type": "application/json"}) as answer:
            got = orjson.loads(await answer.read())
        if answer.status >= 500:  # not known whether it was done; the state is looked at before the next write
            await self._look(session, name, state)
            return
        if answer.status >= 300:
            raise Broken(f"{method} {name}: {got}")
        if method != "DELETE":
            state.revision = int(got["metadata"]["resourceVersion"])
            self.acknowledged.append(state.revision)
        else:
            state.revision = int(got["metadata"].get("resourceVersion", 0)) or state.revision
        state.content = content
        state.under_way.clear()

    async def _look(self, session: aiohttp.ClientSession, name: str, state: Write) -> None:
        async with session.get(f"{_BASE}/{name}") as answer:
            got = orjson.loads(await answer.read())
        if answer.status in (200, 404):
            self.check(name, state, got if answer.status == 200 else None)

    def check(self, name: str, state: Write, obj: dict[str, Any] | None) -> None:
        """What is there now against what was promised; from then on it is what is known."""
        if obj is None:
            if state.content and "" not in state.under_way:
                raise Broken(f"{name} is lost: revision {state.revision} was acknowledged")
            state.content = ""
        else:
            revision, content = int(obj["metadata"]["resourceVersion"]), checked(obj)
            if content != state.content and content not in state.under_way:
                raise Broken(f"{name}: acknowledged {state.content[:20]!r} at {state.revision}, found {content[:20]!r}")
            if revision < state.revision and state.content:
                raise Broken(f"{name}: acknowledged revision {state.revision}, found {revision}")
            state.revision, state.content = revision, content
        state.under_way.clear()

    async def check_all(self, session: aiohttp.ClientSession) -> int:
        async with session.get(_BASE) as answer:
            got = orjson.loads(await answer.read())
        if answer.status != 200:
            raise Broken(f"the list failed: {got}")
        found = {o["metadata"]["name"]: o for o in got["items"] if o["metadata"]["name"].startswith("w")}
        for name in sorted({*found, *self.known}):
            self.check(name, self.known.setdefault(name, Write()), found.get(name))
        return int(got["metadata"]["resourceVersion"])


async def watch(session: aiohttp.ClientSession, start: int, seen: list[int], *, for_ever: bool = False) -> None:
    """Follow all changes from ``start``; appends their revisions; ends with the server (or with the caller)."""
    at = start
    while True:
        with suppress(*_GONE):
            params = {"watch": "true", "resourceVersion": str(at), "allowWatchBookmarks": "true"}
            timeout = aiohttp.ClientTimeout(total=None)
            async with session.get(_BASE, params=params, timeout=timeout) as answer:
                if answer.status != 200 and not for_ever:
                    return
                rest = b""
                async for chunk in answer.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        event = orjson.loads(line)
                        if event["type"] == "ERROR":
                            raise Broken(f"the watch from {at} failed: {event['object']}")
                        at = int(event["object"]["metadata"]["resourceVersion"])
                        if event["type"] == "BOOKMARK":
                            continue
                        if event["type"] != "DELETED":
                            checked(event["object"]) if "one" in event["object"].get("data", {}) else None
                        seen.append(at)
        if not for_ever:
            return
        await asyncio.sleep(0.02)


def check_history(seen: list[int], acknowledged: list[int], upto: int, start: int) -> None:
    """Strictly in order, and nothing acknowledged is missing up to the last seen."""
    if any(a >= b for a, b in pairwise(seen)):
        raise Broken("a watcher saw a revision twice or out of order")
    have = set(seen)
    missing = [r for r in acknowledged if start < r <= upto and r not in have]
    if missing:
        raise Broken(f"a watcher missed acknowledged revisions {missing[:5]}")


async def run(store: str, kills: int, seed: int, program: str, say: bool) -> dict[str, Any]:
    """The whole run; raises :class:`Broken` at the first broken promise."""
    rng = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="glebe-crash-"))
    etcd = Etcd(program, folder) if store == "etcd" else None
    storage = ["--etcd-servers", etcd.url] if etcd else []
    if etcd:
        etcd.start()
        await etcd.ready()
    server = Server(folder, "a", folder / "pki", storage)
    other = Server(folder, "b", folder / "pki", storage) if etcd else None
    load, whole = Load(rng), list[int]()
    began, follower = time.monotonic(), None
    session_b: aiohttp.ClientSession | None = None
    try:
        server.start()
        await server.ready()
        if other is not None:
            other.start()
            await other.ready()
            session_b = other.session()
            async with server.session() as session:
                first = await load.check_all(session)
            follower = asyncio.create_task(watch(session_b, first, whole, for_ever=True))
        for number in range(kills):
            async with server.session() as session:
                start = await load.check_all(session)
                seen: list[int] = []
                tasks = [asyncio.create_task(watch(session, start, seen))]
                tasks += [asyncio.create_task(load.write(session, worker)) for worker in range(WRITERS)]
                await asyncio.sleep(rng.uniform(0.05, 0.8))
                server.kill()
                if etcd and number % 3 == 2:
                    etcd.kill()
                    etcd.start()
                for done in await asyncio.gather(*tasks, return_exceptions=True):
                    if isinstance(done, BaseException):
                        raise done
            check_history(seen, load.acknowledged, seen[-1] if seen else 0, start)
            if etcd:
                await etcd.ready()
            server.start()
            await server.ready()
            if say and number % 10 == 9:
                print(f"{number + 1} kills, {len(load.acknowledged)} acknowledged writes", flush=True)
        async with server.session() as session:
            last = await load.check_all(session)
        if follower is not None:
            end = time.monotonic() + 20
            newest = max(load.acknowledged)
            while time.monotonic() < end and (not whole or whole[-1] < newest) and not follower.done():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            if follower.done():
                follower.result()
            check_history(whole, load.acknowledged, last, first)
    finally:
        if follower is not None:
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)
        if session_b is not None:
            await session_b.close()
        for one in (server, other, etcd):
            if one is not None and one.process is not None and one.process.poll() is None:
                one.kill()
    return {
        "store": store,
        "kills": kills,
        "seed": seed,
        "acknowledged": len(load.acknowledged),
        "seen by the surviving replica": len(whole),
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=("sqlite", "etcd"), default="sqlite")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--etcd", default=os.environ.get("KUBEBUILDER_ASSETS", "") + "/etcd", help="the program")
    args = parser.parse_args()
    result = asyncio.run(run(args.store, args.kills, args.seed, args.etcd, True))
    print(orjson.dumps(result).decode())


if __name__ == "__main__":
    main()

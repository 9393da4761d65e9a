"""Random writes, watches from anywhere in their history: each sees exactly the writes, in order, and nothing else."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import orjson
import pytest
from fuzz_world import CONFIG_MAPS, MERGE, World, few, tell
from hypothesis import given
from hypothesis import strategies as st

from glebe.apiserver.store import SQLiteStore, Store

NAMES, LABELS = st.sampled_from("abcd"), st.sampled_from(("", "x", "y"))
WRITE = st.tuples(st.sampled_from(("put", "put", "patch", "delete", "lost")), NAMES, LABELS)
LOOK = st.tuples(st.just("watch"), st.integers(0, 99), LABELS)
STEPS = st.lists(st.one_of(WRITE, WRITE, WRITE, LOOK), min_size=1, max_size=20)
CONFIG = {"apiVersion": "v1", "kind": "ConfigMap"}


class Story:
    """What was acknowledged: (revision, type, name, label before, label after)."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.now: dict[str, str] = {}
        self.log: list[tuple[int, str, str | None, str | None]] = []
        self.count = 0

    async def write(self, how: str, name: str, label: str) -> None:
        world, path, self.count = self.world, f"{CONFIG_MAPS}/{name}", self.count + 1
        before = self.now.get(name)
        meta = {"name": name, "labels": {"l": label}}
        body: dict[str, Any] = {**CONFIG, "metadata": meta, "data": {"n": str(self.count)}}
        if how == "delete":
            status, done = await world.json("DELETE", path)
            assert status == (404 if before is None else 200)
            if before is not None:
                self.log.append((-1, name, before, self.now.pop(name)))
            return
        if how == "lost":  # a version that is not the present one
            body["metadata"] = {**meta, "resourceVersion": "1"}
            assert (await world.ask("PUT", path, body)).status == (404 if before is None else 409)
            return
        if before is None:
            status, done = await world.json("POST", CONFIG_MAPS, body)
            assert status == 201
        elif how == "patch":
            status, done = await world.json("PATCH", path, body, MERGE)
        else:
            status, done = await world.json("PUT", path, body)
        assert status in (200, 201)
        self.now[name] = label
        self.log.append((int(done["metadata"]["resourceVersion"]), name, before, label))

    def expected(self, since: int, wanted: str) -> list[tuple[str, str]]:
        """(type, name) that a watch with the selector ``l=wanted`` ("": all) sees of the log from ``since`` on."""
        seen = []
        for revision, name, before, after in self.log[since:]:
            was = before is not None and wanted in ("", before)
            present = revision >= 0 and wanted in ("", after)
            if was or present:
                seen.append(("DELETED" if not present else "MODIFIED" if was else "ADDED", name))
        return seen


async def collect(world: World, version: str, wanted: str) -> list[tuple[str, str, int]]:
    query: dict[str, Any] = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "1"}
    query |= {"fieldSelector": "metadata.name!=kube-root-ca.crt"} | ({"labelSelector": f"l={wanted}"} if wanted else {})
    answer = await world.ask("GET", CONFIG_MAPS, **query)
    assert answer.status == 200
    assert answer.stream is not None
    text = b"".join([chunk async for chunk in answer.stream])
    events = [orjson.loads(line) for line in text.splitlines()]
    for event in events:
        assert event["type"] in ("ADDED", "MODIFIED", "DELETED"), event
    return [
        (e["type"], e["object"]["metadata"]["name"], int(e["object"]["metadata"]["resourceVersion"])) for e in events
    ]


async def play(world: World, steps: list[tuple[str, Any, str]]) -> None:
    story = Story(world)
    _, listed = await world.json("GET", CONFIG_MAPS)
    versions = [listed["metadata"]["resourceVersion"]]  # after each entry of the log
    watches: list[tuple[int, str, asyncio.Task[Any]]] = []
    for how, what, label in steps:
        if how == "watch":
            since = what % len(versions)
            task = asyncio.create_task(collect(world, versions[since], label))
            watches.append((since, label, task))
            await asyncio.sleep(0)
            continue
        known = len(story.log)
        await story.write(how, what, label)
        if len(story.log) > known:
            _, listed = await world.json("GET", CONFIG_MAPS, limit="1")
            versions.append(listed["metadata"]["resourceVersion"])
    watches.append((0, "", asyncio.create_task(collect(world, versions[0], ""))))
    for since, label, task in watches:
        seen = await task
        assert [(kind, name) for kind, name, _ in seen] == story.expected(since, label)
        order = [version for _, _, version in seen]
        assert order == sorted(set(order))
    _, listed = await world.json("GET", CONFIG_MAPS, fieldSelector="metadata.name!=kube-root-ca.crt")
    assert {i["metadata"]["name"]: i["metadata"]["labels"]["l"] for i in listed["items"]} == story.now


@few(60)
@given(STEPS)
def test_watches_tell_what_was_written(steps: list[Any]) -> None:
    tell(lambda world: play(world, steps))


@pytest.mark.realtime
@few(2)
@given(STEPS)
def test_watches_of_a_database_tell_what_was_written(steps: list[Any]) -> None:
    async def run(store: Store) -> None:
        world = World(store)
        await world.server.start()
        try:
            await play(world, steps)
        finally:
            await world.server.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(SQLiteStore(Path(folder) / "glebe.db")))

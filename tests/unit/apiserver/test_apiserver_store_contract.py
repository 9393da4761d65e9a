"""What every store promises, whichever backend it has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from etcd_peer import shared_etcd

from glebe.apiserver.store import (
    Compacted,
    FutureRevision,
    GivenEntry,
    Key,
    MemoryStore,
    Mismatch,
    SQLiteStore,
    Store,
)
from glebe.apiserver.store.etcd import EtcdOptions, EtcdStore

pytestmark = [pytest.mark.realtime, pytest.mark.parametrize("backend", ["memory", "sqlite", "etcd"])]


def text(value: str):  # type: ignore[no-untyped-def]
    return lambda revision: f'"{value}@{revision}"'.encode()


def key(name: str, namespace: str = "ns", cluster: str = "root", resource: str = "pods") -> Key:
    return Key(resource, cluster, namespace, name)


@asynccontextmanager
async def opened(backend: str, tmp_path: Path, **options: int) -> AsyncIterator[Store]:
    store: Store
    if backend == "memory":
        store = MemoryStore(**options)
    elif backend == "sqlite":
        store = SQLiteStore(tmp_path / "db", **options)
    else:
        store = EtcdStore(EtcdOptions((shared_etcd().url,), prefix=f"/{tmp_path.name}/"), **options)
    await store.start()
    try:
        yield store
    finally:
        await store.close()


async def test_compare_and_set(backend: str, tmp_path: Path) -> None:
    async with opened(backend, tmp_path) as store:
        first = await store.put(key("a"), text("x"), 0)
        assert (first.revision, first.value) == (store.revision, f'"x@{first.revision}"'.encode())
        with pytest.raises(Mismatch) as caught:
            await store.put(key("a"), text("y"), 0)
        assert caught.value.current is first
        second = await store.put(key("a"), text("y"), first.revision)
        assert second.revision == first.revision + 1
        with pytest.raises(Mismatch):
            await store.put(key("a"), text("z"), first.revision)
        with pytest.raises(Mismatch):
            await store.put(key("b"), text("z"), 7)
        with pytest.raises(Mismatch):
            await store.delete(key("a"), text("y"), first.revision)
        with pytest.raises(Mismatch):
            await store.delete(key("b"), text("y"), None)
        await store.put(key("a"), text("w"), None)
        await store.delete(key("a"), text("w"), None)
        assert store.get(key("a")) is None


async def test_racing_writers_of_one_key_all_count(backend: str, tmp_path: Path) -> None:
    async with opened(backend, tmp_path) as store:
        await store.put(key("n"), lambda _: b"0", 0)

        async def increment() -> None:
            while True:
                entry = store.get(key("n"))
                assert entry is not None
                more = str(int(entry.value) + 1).encode()
                try:
                    await store.put(key("n"), lambda _, m=more: m, entry.revision)
                except Mismatch:
                    continue
                return

        await asyncio.gather(*(increment() for _ in range(20)))
        entry = store.get(key("n"))
        assert entry is not None
        assert entry.value == b"20"


async def test_ranges_are_ordered_paged_and_consistent(backend: str, tmp_path: Path) -> None:
    async with opened(backend, tmp_path) as store:
        for name in ("c", "a", "d", "b"):
            await store.put(key(name), text(name), 0)
        await store.put(key("a", "other"), text("o"), 0)
        await store.put(key("a", "ns", "tenant"), text("t"), 0)
        page = store.range("pods", "root", "ns", limit=2)
        assert [e.value[1:2] for e in page.entries] == [b"a", b"b"]
        assert (page.next_key, page.remaining) == (("ns", "b"), 2)
        await store.put(key("c"), text("changed"), None)
        await store.delete(key("d"), text("d"), None)
        await store.put(key("bb"), text("new"), 0)
        rest = store.range("pods", "root", "ns", after=page.next_key, limit=2, revision=page.revision)
        assert [e.value[1:2] for e in rest.entries] == [b"c", b"d"]
        assert rest.next_key is None
        assert [e.value[1:2] for e in store.range("pods", "root").entries] == [b"a", b"b", b"n", b"c", b"o"]
        with pytest.raises(FutureRevision):
            store.range("pods", "root", revision=store.revision + 1)
        store.compact(store.revision)
        with pytest.raises(Compacted):
            store.range("pods", "root", revision=page.revision)


async def test_watches_resume_filter_and_end(backend: str, tmp_path: Path) -> None:
    async with opened(backend, tmp_path) as store:
        await store.put(key("a"), text("1"), 0)
        start = store.revision
        await store.put(key("a"), text("2"), None)
        every = store.watch("pods", "root", revision=start)
        other = store.watch("pods", "root", "other", revision=start)
        named = store.watch("pods", "root", "ns", "b", revision=start)
        await store.put(key("b"), text("3"), 0)
        await store.put(key("c", "other"), text("4"), 0)
        await store.delete(key("a"), text("5"), None)
        await store.put(key("x", "ns", "tenant"), text("6"), 0)
        seen = [(e.type, e.name, e.revision - start) for e in every.queue]
        assert seen == [("MODIFIED", "a", 1), ("ADDED", "b", 2), ("ADDED", "c", 3), ("DELETED", "a", 4)]
        assert [e.name for e in other.queue] == ["c"]
        assert [e.name for e in named.queue] == ["b"]
        every.close()
        await store.put(key("d"), text("7"), 0)
        assert not every.queue
        await store.drop("root")
        assert other.ended == "dropped"
        assert store.range("pods", "root").entries == []
        assert len(store.range("pods", "tenant").entries) == 1


async def test_a_waiting_watcher_wakes_for_an_event_and_at_its_deadline(backend: str, tmp_path: Path) -> None:
    async with opened(backend, tmp_path) as store:
        loop = asyncio.get_running_loop()
        watcher = store.watch("pods", "root", revision=store.revision)
        waiting = asyncio.create_task(watcher.wait(loop.time() + 30))
        await asyncio.sleep(0)
        await store.put(key("a"), text("1"), 0)
        await asyncio.wait_for(waiting, 5)
        watcher.queue.clear()
        await asyncio.wait_for(watcher.wait(loop.time() + 0.01), 5)
        assert not watcher.queue


async def test_history_is_bounded(backend: str, tmp_path: Path) -> None:
    async with opened(backend, tmp_path, max_events=3) as store:
        await store.put(key("a"), text("0"), 0)
        first = store.revision
        for i in range(3):
            await store.put(key("a"), text(str(i)), None)
        assert len(store.watch("pods", "root", revision=first).queue) == 3
        await store.put(key("a"), text("x"), None)
        with pytest.raises(Compacted):
            store.watch("pods", "root", revision=first)


async def test_dropped_clusters_have_no_history(backend: str, tmp_path: Path) -> None:
    async with opened(backend, tmp_path) as store:
        await store.put(key("a", cluster="t"), text("0"), 0)
        before = store.revision
        await store.drop("t")
        await store.put(key("b", cluster="t"), text("1"), 0)
        with pytest.raises(Compacted):
            store.watch("pods", "t", revision=before - 1)
        assert store.resources("t") == ["pods"]


async def test_wildcards_see_all_clusters_in_order(backend: str, tmp_path: Path) -> None:
    async with opened(backend, tmp_path) as store:
        start = store.revision
        watcher = store.watch("pods", "*", revision=start)
        named = store.watch("pods", "*", "ns", "a", revision=start)
        followed: list[tuple[str, str]] = []
        follower = store.follow("pods", lambda event: followed.append((event.cluster, event.name)))
        for cluster, name in (("t2", "a"), ("t1", "b"), ("t1", "a"), ("t3", "z")):
            await store.put(key(name, cluster=cluster), text(f"{cluster}{name}"), 0)
        await store.put(key("other", cluster="t1", resource="nodes"), text("x"), 0)
        page = store.range("pods", "*")
        assert page.clusters == ["t1", "t1", "t2", "t3"]
        assert [e.value[1:4] for e in page.entries] == [b"t1a", b"t1b", b"t2a", b"t3z"]
        await store.delete(key("b", cluster="t1"), text("gone"), None)
        seen = [(e.type, e.cluster, e.name) for e in watcher.queue]
        adds = [("ADDED", "t2", "a"), ("ADDED", "t1", "b"), ("ADDED", "t1", "a"), ("ADDED", "t3", "z")]
        assert seen == [*adds, ("DELETED", "t1", "b")]
        assert [e.cluster for e in named.queue] == ["t2", "t1"]
        assert followed == [(c, n) for _, c, n in seen]
        resumed = store.watch("pods", "*", revision=watcher.queue[1].revision)
        assert [(e.cluster, e.name) for e in resumed.queue] == [("t1", "a"), ("t3", "z"), ("t1", "b")]
        follower.close()
        await store.put(key("c", cluster="t1"), text("new"), 0)
        assert len(followed) == 5


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
async def test_wildcard_pages_are_consistent(backend: str, tmp_path: Path, limit: int) -> None:
    async with opened(backend, tmp_path) as store:
        for cluster in ("a", "b", "c", "d"):
            for name in ("x", "y"):
                await store.put(key(name, cluster=cluster), text(cluster + name), 0)
        await store.put(key("x", "other", cluster="b"), text("bo"), 0)
        wanted = [f"{c}{n}" for c in "abcd" for n in "xy"]
        found, after, revision = [], None, 0
        while True:
            page = store.range("pods", "*", "ns", after=after, limit=limit, revision=revision)
            found += [e.value.decode()[1:].partition("@")[0] for e in page.entries]
            assert page.remaining == len(wanted) - len(found)
            if page.next_key is None:
                break
            if not revision:  # what happens between two pages is not seen
                await store.put(key("new", cluster="c"), text("cn"), 0)
                await store.delete(key("y", cluster="d"), text("dy"), None)
                await store.put(key("x", cluster="later"), text("l"), 0)
            after, revision = page.next_key, page.revision
        assert found == wanted


async def test_wildcard_watchers_learn_that_a_cluster_went(backend: str, tmp_path: Path) -> None:
    async with opened(backend, tmp_path) as store:
        await store.put(key("a", cluster="t"), text("1"), 0)
        await store.put(key("a", cluster="u"), text("1"), 0)
        before = store.revision
        live = store.watch("pods", "*", "ns", revision=before)
        await store.drop("t")
        await store.put(key("b", cluster="t"), text("2"), 0)
        resumed = store.watch("pods", "*", revision=before)
        for watcher in (live, resumed):
            assert [(e.type, e.cluster, e.name) for e in watcher.queue] == [("DROPPED", "t", ""), ("ADDED", "t", "b")]
        assert store.range("pods", "*", revision=before).clusters == ["u"]
        assert store.usage("t") == (1, len(store.range("pods", "t").entries[0].value))
        assert store.usage("nobody") == (0, 0)


async def test_history_is_bounded_over_all_tables(backend: str, tmp_path: Path) -> None:
    async with opened(backend, tmp_path, total_events=10) as store:
        revisions = []
        for i in range(20):
            entry = await store.put(key("a", cluster=f"t{i % 4}"), text("x"), None)
            revisions.append(entry.revision)
        assert len(store.watch("pods", "*", revision=revisions[9]).queue) == 10
        assert len(store.watch("pods", "t1", revision=revisions[9]).queue) == 2
        with pytest.raises(Compacted):
            store.watch("pods", "*", revision=revisions[8])
        with pytest.raises(Compacted):
            store.watch("pods", "t1", revision=revisions[5])


async def test_an_emptied_table_does_not_forget_that_it_forgot(backend: str, tmp_path: Path) -> None:
    async with opened(backend, tmp_path, total_events=1) as store:
        start = store.revision
        await store.put(key("a"), text("x"), None)
        await store.delete(key("a"), text("x"), None)
        await store.put(key("a", resource="nodes"), text("x"), None)
        store.watch("pods", "root", revision=store.revision).close()
        with pytest.raises(Compacted):
            store.watch("pods", "root", revision=start)


class OneMap:
    """Every cluster but "none" has one config map from its beginning."""

    def table(self, resource: str, cluster: str) -> dict[tuple[str, str], GivenEntry]:
        if resource != "configmaps" or cluster == "none":
            return {}
        return {("ns", "ca"): GivenEntry(1, b'{"metadata":{"resourceVersion":"1"}}')}

    def entry(self, key: Key) -> GivenEntry | None:
        return self.table(key.resource, key.cluster).get((key.namespace, key.name))


async def test_given_objects_are_written_deleted_and_made_again(backend: str, tmp_path: Path) -> None:
    ca = Key("configmaps", "t", "ns", "ca")
    async with opened(backend, tmp_path) as store:
        await store.put(key("x"), text("x"), 0)
        store.give(OneMap())
        first = store.get(ca)
        assert isinstance(first, GivenEntry)
        with pytest.raises(Mismatch):
            await store.put(ca, text("new"), 0)
        changed = await store.put(ca, text("changed"), first.revision)
        assert store.get(ca) is changed
        await store.delete(ca, text("gone"), changed.revision)
        assert store.get(ca) is None
        with pytest.raises(Mismatch):
            await store.delete(ca, text("gone"), None)
        again = await store.put(ca, text("again"), 0)
        await store.delete(ca, text("gone"), again.revision)
        # straight away, without a row
        other = ca._replace(cluster="u")
        given = store.get(other)
        assert given is not None
        watcher = store.watch("configmaps", "u", revision=store.revision)
        await store.delete(other, text("gone"), given.revision)
        assert [(e.type, e.name) for e in watcher.queue] == [("DELETED", "ca")]
        assert store.snapshot("u").deleted == [other]
        await store.drop("u")
        assert isinstance(store.get(other), GivenEntry)
        revision = store.revision
    if backend == "memory":
        return
    async with opened(backend, tmp_path) as store:  # a whiteout outlives the process
        store.give(OneMap())
        assert store.revision >= revision
        assert store.get(ca) is None
        assert isinstance(store.get(other), GivenEntry)
        await store.put(ca, text("again"), 0)
        assert store.snapshot("t").deleted == []

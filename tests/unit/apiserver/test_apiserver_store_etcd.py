"""The etcd store: several replicas agree, and nothing that happens to etcd loses or repeats a change."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from etcd_peer import Etcd, free_port, shared_etcd

from glebe.apiserver.store import Compacted, Key, Mismatch, StoreUnavailable, Subscription, TooLarge
from glebe.apiserver.store.etcd import EtcdOptions, EtcdStore
from glebe.apiserver.store.etcd.gateway import Gateway, Json, b64
from glebe.apiserver.store.etcd.housekeeping import _turn
from glebe.apiserver.store.etcd.layout import Layout, pack, unpack

pytestmark = pytest.mark.realtime


def key(name: str, cluster: str = "root") -> Key:
    return Key("pods", cluster, "ns", name)


def text(value: str):  # type: ignore[no-untyped-def]
    return lambda revision: f'{{"resourceVersion":"{revision}","v":"{value}"}}'.encode()


@asynccontextmanager
async def replicas(count: int, url: str, prefix: str, **options: float) -> AsyncIterator[list[EtcdStore]]:
    async with AsyncExitStack() as stack:
        stores = []
        for _ in range(count):
            store = EtcdStore(EtcdOptions((url,), prefix=f"/{prefix}/", **{"compaction": 0, **options}))  # type: ignore[arg-type]
            await store.start()
            stack.push_async_callback(store.close)
            stores.append(store)
        yield stores


async def read_until(watcher: Subscription, revision: int) -> list[tuple[str, str, int, bytes]]:
    seen: list[tuple[str, str, int, bytes]] = []
    async with asyncio.timeout(20):
        while not seen or seen[-1][2] < revision:
            await watcher.wait(asyncio.get_running_loop().time() + 5)
            assert not watcher.ended
            while watcher.queue:
                e = watcher.queue.popleft()
                seen.append((e.type, e.name, e.revision, e.entry.value))
    return seen


async def test_replicas_read_what_others_wrote(tmp_path: Path) -> None:
    async with replicas(2, shared_etcd().url, tmp_path.name) as (a, b):
        for i in range(20):
            written = await a.put(key(f"o{i}"), text("x"), 0)
            await b.fresh()
            entry = b.get(key(f"o{i}"))
            assert entry is not None
            assert (entry.revision, entry.value) == (written.revision, written.value)
            changed = await b.put(key(f"o{i}"), text("y"), entry.revision)
            await a.fresh(changed.revision)
            assert a.revision >= changed.revision
        await asyncio.gather(*(b.fresh() for _ in range(50)))


async def test_who_writes_with_old_knowledge_loses_and_then_knows(tmp_path: Path) -> None:
    async with replicas(2, shared_etcd().url, tmp_path.name) as (a, b):
        first = await a.put(key("o"), text("1"), 0)
        second = await a.put(key("o"), text("2"), first.revision)
        with pytest.raises(Mismatch) as caught:
            await b.put(key("o"), text("3"), first.revision)
        assert caught.value.current is not None
        assert caught.value.current.revision == second.revision
        with pytest.raises(Mismatch):
            await b.put(key("o"), text("3"), 0)
        await b.delete(key("o"), text("3"), second.revision)
        with pytest.raises(Mismatch) as caught:
            await a.delete(key("o"), text("3"), None)
        assert caught.value.current is None
        # a's mirror may still hold what b deleted: a creation is for etcd to decide
        await a.put(key("o"), text("4"), 0)


async def test_a_deletion_has_the_same_last_state_everywhere(tmp_path: Path) -> None:
    async with replicas(2, shared_etcd().url, tmp_path.name) as (a, b):
        watchers = [s.watch("pods", "root", revision=s.revision) for s in (a, b)]
        await a.put(key("o"), text("1"), 0)
        gone = await a.delete(key("o"), text("last words"), None)
        seen = [await read_until(w, gone.revision) for w in watchers]
        assert seen[0] == seen[1]
        assert seen[0][-1] == ("DELETED", "o", gone.revision, gone.value)
        assert b"last words" in gone.value
        assert b'"%d"' % gone.revision in gone.value


async def test_a_dropped_cluster_is_gone_everywhere(tmp_path: Path) -> None:
    async with replicas(2, shared_etcd().url, tmp_path.name) as (a, b):
        for i in range(5):
            await a.put(key(f"o{i}", "t"), text("x"), 0)
        await a.put(key("o", "t2"), text("x"), 0)
        await b.fresh()
        watcher, every = b.watch("pods", "t", revision=b.revision), b.watch("pods", "*", revision=b.revision)
        await a.drop("t")
        await b.fresh()
        assert b.range("pods", "*").clusters == ["t2"]
        assert watcher.ended == "dropped"
        assert [(e.type, e.cluster) for e in every.queue] == [("DROPPED", "t")]


async def test_every_change_once_and_in_order_whatever_happens_to_etcd(tmp_path: Path) -> None:
    etcd = Etcd(tmp_path).start()
    try:
        async with replicas(2, etcd.url, "x", timeout=2.0) as (a, b):
            watcher = b.watch("pods", "root", revision=b.revision)
            acknowledged: list[int] = []
            unknown = 0

            async def write(worker: int) -> None:
                nonlocal unknown
                for i in range(60):
                    try:
                        entry = await a.put(key(f"w{worker}"), text(str(i)), None)
                        acknowledged.append(entry.revision)
                    except StoreUnavailable:
                        unknown += 1
                        await asyncio.sleep(0.02)

            async def disturb() -> None:
                await asyncio.sleep(0.1)
                etcd.kill()  # a crash
                await asyncio.to_thread(etcd.start)
                await asyncio.sleep(0.1)
                etcd.kill(signal.SIGSTOP)  # a long pause
                await asyncio.sleep(0.3)
                etcd.kill(signal.SIGCONT)
                b._feed.reconnect()  # a lost connection

            await asyncio.gather(disturb(), *(write(w) for w in range(4)))
            last = await a.put(key("last"), text("x"), 0)
            seen = [e[2] for e in await read_until(watcher, last.revision)]
            assert seen == sorted(set(seen))
            assert set(acknowledged) <= set(seen)
            assert len(acknowledged) > 100
            assert unknown
            await a.fresh()
            assert [(e.revision, e.value) for e in a.range("pods", "root").entries] == [
                (e.revision, e.value) for e in b.range("pods", "root").entries
            ]
    finally:
        etcd.close()


async def test_an_etcd_that_is_gone_is_named_and_reads_go_on(tmp_path: Path) -> None:
    etcd = Etcd(tmp_path).start()
    try:
        async with replicas(1, etcd.url, "x", timeout=0.5) as (store,):
            await store.put(key("a"), text("1"), 0)
            etcd.kill()
            for attempt in (store.put(key("b"), text("1"), 0), store.fresh(), store.drop("t")):
                with pytest.raises(StoreUnavailable, match=etcd.url):
                    await attempt
            assert store.get(key("a")) is not None
            await asyncio.to_thread(etcd.start)
            await store.put(key("b"), text("1"), 0)
            etcd.kill(signal.SIGSTOP)
            with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.5 s"):
                await store.put(key("c"), text("1"), 0)
            etcd.kill(signal.SIGCONT)
    finally:
        etcd.close()
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await EtcdStore(EtcdOptions((etcd.url,))).start()


async def test_another_member_is_asked_when_one_does_not_answer(tmp_path: Path) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    store = EtcdStore(EtcdOptions((dead, shared_etcd().url), prefix=f"/{tmp_path.name}/"))
    await store.start()
    try:
        await store.put(key("a"), text("1"), 0)
        await store.fresh()
    finally:
        await store.close()


async def test_what_was_compacted_away_meanwhile_is_read_anew(tmp_path: Path) -> None:
    etcd = Etcd(tmp_path, "--unsafe-no-fsync").start()
    try:
        async with replicas(2, etcd.url, "x") as (a, b):
            await a.put(key("kept"), text("1"), 0)
            await a.put(key("gone"), text("1"), 0)
            await b.fresh()
            watcher, before = b.watch("pods", "root", revision=b.revision), b.revision
            followed: list[str] = []
            b.follow("pods", lambda event: followed.append(event.name))
            await b._feed.close()  # b hears nothing for a while
            await a.delete(key("gone"), text("1"), None)
            last = await a.put(key("new"), text("1"), 0)
            await a._gateway.write("/kv/compaction", {"revision": str(last.revision)})
            b._feed._task = asyncio.create_task(b._feed._run())
            await b.fresh()
            assert sorted(e.revision for e in b.range("pods", "root").entries) == sorted(
                e.revision for e in a.range("pods", "root").entries
            )
            assert b.get(key("gone")) is None
            assert watcher.ended == "resync"
            with pytest.raises(Compacted):
                b.watch("pods", "root", revision=before)
            assert sorted(followed) == ["gone", "new"]  # followers are told what differs
    finally:
        etcd.close()


async def test_an_etcd_that_was_put_back_is_read_anew(tmp_path: Path) -> None:
    etcd = Etcd(tmp_path).start()
    try:
        async with replicas(1, etcd.url, "x", timeout=2.0) as (store,):
            await store.put(key("old"), text("1"), 0)
            etcd.kill(signal.SIGTERM)
            await asyncio.to_thread(shutil.copytree, tmp_path / "etcd", tmp_path / "copy")
            await asyncio.to_thread(etcd.start)
            for i in range(20):
                last = await store.put(key(f"lost{i}"), text("1"), 0)
            watcher = store.watch("pods", "root", revision=store.revision)
            etcd.kill()
            await asyncio.to_thread(shutil.rmtree, tmp_path / "etcd")
            await asyncio.to_thread(shutil.move, tmp_path / "copy", tmp_path / "etcd")
            await asyncio.to_thread(etcd.start)
            async with asyncio.timeout(20):
                while not watcher.ended:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            await store.fresh()
            assert store.revision < last.revision
            assert store.get(key("lost3")) is None
            assert store.get(key("old")) is not None
            await store.put(key("lost3"), text("again"), 0)
    finally:
        etcd.close()


async def test_others_may_write_to_the_same_etcd(tmp_path: Path) -> None:
    async with (
        replicas(1, shared_etcd().url, tmp_path.name) as (ours,),
        replicas(1, shared_etcd().url, tmp_path.name + "-other") as (theirs,),
    ):
        entry = await theirs.put(key("a"), text("1"), 0)
        await ours.fresh()
        assert ours.revision >= entry.revision
        assert ours.range("pods", "root").entries == []


async def test_one_of_all_replicas_compacts(tmp_path: Path) -> None:
    etcd = Etcd(tmp_path, "--unsafe-no-fsync").start()
    try:
        async with replicas(1, etcd.url, "x") as (store,):
            layout, gateway = Layout("/x/"), store._gateway
            states = [(0, 0), (0, 0)]
            compacted = []
            for _ in range(4):
                await store.put(key("a"), text("1"), None)
                for i, (seen, revision) in enumerate(states):
                    seen, revision, done = await _turn(gateway, layout, seen, revision)
                    states[i] = (seen, revision)
                    compacted.append(done)
            assert sum(1 for done in compacted if done) in (2, 3)
            old: Json = {"key": b64(layout.key(key("a"))), "revision": str(next(c for c in compacted if c) - 1)}
            with pytest.raises(StoreUnavailable, match="compacted"):
                await gateway.read("/kv/range", old)
    finally:
        etcd.close()


def test_a_value_gets_its_revision_at_the_right_place() -> None:
    def made(revision: int) -> bytes:
        return b'{"a":"7046029254386353131","metadata":{"resourceVersion":"%d"},"b":"6364136223846793005"}' % revision

    packed = pack(made)
    assert unpack(packed, 12) == made(12)
    assert unpack(packed, 10**15) == made(10**15)
    assert unpack(pack(lambda r: b"%d and %d" % (r, r)), 5) == b"5 and 5"
    assert unpack(pack(lambda _: b"none\n"), 5) == b"none\n"


async def test_an_object_that_etcd_does_not_take(tmp_path: Path) -> None:
    async with replicas(1, shared_etcd().url, tmp_path.name) as (store,):
        with pytest.raises(TooLarge):
            await store.put(key("big"), lambda _: b"x" * 2_500_000, 0)
        await store.put(key("small"), lambda _: b"x" * 1_000_000, 0)


async def test_what_is_not_ours_is_refused(tmp_path: Path) -> None:
    gateway = Gateway(EtcdOptions((shared_etcd().url,)))
    await gateway.open()
    try:
        foreign = f"/{tmp_path.name}/root/pods/ns/a".encode()
        await gateway.write("/kv/put", {"key": b64(foreign), "value": b64(b"\x0ak8s\0 protobuf")})
    finally:
        await gateway.close()
    with pytest.raises(StoreUnavailable, match="root/pods/ns/a in etcd is not a value that Glebe wrote"):
        await EtcdStore(EtcdOptions((shared_etcd().url,), prefix=f"/{tmp_path.name}/")).start()

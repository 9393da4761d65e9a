"""The durable store: what is acknowledged survives, what is damaged is named."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from glebe.apiserver.store import (
    Compacted,
    Key,
    SQLiteStore,
    StoreCorrupted,
    StoreFull,
    StoreLocked,
    StoreUnavailable,
    checkpoints,
)

pytestmark = pytest.mark.realtime

_WRITER = """
import asyncio, sys
from pathlib import Path
from glebe.apiserver.store import Key, SQLiteStore

async def main():
    store = SQLiteStore(Path(sys.argv[1]))
    await store.start()
    async def write(worker):
        for i in range(10**9):
            deleting = i % 7 == 6
            key = Key("pods", "root", f"w{worker}", f"o{(i - deleting) % 50}")
            if deleting:
                entry = await store.delete(key, lambda r: b"gone", None)
            else:
                entry = await store.put(key, lambda r: b"%d" % r, None)
            print(key.namespace, key.name, entry.revision, "-" if deleting else entry.value.decode(), flush=True)
    await asyncio.gather(*(write(w) for w in range(4)))

asyncio.run(main())
"""


def key(name: str) -> Key:
    return Key("pods", "root", "ns", name)


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "db")
    await store.start()
    await store.put(key("a"), lambda _: b"1", 0)
    await store.put(key("b"), lambda _: b"2", 0)
    await store.delete(key("b"), lambda _: b"2", None)
    revision = store.revision
    await store.close()
    again = SQLiteStore(tmp_path / "db")
    await again.start()
    try:
        assert again.revision == revision
        assert [e.value for e in again.range("pods", "root").entries] == [b"1"]
        again.watch("pods", "root", revision=revision)
        with pytest.raises(Compacted):
            again.watch("pods", "root", revision=revision - 1)
    finally:
        await again.close()


def test_every_acknowledged_write_survives_kill_9(tmp_path: Path) -> None:
    for round_ in range(2):
        path = tmp_path / f"db{round_}"
        command = [sys.executable, "-c", _WRITER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline() for _ in range(300 + 150 * round_)]
            os.kill(writer.pid, signal.SIGKILL)
            # The last line may be cut short; what came whole was acknowledged.
            lines += [line for line in writer.stdout if line.endswith("\n")]
        acknowledged: dict[Key, tuple[int, str]] = {}
        for line in lines:
            namespace, name, revision, value = line.split()
            acknowledged[Key("pods", "root", namespace, name)] = (int(revision), value)

        async def check(path: Path = path, acknowledged: dict[Key, tuple[int, str]] = acknowledged) -> None:
            store = SQLiteStore(path)
            await store.start()
            try:
                for where, (revision, value) in acknowledged.items():
                    assert store.revision >= revision
                    entry = store.get(where)
                    if entry is not None and entry.revision > revision:
                        continue  # a later write was on disk, only its acknowledgement was cut off
                    if value == "-":
                        assert entry is None
                    elif entry is None:
                        assert store.revision > revision  # likewise, a later deletion
                    else:
                        assert entry.value == value.encode()
                # At most one write per worker can have been in flight.
                missing = [k for k, (_, v) in acknowledged.items() if v != "-" and store.get(k) is None]
                assert len(missing) <= 4
            finally:
                await store.close()

        asyncio.run(check())


async def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "db")
    await store.start()
    try:
        with pytest.raises(StoreLocked, match=f"in use by process {os.getpid()}"):
            await SQLiteStore(tmp_path / "db").start()
    finally:
        await store.close()
    await store.start()
    await store.close()


async def test_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "db"
    path.write_bytes(b"this is no database at all, but it is long enough to look at" * 100)
    with pytest.raises(StoreCorrupted, match="damaged"):
        await SQLiteStore(path).start()
    other = tmp_path / "other"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE t (x)")
    with pytest.raises(StoreCorrupted, match="not a Glebe store"):
        await SQLiteStore(other).start()


async def test_a_torn_page_is_noticed(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "db")
    await store.start()
    for i in range(200):
        await store.put(key(f"o{i}"), lambda _: b"x" * 2000, 0)
    await store.close()
    data = bytearray((tmp_path / "db").read_bytes())
    for page in range(8, 40):
        data[page * 4096 : page * 4096 + 64] = os.urandom(64)
    (tmp_path / "db").write_bytes(bytes(data))
    with pytest.raises(StoreCorrupted, match="restore it from a backup"):
        await SQLiteStore(tmp_path / "db").start()


async def test_a_full_disk_refuses_the_write_and_no_more(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "db")
    await store.start()
    try:
        kept = await store.put(key("a"), lambda _: b"1", 0)
        assert store._connection is not None
        store._connection.execute("PRAGMA max_page_count = 20")
        with pytest.raises(StoreFull, match="no space left"):
            await store.put(key("big"), lambda _: b"x" * 1_000_000, 0)
        assert store.get(key("big")) is None
        assert store.revision == kept.revision
        store._connection.execute("PRAGMA max_page_count = 1000000")
        await store.put(key("big"), lambda _: b"x" * 1_000_000, 0)
    finally:
        await store.close()


async def test_a_cancelled_writer_does_not_undo_its_write(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "db")
    await store.start()
    try:
        watcher = store.watch("pods", "root", revision=0)
        task = asyncio.create_task(store.put(key("a"), lambda _: b"1", 0))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait_for(watcher.wait(asyncio.get_running_loop().time() + 5), 6)
        assert store.get(key("a")) is not None
    finally:
        await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.put(key("b"), lambda _: b"1", 0)


async def test_nobody_else_can_read_the_file(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        store = SQLiteStore(tmp_path / "db")
        await store.start()
        await store.put(key("secret"), lambda _: b"1", 0)
        modes = {name: (tmp_path / name).stat().st_mode & 0o077 for name in ("db", "db-wal", "db-shm")}
        await store.close()
    finally:
        os.umask(before)
    assert set(modes.values()) == {0}, modes


async def test_a_failure_of_another_kind_is_an_answer_not_a_silence(tmp_path: Path) -> None:
    class Odd:
        in_transaction = False

        def execute(self, *_: object) -> None:
            raise MemoryError("no memory")

        def close(self) -> None: ...

    store = SQLiteStore(tmp_path / "db")
    await store.start()
    real, store._connection = store._connection, Odd()  # type: ignore[assignment]
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="no memory"):
            async with asyncio.timeout(5):
                await store.put(key("a"), lambda _: b"1", 0)
    store._connection = real
    await store.close()


async def test_the_log_is_started_anew_under_a_writer_who_never_rests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_PAUSE", 0.0)
    monkeypatch.setattr(checkpoints, "_LONG", 20)
    store = SQLiteStore(tmp_path / "db")
    await store.start()
    log = tmp_path / "db-wal"
    try:
        sizes = []
        for i in range(600):
            await store.put(key(f"o{i % 7}"), lambda _: b"x" * 4000, None)
            sizes.append(log.stat().st_size)
        assert max(sizes) < 600 * 4000 / 2
    finally:
        await store.close()
    again = SQLiteStore(tmp_path / "db")
    await again.start()
    try:
        assert again.revision == 600
        assert len(again.range("pods", "root").entries) == 7
    finally:
        await again.close()


@pytest.mark.parametrize("number", [1, 8, 9, 17, 127, 128, 129, 300])
async def test_writes_of_one_moment_are_one_transaction(tmp_path: Path, number: int) -> None:
    store = SQLiteStore(tmp_path / "db")
    await store.start()
    try:
        await asyncio.gather(*(store.put(key(f"o{i}"), lambda r: b"%d" % r, 0) for i in range(number)))
        assert store.commits <= 3
    finally:
        await store.close()
    again = SQLiteStore(tmp_path / "db")
    await again.start()
    try:
        assert again.revision == number
        assert [e.value for e in again.range("pods", "root").entries] == [
            b"%d" % e.revision for e in again.range("pods", "root").entries
        ]
        assert len(again.range("pods", "root").entries) == number
    finally:
        await again.close()


async def test_a_row_that_cannot_be_made_leaves_nobody_waiting(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "db")
    await store.start()
    try:
        async with asyncio.timeout(10):
            with pytest.raises(StoreUnavailable):
                await store.put(key("\ud800"), lambda _: b"{}", 0)
            with pytest.raises(StoreUnavailable):
                await store.put(key("a"), lambda _: b"{}", 0)
    finally:
        await store.close()

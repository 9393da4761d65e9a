"""What happens to files: each damage has a clear error, none a silent loss."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from glebe.apiserver.store import Key, SQLiteStore, StoreCorrupted, StoreFull
from glebe.apiserver.store.sqlitefile import checksum

pytestmark = pytest.mark.realtime


def key(number: int, cluster: str = "root") -> Key:
    return Key("pods", cluster, "ns", f"o{number:03}")


def made(revision: int) -> bytes:
    return b"%d" % revision + b"x" * 700


async def filled(path: Path, count: int = 60) -> int:
    """A file whose last writes are only in its log, as a crash leaves it; the newest revision."""
    store = SQLiteStore(path.with_name("work"))
    await store.start()
    assert store._connection is not None
    for i in range(count // 2):
        await store.put(key(i), made, 0)
    store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for i in range(count // 2, count):
        await store.put(key(i), made, 0)
    revision = store.revision
    for name in ("work", "work-wal", "work.acknowledged"):
        shutil.copy(path.with_name(name), path.with_name(name.replace("work", path.name)))
    await store.close()
    return revision


async def content(path: Path) -> int:
    """How many objects a new start finds; each must be as it was written."""
    store = SQLiteStore(path)
    await store.start()
    try:
        entries = store.range("pods", "root").entries
        assert all(e.value == made(e.revision) for e in entries)
        return len(entries)
    finally:
        await store.close()


async def test_an_undamaged_copy_is_whole(tmp_path: Path) -> None:
    await filled(tmp_path / "db")
    assert await content(tmp_path / "db") == 60


@pytest.mark.parametrize("left", [0.0, 0.3, 0.9, 0.999])
async def test_a_truncated_log_is_noticed(tmp_path: Path, left: float) -> None:
    await filled(tmp_path / "db")
    log = tmp_path / "db-wal"
    os.truncate(log, int(log.stat().st_size * left))
    with pytest.raises(StoreCorrupted, match=r"writes up to 60 were acknowledged.*remove db\.acknowledged"):
        await content(tmp_path / "db")
    (tmp_path / "db.acknowledged").unlink()  # what the message proposes
    assert 30 <= await content(tmp_path / "db") < 60


async def test_a_lost_log_and_an_older_copy_are_noticed(tmp_path: Path) -> None:
    await filled(tmp_path / "db")
    (tmp_path / "db-wal").unlink()
    with pytest.raises(StoreCorrupted, match="an older copy took its place"):
        await content(tmp_path / "db")


@pytest.mark.parametrize("seed", range(12))
async def test_flipped_bytes_are_noticed_or_change_nothing(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    await filled(tmp_path / "db")
    (tmp_path / "db.acknowledged").unlink()
    damaged = tmp_path / rng.choice(["db", "db-wal"])
    data = bytearray(damaged.read_bytes())
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(data))
        data[at] ^= 1 << rng.randrange(8)
    damaged.write_bytes(bytes(data))
    try:
        found = await content(tmp_path / "db")
    except StoreCorrupted:
        pass
    else:
        # A damaged log ends where the damage is, like one that was being written; the rest is as it was written.
        assert found == 60 if damaged.name == "db" else 30 <= found <= 60


async def test_a_truncated_database_is_noticed(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "db")
    await store.start()
    for i in range(60):
        await store.put(key(i), made, 0)
    await store.close()
    whole = (tmp_path / "db").read_bytes()
    for size in (0, 100, 4096, len(whole) // 2, len(whole) - 4096):
        (tmp_path / "db").write_bytes(whole[:size])
        for name in ("db-wal", "db-shm"):
            (tmp_path / name).unlink(missing_ok=True)
        with pytest.raises(StoreCorrupted):
            await content(tmp_path / "db")


async def test_a_changed_value_is_named(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "db")
    await store.start()
    await store.put(key(1), made, 0)
    await store.close()
    with sqlite3.connect(tmp_path / "db") as connection:
        connection.execute("UPDATE objects SET value = ?", (b"another",))
    with pytest.raises(StoreCorrupted, match="the checksum of pods ns/o001 in cluster root is wrong"):
        await content(tmp_path / "db")


async def test_the_former_format_is_taken_over(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "db") as connection:
        connection.execute(
            "CREATE TABLE objects (resource TEXT NOT NULL, cluster TEXT NOT NULL, namespace TEXT NOT NULL,"
            " name TEXT NOT NULL, revision INTEGER NOT NULL, value BLOB NOT NULL,"
            " PRIMARY KEY (resource, cluster, namespace, name))"
        )
        connection.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL)")
        connection.execute("INSERT INTO meta VALUES ('revision', 7)")
        for i in (5, 7):
            connection.execute("INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?)", (*key(i), i, made(i)))
        connection.execute("PRAGMA application_id = 0x474C4245")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    assert await content(tmp_path / "db") == 2
    store = SQLiteStore(tmp_path / "db")
    await store.start()
    assert store.revision == 7
    await store.put(key(8), made, 0)
    await store.close()
    assert await content(tmp_path / "db") == 3


async def test_a_big_cluster_goes_in_slices_and_others_write_meanwhile(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "db")
    await store.start()
    import asyncio

    await asyncio.gather(*(store.put(key(i, "big"), made, 0) for i in range(1700)))
    await store.put(key(1), made, 0)
    dropping = asyncio.create_task(store.drop("big"))
    while store.range("pods", "big").entries:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await store.put(key(2, "big"), made, 0)  # a new cluster of that name
    assert [e.value for e in store.range("pods", "big").entries] == [made(store.revision)]
    await dropping
    await store.close()
    with sqlite3.connect(tmp_path / "db") as connection:
        rows = connection.execute("SELECT cluster, name FROM objects ORDER BY cluster").fetchall()
    assert rows == [("big", "o002"), ("root", "o001")]


async def test_a_full_disk_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "db")
    await store.start()
    assert store._connection is not None
    await store.put(key(0), made, 0)
    store._connection.execute("PRAGMA max_page_count = 30")
    written = 1
    while True:
        try:
            await store.put(key(written), made, 0)
        except StoreFull:
            break
        written += 1
    with pytest.raises(StoreFull, match="no space left"):
        await store.put(key(0), lambda _: b"y" * 200_000, None)
    await store.delete(key(0), made, None)  # room can be made
    await store.close()
    assert await content(tmp_path / "db") == written - 1


def test_the_checksum_covers_key_revision_and_value() -> None:
    sums = {
        checksum(key(1), 1, b"x"),
        checksum(key(1), 1, b"y"),
        checksum(key(1), 2, b"x"),
        checksum(key(2), 1, b"x"),
        checksum(key(1, "t"), 1, b"x"),
    }
    assert len(sums) == 5

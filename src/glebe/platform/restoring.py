"""Puts an archive of everything into an empty store, while no server runs on it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

from glebe.apiserver.store.archive import ArchiveError, Item, Reader, remade
from glebe.apiserver.store.base import WHITEOUT, Key
from glebe.apiserver.store.etcd import EtcdStore
from glebe.platform.storage import StorageError, StorageOptions

if TYPE_CHECKING:
    from glebe.platform.paths import DataDir

_AT_ONCE = 64


def restore(lines: Iterable[bytes], data: DataDir, options: StorageOptions) -> int:
    """Returns how many objects were restored. Into SQLite they come with their versions, and the next write's version
    is far beyond all that was ever handed out; etcd gives versions of its own.

    :raises ArchiveError: the archive is damaged or of one cluster only; nothing was kept.
    :raises StorageError: the store is not empty, or an option is wrong.
    :raises glebe.apiserver.store.StoreUnavailable: the store cannot be used.
    """
    reader = Reader(lines)
    if reader.header.cluster:
        why = f"it holds the cluster {reader.header.cluster} only"
        raise ArchiveError(f"{why}: load it into a running server with glebe snapshot load")
    if not options.shared:
        from glebe.apiserver.store.sqlitefile import create_from

        if data.database.exists():
            raise StorageError(f"{data.database} exists already", "give --data-dir a directory without a database")
        sealing = options.sealing()

        def stored(item: Item) -> tuple[Key, int, bytes]:
            value = item.value or b""
            if sealing is not None:
                value = sealing.seal(item.key, value)
            return item.key, item.revision, value if item.value is not None else WHITEOUT + value

        create_from(data.database, (stored(item) for item in reader.items()), reader.header.revision)
        return reader.objects
    store = options.open(data)
    assert isinstance(store, EtcdStore)
    return asyncio.run(_into(store, reader, options))


async def _into(store: EtcdStore, reader: Reader, options: StorageOptions) -> int:
    await store.start()
    try:
        if store.snapshot().tables:
            raise StorageError(
                f"etcd holds objects under {options.etcd_prefix} already", "give --etcd-prefix one that is not used"
            )
        items = reader.items()
        while batch := list(islice(items, _AT_ONCE)):
            await asyncio.gather(*(_put(store, item) for item in batch))
    finally:
        await store.close()
    return reader.objects


async def _put(store: EtcdStore, item: Item) -> None:
    if item.value is None:
        await store.white_out(item.key)
    else:
        await store.put(item.key, remade(item), 0)

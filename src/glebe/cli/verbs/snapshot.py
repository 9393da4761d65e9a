"""``glebe snapshot``: everything, or one logical cluster, as a file and back."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from glebe.cli import storage
from glebe.cli.app import app
from glebe.cli.command import Session, verb
from glebe.cli.exits import Exit, Failure

if TYPE_CHECKING:
    from glebe.apiserver.store.archive import Reader
    from glebe.kube.client import Client
    from glebe.platform.storage import StorageOptions

_BATCH = 512 * 1024


class Action(StrEnum):
    SAVE = "save"
    CHECK = "check"
    LOAD = "load"
    RESTORE = "restore"


@verb(app, output=False)
async def snapshot(
    session: Session,
    action: Annotated[Action, typer.Argument(help="What to do.")],
    file: Annotated[str, typer.Argument(help="The archive.", metavar="FILE")],
    data_dir: Annotated[str, typer.Option("--data-dir", help="restore: the new data directory.")] = "",
    etcd_servers: storage.EtcdServers = "",
    etcd_cafile: storage.EtcdCa = "",
    etcd_certfile: storage.EtcdCertificate = "",
    etcd_keyfile: storage.EtcdKey = "",
    etcd_prefix: storage.EtcdPrefix = "/glebe/",
    encryption: storage.Encryption = "",
) -> None:
    """Save everything (or --cluster) of a running server, check a file, load a cluster, restore everything."""
    from glebe.platform.storage import StorageOptions

    path = Path(file)
    options = StorageOptions(etcd_servers, etcd_cafile, etcd_certfile, etcd_keyfile, etcd_prefix, encryption)
    if action is Action.CHECK:
        objects, cluster = _check(path)
        print(f"{path} is whole: {objects} objects of {cluster or 'all clusters'}")
    elif action is Action.SAVE:
        cluster, session.cluster = session.cluster, ""
        async with session.connect() as client:
            objects = await _save(client, path, cluster)
        print(f"{path} holds {objects} objects of {cluster or 'all clusters'}")
    elif action is Action.LOAD:
        objects, cluster = _check(path)
        if not cluster:
            remedy = "restore it: glebe snapshot restore FILE; or save one: glebe snapshot save FILE --cluster NAME"
            raise Failure(Exit.BAD_INPUT, f"{path} holds all clusters", remedy)
        cluster, session.cluster = session.cluster or cluster, ""
        async with session.connect() as client:
            await _load(client, path, cluster)
        print(f"cluster {cluster} holds {objects} objects from {path}")
    else:
        _restore(path, data_dir, options)


def _reader(path: Path) -> tuple[Iterator[bytes], Reader]:
    from glebe.apiserver.store.archive import ArchiveError, Reader

    def lines() -> Iterator[bytes]:
        with path.open("rb") as handle:
            yield from handle

    try:
        source = lines()
        return source, Reader(source)
    except OSError as error:
        raise Failure(Exit.BAD_INPUT, f"{path}: {error.strerror}", "check the path") from error
    except ArchiveError as error:
        raise Failure(Exit.BAD_INPUT, f"{path}: {error}", "name a file that glebe snapshot save wrote") from error


def _check(path: Path) -> tuple[int, str]:
    """(objects, cluster) of a whole archive."""
    from glebe.apiserver.store.archive import ArchiveError

    _, reader = _reader(path)
    try:
        for _ in reader.items():
            pass
    except ArchiveError as error:
        raise Failure(Exit.BAD_INPUT, f"{path}: {error}", "take another copy of the file") from error
    return reader.objects, reader.header.cluster


async def _save(client: Client, path: Path, cluster: str) -> int:
    """Stream into a file beside, check it, put it in place."""
    part = path.with_name(path.name + ".part")
    query = [("cluster", cluster)] if cluster else []
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as handle:
            async for chunk in _chunks(client, query):
                handle.write(chunk)
            handle.flush()
            os.fsync(handle.fileno())
        objects, _ = _check(part)
        part.rename(path)
    except OSError as error:
        raise Failure(Exit.BAD_INPUT, f"{path}: {error.strerror}", "name a file that can be written") from error
    finally:
        part.unlink(missing_ok=True)
    return objects


async def _chunks(client: Client, query: list[tuple[str, str]]) -> AsyncIterator[bytes]:
    from glebe.kube.errors import ApiError
    from glebe.kube.transport import Request
    from glebe.kube.wire import read_whole

    response = await client.transport.send(Request("GET", "/snapshot", query=query, headers={}))
    try:
        if response.status != 200:
            raise ApiError.from_status(orjson.loads(await read_whole(response)), response.status)
        if response.stream is None:
            yield response.body
            return
        async for chunk in response.stream:
            yield chunk
    finally:
        await response.close()


async def _load(client: Client, path: Path, cluster: str) -> None:
    batch: list[bytes] = []
    size, begin = 0, True

    async def send() -> None:
        query = [("cluster", cluster), *([("begin", "true")] if begin else [])]
        await client.raw("POST", "/snapshot", query=query, body=b"".join(batch), content_type="application/jsonl")

    _, reader = _reader(path)
    for line in reader.raw():
        if batch and size + len(line) > _BATCH:
            await send()
            batch, size, begin = [], 0, False
        batch.append(line)
        size += len(line)
    if batch or begin:
        await send()


def _restore(path: Path, data_dir: str, options: StorageOptions) -> None:
    from glebe.apiserver.store import StoreUnavailable
    from glebe.apiserver.store.archive import ArchiveError
    from glebe.platform.paths import DataDir, default_data_dir
    from glebe.platform.restoring import restore
    from glebe.platform.storage import StorageError

    data = DataDir((Path(data_dir) if data_dir else default_data_dir()).expanduser().absolute())
    _check(path)
    try:
        with path.open("rb") as handle:
            objects = restore(handle, data, options)
    except ArchiveError as error:
        raise Failure(Exit.BAD_INPUT, f"{path}: {error}", "give an archive of all clusters") from error
    except StorageError as error:
        raise Failure(Exit.CONFLICT, str(error), error.remedy) from error
    except StoreUnavailable as error:
        raise Failure(Exit.BAD_INPUT, str(error), "nothing was restored") from error
    print(f"{objects} objects were restored to {options.etcd_servers or data.database}")

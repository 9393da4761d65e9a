"""The embedded platform on a memory store that tells every commit, with faults between each part and the server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import orjson

from glebe.apiserver.store import MemoryStore
from glebe.apiserver.store.base import Entry, Key, Make
from glebe.kube.clock import Env
from glebe.node.fleet import parse_fleet
from glebe.platform.embedded import Platform, PlatformConfig, WrapTransport
from glebe.queueing import configuration

#: Told of each committed write: group resource, namespace, name, bytes (``None``: removed), revision.
OnCommit: TypeAlias = Callable[[str, str, str, bytes | None, int], None]


class ObservedStore(MemoryStore):
    """Calls ``on_commit`` after each write and before any watcher's task can run."""

    def __init__(self, on_commit: OnCommit) -> None:
        super().__init__()
        self._on_commit = on_commit

    async def put(self, key: Key, make: Make, expected: int | None) -> Entry:
        entry = await super().put(key, make, expected)
        self._on_commit(key.resource, key.namespace, key.name, entry.value, entry.revision)
        return entry

    async def delete(self, key: Key, make: Make, expected: int | None) -> Entry:
        entry = await super().delete(key, make, expected)
        self._on_commit(key.resource, key.namespace, key.name, None, entry.revision)
        return entry


def simulated_platform(
    fleet: dict[str, Any],
    env: Env,
    folder: Path,
    wrap: WrapTransport,
    on_commit: OnCommit,
    queue_config: dict[str, Any] | None = None,
) -> Platform:
    """The production assembly, unchanged; only its store, clock and transports are the simulation's.

    The ledger is a real file in ``folder``: it must survive the crashes of its writer.
    """
    parsed = parse_fleet(orjson.dumps(fleet).decode(), "simulation")
    queue = configuration.parsed(queue_config or {})
    config = PlatformConfig(fleet=parsed, ledger=folder / "ledger.db", queue=queue)
    return Platform(config, env, ObservedStore(on_commit), wrap_transport=wrap)

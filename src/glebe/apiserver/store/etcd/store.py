"""The store of several server replicas: etcd behind a mirror in memory.

Every replica mirrors all objects, fed by one watch. A revision is etcd's own; a write is acknowledged when etcd has
committed it *and* the mirror has it, so that a client finds what it wrote. What other replicas wrote arrives a little
later: whoever needs the most recent state awaits :meth:`EtcdStore.fresh`, which asks etcd for its revision (all who ask
at the same time share one question) and waits for the mirror to come up to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from itertools import count

import orjson

from glebe.apiserver.store.base import (
    WHITEOUT,
    Entry,
    GivenEntry,
    Key,
    Make,
    Mismatch,
    StoreCorrupted,
    StoreUnavailable,
)
from glebe.apiserver.store.etcd import layout as lay
from glebe.apiserver.store.etcd.feed import Change, Feed, Item
from glebe.apiserver.store.etcd.gateway import EtcdOptions, Gateway, Json, b64, revision_of
from glebe.apiserver.store.etcd.housekeeping import compact_regularly
from glebe.apiserver.store.mirror import Mirror
from glebe.apiserver.store.sealing.sealing import Sealing, refuse_sealed

log = logging.getLogger("glebe.apiserver.store")

_PATIENCE = 3.0
"""Seconds that a reader waits for a revision that has perhaps not happened."""
_TICK_AFTER = 0.1
"""Seconds after which silence may mean that the newest revision is none of ours."""


class EtcdStore(Mirror):
    """One of any number of replicas on one etcd cluster."""

    lags = True

    def __init__(self, options: EtcdOptions, *, sealing: Sealing | None = None, **bounds: int) -> None:
        super().__init__(**bounds)
        self._sealing = sealing
        self._options = options
        self._layout = lay.Layout(options.prefix)
        self._gateway = Gateway(options)
        self._feed = Feed(self._gateway, self._layout, self._show, self._replace)
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = count()
        self._asked: asyncio.Future[int] | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._whiteouts: dict[str, dict[Key, int]] = {}
        """By cluster: where etcd has a whiteout, and its revision."""

    @property
    def trouble(self) -> str:
        return self._feed.failure

    async def start(self) -> None:
        """Read everything, then follow.

        :raises StoreUnavailable: etcd cannot be reached or read.
        :raises StoreCorrupted: something under the prefix is not ours.
        """
        await self._gateway.open()
        try:
            await self._feed.start()
        except BaseException:
            await self._gateway.close()
            raise
        if self._options.compaction:
            self._tasks["compaction"] = asyncio.create_task(
                compact_regularly(self._gateway, self._layout, self._options.compaction)
            )

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()
        await self._feed.close()
        await self._gateway.close()
        self._fail_waiting(StoreUnavailable("the store is closed"))
        self._tables.end_all("closed")

    # -- writing -------------------------------------------------------------------------------------------------

    async def put(self, key: Key, make: Make, expected: int | None) -> Entry:
        raw = b64(self._layout.key(key))
        self._refuse_stale(key, expected)
        value = lay.pack(make)
        body: Json = {"success": [{"request_put": {"key": raw, "value": b64(self._seal(key, value))}}]}
        if expected is not None:
            body["compare"] = [_is_at(raw, self._stored_at(key, expected))]
        revision = await self._transact(key, body)
        entry = self.get(key)
        if entry is not None and entry.revision == revision:
            return entry
        return Entry(revision, lay.unpack(value, revision))

    async def delete(self, key: Key, make: Make, expected: int | None) -> Entry:
        address = self._layout.key(key)
        raw = b64(address)
        self._refuse_stale(key, expected)
        value = lay.pack(make)
        sealed = self._seal(key, value)
        body: Json = {"compare": [_is_there(raw)]}
        if expected is not None:
            body["compare"] = [_is_at(raw, self._stored_at(key, expected))]
        if self._whites_out(key):
            if self.get(key) is None:
                raise Mismatch(key, None)
            if expected is None:
                del body["compare"]
            body["success"] = [{"request_put": {"key": raw, "value": b64(WHITEOUT + sealed)}}]
        else:
            gone = {"key": b64(self._layout.own(lay.GONE)), "value": b64(address + b"\0" + sealed)}
            body["success"] = [{"request_delete_range": {"key": raw}}, {"request_put": gone}]
        revision = await self._transact(key, body)
        return Entry(revision, lay.unpack(value, revision))

    def _stored_at(self, key: Key, expected: int) -> int:
        """The revision of the key in etcd, when readers see it at ``expected``."""
        if expected == 0:
            return self._whiteouts.get(key.cluster, {}).get(key, 0)
        current = self.get(key)
        return 0 if isinstance(current, GivenEntry) and current.revision == expected else expected

    async def white_out(self, key: Key) -> None:
        """Store that a given object was deleted; for restoring, when nothing is given yet."""
        value = WHITEOUT + self._seal(key, lay.pack(lambda revision: b""))
        await self._transact(
            key, {"success": [{"request_put": {"key": b64(self._layout.key(key)), "value": b64(value)}}]}
        )

    async def drop(self, cluster: str) -> None:
        start, end = self._layout.cluster(cluster)
        body: Json = {
            "success": [
                {"request_delete_range": {"key": b64(start), "range_end": b64(end)}},
                {"request_put": {"key": b64(self._layout.own(lay.DROPPED)), "value": b64(cluster.encode())}},
            ]
        }
        answer = await self._gateway.write("/kv/txn", body)
        await self._reach(revision_of(answer), ours=True)

    def _refuse_stale(self, key: Key, expected: int | None) -> None:
        """The mirror knows better already. (That it does *not* know of a change says nothing.)"""
        if expected is None:
            return
        current = self.get(key)
        if current is not None and (expected < current.revision if expected else isinstance(current, GivenEntry)):
            raise Mismatch(key, current)

    async def _transact(self, key: Key, body: Json) -> int:
        """The write's revision, when the mirror has it.

        :raises Mismatch: a comparison failed; the mirror then has whatever made it fail.
        """
        answer = await self._gateway.write("/kv/txn", body)
        if not answer.get("succeeded"):
            await self._reach(revision_of(answer))
            raise Mismatch(key, self.get(key))
        await self._reach(revision_of(answer), ours=True)
        return revision_of(answer)

    # -- being up to date ----------------------------------------------------------------------------------------

    async def fresh(self, revision: int = 0) -> None:
        if revision:
            if revision > self._revision:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_PATIENCE):
                        await self._wait(revision)
            return
        asked = self._asked
        if asked is None:
            asked = self._asked = asyncio.get_running_loop().create_future()
            if "asking" not in self._tasks:
                self._tasks["asking"] = asyncio.create_task(self._ask())
        await self._reach(await asyncio.shield(asked))

    async def _ask(self) -> None:
        """Learn etcd's revision, for all who wanted to know when the question was sent."""
        body = {"key": b64(self._layout.own(lay.TICK)), "keys_only": True}
        try:
            while (asked := self._asked) is not None:
                self._asked = None
                try:
                    asked.set_result(revision_of(await self._gateway.read("/kv/range", body)))
                except StoreUnavailable as error:
                    asked.set_exception(error)
                    asked.exception()  # its askers may be gone
        finally:
            self._tasks.pop("asking", None)
            if asked is not None and not asked.done():
                asked.cancel()

    async def _reach(self, revision: int, *, ours: bool = False) -> None:
        """Wait until the mirror shows ``revision`` (``ours``: our watch brings something of just that revision).

        :raises StoreUnavailable: the watch does not bring it.
        """
        if self._revision >= revision:
            return
        arrival = asyncio.ensure_future(self._wait(revision))
        try:
            if not ours:
                await asyncio.wait([arrival], timeout=_TICK_AFTER)
                if not arrival.done():
                    self._tick()
            await asyncio.wait([arrival], timeout=self._options.timeout / 2)
            if not arrival.done():
                self._feed.reconnect()
                await asyncio.wait([arrival], timeout=self._options.timeout / 2)
            if not arrival.done():
                why = self._feed.failure or "it brings nothing"
                raise StoreUnavailable(f"the watch at etcd is behind ({why}): a write may have been done or not")
            await arrival
        finally:
            arrival.cancel()

    def _tick(self) -> None:
        """Others may write to this etcd, which our watch does not see: an event of our own shows where we are."""
        if "tick" not in self._tasks:
            task = asyncio.create_task(self._put_tick())
            self._tasks["tick"] = task
            task.add_done_callback(lambda _: self._tasks.pop("tick", None))

    async def _put_tick(self) -> None:
        with contextlib.suppress(StoreUnavailable):
            await self._gateway.write("/kv/put", {"key": b64(self._layout.own(lay.TICK)), "value": ""})

    async def _wait(self, revision: int) -> None:
        if self._revision < revision:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (revision, next(self._order), waiter))
            await waiter

    def _fail_waiting(self, error: StoreUnavailable) -> None:
        for _, _, waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(error)
        self._waiting.clear()

    # -- what comes from etcd ------------------------------------------------------------------------------------

    def _show(self, revision: int, changes: list[Change]) -> None:
        """Show one revision."""
        self._revision = revision
        dropped, gone = "", {}
        if len(changes) > 1:
            for change in changes:
                if change.key == lay.DROPPED:
                    dropped = (change.value or b"").decode()
                elif change.key == lay.GONE:
                    raw, _, value = (change.value or b"").partition(b"\0")
                    gone[self._layout.parse(raw)] = value
        if dropped:
            self._whiteouts.pop(dropped, None)
            self._tables.forget(dropped, revision)
        else:
            for change in changes:
                if isinstance(change.key, Key):
                    self._show_one(change.key, revision, change.value, gone.get(change.key))
        waiting = self._waiting
        while waiting and waiting[0][0] <= revision:
            waiter = heapq.heappop(waiting)[2]
            if not waiter.done():
                waiter.set_result(None)

    def _show_one(self, key: Key, revision: int, value: bytes | None, last: bytes | None) -> None:
        current = self.get(key)
        if value is not None and value[:1] != WHITEOUT:
            self._apply(key, Entry(revision, self._open(key, value, revision)), False)
            return
        if value is not None:
            self._whiteouts.setdefault(key.cluster, {})[key] = revision
            last = value[1:]
        if current is None:
            return
        # Somebody else than a Glebe removed it: its last state is the one before.
        state = current.value if last is None else self._open(key, last, revision)
        self._apply(key, Entry(revision, state), True)

    def _replace(self, items: list[Item], revision: int) -> None:
        """Show a whole state; what led to it is not known, so watches end and older revisions answer Compacted."""
        stale: list[Key] = []
        loaded = []
        for key, at, value in items:
            whiteout = value[:1] == WHITEOUT
            loaded.append((key, at, value if whiteout else self._open(key, value, at, stale)))
        self._revision = revision
        followed = self._tables.followed()
        self._tables.reset(revision)
        self._whiteouts.clear()
        for key, at, value in loaded:
            if value[:1] == WHITEOUT:
                self._whiteouts.setdefault(key.cluster, {})[key] = at
            self._load_row(key, Entry(at, value))
        for table in self._tables.all():
            table.sort()
        for shelf, before in followed:
            shelf.tell_difference(before, revision)
        self._show(revision, [])
        if stale and "rewriting" not in self._tasks:
            self._tasks["rewriting"] = asyncio.create_task(self._rewrite(stale))

    async def _rewrite(self, stale: list[Key]) -> None:
        """Store anew what another key encrypted, or none. Every replica that starts does; who comes second loses."""
        done = 0
        for key in stale:
            entry = self.get(key)
            if entry is None or isinstance(entry, GivenEntry):
                continue
            try:
                await self.put(key, _again(entry), entry.revision)
                done += 1
            except Mismatch:
                continue  # it was written meanwhile, and so encrypted anew
            except StoreUnavailable as error:
                log.warning("objects are not all encrypted with the first provider yet: %s", error)
                return
        log.warning("%d objects were encrypted anew with the first provider of their resource", done)

    def _seal(self, key: Key, value: bytes) -> bytes:
        return value if self._sealing is None else self._sealing.seal(key, value)

    def _open(self, key: Key, value: bytes, revision: int, stale: list[Key] | None = None) -> bytes:
        """What readers see of a stored value; its key goes to ``stale`` when it would be encrypted otherwise today."""
        if self._sealing is None:
            refuse_sealed(key, value)
        else:
            value, old = self._sealing.open(key, value)
            if old and stale is not None:
                stale.append(key)
        try:
            return lay.unpack(value, revision)
        except ValueError as error:
            where = self._layout.key(key).decode()
            raise StoreCorrupted(
                f"{where} in etcd is not a value that Glebe wrote: give another --etcd-prefix"
            ) from error


def _again(entry: Entry) -> Make:
    """The same object under a new revision."""
    obj = entry.load()

    def make(revision: int) -> bytes:
        obj["metadata"]["resourceVersion"] = str(revision)
        return orjson.dumps(obj)

    return make


def _is_at(raw: str, revision: int) -> Json:
    return {"key": raw, "target": "MOD", "result": "EQUAL", "mod_revision": str(revision)}


def _is_there(raw: str) -> Json:
    return {"key": raw, "target": "VERSION", "result": "GREATER", "version": "0"}

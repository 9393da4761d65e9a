"""Compaction: etcd keeps every version of every key until somebody tells it which it may forget."""

from __future__ import annotations

import asyncio
import logging

from glebe.apiserver.store.base import StoreUnavailable
from glebe.apiserver.store.etcd.gateway import Gateway, Json, b64, revision_of
from glebe.apiserver.store.etcd.layout import COMPACTED, Layout

log = logging.getLogger("glebe.apiserver.store")


async def compact_regularly(gateway: Gateway, layout: Layout, interval: float) -> None:
    """Every ``interval`` seconds one of the replicas compacts to the revision of the interval before.

    Who it is, a key decides: it counts the compactions, and only who counts it up from what he saw an interval ago (so
    that nobody else did meanwhile) compacts. History thus reaches back one interval at least, two at most.
    """
    seen, revision = 0, 0
    while True:
        await asyncio.sleep(interval)
        try:
            seen, revision, won = await _turn(gateway, layout, seen, revision)
            if won:
                log.info("etcd was compacted up to revision %d", won)
        except StoreUnavailable as error:
            log.warning("etcd was not compacted: %s", error)


async def _turn(gateway: Gateway, layout: Layout, seen: int, revision: int) -> tuple[int, int, int]:
    """(version of the key now, revision now, revision to which this replica compacted: 0 when it was not its turn)."""
    key = b64(layout.own(COMPACTED))
    body: Json = {
        "compare": [{"key": key, "target": "VERSION", "result": "EQUAL", "version": str(seen)}],
        "success": [{"request_put": {"key": key, "value": b64(b"%d" % revision)}}],
        "failure": [{"request_range": {"key": key}}],
    }
    answer = await gateway.write("/kv/txn", body)
    now = revision_of(answer)
    if not answer.get("succeeded"):
        kvs = answer["responses"][0].get("response_range", {}).get("kvs", ())
        return (int(kvs[0]["version"]) if kvs else 0), now, 0
    if not revision:
        return seen + 1, now, 0
    try:
        await gateway.write("/kv/compaction", {"revision": str(revision)})
    except StoreUnavailable as error:
        if "compacted" not in str(error):  # somebody did, up to there or further
            raise
    return seen + 1, now, revision

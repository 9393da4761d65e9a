"""Node ports among several servers on one store: who is about to write a service holds a claim on each of its ports.

Two servers may choose the same port before either has heard of the other's service. A claim is an object in the store
that only one of them can create. It goes once the service is written (or will not be): whoever creates the next one has
then, since stores show changes in their order, heard of the service, and looks again.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import orjson

from glebe.apiserver.store import Key, Mismatch

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer

RESOURCE = "nodeportclaims.glebe.dev"
GRACE = 60.0
"""Seconds after which the server that made a claim is thought dead: no write takes so long."""


class PortClaims:
    """Those of one logical cluster; without other servers there is nothing to claim."""

    def __init__(self, server: ApiServer, cluster: str) -> None:
        self._server = server
        self._cluster = cluster

    async def claim(self, port: int) -> bool:
        """Whether the port is this server's to give."""
        store, now = self._server.store, self._server.env.clock.now()
        if not store.lags:
            return True
        held = store.get(self._key(port))
        if held is not None and orjson.loads(held.value)["at"] + GRACE > now:
            return False
        body = orjson.dumps({"at": now})
        try:
            await store.put(self._key(port), lambda _: body, held.revision if held is not None else 0)
        except Mismatch:
            return False
        return True

    async def release(self, port: int) -> None:
        """The port's service is written, or will not be."""
        store = self._server.store
        held = store.get(self._key(port)) if store.lags else None
        if held is not None:
            with contextlib.suppress(Mismatch):
                await store.delete(self._key(port), lambda _: b"{}", held.revision)

    def _key(self, port: int) -> Key:
        return Key(RESOURCE, self._cluster, "", str(port))

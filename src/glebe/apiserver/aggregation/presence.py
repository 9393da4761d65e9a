"""Wakes aggregation when the first APIService is there or somebody asks for one; most servers never need it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glebe.apiserver.flight import Flight
from glebe.apiserver.store import EVERY_CLUSTER, Event, Follower

if TYPE_CHECKING:
    from glebe.apiserver.aggregation.aggregator import Aggregator
    from glebe.apiserver.server import ApiServer

RESOURCE = "apiservices.apiregistration.k8s.io"


def begin(server: ApiServer) -> None:
    """Watch for APIServices. The store and the clusters must have been started."""
    waiting = _Waiting(server)
    if server.store.range(RESOURCE, EVERY_CLUSTER, limit=1).entries:
        waiting.wake()
    else:
        waiting.follower = server.store.follow(RESOURCE, waiting.changed)
        server.preparing[RESOURCE] = waiting.asked


class _Waiting:
    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self.follower: Follower | None = None
        self._awake: Aggregator | None = None

    def wake(self) -> Aggregator:
        if self._awake is None:
            from glebe.apiserver.aggregation.aggregator import start  # late: see above

            if self.follower is not None:
                self.follower.close()
            self._awake = start(self._server, self._server.front_proxy)
        return self._awake

    def changed(self, event: Event) -> None:
        self.wake().changed(event)

    async def asked(self, flight: Flight) -> None:
        await self.wake().local(flight)

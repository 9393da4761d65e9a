"""The aggregation layer of one server: a filter that only stands in requests' way while some cluster has remotes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

import orjson

from glebe.apiserver.aggregation.availability import check, publish
from glebe.apiserver.aggregation.local import LocalServices
from glebe.apiserver.aggregation.merging import Documents
from glebe.apiserver.aggregation.presence import RESOURCE
from glebe.apiserver.aggregation.proxying import Proxy, unavailable
from glebe.apiserver.aggregation.remotes import Remote, Remotes
from glebe.apiserver.discovery.browsing import known_tags, prefers_protobuf, tagged
from glebe.apiserver.flight import Flight, Onward
from glebe.apiserver.store import Event
from glebe.kube import errors
from glebe.kube.transport import Response

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer

log = logging.getLogger("glebe.apiserver.aggregation")

#: How often remotes are asked whether they are there; and sooner after a change.
CHECK_SECONDS = 30.0


class Aggregator:
    """Follows APIServices, proxies their requests, joins discovery. Made by :func:`start`.

    :param identity: see :class:`.proxying.Proxy`.
    """

    def __init__(self, server: ApiServer, identity: tuple[bytes, bytes] = (b"", b"")) -> None:
        self._server = server
        self.local = LocalServices(server)
        self._remotes = Remotes()
        self._proxy = Proxy(server.dialer, identity)
        self._documents = Documents(server, self._proxy)
        self._checker: asyncio.Task[None] | None = None
        self._due = asyncio.Event()

    def start(self) -> None:
        """Read what is there and follow it. The store must have been started."""
        server = self._server
        self._remotes.load(server.store)
        server.store.follow(RESOURCE, self.changed)
        server.preparing[RESOURCE] = self.local
        server.clusters.on_delete(self.local.forget)
        server.on_close = (*server.on_close, self._stop)
        self._arrange()

    def changed(self, event: Event) -> None:
        """An APIService was written or is gone."""
        remote = self._remotes.follow(event)
        if event.name:
            self._documents.forget(event.cluster, event.name)
        if remote is not None:
            self._due.set()
        self._arrange()

    def _arrange(self) -> None:
        """Stand in the way of requests, and keep checking, only while there is a remote at all."""
        server, needed = self._server, bool(self._remotes)
        if needed and self._filter not in server.inner_filters:
            server.inner_filters = (self._filter, *server.inner_filters)
        elif not needed and self._filter in server.inner_filters:
            server.inner_filters = tuple(f for f in server.inner_filters if f != self._filter)
        if needed and self._checker is None:
            self._due.set()
            self._checker = asyncio.ensure_future(self._keep_checking())
        elif not needed:
            self._stop()

    def _stop(self) -> None:
        if self._checker is not None:
            self._checker.cancel()
            self._checker = None

    async def _keep_checking(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_SECONDS):
                    await self._due.wait()
            self._due.clear()
            for cluster, remote in self._remotes.all():
                try:
                    await publish(self._server, cluster, remote, await self._check(cluster, remote))
                except Exception as error:
                    log.warning("APIService %s in cluster %s cannot be checked: %s", remote.name, cluster, error)

    async def _check(self, cluster: str, remote: Remote) -> tuple[bool, str, str]:
        return await check(self._server, self._proxy, cluster, remote)

    # -- requests ------------------------------------------------------------------------------------------------

    async def _filter(self, flight: Flight, onward: Onward) -> Response:
        remotes = self._remotes.of(flight.route.cluster)
        if not remotes or not self._server.clusters.exists(flight.route.cluster):
            return await onward(flight)
        parts = [p for p in flight.route.path.split("/") if p]
        if len(parts) >= 3 and parts[0] == "apis" and (remote := remotes.get((parts[1], parts[2]))) is not None:
            return await self._pass_on(flight, remote)
        if parts and parts[0] == "apis" and len(parts) <= 2:
            return await self._discovery(flight, onward, remotes, parts)
        if parts[:2] == ["openapi", "v3"]:
            if len(parts) == 5 and (remote := remotes.get((parts[3], parts[4]))) is not None:
                return await self._pass_on(flight, remote)
            if len(parts) == 2:
                own = orjson.loads((await onward(flight)).body)
                index = await self._documents.openapi_index(flight.route.cluster, own, remotes)
                return _json(index)
        if parts == ["openapi", "v2"]:
            return await self._openapi_v2(flight, onward, remotes)
        return await onward(flight)

    async def _pass_on(self, flight: Flight, remote: Remote) -> Response:
        if not remote.available:
            # Its condition may be old: who asks finds out, and so does everybody after him.
            found = await self._check(flight.route.cluster, remote)
            await publish(self._server, flight.route.cluster, remote, found)
            if not found[0]:
                return unavailable()
        if flight.request.headers.get("upgrade"):
            return await self._proxy.upgrade(
                flight.route.cluster, remote, flight.route.path, flight.request, flight.user
            )
        answer = await self._proxy.send(flight.route.cluster, remote, flight.route.path, flight.request, flight.user)
        if answer.status == 503:
            self._due.set()
        return answer

    async def _discovery(
        self, flight: Flight, onward: Onward, remotes: dict[tuple[str, str], Remote], parts: list[str]
    ) -> Response:
        cluster = flight.route.cluster
        if len(parts) == 2:
            if all(group != parts[1] for group, _ in remotes):
                return await onward(flight)
            own = None
            with contextlib.suppress(errors.ApiError):
                own = orjson.loads((await onward(flight)).body)
            return _json(self._documents.group(own, parts[1], remotes))
        answer = await onward(_unconditional(flight))
        if answer.status != 200:
            return answer
        document = orjson.loads(answer.body)
        if document.get("kind") == "APIGroupDiscoveryList":
            import hashlib

            body = orjson.dumps(await self._documents.aggregated(cluster, document, remotes))
            headers = {k: v for k, v in answer.headers.items() if k != "etag"}
            return tagged(flight.request, headers, body, hashlib.sha512(body).hexdigest().upper())
        return _json(self._documents.groups(document, remotes))

    async def _openapi_v2(self, flight: Flight, onward: Onward, remotes: dict[tuple[str, str], Remote]) -> Response:
        if prefers_protobuf(flight.request.headers.get("accept", "")):
            return await onward(flight)  # of our own kinds alone: kubectl reads the third version's documents
        answer = await onward(_unconditional(flight))
        made = await self._documents.openapi_v2(flight.route.cluster, answer.body, remotes)
        if made is None:
            etag = answer.headers.get("etag", "").strip('"')
            return Response(304, answer.headers, b"") if etag in known_tags(flight.request) else answer
        headers = {k: v for k, v in answer.headers.items() if k != "etag"}
        return tagged(flight.request, headers, made[0], made[1])


def _json(document: object) -> Response:
    return Response(200, {"content-type": "application/json"}, orjson.dumps(document))


def _unconditional(flight: Flight) -> Flight:
    """The same flight for a client that has nothing yet: the whole answer is needed here."""
    from dataclasses import replace

    headers = {k: v for k, v in flight.request.headers.items() if k != "if-none-match"}
    return replace(flight, request=replace(flight.request, headers=headers))


def start(server: ApiServer, identity: tuple[bytes, bytes] = (b"", b"")) -> Aggregator:
    """Begin aggregation for a server whose store and clusters have been started."""
    made = Aggregator(server, identity)
    made.start()
    return made

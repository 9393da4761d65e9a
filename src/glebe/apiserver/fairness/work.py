"""How much work a request will be, before it begins: in units of about one GET, and in seats.

Upstream's estimators (``flowcontrol/request``) count a seat for each hundred objects that a list looks at, at most ten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from glebe.apiserver.fairness.tenants import WRITE, Lane
from glebe.apiserver.flight import Flight

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer

_WRITE = 4.0
_WATCH = 2.0
_BODY = 16 * 1024
"""Bytes of a body that cost as much as one GET more."""
_STORED, _SHAPED = 0.04, 0.6
"""For each object of a list: when stored bytes are copied; when each must be looked at or printed."""
_OBJECTS_PER_SEAT, _MOST_SEATS = 100, 10


def estimate(server: ApiServer, flight: Flight, lane: Lane) -> tuple[float, int]:
    """(cost, seats)."""
    cost = _WRITE + len(flight.request.body) / _BODY if lane.kind == WRITE else 1.0
    if not lane.counts or flight.route.name:
        return cost, 1
    return _of_collection(server, flight, cost)


def _of_collection(server: ApiServer, flight: Flight, cost: float) -> tuple[float, int]:
    route, request = flight.route, flight.request
    param = dict(request.query)
    if route.verb == "watch":
        cost += _WATCH
        if param.get("resourceVersion", "") not in ("", "0") and not param.get("sendInitialEvents"):
            return cost, 1
    info = server.registry.lookup(route.cluster, route.group, route.version, route.resource)
    if info is None or "metadata.name=" in param.get("fieldSelector", ""):
        return cost, 1
    namespace = route.namespace if info.namespaced else ""
    page = server.store.range(info.stored_as, route.cluster, namespace, limit=1)
    stored = len(page.entries) + (page.remaining or 0)
    chosen = "labelSelector" in param or "fieldSelector" in param
    limit = param.get("limit", "")
    shown = min(stored, int(limit)) if limit.isascii() and limit.isdigit() and int(limit) and len(limit) < 9 else stored
    looked = stored if chosen else shown
    plain = not chosen and "as=" not in request.headers.get("accept", "") and route.verb != "deletecollection"
    each = _STORED if plain else _SHAPED
    seats = min(_MOST_SEATS, 1 + looked // _OBJECTS_PER_SEAT)
    return cost + looked * each, seats

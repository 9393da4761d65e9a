"""Counts and times every request: the outermost filter."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING

from glebe.apiserver.flight import Flight, Onward
from glebe.apiserver.metrics.families import Buckets, Families
from glebe.apiserver.request.routing import ROOT, Route
from glebe.kube.errors import ApiError
from glebe.kube.transport import Response

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer

OTHER = "other"
_DURATIONS = (
    *(0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3),
    *(4, 5, 6, 8, 10, 15, 20, 30, 45, 60),
)
_VERBS = {
    "get": "GET",
    "list": "LIST",
    "watch": "WATCH",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
    "deletecollection": "DELETECOLLECTION",
    "post": "POST",
    "put": "PUT",
    "head": "GET",
    "options": "OPTIONS",
}
_CONNECT = frozenset({"attach", "exec", "log", "portforward", "proxy"})
_LONG = frozenset({"WATCH", "CONNECT"})
_MOST_KINDS = 600
_ABORTED = 499
"""The client left before it was answered."""
_LABELS = ("verb", "group", "version", "resource", "subresource", "scope")
Kind = tuple[str, str, str, str]


class Series:
    """What is counted of one kind of request."""

    __slots__ = ("codes", "dry", "durations", "labels")

    def __init__(self, labels: tuple[str, ...], durations: Buckets | None) -> None:
        self.labels = labels
        self.codes: dict[int, int] = {}
        self.dry: dict[int, int] = {}
        self.durations = durations


class Requests:
    """The filter."""

    def __init__(self, server: ApiServer, families: Families) -> None:
        self._server = server
        self._kinds: dict[Kind, Kind] = {}
        self._series: dict[tuple[str, ...], Series] = {}
        self._short: dict[tuple[object, ...], Series] = {}
        """What routes lead to which series; bounded, since clients write routes."""
        self._durations = families.histogram(
            "apiserver_request_duration_seconds",
            "Response latency by verb, group, version, resource, subresource and scope, without long-running requests.",
            _LABELS,
            _DURATIONS,
        )
        families.reading(
            "apiserver_request_total",
            "Requests by verb, group, version, resource, subresource, scope, code and dry run.",
            (*_LABELS, "code", "dry_run"),
            self._totals,
            "counter",
        )

    async def __call__(self, flight: Flight, onward: Onward) -> Response:
        route = flight.route
        key = (route.verb, route.resource, route.group, route.version, route.subresource, route.namespace == "")
        named = (*key, route.name == "")
        series = self._short.get(named)
        if series is None:
            series = self._find(route, named)
        began = perf_counter()
        code = 500
        try:
            response = await onward(flight)
            code = response.status
        except ApiError as error:
            code = error.code
            raise
        except asyncio.CancelledError:
            code = _ABORTED
            raise
        finally:
            counts = series.codes
            if flight.request.query and flight.request.param("dryRun"):
                counts = series.dry
            counts[code] = counts.get(code, 0) + 1
            if series.durations is not None:
                series.durations.observe(perf_counter() - began)
        return response

    def _find(self, route: Route, key: tuple[object, ...]) -> Series:
        group, version, resource, subresource = self.kind(route.group, route.version, route.resource, route.subresource)
        verb = "CONNECT" if route.subresource in _CONNECT and resource else _VERBS.get(route.verb, OTHER)
        labels = (verb, group, version, resource, subresource, _scope(route))
        series = self._series.get(labels)
        if series is None:
            durations = None if verb in _LONG else self._durations.of(*labels)
            series = self._series[labels] = Series(labels, durations)
        if len(self._short) >= 4096:
            self._short.clear()
        self._short[key] = series
        return series

    def kind(self, group: str, version: str, resource: str, subresource: str = "") -> Kind:
        """Label values: built-in kinds and the root cluster's own by name, everything else is "other"."""
        if not resource:
            return "", "", "", ""
        asked = (group, version, resource, subresource)
        found = self._kinds.get(asked)
        if found is not None:
            return found
        info = self._server.registry.lookup(ROOT, group, version, resource)
        if info is None or len(self._kinds) >= _MOST_KINDS:
            return OTHER, OTHER, OTHER, ""
        found = (group, version, resource, subresource if subresource in ("", *info.subresources) else OTHER)
        if found[3] != OTHER:
            self._kinds[asked] = found
        return found

    def _totals(self) -> dict[tuple[str, ...], float]:
        out: dict[tuple[str, ...], float] = {}
        for series in self._series.values():
            for counts, dry in ((series.codes, ""), (series.dry, "All")):
                for code, many in counts.items():
                    out[(*series.labels, str(code), dry)] = float(many)
        return out


def _scope(route: Route) -> str:
    if not route.resource:
        return ""
    if route.name or route.verb == "create":
        return "resource"
    return "namespace" if route.namespace else "cluster"

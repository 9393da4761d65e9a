"""Puts the metrics in, and answers ``/metrics``: in the root cluster, for whom RBAC lets (``system:monitoring``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glebe.apiserver.flight import Flight
from glebe.apiserver.metrics import collectors
from glebe.apiserver.metrics.families import CONTENT_TYPE, Families
from glebe.apiserver.metrics.requests import Requests
from glebe.apiserver.request.routing import ROOT
from glebe.kube import errors
from glebe.kube.transport import Response

if TYPE_CHECKING:
    from glebe.apiserver.assembly import Assembly
    from glebe.apiserver.server import ApiServer

PATH = "/metrics"


class Metrics:
    """The metrics of one server."""

    def __init__(self, server: ApiServer) -> None:
        self.families = Families()
        self.requests = Requests(server, self.families)
        self.events = collectors.WatchEvents(self.requests, self.families)
        admission = collectors.admission(self.families)
        self.admit, self.validate = admission.of("admit"), admission.of("validate")
        collectors.install(server, self.requests, self.families)

    def answer(self, flight: Flight) -> Response:
        """:raises ApiError: 404 for tenants: these are the whole server's."""
        if flight.route.cluster != ROOT:
            raise errors.path_not_found()
        return Response(200, {"content-type": CONTENT_TYPE}, self.families.text())


def contribute(assembly: Assembly) -> None:
    """Count from the server's first assembly on."""
    server = assembly.server
    if server.metrics is None:
        server.metrics = Metrics(server)
        server.paths[PATH] = server.metrics.answer
    if server.gate is not None:
        server.metrics.families.put(server.gate.waits)
    assembly.filter("metrics", server.metrics.requests)

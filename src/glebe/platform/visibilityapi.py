"""``visibility.kueue.x-k8s.io`` as the embedded platform serves it: asked, not stored.

A ClusterQueue's pending workloads are told in the host; a LocalQueue's in the cluster that it is in, to whom RBAC lets
``get`` ``localqueues/pendingworkloads`` there.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from glebe.apiserver.request.call import Call, respond
from glebe.apiserver.request.routing import ROOT
from glebe.apiserver.server import ApiServer
from glebe.apiserver.types.registry import ResourceInfo, SubresourceInfo
from glebe.kube import errors
from glebe.kube.objects import EVERY, ObjectKey
from glebe.kube.transport import Response
from glebe.queueing.telling.visibility import DEFAULT_LIMIT, GROUP, Visibility, bounded, summary

VERSIONS = ("v1beta2", "v1beta1")
PENDING = "pendingworkloads"
_KIND = "PendingWorkloadsSummary"
_INTEGER: dict[str, Any] = {"type": "integer", "format": "int32"}
_ITEM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "metadata": {"type": "object"},
        "priority": _INTEGER,
        "localQueueName": {"type": "string"},
        "positionInClusterQueue": {**_INTEGER, "description": "from 0"},
        "positionInLocalQueue": {**_INTEGER, "description": "from 0"},
        "forecast": {
            "type": "object",
            "description": "as in status.forecast of the Workload; an addition of Glebe's",
            "x-kubernetes-preserve-unknown-fields": True,
        },
    },
}


def _info(version: str, plural: str, singular: str, namespaced: bool) -> ResourceInfo:
    below = SubresourceInfo(PENDING, GROUP, version, _KIND, ("get",))
    return ResourceInfo(
        group=GROUP,
        version=version,
        plural=plural,
        singular=singular,
        kind=_KIND,
        list_kind=f"{_KIND}List",
        namespaced=namespaced,
        verbs=(),
        subresources=(PENDING,),
        subresource_infos=MappingProxyType({PENDING: below}),
        storage_version=VERSIONS[0],
        is_custom=True,
        raw_schema={"type": "object", "properties": {"items": {"type": "array", "items": _ITEM}}},
    )


class VisibilityApi:
    """Answers from ``visibility``, which may come and go with the part that knows the queue."""

    def __init__(self) -> None:
        self.visibility: Visibility | None = None

    def serve(self, server: ApiServer) -> None:
        """Before the server starts."""
        infos = [
            _info(version, *what)
            for version in VERSIONS
            for what in (("clusterqueues", "clusterqueue", False), ("localqueues", "localqueue", True))
        ]
        server.registry.attach(infos)
        for info in infos:
            server.answered[info.group_resource] = self.answer

    async def answer(self, call: Call) -> Response:
        """get of ``pendingworkloads``.

        :raises ApiError: 400, 404, 405; 503 while nobody knows.
        """
        route = call.route
        if route.subresource != PENDING or route.verb != "get" or call.cluster == EVERY:
            raise errors.method_not_allowed()
        if self.visibility is None:
            raise errors.ApiError(503, "ServiceUnavailable", "the queue is not there yet")
        try:
            offset = bounded(call.request.param("offset"), 0)
            limit = bounded(call.request.param("limit"), DEFAULT_LIMIT) or DEFAULT_LIMIT
        except ValueError:
            raise errors.bad_request("offset and limit must be whole numbers") from None
        items = None
        if call.info.namespaced:
            items = self.visibility.local_queue(ObjectKey(call.cluster, route.namespace, route.name), offset, limit)
        elif call.cluster == ROOT:
            items = self.visibility.cluster_queue(route.name, offset, limit)
        if items is None:
            raise errors.not_found(GROUP, call.info.singular, route.name)
        return respond(summary(call.info.version, route.name, items), call.wanted)

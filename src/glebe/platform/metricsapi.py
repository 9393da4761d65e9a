"""``metrics.k8s.io/v1beta1`` as the embedded platform serves it: kinds that are asked, not stored.

The server is told of two resources and of who answers them; it knows nothing else about metrics. A metrics server that
somebody installs takes the group over with its APIService, in its own cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from glebe.apiserver.request import selection
from glebe.apiserver.request.call import Call, partial, respond, table_of
from glebe.apiserver.server import ApiServer
from glebe.apiserver.types.registry import PrinterColumn, ResourceInfo
from glebe.kube import errors
from glebe.kube.objects import EVERY, Object
from glebe.kube.selectors import FieldSelector, LabelSelector
from glebe.kube.transport import Response
from glebe.node.metrics.service import GROUP, VERSION, MetricsService

_USAGE: dict[str, Any] = {
    "type": "object",
    "description": "cpu in cores and memory (working set) in bytes, as quantities",
    "additionalProperties": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
}
_COMMON: dict[str, Any] = {
    "timestamp": {"type": "string", "format": "date-time", "description": "the end of the time that was measured"},
    "window": {"type": "string", "description": "how long that time was"},
}
_CONTAINERS: dict[str, Any] = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["name", "usage"],
        "properties": {"name": {"type": "string"}, "usage": _USAGE},
    },
}


def _schema(more: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": ["timestamp", "window", *more], "properties": {**_COMMON, **more}}


def _info(plural: str, kind: str, namespaced: bool, columns: tuple[PrinterColumn, ...], more: Any) -> ResourceInfo:
    return ResourceInfo(
        group=GROUP,
        version=VERSION,
        plural=plural,
        singular="",
        kind=kind,
        list_kind=f"{kind}List",
        namespaced=namespaced,
        verbs=("get", "list"),
        printer_columns=columns,
        storage_version=VERSION,
        is_custom=True,
        raw_schema=_schema(more),
    )


_WINDOW = PrinterColumn("Window", "string", ".window")
NODE_METRICS = _info(
    "nodes",
    "NodeMetrics",
    False,
    (PrinterColumn("CPU", "string", ".usage.cpu"), PrinterColumn("Memory", "string", ".usage.memory"), _WINDOW),
    {"usage": _USAGE},
)
POD_METRICS = _info(
    "pods",
    "PodMetrics",
    True,
    (
        PrinterColumn("CPU", "string", ".containers[*].usage.cpu"),
        PrinterColumn("Memory", "string", ".containers[*].usage.memory"),
        _WINDOW,
    ),
    {"containers": _CONTAINERS},
)


class MetricsApi:
    """Answers both resources from ``service``, which may come and go (a part that is started again)."""

    def __init__(self) -> None:
        self.service: MetricsService | None = None

    def serve(self, server: ApiServer) -> None:
        """Before the server starts."""
        server.registry.attach((NODE_METRICS, POD_METRICS))
        server.answered[NODE_METRICS.group_resource] = self.answer
        server.answered[POD_METRICS.group_resource] = self.answer

    async def answer(self, call: Call) -> Response:
        """get and list.

        :raises ApiError: 404, 405, 503 while there is nobody to ask.
        """
        info, verb = call.info, call.route.verb
        if verb not in info.verbs or call.route.subresource or call.cluster == EVERY:
            raise errors.method_not_allowed()
        if self.service is None:
            raise errors.ApiError(503, "ServiceUnavailable", "the metrics are not there yet")
        choose = _by_name(call) if verb == "get" else _by_selectors(call)
        if info.namespaced:
            found = await self.service.pods(call.cluster, call.route.namespace, choose)
        else:
            found = await self.service.nodes(call.cluster, choose)
        if verb == "get" and not found:
            raise self._missing(call)
        return _respond(call, found, whole=verb == "list")

    def _missing(self, call: Call) -> errors.ApiError:
        """As the metrics server says it: the object itself is not there, or nothing is known of it."""
        space, name = call.route.namespace, call.route.name
        stored = call.server.read(call.cluster, call.info.plural, space, name)
        shown = f"{space}/{name}" if space else name
        if stored is None:
            return errors.not_found("", call.info.plural, shown)
        return errors.not_found(GROUP, call.info.kind.lower(), shown)


def _by_name(call: Call) -> Callable[[Object], bool]:
    name = call.route.name
    return lambda obj: obj["metadata"]["name"] == name


def _by_selectors(call: Call) -> Callable[[Object], bool]:
    """
    :raises ApiError: 400.
    """
    selection.parse(call.request, call.info)  # upstream's words for what is wrong with them
    label_text, field_text = call.request.param("labelSelector"), call.request.param("fieldSelector")
    labels = LabelSelector.parse(label_text) if label_text else None
    fields = FieldSelector.parse(field_text) if field_text else None

    def chosen(obj: Object) -> bool:
        if labels is not None and not labels.matches(obj["metadata"].get("labels") or {}):
            return False
        return fields is None or fields.matches(lambda path: selection.field_of(obj, path))

    return chosen


def _respond(call: Call, found: list[Object], *, whole: bool) -> Response:
    wanted, info = call.wanted, call.info
    if wanted.shape == "Table":
        return respond(table_of(call, found, {}), wanted)
    if wanted.shape:
        found = [partial(obj, wanted.version) for obj in found]
    if not whole:
        return respond(found[0], wanted)
    kind = "PartialObjectMetadataList" if wanted.shape else info.list_kind
    version = f"meta.k8s.io/{wanted.version}" if wanted.shape else info.api_version
    return respond({"kind": kind, "apiVersion": version, "metadata": {}, "items": found}, wanted)

"""One request on its way through the server, and the forms that its answer may take."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from glebe.apiserver.request import media
from glebe.apiserver.request.routing import Route
from glebe.apiserver.store import Entry, Key
from glebe.apiserver.types.registry import ResourceInfo
from glebe.kube import errors
from glebe.kube.objects import Object
from glebe.kube.transport import Request, Response, User

if TYPE_CHECKING:
    from glebe.apiserver.admission.base import AdmissionAttributes
    from glebe.apiserver.clusters.logical import LogicalCluster
    from glebe.apiserver.server import ApiServer

_JSON_HEADERS = {"content-type": media.JSON}


@dataclass(slots=True)
class Call:
    """A routed, authenticated and authorised request for a resource."""

    server: ApiServer
    request: Request
    route: Route
    info: ResourceInfo
    user: User
    wanted: media.Wanted = field(default_factory=media.Wanted)
    warnings: list[str] = field(default_factory=list)
    dry_run: bool = False
    duplicates: list[str] = field(default_factory=list)
    """Paths that the body names twice."""
    admission: AdmissionAttributes | None = None
    """What admission was asked for this write, until the write is settled."""
    annotations: dict[str, str] = field(default_factory=dict)
    """See ``Flight.annotations``."""
    tenant: LogicalCluster | None = None
    """The logical cluster that was there when the request came (there may be another of its name by now)."""

    @property
    def cluster(self) -> str:
        return self.route.cluster

    def key(self, name: str | None = None) -> Key:
        namespace = self.route.namespace if self.info.namespaced else ""
        return Key(self.info.stored_as, self.route.cluster, namespace, self.route.name if name is None else name)

    def annotate(self, key: str, value: str) -> None:
        """Note something for the audit log."""
        self.annotations[key] = value

    def warn(self, text: str) -> None:
        """Add a Warning header to the answer."""
        if text not in self.warnings:
            self.warnings.append(text)

    def not_found(self, name: str | None = None) -> errors.ApiError:
        return errors.not_found(self.info.group, self.info.plural, self.route.name if name is None else name)

    def invalid(self, name: str, causes: list[errors.Cause]) -> errors.ApiError:
        return errors.invalid(self.info.group, self.info.kind, name, causes)

    def field_manager(self) -> str:
        """``fieldManager``, by default the first part of the User-Agent (as upstream)."""
        named = self.request.param("fieldManager")
        return named or self.request.headers.get("user-agent", "").split("/", 1)[0] or "unknown"


def stored_version(info: ResourceInfo) -> bool:
    """Is the requested version the one that is stored?"""
    return (not info.storage_version or info.version == info.storage_version) and info.conversion is None


def served(info: ResourceInfo, obj: Object) -> Object:
    """A stored object (which may be changed) in the version that ``info`` serves."""
    if stored_version(info):
        return obj
    from glebe.apiserver.types.conversion import any_served  # late: few kinds need it

    return any_served(info, obj)


async def presented(call: Call, entry: Entry) -> Entry:
    """A stored entry as the call's version shows it: for custom kinds whose objects may need conversion or defaults."""
    if not call.info.converts:
        return entry
    from glebe.apiserver.custom.versions import present_one  # late: most kinds need it never

    return await present_one(call, entry)


async def to_be_stored(call: Call, obj: Object) -> Object:
    """An object of the call's version as it is to be kept (the counterpart of :func:`presented`)."""
    if not call.info.converts:
        return obj
    from glebe.apiserver.custom.versions import to_stored

    return await to_stored(call, obj)


def is_stale(call: Call, entry: Entry) -> bool:
    """Is the entry stored in another form than it would be stored in now?"""
    if not call.info.converts:
        return False
    from glebe.apiserver.custom.versions import is_old

    return is_old(call, entry)


def value_of(call: Call, entry: Entry) -> bytes:
    """The object's JSON in the requested version; the stored bytes themselves whenever possible."""
    if stored_version(call.info):
        return entry.value
    return orjson.dumps(object_of(call, entry))


def object_of(call: Call, entry: Entry) -> Object:
    """A fresh decoded copy in the requested version."""
    return served(call.info, entry.load())


def view_of(call: Call, entry: Entry) -> Object:
    """The object in the requested version, to read only."""
    return entry.view() if stored_version(call.info) else object_of(call, entry)


def respond_entry(call: Call, entry: Entry, code: int = 200) -> Response:
    """Answer with one stored object."""
    wanted = call.wanted
    if not wanted.shape and wanted.media == media.JSON and not wanted.pretty:
        return Response(code, dict(_JSON_HEADERS), value_of(call, entry))
    return respond_object(call, object_of(call, entry), code)


def respond_object(call: Call, obj: Object, code: int = 200) -> Response:
    """Answer with one decoded object (dry runs, other shapes, YAML)."""
    if call.wanted.shape == "Table":
        obj = table_of(call, [obj], {"resourceVersion": obj["metadata"].get("resourceVersion", "")})
    elif call.wanted.shape:
        obj = partial(obj, call.wanted.version)
    return respond(obj, call.wanted, code)


def respond(value: Any, wanted: media.Wanted, code: int = 200) -> Response:
    body, content_type = media.encode(value, wanted)
    return Response(code, {"content-type": content_type}, body)


def partial(obj: Object, version: str = "v1") -> Object:
    """``PartialObjectMetadata`` of an object."""
    return {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{version}", "metadata": obj["metadata"]}


def table_of(call: Call, items: list[Object], list_meta: Object) -> Object:
    from glebe.apiserver.printers.table import to_table  # late: many servers never print a table

    include = call.request.param("includeObject", "Metadata")
    table: Object = to_table(call.info, items, call.server.env.clock.now(), list_meta, include)
    table["apiVersion"] = f"meta.k8s.io/{call.wanted.version}"
    return table

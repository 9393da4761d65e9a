"""``/clusters`` and ``/clusters/NAME``: logical clusters as objects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import orjson

from glebe.apiserver.clusters import logical
from glebe.apiserver.clusters.logical import API_VERSION, GROUP, KIND, NOWHERE, PLURAL, RESOURCE
from glebe.apiserver.patch import json_patch, merge_patch
from glebe.apiserver.request import media
from glebe.apiserver.store import Entry
from glebe.kube import errors
from glebe.kube.objects import Object
from glebe.kube.transport import Request, Response, User

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer

_MASTERS = "system:masters"
_PREFIX = "/clusters/"


async def serve(server: ApiServer, request: Request, user: User) -> Response:
    """Answer a request for the register.

    :raises ApiError: 403 for everyone but members of system:masters; 404, 405, 409, 422.
    """
    if _MASTERS not in user.groups:
        raise errors.forbidden(GROUP, PLURAL, "", "only members of system:masters manage logical clusters")
    name = request.path[len(_PREFIX) :]
    verb = _VERBS.get((request.method, bool(name)))
    if verb is None or "/" in name:
        raise errors.method_not_allowed() if "/" not in name else errors.path_not_found()
    return await verb(server, request, name)


async def _get(server: ApiServer, request: Request, name: str) -> Response:
    entry = server.store.get(logical.key_of(name)) if server.clusters.exists(name) else None
    if entry is None:
        raise errors.not_found(GROUP, PLURAL, name)
    return _answer(_shown(server, entry))


async def _list(server: ApiServer, request: Request, name: str) -> Response:
    page = server.store.range(RESOURCE, NOWHERE)
    items = [_shown(server, e) for e in page.entries if b'"deletionTimestamp":' not in e.value or _lives(server, e)]
    meta = {"resourceVersion": str(page.revision)}
    return _answer({"apiVersion": API_VERSION, "kind": f"{KIND}List", "metadata": meta, "items": items})


async def _create(server: ApiServer, request: Request, name: str) -> Response:
    body = _body(request)
    asked = (body.get("metadata") or {}).get("name") or body.get("name") or ""
    return _answer(await server.clusters.create(str(asked), body), 201)


async def _replace(server: ApiServer, request: Request, name: str) -> Response:
    body = _body(request)
    return _answer(await server.clusters.change(name, lambda old: body))


async def _patch(server: ApiServer, request: Request, name: str) -> Response:
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    apply = _PATCHES.get(kind)
    if apply is None:
        raise errors.unsupported_media_type(kind, list(_PATCHES))
    patch = media.load_json(request.body)

    def edit(old: Object) -> Object:
        new = apply(old, patch)
        if not isinstance(new, dict):
            raise errors.bad_request("the patch leaves no object")
        return new

    return _answer(await server.clusters.change(name, edit))


async def _delete(server: ApiServer, request: Request, name: str) -> Response:
    body = _body(request) if request.body else {}
    uid = str((body.get("preconditions") or {}).get("uid") or "")
    gone = await server.clusters.delete(name, uid)
    details = {"name": name, "group": GROUP, "kind": PLURAL, "uid": gone["metadata"]["uid"]}
    return _answer({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})


_VERBS: dict[tuple[str, bool], Callable[[ApiServer, Request, str], Awaitable[Response]]] = {
    ("GET", True): _get,
    ("GET", False): _list,
    ("POST", False): _create,
    ("PUT", True): _replace,
    ("PATCH", True): _patch,
    ("DELETE", True): _delete,
}
_PATCHES: dict[str, Callable[[Any, Any], Any]] = {
    "application/merge-patch+json": merge_patch.apply,
    "application/strategic-merge-patch+json": merge_patch.apply,
    "application/json-patch+json": json_patch.apply,
}


def _body(request: Request) -> Object:
    body = media.decode(request.body, request.headers.get("content-type", ""))
    if not isinstance(body, dict) or not isinstance(body.get("metadata") or {}, dict):
        raise errors.bad_request(f"the body is no {KIND}")
    return body


def _lives(server: ApiServer, entry: Entry) -> bool:
    return server.clusters.exists(entry.view()["metadata"]["name"])


def _shown(server: ApiServer, entry: Entry) -> Object:
    """The object with what the cluster holds at this moment."""
    obj = logical.full(entry)
    objects, size = server.store.usage(obj["metadata"]["name"])
    obj["status"] = {**obj["status"], "used": {"objects": objects, "bytes": size}}
    return obj


def _answer(obj: Object, code: int = 200) -> Response:
    return Response(code, {"content-type": media.JSON}, orjson.dumps(obj))

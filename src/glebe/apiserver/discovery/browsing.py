"""The paths that name no object: discovery, OpenAPI, the root index.

Documents are made from what a cluster serves and kept by the content they are made from, so that clusters with the same
custom kinds share them, and a client that shows the right ETag gets nothing at all.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import orjson

from glebe.apiserver.discovery import groups as discovery
from glebe.apiserver.discovery import health
from glebe.apiserver.request import media
from glebe.apiserver.request.routing import Route
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube import errors
from glebe.kube.transport import Request, Response

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer

_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
_OPENAPI_V2 = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
#: a year: what an address with a hash names never changes
_YEAR = 31_536_000


async def browse(server: ApiServer, request: Request, route: Route) -> Response:
    """Answer a path that names no object.

    :raises ApiError: 404 for what is not there, 405 for anything but reading, 406 for forms that are not spoken.
    """
    if request.method not in ("GET", "HEAD"):
        raise errors.method_not_allowed()
    registry, cluster = server.registry, route.cluster
    path = "/" + "/".join(p for p in route.path.split("/") if p)
    if path.startswith("/openapi/"):
        return await _openapi(server, request, route, path.split("/")[2:])
    accept = request.headers.get("accept", "")
    version = discovery.media_type(accept) if path in ("/api", "/apis") else ""
    found = document(registry, cluster, path, version)
    if found is None:
        raise errors.path_not_found()
    body, etag = found
    headers = {"content-type": _AGGREGATED.format(version=version) if version else media.JSON}
    if path == "/api" or path.startswith("/apis"):
        headers["vary"] = "Accept"
    if version:
        return tagged(request, headers | {"cache-control": "public"}, body, etag)
    return _respond(media.negotiate(accept, False), headers, body)


def _respond(wanted: media.Wanted, headers: dict[str, str], body: bytes) -> Response:
    if wanted.media == media.JSON:
        return Response(200, headers, body)
    body, headers["content-type"] = media.encode(orjson.loads(body), wanted)
    return Response(200, headers, body)


def tagged(request: Request, headers: dict[str, str], body: bytes, etag: str) -> Response:
    """``body`` under its ETag, or 304 for a client that has it already."""
    headers["etag"] = f'"{etag}"'
    if etag in known_tags(request):
        return Response(304, headers, b"")
    return Response(200, headers, body)


def known_tags(request: Request) -> list[str]:
    """The ETags of what the client has (``If-None-Match``), without quotes."""
    return [t.strip().removeprefix("W/").strip('"') for t in request.headers.get("if-none-match", "").split(",")]


def document(registry: TypeRegistry, cluster: str, path: str, version: str) -> tuple[bytes, str] | None:
    """(encoded document of a path, its ETag); clusters with the same custom kinds share it."""
    fingerprint = registry.fingerprint(cluster)
    key = (fingerprint, path, version)
    held = _documents.get(key)
    if held is None:
        found = _find(registry, cluster, path, version)
        if found is None:
            return None
        body = orjson.dumps(found)
        held = body, hashlib.sha512(body).hexdigest().upper()
        while len(_documents) >= _KEPT:
            del _documents[next(iter(_documents))]
        _documents[key] = held
    return held


_documents: dict[tuple[str, str, str], tuple[bytes, str]] = {}
_KEPT = 256


def _find(registry: TypeRegistry, cluster: str, path: str, version: str) -> Any:
    parts = path.split("/")[1:]
    if path == "/":
        return {"paths": _paths(registry, cluster)}
    if path == "/api":
        if version:
            return discovery.aggregated(registry, cluster, core=True, version=version)
        return discovery.api_versions()
    if path == "/apis":
        if version:
            return discovery.aggregated(registry, cluster, core=False, version=version)
        return discovery.group_list(registry, cluster)
    if parts[0] == "api" and len(parts) == 2:
        return discovery.resource_list(registry, cluster, "", parts[1])
    if parts[0] == "apis" and len(parts) == 2:
        return discovery.group(registry, cluster, parts[1])
    if parts[0] == "apis" and len(parts) == 3:
        return discovery.resource_list(registry, cluster, parts[1], parts[2])
    return None


async def _openapi(server: ApiServer, request: Request, route: Route, parts: list[str]) -> Response:
    """``/openapi/v2``, ``/openapi/v3``, ``/openapi/v3/api/v1`` and ``/openapi/v3/apis/GROUP/VERSION``."""
    from glebe.apiserver.discovery.openapi import documents  # late: the documents are big and rarely asked for

    registry, cluster = server.registry, route.cluster
    if parts == ["v2"]:
        return await _openapi_v2(registry, cluster, request)
    if parts == ["v3"]:
        return Response(200, {"content-type": media.JSON}, orjson.dumps(documents.v3_index(registry, cluster)))
    if len(parts) == 3 and parts[:2] == ["v3", "api"]:
        group, version = "", parts[2]
    elif len(parts) == 4 and parts[:2] == ["v3", "apis"]:
        group, version = parts[2], parts[3]
    else:
        raise errors.path_not_found()
    etag = documents.v3_etag(registry, cluster, group, version)
    if not etag:
        raise errors.path_not_found()
    headers = {"content-type": media.JSON, "vary": "Accept"}
    asked = request.param("hash")
    if asked and asked != etag:
        return Response(301, headers | {"location": f"{request.path}?hash={etag}", "etag": f'"{etag}"'}, b"")
    if asked:
        headers |= {"cache-control": f"public, immutable, max-age={_YEAR}"}
    if etag in known_tags(request):
        return tagged(request, headers, b"", etag)
    return tagged(request, headers, await documents.v3_group(registry, cluster, group, version), etag)


async def _openapi_v2(registry: TypeRegistry, cluster: str, request: Request) -> Response:
    from glebe.apiserver.discovery.openapi import documents

    etag = documents.v2_etag(registry, cluster)
    headers = {"content-type": media.JSON, "vary": "Accept-Encoding, Accept"}
    binary = prefers_protobuf(request.headers.get("accept", ""))
    if binary:
        headers["content-type"] = _OPENAPI_V2.replace("@", ".")
    if etag in known_tags(request):
        return tagged(request, headers, b"", etag)
    if not binary:
        return tagged(request, headers, await documents.v2(registry, cluster), etag)
    held = _binary.get(etag)
    if held is None:
        from glebe.apiserver.discovery.openapi import protobuf

        held = await protobuf.encode_v2(await documents.v2(registry, cluster))
        while len(_binary) >= _BINARY_KEPT:
            del _binary[next(iter(_binary))]
        _binary[etag] = held
    return tagged(request, headers, held, etag)


_binary: dict[str, bytes] = {}
_BINARY_KEPT = 2


def prefers_protobuf(accept: str) -> bool:
    """Does an ``Accept`` header name the protobuf form of OpenAPI v2 before JSON?"""
    for clause in accept.split(","):
        kind = clause.split(";")[0].strip().lower()
        if kind in (_OPENAPI_V2, _OPENAPI_V2.replace("@", ".")):
            return True
        if kind in ("application/json", "*/*", "application/*"):
            return False
    return False


def _paths(registry: TypeRegistry, cluster: str) -> list[str]:
    paths = ["/api", "/api/v1", "/apis", "/apis/"]
    for name, versions in sorted(discovery.groups(registry, cluster).items()):
        if name:
            paths += [f"/apis/{name}", *(f"/apis/{name}/{v}" for v in versions)]
    for base in ("healthz", "livez", "readyz"):
        paths += [f"/{base}", *(f"/{base}/{check}" for check in health.names(base))]
    return sorted([*paths, "/metrics", "/openapi/v2", "/openapi/v3", "/openapi/v3/", "/version"])

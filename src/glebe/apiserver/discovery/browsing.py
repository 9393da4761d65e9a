"""The paths that name no object: discovery, OpenAPI, the root index; made elsewhere, cached here."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

from glebe.apiserver.discovery import groups as discovery
from glebe.apiserver.request import media
from glebe.apiserver.request.routing import Route
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube import errors
from glebe.kube.transport import Request, Response

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer


def browse(server: ApiServer, request: Request, route: Route) -> Response:
    """Answer a path that names no object.

    :raises ApiError: 404 for what is not there, 405 for anything but reading.
    """
    if request.method not in ("GET", "HEAD"):
        raise errors.method_not_allowed()
    registry, cluster = server.registry, route.cluster
    accept = request.headers.get("accept", "")
    path = "/" + "/".join(p for p in route.path.split("/") if p)
    version = discovery.media_type(accept) if path in ("/api", "/apis") else ""
    generation = registry.generation(cluster)
    # Clusters without custom kinds of their own share one set of documents.
    body = _document(registry, cluster if generation else "", generation, path, version)
    if body is None:
        raise errors.path_not_found()
    content_type = media.JSON
    if version:
        content_type += f";g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
    headers = {"content-type": content_type}
    if path == "/api" or path.startswith("/apis"):
        headers["vary"] = "Accept"
    return Response(200, headers, body)


@lru_cache(maxsize=256)
def _document(registry: TypeRegistry, cluster: str, generation: int, path: str, version: str) -> bytes | None:
    """The encoded document of a path; ``generation`` is there to tell old from new."""
    found = _find(registry, cluster, path, version)
    return None if found is None else orjson.dumps(found)


def _find(registry: TypeRegistry, cluster: str, path: str, version: str) -> Any:
    parts = path.split("/")[1:]
    if path == "/":
        return {"paths": _paths(registry, cluster)}
    if path.startswith("/openapi/"):
        return _openapi(registry, cluster, parts[1:])
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


def _openapi(registry: TypeRegistry, cluster: str, parts: list[str]) -> Any:
    """``/openapi/v2``, ``/openapi/v3`` and ``/openapi/v3/apis/GROUP/VERSION``."""
    from glebe.apiserver.discovery import openapi  # late: the documents are big and rarely asked for

    if parts == ["v2"]:
        return openapi.v2(registry, cluster)
    if parts == ["v3"]:
        return openapi.v3_index(registry, cluster)
    if parts[0] == "v3" and len(parts) == 3 and parts[1] == "api":
        return openapi.v3_group(registry, cluster, "", parts[2])
    if parts[0] == "v3" and len(parts) == 4 and parts[1] == "apis":
        return openapi.v3_group(registry, cluster, parts[2], parts[3])
    return None


def _paths(registry: TypeRegistry, cluster: str) -> list[str]:
    paths = ["/api", "/api/v1", "/apis"]
    for name, versions in sorted(discovery.groups(registry, cluster).items()):
        if name:
            paths += [f"/apis/{name}", *(f"/apis/{name}/{v}" for v in versions)]
    return [*paths, "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]

"""Discovery, OpenAPI and the root index: the paths that name no object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from glebe.apiserver import media
from glebe.apiserver.routing import Route
from glebe.kube import errors
from glebe.kube.transport import Request, Response

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer


def browse(server: ApiServer, request: Request, route: Route) -> Response:
    """Answer a path that names no object.

    :raises ApiError: 404.
    """
    if request.method not in ("GET", "HEAD"):
        raise errors.method_not_allowed()
    parts = [p for p in route.path.split("/") if p]
    groups = _groups(server, route.cluster)
    if not parts:
        return _json({"paths": _paths(groups)})
    if parts == ["api"]:
        return _json({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
    if parts == ["apis"]:
        listed = [_group(name, versions) for name, versions in groups.items() if name]
        return _json({"kind": "APIGroupList", "apiVersion": "v1", "groups": listed})
    if parts[0] == "apis" and len(parts) == 2 and parts[1] in groups:
        return _json({"kind": "APIGroup", "apiVersion": "v1", **_group(parts[1], groups[parts[1]])})
    if parts[0] == "api" and len(parts) == 2 and parts[1] in groups.get("", ()):
        return _json(_resources(server, route.cluster, "", parts[1]))
    if parts[0] == "apis" and len(parts) == 3 and parts[2] in groups.get(parts[1], ()):
        return _json(_resources(server, route.cluster, parts[1], parts[2]))
    raise errors.path_not_found()


def _json(value: Any) -> Response:
    return Response(200, {"content-type": media.JSON}, orjson.dumps(value))


def _groups(server: ApiServer, cluster: str) -> dict[str, list[str]]:
    """Group -> versions, in the registry's order."""
    groups: dict[str, list[str]] = {}
    for info in server.registry.resources(cluster):
        versions = groups.setdefault(info.group, [])
        if info.version not in versions:
            versions.append(info.version)
    return groups


def _paths(groups: dict[str, list[str]]) -> list[str]:
    paths = ["/api", "/api/v1", "/apis"]
    for name in sorted(g for g in groups if g):
        paths += [f"/apis/{name}", *(f"/apis/{name}/{v}" for v in groups[name])]
    return [*paths, "/healthz", "/livez", "/readyz", "/version"]


def _group(name: str, versions: list[str]) -> dict[str, Any]:
    listed = [{"groupVersion": f"{name}/{v}", "version": v} for v in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _resources(server: ApiServer, cluster: str, group: str, version: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for info in server.registry.resources(cluster):
        if (info.group, info.version) != (group, version):
            continue
        row: dict[str, Any] = {
            "name": info.plural,
            "singularName": info.singular,
            "namespaced": info.namespaced,
            "kind": info.kind,
            "verbs": list(info.verbs),
        }
        if info.short_names:
            row["shortNames"] = list(info.short_names)
        if info.categories:
            row["categories"] = list(info.categories)
        rows.append(row)
        for sub in info.subresource_infos.values():
            row = {"name": f"{info.plural}/{sub.name}", "singularName": "", "namespaced": info.namespaced}
            if (sub.group, sub.version) != (group, version):
                row |= {"group": sub.group, "version": sub.version}
            rows.append({**row, "kind": sub.kind, "verbs": list(sub.verbs)})
    name = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": rows}

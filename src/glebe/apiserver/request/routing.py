"""From a URL path to what is asked of the API (upstream's RequestInfo)."""

from __future__ import annotations

from dataclasses import dataclass

from glebe.kube.transport import Request

#: The logical cluster of bare paths.
ROOT = "root"

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}


@dataclass(frozen=True, slots=True)
class Route:
    """``resource`` is "" for everything that is not an object's path (discovery, health, ...)."""

    cluster: str
    path: str
    """The path without the ``/clusters/NAME`` prefix."""
    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""
    """What follows the subresource (``proxy`` paths)."""


def split_cluster(path: str) -> tuple[str, str]:
    """``/clusters/NAME/api/v1`` -> (NAME, /api/v1); bare paths belong to :data:`ROOT`; ``/clusters[/NAME]`` as is."""
    if not path.startswith("/clusters/"):
        return ROOT, path
    name, slash, rest = path[len("/clusters/") :].partition("/")
    if not slash:
        return "", path
    return name, "/" + rest


def parse(request: Request) -> Route:
    """Never fails: what is no resource path comes back with ``resource`` empty."""
    cluster, path = split_cluster(request.path)
    parts = path[1:].split("/")
    while parts and not parts[-1]:
        parts.pop()
    start = {"api": 2, "apis": 3}.get(parts[0], 9) if parts else 9
    if len(parts) <= start:
        return Route(cluster, path, request.method.lower())
    group, version, rest = parts[1] if start == 3 else "", parts[start - 1], parts[start:]
    watching = False
    if rest[0] == "watch" and len(rest) > 1:
        watching, rest = True, rest[1:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        if len(rest) > 2 and not (group == "" and rest[2] in ("status", "finalize")):
            rest = rest[2:]
    if "" in parts and "" in parts[: len(parts) - len(rest) + 3]:  # a doubled slash: upstream serves nothing there
        return Route(cluster, path, request.method.lower())
    resource = rest[0]
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    verb = _verb(request, name, subresource, watching)
    return Route(cluster, path, verb, group, version, resource, namespace, name, subresource, "/".join(rest[3:]))


def _verb(request: Request, name: str, subresource: str, watching: bool) -> str:
    method = request.method
    if method in ("GET", "HEAD"):
        if watching or (not subresource and _is_true(request.param("watch"))):
            return "watch"
        return "get" if name else "list"
    if method == "DELETE":
        return "delete" if name else "deletecollection"
    return _VERBS.get(method, method.lower())


def name_fault(name: str) -> str:
    """Why no object can have this name, which a path holds; "" when one may."""
    if name in (".", ".."):
        return f"may not be '{name}'"
    return "may not contain '%'" if "%" in name else ""


def _is_true(text: str) -> bool:
    return text in ("true", "1", "True", "TRUE", "t", "T")

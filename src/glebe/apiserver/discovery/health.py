"""/healthz, /livez, /readyz and /version."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import orjson

from glebe.apiserver.types import release
from glebe.kube.transport import Request, Response

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer

_BASES = ("healthz", "livez", "readyz")
_PATHS = tuple(f"/{base}" for base in _BASES)

Check = Callable[["ApiServer"], bool]


def _always(server: ApiServer) -> bool:
    return True


def _ready(server: ApiServer) -> bool:
    """The store answered, the clusters and their custom kinds are known, and the server is not shutting down."""
    return server.ready


def _stored(server: ApiServer) -> bool:
    """The store takes writes, as far as is known."""
    return server.ready and not server.store.trouble


#: name (upstream's, where the question is the same) -> the check; ``readyz`` also asks whether the server is to stop
_CHECKS: dict[str, Check] = {
    "ping": _always,
    "log": _always,
    "etcd": _stored,
    "poststarthook/crd-informer-synced": _ready,
    "poststarthook/start-apiextensions-controllers": _ready,
    "poststarthook/storage-readiness": _ready,
    "poststarthook/start-system-namespaces-controller": _ready,
    "autoregister-completion": _ready,
}
_READY_CHECKS: dict[str, Check] = {**{k: v for k, v in _CHECKS.items() if k != "etcd"}, "shutdown": _ready}
#: Whoever started and has not finished yet is alive: only being ready waits.
_LIVE_CHECKS: dict[str, Check] = {**_CHECKS}


def names(base: str) -> list[str]:
    """The single checks below ``/healthz``, ``/livez`` or ``/readyz``."""
    return list(_of(base))


def _of(base: str) -> dict[str, Check]:
    return _READY_CHECKS if base == "readyz" else _LIVE_CHECKS


def is_health(path: str) -> bool:
    """Paths that are answered without asking who asks."""
    return path == "/version" or path == "/version/" or path.startswith(_PATHS)


def answer(server: ApiServer, path: str, request: Request) -> Response:
    if path.startswith("/version"):
        return Response(200, {"content-type": "application/json"}, orjson.dumps(version()))
    base, _, single = path[1:].strip("/").partition("/")
    headers = {
        "content-type": "text/plain; charset=utf-8",
        "x-content-type-options": "nosniff",
        "cache-control": "no-cache, private",
    }
    if base not in _BASES:
        return Response(404, headers, b"404 page not found\n")
    checks = _of(base)
    if single:
        if single not in checks:
            return Response(404, headers, b"404 page not found\n")
        good = checks[single](server)
        return Response(200 if good else 500, headers, b"ok" if good else b"internal server error: not ready\n")
    return _all(server, base, checks, request, headers)


def _all(server: ApiServer, base: str, checks: dict[str, Check], request: Request, headers: dict[str, str]) -> Response:
    excluded = [v for k, v in request.query if k == "exclude" for v in v.split(",") if v]
    lines, good = [], True
    for name, check in checks.items():
        if name in excluded:
            lines.append(f"[+]{name} excluded: ok")
        elif check(server):
            lines.append(f"[+]{name} ok")
        else:
            good = False
            lines.append(f"[-]{name} failed: reason withheld")
    unknown = sorted({name for name in excluded if name not in checks})
    if unknown:
        listed = ",".join(f'"{name}"' for name in unknown)
        lines.append(f"warn: some health checks cannot be excluded: no matches for {listed}")
    if good and not any(k == "verbose" for k, _ in request.query):
        return Response(200, headers, b"ok")
    lines.append(f"{base} check {'passed' if good else 'failed'}")
    return Response(200 if good else 500, headers, ("\n".join(lines) + "\n").encode())


def version() -> dict[str, str]:
    """The ``version.Info`` of this server."""
    major, _, minor = release.chosen().partition(".")
    return {
        "major": major,
        "minor": minor,
        "emulationMajor": major,
        "emulationMinor": minor,
        "minCompatibilityMajor": major,
        "minCompatibilityMinor": str(int(minor) - 1),
        "gitVersion": f"v{release.chosen()}.{release.PATCHES[release.chosen()]}+glebe",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "cpython",
        "platform": "any",
    }

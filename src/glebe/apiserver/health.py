"""/healthz, /livez, /readyz and /version."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from glebe.kube.transport import Request, Response

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer

#: The Kubernetes version whose API is served.
MAJOR, MINOR, PATCH = "1", "36", "2"
_PATHS = ("/healthz", "/livez", "/readyz")


def is_health(path: str) -> bool:
    """Paths that are answered without asking who asks."""
    return path == "/version" or path == "/version/" or path.startswith(_PATHS)


def answer(server: ApiServer, path: str, request: Request) -> Response:
    if path.startswith("/version"):
        return Response(200, {"content-type": "application/json"}, orjson.dumps(version()))
    base, _, single = path[1:].partition("/")
    checks = {"ping": True, "store": server.ready}
    if base == "readyz":
        checks["clusters"] = server.ready
    if single:
        if single not in checks:
            return Response(404, {"content-type": "text/plain"}, b"404 page not found\n")
        checks = {single: checks[single]}
    excluded = {v for k, v in request.query if k == "exclude"}
    good = all(ok for name, ok in checks.items() if name not in excluded)
    headers = {"content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff"}
    verbose = any(k == "verbose" for k, _ in request.query)
    if good and not verbose:
        return Response(200, headers, b"ok")
    lines = [
        f"[+]{n} excluded: ok" if n in excluded else f"[{'+' if ok else '-'}]{n} {'ok' if ok else 'failed'}"
        for n, ok in checks.items()
    ]
    lines.append(f"{base} check {'passed' if good else 'failed'}")
    return Response(200 if good else 500, headers, ("\n".join(lines) + "\n").encode())


def version() -> dict[str, str]:
    """The ``version.Info`` of this server."""
    return {
        "major": MAJOR,
        "minor": MINOR,
        "gitVersion": f"v{MAJOR}.{MINOR}.{PATCH}+glebe",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "cpython",
        "platform": "any",
    }

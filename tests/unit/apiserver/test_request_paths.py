"""Odd paths and methods, answered as a real kube-apiserver 1.36 answers them."""

from __future__ import annotations

import orjson
import pytest

from glebe.apiserver.request.routing import parse
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.clock import Env
from glebe.kube.transport import PLATFORM, Request

MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", f"{MAPS}/..", 400, "Name parameter invalid: \"..\": may not be '..'"),
        ("GET", f"{MAPS}/.", 400, "Name parameter invalid: \".\": may not be '.'"),
        ("DELETE", f"{MAPS}/a%b", 400, "Name parameter invalid: \"a%b\": may not contain '%'"),
        ("GET", "/api/v1/namespaces/../configmaps", 400, "Namespace parameter invalid: \"..\": may not be '..'"),
        ("GET", f"{MAPS}/.hidden", 404, 'configmaps ".hidden" not found'),
        ("GET", "/api//v1/pods", 404, "the server could not find the requested resource"),
        ("GET", "//api/v1/pods", 404, "the server could not find the requested resource"),
        ("GET", "/api/v1/pods//", 200, ""),
        ("PUT", MAPS, 405, "the server does not allow this method on the requested resource"),
        ("PATCH", MAPS, 405, "the server does not allow this method on the requested resource"),
        ("HEAD", MAPS, 405, "the server does not allow this method on the requested resource"),
        ("OPTIONS", MAPS, 405, "the server does not allow this method on the requested resource"),
    ],
)
async def test_answers(method: str, path: str, status: int, message: str) -> None:
    server = ApiServer(MemoryStore(), Env.seeded(1), TypeRegistry())
    await server.start()
    answer = await server.handle(Request(method, path, body=b"{}", user=PLATFORM))
    assert answer.status == status
    if status >= 400:
        assert orjson.loads(answer.body)["message"] == message
    await server.close()


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/api/v1/pods", ("", "v1", "pods", "", "", "", "")),
        ("/apis/apps/v1/namespaces/a/deployments/b/scale", ("apps", "v1", "deployments", "a", "b", "scale", "")),
        ("/api/v1/namespaces/a/status", ("", "v1", "namespaces", "a", "a", "status", "")),
        ("/api/v1/namespaces/a/pods/b/proxy/x//y/", ("", "v1", "pods", "a", "b", "proxy", "x//y")),
        ("/api/v1/namespaces//pods", ("", "", "", "", "", "", "")),
        ("/apis/apps/v1", ("", "", "", "", "", "", "")),
        ("/", ("", "", "", "", "", "", "")),
        ("", ("", "", "", "", "", "", "")),
    ],
)
def test_routes(path: str, found: tuple[str, ...]) -> None:
    r = parse(Request("GET", path))
    assert (r.group, r.version, r.resource, r.namespace, r.name, r.subresource, r.rest) == found

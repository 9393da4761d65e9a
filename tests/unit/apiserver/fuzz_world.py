"""A server for one random story: asked as by a client, with answers that are never the server's own fault."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import orjson
from hypothesis import settings

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore, Store
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.clock import Env
from glebe.kube.transport import Request, Response, User
from glebe.kube.virtualtime import run as run_virtual

T = TypeVar("T")

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
GADGETS = "/apis/fuzz.example.org/v1/namespaces/default/gadgets"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

_TEXT = {"type": "string", "maxLength": 30}
_PART = {"type": "object", "properties": {"id": _TEXT, "size": {"type": "integer"}, "on": {"type": "boolean"}}}
GADGET: dict[str, Any] = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "map": {"type": "object", "additionalProperties": _TEXT},
                "atom": {"type": "object", "additionalProperties": _TEXT, "x-kubernetes-map-type": "atomic"},
                "set": {"type": "array", "items": _TEXT, "x-kubernetes-list-type": "set"},
                "list": {"type": "array", "items": _TEXT},
                "parts": {
                    "type": "array",
                    "items": {**_PART, "required": ["id"]},
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["id"],
                },
                "level": {"type": "integer", "default": 1},
                "either": {"x-kubernetes-int-or-string": True},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            },
        },
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}


def definition(schema: dict[str, Any], group: str = "fuzz.example.org") -> dict[str, Any]:
    """A CustomResourceDefinition of gadgets."""
    version = {"name": "v1", "served": True, "storage": True, "subresources": {"status": {}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"gadgets.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget", "listKind": "GadgetList"},
            "versions": [{**version, "schema": {"openAPIV3Schema": schema}}],
        },
    }


def few(examples: int) -> settings:
    """The same few examples in every run; ``GLEBE_FUZZ`` multiplies their number and makes them random."""
    more = int(os.environ.get("GLEBE_FUZZ", "0"))
    return settings(max_examples=examples * max(more, 1), derandomize=not more, database=None)


class World:
    """One server; ``ask`` checks what every answer must be."""

    def __init__(self, store: Store | None = None) -> None:
        self.server = ApiServer(store or MemoryStore(), Env.seeded(1), TypeRegistry())
        self.user = User("fuzzer", ("system:masters", "system:authenticated"))

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = b"",
        kind: str = JSON,
        *,
        accept: str = JSON,
        headers: dict[str, str] | None = None,
        allow: tuple[int, ...] = (),
        **query: Any,
    ) -> Response:
        """The answer; it is well formed, and no 5xx (but those in ``allow``)."""
        payload = body if isinstance(body, bytes) else orjson.dumps(body)
        head = {"content-type": kind, "accept": accept, **(headers or {})}
        request = Request(method, path, list(query.items()), head, payload, user=self.user)
        response = await self.server.handle(request)
        assert response.status < 500 or response.status in allow, (response.status, response.body[:400])
        if response.status >= 400 and accept == JSON:
            status = orjson.loads(response.body)
            assert status["kind"] == "Status"
            assert status["code"] == response.status
            assert status["message"]
        return response

    async def json(self, method: str, path: str, body: Any = b"", kind: str = JSON, **options: Any) -> tuple[int, Any]:
        response = await self.ask(method, path, body, kind, **options)
        return response.status, orjson.loads(response.body)


def tell(story: Callable[[World], Awaitable[T]], store: Store | None = None) -> T:
    """Run a story against a fresh server, in virtual time."""

    async def run() -> T:
        world = World(store)
        await world.server.start()
        try:
            return await story(world)
        finally:
            await world.server.close()

    return run_virtual(run())

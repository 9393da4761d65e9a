"""The command line against a real API server in the same process: no sockets, no controllers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store.memory import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.cli.command import Session
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import Object
from glebe.kube.resources import Resource
from glebe.platform import bootstrap

Invoke = Callable[..., Result]


class Api:
    """The server, and a client with all rights for the test itself."""

    def __init__(self) -> None:
        self.server = ApiServer(MemoryStore(), Env.system(), TypeRegistry())
        self.client = Client(InProcessTransport(self.server.handle))
        asyncio.run(self._start())

    async def _start(self) -> None:
        await self.server.start()
        await bootstrap.install_crds(self.client)
        await bootstrap.ensure_namespaces(self.client)

    def create(self, resource: Resource, obj: Object, status: dict[str, Any] | None = None) -> Object:
        """Create an object, and its status with a second write as a controller does."""

        async def work() -> Object:
            made = await self.client.create(resource, obj)
            if status is None:
                return made
            return await self.client.update_status(resource, {**made, "status": status})

        return asyncio.run(work())

    def change(self, resource: Resource, obj: Object, status: dict[str, Any]) -> Object:
        """Replace an object, and its status with a second write."""

        async def work() -> Object:
            made = await self.client.update(resource, obj)
            return await self.client.update_status(resource, {**made, "status": status})

        return asyncio.run(work())

    def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object:
        return asyncio.run(self.client.get(resource, name, namespace))


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    made = Api()

    @asynccontextmanager
    async def connect(session: Session) -> AsyncIterator[Client]:
        session.namespace = session.namespace_option or "default"
        yield Client(InProcessTransport(made.server.handle))

    monkeypatch.setattr(Session, "connect", connect)
    return made


@pytest.fixture
def glebe(monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run a command line: ``glebe("jobs", "-A").stdout``."""
    from glebe.cli.main import app

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments))

    return invoke

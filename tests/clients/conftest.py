"""One platform for all client tests of a module: they work in names of their own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from glebe_up import Lab, Server, Up


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    platform = Up(Path(tmp_path_factory.mktemp("glebe")))
    try:
        yield platform
        platform.stop()
    finally:
        if platform.process.poll() is None:
            platform.kill()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`glebe apiserver` with one tenant; tests of clients that need no queue and no nodes share it."""
    one = Server(Path(tmp_path_factory.mktemp("apiserver")))
    try:
        one.glebe("cluster", "create", "tenant")
        one.glebe("cluster", "kubeconfig", "tenant", "--data-dir", str(one.data), "--to", str(one.tenant))
        yield one
        one.stop()
    finally:
        if one.process.poll() is None:
            one.kill()


_numbers = itertools.count()


@pytest.fixture(params=["root", "tenant"])
def lab(server: Server, request: pytest.FixtureRequest) -> Lab:
    """A namespace of its own: in the root cluster, and at a tenant's address."""
    made = Lab(server, f"lab-{next(_numbers)}", server.tenant if request.param == "tenant" else server.kubeconfig)
    made.kubectl("create", "namespace", made.namespace)
    return made

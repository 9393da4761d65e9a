"""One platform for all client tests of a module: they work in names of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from glebe_up import Up


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    platform = Up(Path(tmp_path_factory.mktemp("glebe")))
    try:
        yield platform
        platform.stop()
    finally:
        if platform.process.poll() is None:
            platform.kill()

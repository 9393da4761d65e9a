"""Async tests run under virtual time, unless they are marked ``realtime``."""

from __future__ import annotations

import asyncio
import inspect
import io
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from glebe.kube import virtualtime

# A test that is slow on a busy machine is not a wrong one.
settings.register_profile("glebe", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("glebe")


_LONGEST = 120.0
"""Seconds of a test on the real loop. One that waits for ever says where each of its tasks does."""


async def _watched(test: Coroutine[Any, Any, None]) -> None:
    task = asyncio.ensure_future(test)
    done, _ = await asyncio.wait([task], timeout=_LONGEST)
    if not done:
        stacks = io.StringIO()
        for each in asyncio.all_tasks():
            each.print_stack(file=stacks)
        task.cancel()
        await asyncio.wait([task], timeout=5.0)
        pytest.fail(f"not done after {_LONGEST:.0f} s; its tasks:\n{stacks.getvalue()}", pytrace=False)
    task.result()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    coroutine = pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})
    if pyfuncitem.get_closest_marker("realtime"):
        asyncio.run(_watched(coroutine))
    else:
        virtualtime.run(coroutine)
    return True


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Public data for benchmarks and scenarios; tests that need it are skipped where it is not."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("GLEBE_DATA", beside))
    if not path.is_dir():
        pytest.skip("public data not found: set GLEBE_DATA to its folder")
    return path

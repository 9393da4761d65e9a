"""A short run of the crash benchmark: killed servers keep their promises, a second replica misses nothing."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.realtime
_ROOT = Path(__file__).resolve().parents[2]


def load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("store", ["sqlite", "etcd"])
async def test_kill_9_under_write_load(store: str) -> None:
    peer = load("etcd_peer_for_clients", _ROOT / "tests" / "unit" / "apiserver" / "etcd_peer.py")
    crash = load("glebe_crash_benchmark", _ROOT / "benchmarks" / "crash.py")
    program = str(peer.etcd_program()) if store == "etcd" else ""
    result = await crash.run(store, 2, 7, program, False)
    assert result["acknowledged"] > 0
    if store == "etcd":
        assert result["seen by the surviving replica"] > 0


async def test_the_harness_notices_what_it_looks_for() -> None:
    crash = load("glebe_crash_benchmark", _ROOT / "benchmarks" / "crash.py")
    with pytest.raises(crash.Broken, match="twice or out of order"):
        crash.check_history([1, 3, 3], [], 3, 0)
    with pytest.raises(crash.Broken, match="missed"):
        crash.check_history([1, 3], [1, 2, 3], 3, 0)
    load_ = crash.Load(random.Random(1))
    written = crash.Write(revision=5, content="x#1")
    with pytest.raises(crash.Broken, match="is lost"):
        load_.check("a", written, None)
    text = crash.content_of(1, 1, random.Random(1))
    meta = {"name": "a", "resourceVersion": "6"}
    with pytest.raises(crash.Broken, match="half a write"):
        load_.check("a", written, {"metadata": meta, "data": {"one": text, "two": "other"}})
    with pytest.raises(crash.Broken, match="acknowledged"):
        load_.check("a", written, {"metadata": meta, "data": {"one": text, "two": text}})

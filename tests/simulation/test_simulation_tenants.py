"""Several logical clusters under faults; and that the judge would notice."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from glebe.apiserver.store.base import Key
from glebe.kube import virtualtime
from glebe.platform.simulation import tenants
from glebe.platform.simulation.faults import FaultRates


def run(seed: int, folder: Path) -> tuple[str, int, int]:
    return virtualtime.run(tenants.run(seed, FaultRates(), folder))


@pytest.mark.parametrize("seed", range(100, 104))
def test_every_clusters_deployments_are_complete_in_the_end(seed: int, tmp_path: Path) -> None:
    violation, writes, faults = run(seed, tmp_path)
    assert violation == ""
    assert writes > 300
    assert faults > 20


def test_a_seed_repeats_itself(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert run(5, tmp_path / "a") == run(5, tmp_path / "b")


def judged(*pods: tuple[str, str, str, str, str]) -> str:
    """(cluster, name, uid, node, phase) written one after the other."""
    judge = tenants._Judge()
    for cluster, name, uid, node, phase in pods:
        spec = {"nodeName": node, "containers": [{"resources": {"requests": {"cpu": "3"}}}]}
        body = {"metadata": {"name": name, "uid": uid}, "spec": spec, "status": {"phase": phase}}
        judge.observe(Key("pods", cluster, "default", name), orjson.dumps(body))
    return judge.violation


def test_the_judge_notices() -> None:
    assert judged(("t0", "p", "1", "team-00", "Running"), ("t1", "p", "2", "team-00", "Running")) == ""
    assert "moved" in judged(("t0", "p", "1", "team-00", "Running"), ("t0", "p", "1", "team-01", "Running"))
    assert "does not have" in judged(("root", "p", "1", "team-00", "Running"))
    assert "CPUs" in judged(("t0", "p", "1", "team-00", "Running"), ("t0", "q", "2", "team-00", "Running"))
    assert "is Running" in judged(("t0", "p", "1", "team-00", "Failed"), ("t0", "p", "1", "team-00", "Running"))

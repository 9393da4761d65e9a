"""The examples are what they say."""

from __future__ import annotations

import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glebe.node.fleet import DEFAULT_FLEET, load_fleet, parse_fleet
from glebe.platform.bootstrap import default_objects
from glebe.platform.manifests import read_manifests

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def ring() -> ModuleType:
    sys.path.insert(0, str(EXAMPLES / "train"))
    try:
        import ring as module
    finally:
        sys.path.pop(0)
    return module


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_example_fleet_is_the_default_fleet() -> None:
    assert load_fleet(EXAMPLES / "fleet.yaml") == parse_fleet(DEFAULT_FLEET)


def test_manifests_are_read_and_name_what_exists() -> None:
    queues = read_manifests(EXAMPLES / "queues.yaml")
    flavors = {
        flavor["name"]
        for obj in queues
        if obj["kind"] == "ClusterQueue"
        for group in obj["spec"]["resourceGroups"]
        for flavor in group["flavors"]
    }
    made = [obj for _, obj in default_objects(parse_fleet(DEFAULT_FLEET).nodes)]
    assert flavors <= {obj["metadata"]["name"] for obj in made if obj["kind"] == "ResourceFlavor"}
    doors = {(o["metadata"]["namespace"], o["metadata"]["name"]) for o in queues if o["kind"] == "LocalQueue"}
    for name in ("background.yaml", "training-64gpu.yaml"):
        for obj in read_manifests(EXAMPLES / name):
            if obj["kind"] == "Job":
                meta = obj["metadata"]
                assert (meta["namespace"], meta["labels"]["kueue.x-k8s.io/queue-name"]) in doors


@pytest.mark.parametrize("text", ["a: [", "kind: Unknown", "- 1"])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"bad\.yaml"):
        read_manifests(path)


def meet(size: int) -> list:  # type: ignore[type-arg]
    port = free_port()
    environments = [
        {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        for rank in range(size)
    ]
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(ring().Ring.from_environment, environments))


@settings(max_examples=8, deadline=None)
@given(size=st.integers(1, 5), length=st.integers(1, 3000), seed=st.integers(0, 9))
def test_all_reduce_gives_the_same_mean_to_everybody(size: int, length: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=length) for _ in range(size)]
    members = meet(size)
    try:
        with ThreadPoolExecutor(size) as pool:
            results = list(pool.map(lambda pair: pair[0].all_reduce_mean(pair[1]), zip(members, arrays, strict=True)))
            gathered = list(pool.map(lambda member: member.all_gather(b"rank %d" % member.rank), members))
    finally:
        for member in members:
            member.close()
    for result in results:
        assert result.tobytes() == results[0].tobytes(), "bit for bit"
        np.testing.assert_allclose(result, np.mean(arrays, axis=0), rtol=1e-12, atol=1e-12)
    assert gathered == [[b"rank %d" % rank for rank in range(size)]] * size


def test_four_ranks_learn_and_agree() -> None:
    port = free_port()
    command = [sys.executable, str(EXAMPLES / "train" / "train.py"), "--steps", "40"]
    ranks = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env={"RANK": str(rank), "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
        )
        for rank in range(4)
    ]
    outputs = [rank.communicate(timeout=60)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * 4
    ends = {output.splitlines()[-1] for output in outputs}
    assert len(ends) == 1, "all ranks see the same losses"
    assert next(iter(ends)).startswith("loss fell from 0.6")


def test_a_lost_rank_ends_the_others() -> None:
    members = meet(3)
    members[1].close()
    with pytest.raises((ConnectionError, OSError)):
        members[2].all_reduce_mean(np.ones(10))
    for member in members:
        member.close()

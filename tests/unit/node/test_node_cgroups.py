"""Limits as cgroups of either version have them. Pure, but for a look at this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from glebe.node.containers import capabilities, cgroups
from glebe.node.containers.cgroups import Groups
from glebe.node.containers.supervise import limits as supervised
from glebe.node.contracts import Identity, Limits

V1 = Groups(1, (("cpu", "/c/cpu"), ("cpuacct", "/c/cpuacct"), ("memory", "/c/memory"), ("pids", "/c/pids")))
V2 = Groups(2, (("cpu", "/c"), ("memory", "/c"), ("pids", "/c")))


def values(groups: Groups, **limits: int) -> dict[str, str]:
    return dict(cgroups.values(groups, "n", Limits(**limits)))


def test_version_1() -> None:
    assert values(V1, cpu_request=250, cpu=1500, memory=1 << 30, processes=100) == {
        "/c/memory/glebe/n/memory.limit_in_bytes": "1073741824",
        "/c/cpu/glebe/n/cpu.shares": "256",
        "/c/cpu/glebe/n/cpu.cfs_period_us": "100000",
        "/c/cpu/glebe/n/cpu.cfs_quota_us": "150000",
        "/c/pids/glebe/n/pids.max": "100",
    }
    free = values(V1)
    assert free["/c/memory/glebe/n/memory.limit_in_bytes"] == "-1"
    assert free["/c/cpu/glebe/n/cpu.cfs_quota_us"] == "-1"
    assert free["/c/cpu/glebe/n/cpu.shares"] == "2"
    assert values(V1, cpu=1)["/c/cpu/glebe/n/cpu.cfs_quota_us"] == "1000"


def test_version_2() -> None:
    assert values(V2, cpu_request=1000, cpu=500, memory=64) == {
        "/c/glebe/n/memory.max": "64",
        "/c/glebe/n/memory.oom.group": "1",
        "/c/glebe/n/cpu.weight": "39",
        "/c/glebe/n/cpu.max": "50000 100000",
        "/c/glebe/n/pids.max": "max",
    }
    assert values(V2)["/c/glebe/n/cpu.max"] == "max 100000"
    plan = cgroups.plan(V2, "n", Limits())
    order = [path for path, _ in plan["make"]]
    assert order[:4] == ["/c/cgroup.subtree_control", "/c/glebe", "/c/glebe/cgroup.subtree_control", "/c/glebe/n"]
    assert plan["make"][0][1] == "+cpu +memory +pids"
    assert (plan["directories"], plan["events"]) == (["/c/glebe/n"], "/c/glebe/n/memory.events")


@pytest.mark.parametrize(("shares", "weight"), [(0, 1), (2, 1), (102, 4), (1024, 39), (262144, 10000), (10**9, 10000)])
def test_weights(shares: int, weight: int) -> None:
    assert cgroups.weight(shares) == weight


def test_no_cgroups_no_plan(tmp_path: Path) -> None:
    assert cgroups.plan(Groups(), "n", Limits(memory=5)) == {}
    assert cgroups.find("proc /proc proc rw 0 0\n") == Groups()
    assert cgroups.find(f"c {tmp_path}/none cgroup rw,memory 0 0\nu {tmp_path} cgroup2 rw 0 0\n").version in (0, 1)
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "none"])


def test_groups_that_a_runtime_made_elsewhere_are_removed_too(tmp_path: Path) -> None:
    mounts = "".join(f"c {tmp_path}/{name} cgroup rw,{name} 0 0\n" for name in ("memory", "freezer", "blkio"))
    groups = cgroups.find(mounts)
    assert groups.others == (f"{tmp_path}/freezer", f"{tmp_path}/blkio")
    made = [tmp_path / base / "glebe" / "n" for base in ("memory", "freezer")]
    for directory in made:
        directory.mkdir(parents=True)
    supervised.remove(cgroups.plan(groups, "n", Limits()))
    assert not [directory for directory in made if directory.parent.exists()]


def test_names_tell_the_node_and_the_run() -> None:
    name = cgroups.group_name("key", Path("/d/nodes/n/pods/UID-1/main/3"))
    assert name == "key.UID-1.main.3"


def test_what_is_read_of_version_2(tmp_path: Path) -> None:
    group = tmp_path / "glebe" / "n"
    group.mkdir(parents=True)
    (group / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    (group / "memory.current").write_text("5000\n")
    (group / "memory.stat").write_text("anon 1\ninactive_file 2000\n")
    (group / "cgroup.procs").write_text("1\n2\n")
    plan = cgroups.plan(Groups(2, (("memory", str(tmp_path)),)), "n", Limits())
    assert cgroups.usage(plan) == (2.5, 3000, 2)
    assert cgroups.usage({**plan, "directories": [str(tmp_path / "gone")]}) is None


def test_capabilities_are_those_of_runtimes() -> None:
    assert capabilities.of(Identity(privileged=True)) == list(capabilities.NAMES)
    assert set(capabilities.of(Identity())) == set(capabilities.DEFAULT)
    assert capabilities.of(Identity(drop_capabilities=("ALL",), add_capabilities=("cap_net_bind_service",))) == [
        "NET_BIND_SERVICE"
    ]
    assert "CHOWN" not in capabilities.of(Identity(add_capabilities=("ALL",), drop_capabilities=("CHOWN",)))
    with pytest.raises(capabilities.UnknownCapability):
        capabilities.of(Identity(add_capabilities=("NOT_ONE",)))

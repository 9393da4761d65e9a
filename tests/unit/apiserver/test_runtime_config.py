"""API versions that are served only when somebody asks for them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from glebe.apiserver.types import release, runtimeconfig
from glebe.apiserver.types.registry import builtins, known

OPTIONAL = {("scheduling.k8s.io", "v1alpha2", "podgroups"), ("scheduling.k8s.io", "v1alpha2", "workloads")}


def served(config: str) -> set[tuple[str, str, str]]:
    chosen = runtimeconfig.parse(config)
    rows = [row for row in release.resource_rows() if runtimeconfig.is_served(row, chosen)]
    return {(row["group"], row["version"], row["plural"]) for row in rows}


def test_what_upstream_serves_by_default() -> None:
    assert {(i.group, i.version, i.plural) for i in known()} - {
        (i.group, i.version, i.plural) for i in builtins()
    } == OPTIONAL


@pytest.mark.parametrize(
    ("config", "on"),
    [
        ("", False),
        ("scheduling.k8s.io/v1alpha2", True),
        ("scheduling.k8s.io/v1alpha2=true", True),
        (" scheduling.k8s.io/v1alpha2 = True , apps/v1=1", True),
        ("scheduling.k8s.io/v1alpha2=false", False),
        ("api/all=true", True),
        ("api/alpha=true", True),
        ("api/beta=true,api/ga=true,api/v1=true", False),
        ("api/all=true,api/alpha=false", False),
        ("api/alpha=false,scheduling.k8s.io/v1alpha2=true", True),
        ("api/all=true,scheduling.k8s.io/v1alpha2=false", False),
    ],
)
def test_the_more_specific_key_wins(config: str, on: bool) -> None:
    assert (served(config) >= OPTIONAL) is on
    assert served(config) - OPTIONAL == served("")


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ("scheduling.k8s.io/v1alpha9", "there is no API version scheduling.k8s.io/v1alpha9"),
        ("api/some=true", "there is no API version api/some"),
        ("api/all=perhaps", "api/all=perhaps: neither true nor false"),
        ("apps/v1=false", "apps/v1 cannot be turned off"),
        ("v1=false", "v1 cannot be turned off"),
        ("api/ga=false", "api/ga cannot be turned off"),
        ("api/all=false", "api/all cannot be turned off"),
    ],
)
def test_mistakes_are_named(config: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        runtimeconfig.parse(config)


def test_it_is_chosen_once() -> None:
    assert builtins()
    runtimeconfig.use({})
    with pytest.raises(ValueError, match="already"):
        runtimeconfig.use({"api/all": True})


@pytest.mark.realtime
def test_a_process_that_was_told_to_serves_them() -> None:
    program = """
from glebe.platform.serverflags import read
read({"runtime_config": "scheduling.k8s.io/v1alpha2=true"})
from glebe.apiserver.discovery import groups
from glebe.apiserver.types.registry import TypeRegistry
registry = TypeRegistry()
print(groups.group(registry, "root", "scheduling.k8s.io")["preferredVersion"]["version"])
print(*(r["name"] for r in groups.resource_list(registry, "root", "scheduling.k8s.io", "v1alpha2")["resources"]))
print(registry.lookup("root", "scheduling.k8s.io", "v1alpha2", "workloads").schema is not None)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.split("\n")[:3] == ["v1", "podgroups podgroups/status workloads", "True"]

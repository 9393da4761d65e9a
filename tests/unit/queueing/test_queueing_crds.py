"""CRDs and manifests are what the code says, and say what Kueue's clients expect."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from glebe.kube import resources as r
from glebe.kube.crdgen import custom_resource_definition, schema_of
from glebe.queueing.kinds import KINDS
from glebe.queueing.types.workload import Workload

ROOT = Path(__file__).resolve().parents[3]


def test_generated_files_are_up_to_date() -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import generate
    finally:
        sys.path.pop(0)
    mine = {p: t for g in (generate.crds, generate.manifests) for p, t in g().items()}
    stale = [path for path, text in mine.items() if (ROOT / path).read_text(encoding="utf-8") != text]
    assert stale == [], "run tools/generate.py"


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.resource.plural)
def test_definitions_are_structural(kind: Any) -> None:
    crd = custom_resource_definition(kind)
    assert crd["metadata"]["name"] == kind.resource.group_resource
    walk(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], kind.resource.kind)


def walk(schema: dict[str, Any], path: str) -> None:
    assert "type" in schema or schema.get("x-kubernetes-int-or-string"), path
    assert "$ref" not in schema, path
    for name, child in schema.get("properties", {}).items():
        if name not in ("apiVersion", "kind", "metadata"):
            assert child.get("description"), f"{path}.{name} has no description"
        walk(child, f"{path}.{name}")
    if schema.get("type") == "array":
        walk(schema["items"], f"{path}[]")
        for key in schema.get("x-kubernetes-list-map-keys", ()):
            item = schema["items"]
            assert key in item.get("required", ()) or "default" in item["properties"][key], f"{path}: key {key}"
    if isinstance(schema.get("additionalProperties"), dict):
        walk(schema["additionalProperties"], f"{path}{{}}")


def test_field_names_are_kueues() -> None:
    spec = schema_of(Workload)["properties"]["spec"]["properties"]
    assert set(spec) >= {"podSets", "queueName", "priorityClassRef", "priority", "active"}
    assert spec["active"]["default"] is True
    status = schema_of(Workload)["properties"]["status"]["properties"]
    assert "topologyAssignment" in status["admission"]["properties"]["podSetAssignments"]["items"]["properties"]
    assert set(status["forecast"]["properties"]) == {
        *("clusterQueue", "position", "gpusAhead", "startP50", "startP90"),
        *("reservedStart", "counterfactuals", "reason", "message", "remedy", "computedAt"),
    }


def test_workloads_show_the_forecast_in_kubectl() -> None:
    kind = next(k for k in KINDS if k.resource == r.WORKLOADS)
    shown = [c.name for c in kind.columns if not c.priority]
    assert shown == [
        *("Queue", "Reserved in", "Admitted", "Finished", "Position", "GPUs-ahead", "Start(P50)", "Reason", "Age")
    ]

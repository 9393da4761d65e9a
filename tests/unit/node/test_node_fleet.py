from __future__ import annotations

from pathlib import Path

import pytest

from glebe.node.fleet import DEFAULT_FLEET, FleetError, load_fleet, local_gpus, local_spec, parse_fleet

HEAD = "apiVersion: glebe.dev/v1alpha1\nkind: Fleet\n"


def test_default_fleet_is_sixteen_h100_nodes_in_four_racks_and_this_machine() -> None:
    fleet = parse_fleet(DEFAULT_FLEET)
    assert [node.name for node in fleet.nodes] == [f"h100-{i:02d}" for i in range(16)]
    assert {node.labels["topology.glebe.dev/rack"] for node in fleet.nodes} == {f"h100-rack-{i:02d}" for i in range(4)}
    assert {node.labels["topology.glebe.dev/block"] for node in fleet.nodes} == {"h100-block-00"}
    first = fleet.nodes[0]
    amounts = {"cpu": "192", "memory": "2Ti", "pods": "110", "ephemeral-storage": "1Ti", "nvidia.com/gpu": "8"}
    assert first.capacity == amounts
    assert first.labels["nvidia.com/gpu.product"] == "NVIDIA-H100-80GB-HBM3"
    assert first.labels["kubernetes.io/hostname"] == "h100-00"
    assert first.labels["glebe.dev/node-kind"] == "simulated"
    assert fleet.local is not None
    assert fleet.local.labels["glebe.dev/node-kind"] == "process"
    assert fleet.local.capacity["ephemeral-storage"].endswith("Ki")


def test_pool_options_are_used() -> None:
    fleet = parse_fleet(
        HEAD + "pools:\n- name: a\n  count: 101\n  labels: {team: red}\n  startDelay: 500ms\n"
        "  runTime: lognormal(60s, 0.5)\n  taints:\n  - {key: k, value: v, effect: NoExecute}\n"
    )
    node = fleet.nodes[100]
    assert (node.name, node.labels["team"], node.start_delay) == ("a-100", "red", "500ms")
    assert node.run_time == "lognormal(60s, 0.5)"
    assert node.taints == ({"key": "k", "value": "v", "effect": "NoExecute"},)
    assert "topology.glebe.dev/rack" not in node.labels
    assert fleet.local is None


@pytest.mark.parametrize(
    ("text", "field", "says"),
    [
        ("", "", "empty"),
        ("a: [", "line 1", "not YAML"),
        ("[]", "", "must be a mapping"),
        ("kind: Fleet", "apiVersion", 'must be "glebe.dev/v1alpha1"'),
        (HEAD, "", "no nodes"),
        (HEAD + "pool: []", "pool", 'did you mean "pools"?'),
        (HEAD + "pools: {}", "pools", "must be a list"),
        (HEAD + "pools: [{count: 1}]", "pools[0].name", "is required"),
        (HEAD + "pools: [{name: A_b, count: 1}]", "pools[0].name", "lower-case"),
        (HEAD + "pools: [{name: a}]", "pools[0].count", "is required"),
        (HEAD + "pools: [{name: a, count: -1}]", "pools[0].count", "out of range"),
        (HEAD + "pools: [{name: a, count: '3'}]", "pools[0].count", "whole number"),
        (HEAD + "pools: [{name: a, count: 1}, {name: a, count: 1}]", "pools[1].name", "already used by pools[0].name"),
        (HEAD + "pools: [{name: a, count: 1, gpu: {model: h1000, count: 8}}]", "pools[0].gpu.model", "known models"),
        (HEAD + "pools: [{name: a, count: 1, gpu: {model: l4, count: 0}}]", "pools[0].gpu.count", "out of range"),
        (HEAD + "pools: [{name: a, count: 1, gpus: 8}]", "pools[0].gpus", 'did you mean "gpu"?'),
        (HEAD + "pools: [{name: a, count: 1, cpu: lots}]", "pools[0].cpu", "quantity"),
        (HEAD + "pools: [{name: a, count: 1, memory: -1Gi}]", "pools[0].memory", "quantity"),
        (HEAD + "pools: [{name: a, count: 1, runTime: often}]", "pools[0].runTime", "lognormal"),
        (HEAD + "pools: [{name: a, count: 1, startDelay: 'uniform(2,1)'}]", "pools[0].startDelay", "duration"),
        (HEAD + "pools: [{name: a, count: 1, clusters: []}]", "pools[0].clusters", "leave it out"),
        (HEAD + "pools: [{name: a, count: 1, clusters: [A]}]", "pools[0].clusters[0].name", "lower-case"),
        (HEAD + "pools: [{name: a, count: 1, clusters: [b, b]}]", "pools[0].clusters[1]", "already used"),
        (HEAD + "pools: [{name: a, count: 1, labels: {x: 1}}]", "pools[0].labels.x", 'in quotes: "1"'),
        (HEAD + "pools: [{name: a, count: 1, taints: [{effect: NoSchedule}]}]", "pools[0].taints[0].key", "required"),
        (HEAD + "pools: [{name: a, count: 1, taints: [{key: a, effect: X}]}]", "pools[0].taints[0].effect", "one of"),
        (HEAD + "pools: [{name: a, count: 1, topology: {nodesPerRack: 0}}]", "topology.nodesPerRack", "range"),
        (HEAD + "local: {enabled: 'yes'}", "local.enabled", "true or false"),
        (HEAD + "local: {runtime: docker}", "local.runtime", '"docker" is no runtime'),
        (HEAD + "local: {hostPaths: [data]}", "local.hostPaths[0]", "must be an absolute path"),
        (HEAD + "pools: [{name: a, count: 1}]\nlocal: {name: a-00}", "local.name", "already used"),
    ],
)
def test_errors_name_file_field_and_remedy(text: str, field: str, says: str) -> None:
    with pytest.raises(FleetError) as caught:
        parse_fleet(text, "fleet.yaml")
    message = str(caught.value)
    assert message.startswith("fleet.yaml: ")
    assert field in message
    assert says in message
    assert caught.value.remedy


def test_unreadable_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match=r"none\.yaml: cannot read the fleet file: No such file"):
        load_fleet(tmp_path / "none.yaml")


def test_local_spec_describes_this_machine(tmp_path: Path) -> None:
    spec = local_spec()
    assert int(spec.capacity["cpu"]) >= 1
    assert spec.capacity["memory"].endswith("Ki")
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "information").write_text("Model: \t\t NVIDIA H200\nIRQ: 1\n")
    assert local_gpus(tmp_path) == ["NVIDIA H200"]
    assert local_gpus(tmp_path / "none") == []


def test_a_fleet_may_say_that_its_nodes_come_from_elsewhere() -> None:
    fleet = parse_fleet(HEAD + "pools: []\nlocal: {enabled: false}\n", "fleet.yaml")
    assert (fleet.nodes, fleet.local) == ((), None)


@pytest.mark.parametrize(("text", "expected"), [("", None), (", hostPaths: []", ()), (", hostPaths: [/a]", ("/a",))])
def test_where_pods_may_have_host_paths(text: str, expected: tuple[str, ...] | None) -> None:
    local = parse_fleet(HEAD + f"local: {{enabled: true{text}}}\n").local
    assert local is not None
    assert local.host_paths == expected

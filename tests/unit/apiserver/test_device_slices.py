"""Rules of ResourceSlices, held against what a kube-apiserver 1.36 answered."""

from __future__ import annotations

from typing import Any

import pytest

from glebe.apiserver.types import devicerules

POOL = {"name": "p", "generation": 1, "resourceSliceCount": 1}
TAINT = {"key": "k", "effect": "NoSchedule"}


def faults(*devices: dict[str, Any], **spec: Any) -> list[str]:
    where = {} if "perDeviceNodeSelection" in spec else {"nodeName": "n"}
    body = {"spec": {"driver": "d.example.com", "pool": POOL, "devices": list(devices), **where, **spec}}
    return [f"{cause.field}: {cause.message}" for cause in devicerules.device_slice(body, None)]


def device(name: str = "a", **more: Any) -> dict[str, Any]:
    return {"name": name, **more}


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (faults(device(), device()), 'spec.devices[1]: Duplicate value: "a"'),
        (faults(*(device(f"d{i}") for i in range(129))), "spec.devices: Too many: 129: must have at most 128 items"),
        (
            faults(*(device(f"d{i}", taints=[TAINT]) for i in range(65))),
            "spec.devices: Too many: 65: must have at most 64 items",
        ),
        (
            faults(device(attributes={"x": {}})),
            'spec.devices[0].attributes[x]: Invalid value: "": exactly one value must be specified',
        ),
        (
            faults(device(attributes={"x": {"version": "1"}})),
            'spec.devices[0].attributes[x].version: Invalid value: "1": '
            "must be a string compatible with semver.org spec 2.0.0",
        ),
        (
            faults(device(attributes={"x": {"string": "a" * 65}})),
            "spec.devices[0].attributes[x].string: Too long: may not be more than 64 bytes",
        ),
        (
            faults(device(attributes={f"x{i}": {"int": 1} for i in range(33)})),
            "spec.devices[0]: Invalid value: 33: the total number of attributes and capacities must not exceed 32",
        ),
        (
            faults(device(), sharedCounters=[{"name": "k", "counters": {}}]),
            'spec: Invalid value: "": only one of `sharedCounters` or `devices` is allowed',
        ),
        (
            faults(device(consumesCounters=[{"counterSet": "k", "counters": {}}])),
            "spec.devices[0].consumesCounters[0].counters: Required value",
        ),
        (
            faults(device(nodeName="x")),
            "spec.devices[0]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if "
            "`perDeviceNodeSelection` is set to true in the ResourceSlice spec",
        ),
        (
            faults(device(), perDeviceNodeSelection=True),
            "spec.devices[0]: Required value: exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required "
            "when `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
        ),
    ],
)
def test_faults(found: list[str], wanted: str) -> None:
    assert found == [wanted]


def test_names_of_attributes() -> None:
    (only,) = faults(device(attributes={"x-y": {"int": 1}}))
    assert only.startswith('spec.devices[0].attributes: Invalid value: "x-y": a valid C identifier must start')
    assert faults(device(attributes={"a.b/x_y": {"bool": True}, "z": {"string": "s"}}, taints=[TAINT])) == []
    two = faults(device(attributes={"x": {"int": 1, "string": "a"}}))
    assert '"IntValue":1' in two[0]
    assert '"StringValue":"a"' in two[0]
    assert len(faults(device(taints=[{**TAINT, "key": ""}]))) == 2

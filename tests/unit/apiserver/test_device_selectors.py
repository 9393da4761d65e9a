"""Selectors of devices: what they see, cost and refuse, held against upstream's own table of cases."""

from __future__ import annotations

from typing import Any

import pytest

from glebe.apiserver.types import devicerules
from glebe.cel import devices as cel

DEVICE = {
    "name": "d",
    "attributes": {"name": {"bool": True}, "v": {"version": "1.2.3"}, "other.example.com/x": {"int": 3}},
    "capacity": {"memory": {"value": "80Gi"}},
}
OWN, OTHER = 'device.attributes["dra.example.com"]', 'device.attributes["other.example.com"]'


@pytest.mark.parametrize(
    ("text", "wanted", "cost"),
    [
        ("true", True, 0),
        ('"no-such-domain" in device.attributes', False, 3),
        ('"dra.example.com" in device.attributes', True, 3),
        ('device.driver == "dra.example.com"', True, 4),
        (f"{OWN}.name", True, 4),
        (f'{OWN}["name"]', True, 4),
        (f"cel.bind(dra, {OWN}, dra.name)", True, 15),
        (f"{OTHER}.x > 2", True, 5),
        ('device.attributes["x"].?y.orValue(true)', True, None),
        ('has(device.attributes["x"].y)', False, None),
        (f'{OWN}.v.isGreaterThan(semver("1.0.0"))', True, None),
        ('device.capacity["dra.example.com"].memory.isGreaterThan(quantity("40Gi"))', True, None),
        ("device.allowMultipleAllocations", False, None),
    ],
)
def test_what_a_selector_says_and_may_cost(text: str, wanted: bool, cost: int | None) -> None:
    program = cel.compile_selector(text)
    assert cel.matches(program, cel.device_value("dra.example.com", DEVICE)) is wanted
    if cost is not None:
        assert cel.most_cost(program) == cost


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('device.attributes["no"].nope.isGreaterThan(quantity("0"))', "no such key: nope"),
        (f"{OTHER}.x", "CEL result of type int could not be converted to bool"),
    ],
)
def test_selectors_that_fail_on_a_device(text: str, why: str) -> None:
    with pytest.raises(cel.SelectorError, match=why):
        cel.matches(cel.compile_selector(text), cel.device_value("dra.example.com", DEVICE))


def test_attributes_that_are_not_known() -> None:
    with pytest.raises(cel.SelectorError, match="attribute names: unsupported attribute value"):
        cel.device_value("d", {"attributes": {"names": {"strings": ["a"]}}})
    with pytest.raises(cel.SelectorError, match="attribute v: parse semantic version"):
        cel.device_value("d", {"attributes": {"v": {"version": "1"}}})


def _request(**exactly: Any) -> dict[str, Any]:
    return {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c", **exactly}}]}}


COSTLY = f"device.attributes.exists(a, {'device.attributes.exists(b, ' * 4}a.matches('x*' + a){')' * 4})"


@pytest.mark.parametrize(
    ("text", "reason", "message"),
    [
        ("?!", "FieldValueInvalid", "compilation failed: ERROR: <input>:1:1: Syntax error"),
        ("1", "FieldValueInvalid", "must evaluate to bool or the unknown type, not int"),
        ("device.nope", "FieldValueInvalid", "undefined field 'nope'"),
        (COSTLY, "FieldValueForbidden", "too complex, exceeds cost limit"),
        ("true" + " " * cel.LONGEST, "FieldValueTooLong", "may not be more than 10240 bytes"),
    ],
)
def test_the_api_refuses(text: str, reason: str, message: str) -> None:
    (cause,) = devicerules.devices(_request(selectors=[{"cel": {"expression": text}}]), "spec")
    assert (cause.reason, cause.field) == (reason, "spec.devices.requests[0].exactly.selectors[0].cel.expression")
    assert message in cause.message
    choice = {"name": "a", "deviceClassName": "c", "selectors": [{"cel": {"expression": text}}]}
    chosen = {"devices": {"requests": [{"name": "r", "firstAvailable": [choice]}]}}
    assert [c.field for c in devicerules.devices(chosen, "spec")] == [
        "spec.devices.requests[0].firstAvailable[0].selectors[0].cel.expression"
    ]
    classy = {"spec": {"selectors": [{"cel": {"expression": text}}]}}
    assert [c.reason for c in devicerules.device_class(classy, None)] == [reason]
    assert devicerules.device_class(classy, classy) == []  # what is stored stays


def test_counts() -> None:
    assert [c.message for c in devicerules.devices(_request(allocationMode="All", count=2), "spec")] == [
        "Invalid value: 2: must not be specified when allocationMode is 'All'"
    ]
    assert devicerules.devices(_request(allocationMode="ExactCount", count=0), "spec")[0].field.endswith(
        "exactly.count"
    )


def _about(*requests: dict[str, Any], **more: Any) -> list[str]:
    return [
        f"{c.field}: {c.message}"
        for c in devicerules.devices({"devices": {"requests": list(requests), **more}}, "spec")
    ]


def test_what_names_requests_names_some() -> None:
    """Held against what a kube-apiserver 1.36 answered."""
    one = {"name": "r", "exactly": {"deviceClassName": "c"}}
    unknown = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
    assert _about(one, one) == ['spec.devices.requests[1]: Duplicate value: "r"']
    assert _about(*[one] * 33) == ["spec.devices.requests: Too many: 33: must have at most 32 items"]
    assert _about(one, constraints=[{"requests": ["x"], "matchAttribute": "a/b"}]) == [
        f'spec.devices.constraints[0].requests[0]: Invalid value: "x": {unknown}'
    ]
    assert _about(one, constraints=[{"matchAttribute": "b"}]) == [
        'spec.devices.constraints[0].matchAttribute: Invalid value: "b": '
        "a fully qualified name must be a domain and a name separated by a slash"
    ]
    assert _about(one, config=[{"requests": ["r"]}]) == ["spec.devices.config[0].opaque: Required value"]
    nine = [{"name": f"a{i}", "deviceClassName": "c"} for i in range(9)]
    assert _about({"name": "r", "firstAvailable": nine}) == [
        "spec.devices.requests[0].firstAvailable: Too many: 9: must have at most 8 items"
    ]
    assert (
        _about({"name": "r", "firstAvailable": nine[:2]}, constraints=[{"requests": ["r/a1"], "matchAttribute": "a/b"}])
        == []
    )
    assert _about({"exactly": {"deviceClassName": "c"}})[0].startswith("spec.devices.requests[0].name")

"""Definitions and policies that would keep a server busy for ever: an answer in less than a second, and an error."""

from __future__ import annotations

import copy
import time
from typing import Any

import orjson
import pytest
from fuzz_world import CONFIG_MAPS, DEFINITIONS, GADGETS, JSON_PATCH, World, definition, tell

SECOND = 1.0
BINDINGS = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"


def spec(**schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"spec": schema}}


def rule(text: str, **schema: Any) -> dict[str, Any]:
    return spec(**schema, **{"x-kubernetes-validations": [{"rule": text}]})


STRINGS = {"type": "array", "items": {"type": "string"}}
NUMBERS = {"type": "array", "items": {"type": "integer"}}


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return spec(**schema)


def branching(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"minLength": 1}
    for _ in range(levels):
        schema = {"allOf": [schema, schema]}
    return spec(type="string", **schema)


REFUSED = {
    "loops in loops": rule("self.all(a, self.all(b, self.all(c, a + b + c > 0)))", **NUMBERS),
    "a regular expression over all": rule("self.all(x, x.matches('(a|aa)+$'))", **STRINGS),
    "strings that double": rule("(self + self + self + self).contains(self + 'x' + self)", type="string"),
    "sorting in loops": rule("self.all(x, self.all(y, self.isSorted()))", **NUMBERS),
    "maps of maps": rule("self.map(a, self.map(b, self.map(c, [a, b, c]))).size() > 0", **NUMBERS),
    "brackets": rule("(" * 5000 + "true" + ")" * 5000, type="string"),
    "a long chain": rule("true" + " && true" * 50_000, type="string"),
    "a long list": rule("[" + "1," * 60_000 + "1].size() > 0", type="string"),
    "deep ternaries": rule("true ? " * 3000 + "true" + " : false" * 3000, type="string"),
    "too big a repetition": spec(type="string", pattern="(((a{1,1000}){1,1000}){1,1000})"),
    "no regular expression": spec(type="string", pattern="(a"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_costs_too_much_cannot_be_declared(name: str) -> None:
    async def story(world: World) -> None:
        began = time.process_time()
        status, answer = await world.json("POST", DEFINITIONS, definition(REFUSED[name]))
        assert time.process_time() - began < SECOND
        assert status in (400, 413, 422), answer

    tell(story)


ENDED = {
    # (schema, value): allowed to be declared, since bounds are given; stopped, or quick, when it runs
    "a pattern that backtracks": (spec(type="string", pattern="^(a+)+$"), "a" * 50_000 + "b"),
    "alternatives that overlap": (spec(type="string", pattern="(a|a|aa)*(b|c)$"), "a" * 200_000),
    "a wide class": (spec(type="string", pattern=r"^(\pL|\pN){0,1000}\z"), "é" * 100_000),
    "a rule's pattern": (rule("self.matches('^(a+)+$')", type="string", maxLength=100_000), "a" * 99_000 + "b"),
    "deep schemas": (deep(90), {"a": {"a": 5}}),
    "branches of branches": (branching(10), ""),
    "equal items": (spec(**STRINGS, **{"x-kubernetes-list-type": "set"}), ["x"] * 30_000),
    "a long enumeration": (spec(type="string", enum=[f"v{i}" for i in range(20_000)]), "w"),
    "thousands of errors": (spec(type="array", items={"type": "string", "maxLength": 1}), ["xx"] * 50_000),
}


@pytest.mark.parametrize("name", sorted(ENDED))
def test_what_can_be_declared_ends(name: str) -> None:
    schema, value = ENDED[name]

    async def story(world: World) -> None:
        began = time.process_time()
        answer = await world.ask("POST", DEFINITIONS, definition(schema))
        assert time.process_time() - began < SECOND
        if answer.status != 201:
            assert answer.status == 422
            return
        gadget = {"apiVersion": "fuzz.example.org/v1", "kind": "Gadget", "metadata": {"name": "g"}, "spec": value}
        began = time.process_time()
        status, refused = await world.json("POST", GADGETS, gadget)
        assert time.process_time() - began < SECOND
        assert status == 422, refused
        assert len(orjson.dumps(refused)) < 4 * 1024 * 1024

    tell(story)


def policy(expression: str) -> dict[str, Any]:
    match = {
        "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}]
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "p"},
        "spec": {"matchConstraints": match, "validations": [{"expression": expression}]},
    }


BINDING = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingAdmissionPolicyBinding",
    "metadata": {"name": "p"},
    "spec": {"policyName": "p", "validationActions": ["Deny"]},
}
EXPENSIVE = (
    "object.data.all(a, object.data.all(b, object.data.all(c, object.data.all(d, a + b + c + d != ''))))",
    "object.data.k.matches('^(a+)+$') && object.data.all(a, object.data.all(b, a.matches(b) || b.matches(a)))",
    "[0,1,2,3,4,5,6,7,8].all(a, object.data.all(c, object.data.k.contains(c + string(a)) || true))",
    "object.data.map(a, object.data.map(b, object.data.k + a + b)).size() >= 0",
)


@pytest.mark.parametrize("expression", EXPENSIVE)
def test_policies_are_stopped(expression: str) -> None:
    async def story(world: World) -> None:
        answer = await world.ask("POST", POLICIES, policy(expression))
        if answer.status != 201:
            assert answer.status == 422
            return
        assert (await world.ask("POST", BINDINGS, BINDING)).status == 201
        data = {f"k{i}": "v" * 20 for i in range(2000)} | {"k": "a" * 300_000 + "b"}
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}
        began = time.process_time()
        status, refused = await world.json("POST", CONFIG_MAPS, config)
        assert time.process_time() - began < SECOND * 3, "cost is counted, not time; upstream's budget is 10 million"
        assert status == 422, refused
        assert "cost" in refused["message"] or "failed expression" in refused["message"]

    tell(story)


def test_many_definitions_share_their_budget_of_patience() -> None:
    """One schema, a hundred versions and names that conflict: each is an ordinary request."""

    async def story(world: World) -> None:
        first = definition(spec(type="object", properties={f"p{i}": {"type": "string"} for i in range(500)}))
        version = first["spec"]["versions"][0]
        first["spec"]["versions"] += [
            {**copy.deepcopy(version), "name": f"v{i}", "storage": False} for i in range(2, 40)
        ]
        began = time.process_time()
        answer = await world.ask("POST", DEFINITIONS, first)
        assert answer.status == 201
        assert time.process_time() - began < SECOND * 2
        patch = [{"op": "test", "path": "/spec/versions/0/name", "value": "nothing"}]
        where = f"{DEFINITIONS}/{first['metadata']['name']}"
        assert (await world.ask("PATCH", where, patch, JSON_PATCH)).status == 422

    tell(story)

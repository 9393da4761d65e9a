"""CEL rules of custom kinds. The texts of the errors are those of a real kube-apiserver of 1.36."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.resources import CUSTOM_RESOURCE_DEFINITIONS, Resource

WIDGETS = Resource("example.org", "v1", "widgets", "Widget")
STRING, INTEGER = {"type": "string"}, {"type": "integer"}


async def serve() -> Client:
    server = ApiServer(MemoryStore(), Env.seeded(1), TypeRegistry())
    await server.start()
    return Client(InProcessTransport(server.handle))


def rules(*given: Any) -> list[dict[str, Any]]:
    return [{"rule": r} if isinstance(r, str) else r for r in given]


def definition(spec: dict[str, Any], **root: Any) -> dict[str, Any]:
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": copy.deepcopy(spec)}, **root}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    return {
        "metadata": {"name": "widgets.example.org"},
        "spec": {"group": "example.org", "scope": "Namespaced", "names": names, "versions": [version]},
    }


def ruled(*given: Any, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "x-kubernetes-validations": rules(*given)}


def widget(name: str = "w", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "example.org/v1",
        "kind": "Widget",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


async def refusal(action: Any) -> str:
    with pytest.raises(ApiError) as caught:
        await action
    assert caught.value.code == 422
    return caught.value.message


WHERE = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0]"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (ruled("self.b == 1", a=INTEGER), "compilation failed: ERROR: <input>:1:5: undefined field 'b'"),
        (ruled("self.a +", a=INTEGER), "Syntax error: mismatched input '<EOF>'"),
        (ruled("self.a", a=INTEGER), f'{WHERE}.rule: Invalid value: {{"Rule":"self.a"'),
        (ruled("self.a", a=INTEGER), "cel expression must evaluate to a bool"),
        (ruled("self.a == 'x'", a=INTEGER), "found no matching overload for '_==_' applied to '(int, string)'"),
        (
            ruled({"rule": "self.a > 0", "messageExpression": "1"}, a=INTEGER),
            f"{WHERE}.messageExpression: Invalid value: "
            '{"Rule":"self.a \\u003e 0","Message":"","MessageExpression":"1","Reason":null,"FieldPath":"",'
            '"OptionalOldSelf":null}: messageExpression must evaluate to a string',
        ),
        (
            ruled({"rule": "self.a > 0", "optionalOldSelf": True}, a=INTEGER),
            f"{WHERE}.optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule",
        ),
        (
            ruled("self.a.all(x, self.a.all(y, x == y))", a={"type": "array", "items": STRING}),
            f"{WHERE}.rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x",
        ),
        (
            ruled("self.a.map(x, x + 'a').size() > 0", a={"type": "array", "items": STRING, "maxItems": 10000}),
            "estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of 31.5x",
        ),
        (
            {"type": "object", "properties": {"l": {"type": "array", "items": ruled("self.s == oldSelf.s", s=STRING)}}},
            "oldSelf cannot be used on the uncorrelatable portion of the schema within "
            "spec.validation.openAPIV3Schema.properties[spec].properties[l]",
        ),
    ],
)
async def test_wrong_rules_are_refused_with_their_definition(spec: dict[str, Any], said: str) -> None:
    client = await serve()
    assert said in await refusal(client.create(CUSTOM_RESOURCE_DEFINITIONS, definition(spec)))


LIVE = {
    "type": "object",
    "properties": {
        "a": INTEGER,
        "s": {"type": "string", "maxLength": 10},
        "t": {"type": "string", "format": "date-time"},
        "d": {"type": "string", "format": "duration"},
        "n": {"type": "number"},
        "l": {
            "type": "array",
            "maxItems": 5,
            "items": {"type": "string", "maxLength": 5},
            "x-kubernetes-validations": rules("self.size() < 3", "self.all(x, x != 'bad')"),
        },
        "m": {
            "type": "object",
            "maxProperties": 5,
            "additionalProperties": {"type": "integer", "x-kubernetes-validations": rules("self > 0")},
            "x-kubernetes-validations": rules(
                {"rule": "!('bad' in self)", "reason": "FieldValueForbidden", "message": "no bad"}
            ),
        },
        "keep": {
            "type": "string",
            "maxLength": 10,
            "x-kubernetes-validations": rules({"rule": "self == oldSelf", "message": "is immutable"}),
        },
        "opt": {
            "type": "integer",
            "x-kubernetes-validations": rules({"rule": "oldSelf.hasValue() || self == 1", "optionalOldSelf": True}),
        },
        "k": {
            "type": "array",
            "maxItems": 4,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "maxLength": 5},
                    "v": {"type": "integer", "x-kubernetes-validations": rules("self >= oldSelf")},
                },
            },
        },
        "st": {
            "type": "array",
            "maxItems": 4,
            "x-kubernetes-list-type": "set",
            "items": {"type": "string", "maxLength": 5},
        },
        "foo-bar": INTEGER,
        "namespace": INTEGER,
        "by": {"type": "string", "format": "byte"},
        "ios": {"x-kubernetes-int-or-string": True},
        "dv": {"type": "object", "properties": {"z": INTEGER}},
    },
    "x-kubernetes-validations": rules(
        {
            "rule": "!has(self.a) || self.a < 10",
            "messageExpression": "'a too big, ' + (has(self.s) ? self.s : 'none')",
            "fieldPath": ".a",
        },
        "!has(self.t) || self.t > timestamp('2020-01-01T00:00:00Z')",
        "!has(self.d) || self.d > duration('1m')",
        "!has(self.n) || self.n < 2.5",
        "!has(self.foo__dash__bar) || self.foo__dash__bar > 1",
        "!has(self.__namespace__) || self.__namespace__ > 1",
        "!has(self.st) || self.st == ['a','b']",
        "!has(self.by) || size(self.by) < 4",
        "!has(self.ios) || (type(self.ios) == int ? self.ios < 5 : self.ios == '50%')",
        "!has(self.s) || self.s.matches('^[a-z]+$')",
        "!has(self.dv) || self.dv.z > 1",
    ),
}
FAILED = "spec: Invalid value: failed rule: "


async def live() -> Client:
    client = await serve()
    root = {"x-kubernetes-validations": rules("self.metadata.name != 'bad'")}
    await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition(LIVE, **root))
    return client


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"a": 20}, "spec.a: Invalid value: a too big, none"),
        ({"t": "2019-01-01T00:00:00Z"}, FAILED + "!has(self.t) || self.t > timestamp('2020-01-01T00:00:00Z')"),
        ({"d": "30s"}, FAILED + "!has(self.d) || self.d > duration('1m')"),
        ({"n": 3}, FAILED + "!has(self.n) || self.n < 2.5"),
        ({"l": ["a", "b", "c"]}, "spec.l: Invalid value: failed rule: self.size() < 3"),
        ({"m": {"x": 0}}, "spec.m[x]: Invalid value: 0: failed rule: self > 0"),
        ({"m": {"bad": 1}}, "spec.m: Forbidden: no bad"),
        ({"opt": 2}, "spec.opt: Invalid value: 2: failed rule: oldSelf.hasValue() || self == 1"),
        ({"foo-bar": 1}, FAILED + "!has(self.foo__dash__bar) || self.foo__dash__bar > 1"),
        ({"namespace": 0}, FAILED + "!has(self.__namespace__) || self.__namespace__ > 1"),
        ({"st": ["b", "a"]}, ""),
        ({"st": ["b"]}, FAILED + "!has(self.st) || self.st == ['a','b']"),
        ({"by": "YWFhYWFh"}, FAILED + "!has(self.by) || size(self.by) < 4"),
        ({"ios": 7}, FAILED + "!has(self.ios)"),
        ({"ios": "50%"}, ""),
        (
            {"dv": {}},
            'spec: Invalid value: "object": no such key: z evaluating rule: !has(self.dv) || self.dv.z > 1',
        ),
        (
            {"a": 11, "l": ["bad"]},
            "[spec.a: Invalid value: a too big, none, spec.l: Invalid value: failed rule: self.all(x, x != 'bad')]",
        ),
    ],
)
async def test_rules_are_held_against_objects(spec: dict[str, Any], said: str) -> None:
    client = await live()
    if not said:
        await client.create(WIDGETS, widget(**spec))
        return
    message = await refusal(client.create(WIDGETS, widget(**spec)))
    assert message.startswith(f'Widget.example.org "w" is invalid: {said}'), message


async def test_the_root_sees_the_objects_name() -> None:
    client = await live()
    message = await refusal(client.create(WIDGETS, widget("bad")))
    assert message.endswith("<nil>: Invalid value: failed rule: self.metadata.name != 'bad'")


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ({"keep": "y"}, 'spec.keep: Invalid value: "y": is immutable'),
        ({"k": [{"name": "p", "v": 2}]}, "spec.k[0].v: Invalid value: 2: failed rule: self >= oldSelf"),
        ({"k": [{"name": "q", "v": 1}, {"name": "p", "v": 4}]}, ""),
        ({"opt": 2}, "spec.opt: Invalid value: 2: failed rule: oldSelf.hasValue() || self == 1"),
        ({"a": 3}, ""),
    ],
)
async def test_transition_rules_compare_with_what_was_there(patch: dict[str, Any], said: str) -> None:
    client = await live()
    await client.create(WIDGETS, widget(keep="x", k=[{"name": "p", "v": 3}]))
    change = client.patch(WIDGETS, "w", {"spec": patch}, "default")
    if said:
        assert said in await refusal(change)
    else:
        await change


async def test_a_rule_that_costs_too_much_is_stopped() -> None:
    client = await serve()
    inner = "self.l.all(a, self.l.all(b, self.l.all(c, a + b + c >= 0)))"
    spec = ruled(inner, l={"type": "array", "maxItems": 100, "items": INTEGER})
    await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition(spec))
    message = await refusal(client.create(WIDGETS, widget(l=list(range(100)))))
    assert "'operation cancelled: actual cost limit exceeded': no further validation rules will be run" in message


async def test_rules_that_were_there_may_stay_when_a_definition_changes() -> None:
    """A definition that was accepted must not become impossible to change."""
    client = await live()
    made = await client.get(CUSTOM_RESOURCE_DEFINITIONS, "widgets.example.org")
    properties = made["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    properties["more"] = STRING
    await client.update(CUSTOM_RESOURCE_DEFINITIONS, made)

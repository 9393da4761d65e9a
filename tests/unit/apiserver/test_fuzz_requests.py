"""Whatever a client sends, the answer is its own: selectors, pages, bodies in all forms, sizes, names, paths."""

from __future__ import annotations

import copy
import time
from typing import Any

import orjson
import pytest
import yaml
from fuzz_world import (
    APPLY,
    CONFIG_MAPS,
    DEFINITIONS,
    DEPLOYMENTS,
    GADGET,
    GADGETS,
    JSON,
    JSON_PATCH,
    MERGE,
    PROTOBUF,
    STRATEGIC,
    YAML,
    World,
    definition,
    few,
    tell,
)
from hypothesis import given
from hypothesis import strategies as st

from glebe.apiserver.request import yamlbody

# ------------------------------------------------------------------------------------------------------- selectors

KEYS, VALUES = st.sampled_from(("a", "b", "x.io/c")), st.sampled_from(("", "1", "2"))
LABELS = st.dictionaries(KEYS, VALUES, max_size=3)
Term = tuple[str, str, list[str]]
TERMS: st.SearchStrategy[Term] = st.one_of(
    st.tuples(KEYS, st.sampled_from(("=", "==", "!=")), VALUES.map(lambda v: [v])),
    st.tuples(KEYS, st.sampled_from((" in ", " notin ")), st.lists(VALUES, min_size=1, max_size=3)),
    st.tuples(KEYS, st.sampled_from(("?", "!")), st.just([])),
)


def written(term: Term) -> str:
    key, operator, values = term
    if operator in ("?", "!"):
        return key if operator == "?" else f"!{key}"
    return f"{key}{operator}({','.join(values)})" if " " in operator else f"{key}{operator}{values[0]}"


def matches(term: Term, labels: dict[str, str]) -> bool:
    key, operator, values = term
    if operator in ("?", "!"):
        return (key in labels) == (operator == "?")
    if operator in ("!=", " notin "):
        return labels.get(key) not in values
    return labels.get(key) in values


def config(name: str, labels: dict[str, str] | None = None, **data: str) -> dict[str, Any]:
    meta = {"name": name, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


@few(36)
@given(st.lists(LABELS, min_size=1, max_size=4), st.lists(TERMS, max_size=3), st.integers(1, 3))
def test_selectors_select_as_said(objects: list[dict[str, str]], terms: list[Any], limit: int) -> None:
    async def story(world: World) -> None:
        for i, labels in enumerate(objects):
            await world.ask("POST", CONFIG_MAPS, config(f"c{i}", labels))
        query = {"labelSelector": ",".join(map(written, terms)), "fieldSelector": "metadata.name!=kube-root-ca.crt"}
        expected = [f"c{i}" for i, labels in enumerate(objects) if all(matches(t, labels) for t in terms)]
        status, whole = await world.json("GET", CONFIG_MAPS, **query)
        assert status == 200
        assert [i["metadata"]["name"] for i in whole["items"]] == expected
        names, token = [], ""
        while True:
            more = {"continue": token} if token else {}
            _, page = await world.json("GET", CONFIG_MAPS, limit=str(limit), **query, **more)
            assert len(page["items"]) <= limit
            names += [i["metadata"]["name"] for i in page["items"]]
            token = page["metadata"].get("continue", "")
            if not token:
                break
        assert names == expected

    tell(story)


ODD = st.one_of(st.text(max_size=12), st.text("abn =!,()<>.-/%\\\0\"'", max_size=12), st.integers().map(str))
NUMBERS = st.one_of(st.sampled_from(("", "0", "1", "-1", "7", "00", "1e3", "9" * 30, "true")), ODD)
PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        "labelSelector": ODD,
        "fieldSelector": ODD,
        "resourceVersion": NUMBERS,
        "resourceVersionMatch": st.one_of(st.sampled_from(("", "Exact", "NotOlderThan")), ODD),
        "continue": ODD,
        "limit": NUMBERS,
        "timeoutSeconds": NUMBERS,
        "allowWatchBookmarks": NUMBERS,
        "sendInitialEvents": NUMBERS,
        "watch": NUMBERS,
        "pretty": NUMBERS,
        "dryRun": ODD,
        "fieldManager": ODD,
        "fieldValidation": ODD,
        "force": NUMBERS,
        "propagationPolicy": ODD,
        "gracePeriodSeconds": NUMBERS,
        "orphanDependents": NUMBERS,
        "labelselector": ODD,
    },
)
PATHS = st.sampled_from(
    (CONFIG_MAPS, f"{CONFIG_MAPS}/c", GADGETS, "/api/v1/pods", "/api/v1/namespaces/default/pods/p/log")
)
METHODS = st.sampled_from(("GET", "GET", "GET", "POST", "PUT", "PATCH", "DELETE"))
SMALL = orjson.dumps(config("c", a="b"))
KINDS = st.sampled_from(
    (JSON, YAML, MERGE, STRATEGIC, JSON_PATCH, APPLY, PROTOBUF, "", "text/plain", "application/json;charset=\xff")
)
ACCEPTS = st.sampled_from(
    (JSON, "", "*/*", "application/json;as=Table;v=v1;g=meta.k8s.io", "application/yaml", PROTOBUF, ";;;", "a/b;q=x")
)


@few(90)
@given(METHODS, PATHS, PARAMETERS, KINDS, ACCEPTS)
def test_parameters_are_understood_or_refused(
    method: str, path: str, query: dict[str, Any], kind: str, accept: str
) -> None:
    async def story(world: World) -> None:
        await world.ask("POST", DEFINITIONS, definition(GADGET))
        await world.ask("POST", CONFIG_MAPS, SMALL)
        # 504: the version is of the future, and the wait for it is over
        body = SMALL if method in ("POST", "PUT", "PATCH") else b""
        answer = await world.ask(method, path, body, kind, accept=accept, allow=(504,), **query)
        if answer.stream is not None:
            await answer.close()
        status, _ = await world.json("GET", f"{CONFIG_MAPS}/c")
        assert status in (200, 404)

    tell(story)


# ---------------------------------------------------------------------------------------------------------- bodies

POD_TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "d"},
    "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": POD_TEMPLATE},
}
ANY = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(("name", "spec", "metadata", "$patch", "key", "", "é")), inner, max_size=3),
    ),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where there is something in a document."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        found += places(below, (*path, key))
    return found


def changed(document: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    out = copy.deepcopy(document)
    at: Any = out
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return out


def plain(document: Any) -> bytes:
    """JSON with integers of any size."""
    import json

    return json.dumps(document).encode()


BROKEN = st.sampled_from(places(DEPLOYMENT)).flatmap(lambda path: st.tuples(st.just(path), ANY))
FORMS = ("POST", "PUT", STRATEGIC, MERGE, JSON_PATCH, APPLY, YAML)


@few(120)
@given(BROKEN, st.sampled_from(FORMS))
def test_a_field_of_any_value_is_taken_or_refused(broken: tuple[tuple[Any, ...], Any], form: str) -> None:
    path, value = broken

    async def story(world: World) -> None:
        await world.ask("POST", DEPLOYMENTS, DEPLOYMENT)
        bad, where = changed(DEPLOYMENT, path, value), f"{DEPLOYMENTS}/d"
        if form == "POST":
            await world.ask("POST", DEPLOYMENTS, plain(changed(bad, ("metadata",), {"name": "e"})))
        elif form == "PUT":
            await world.ask("PUT", where, plain(bad))
        elif form == JSON_PATCH:
            pointer = "".join(f"/{key}" for key in path)
            await world.ask("PATCH", where, plain([{"op": "replace", "path": pointer, "value": value}]), form)
        elif form == YAML:
            await world.ask("PUT", where, yaml.safe_dump(bad).encode(), form)
        elif form == APPLY:  # what is not in the schema is a 500 with upstream, too
            answer = await world.ask("PATCH", where, plain(bad), form, allow=(500,), fieldManager="m", force="true")
            assert answer.status < 500 or b"failed to create typed patch object" in answer.body, answer.body
        else:
            await world.ask("PATCH", where, plain(bad), form)
        status, live = await world.json("GET", where)
        assert status == 200
        assert await world.json("PUT", where, live) == (200, live), "what is stored is valid"

    tell(story)


SEEDS = {
    JSON: orjson.dumps(DEPLOYMENT),
    YAML: yaml.safe_dump(DEPLOYMENT).encode(),
    STRATEGIC: orjson.dumps({"spec": {"template": POD_TEMPLATE, "$setElementOrder/x": [{"name": "c"}]}}),
    MERGE: orjson.dumps({"spec": {"replicas": 3, "template": None}}),
    JSON_PATCH: orjson.dumps(
        [{"op": "move", "from": "/spec/template", "path": "/spec/x"}, {"op": "test", "path": "/a"}]
    ),
}
CUTS = st.tuples(
    st.integers(0, 400), st.integers(0, 12), st.one_of(st.binary(max_size=6), st.text(max_size=3).map(str.encode))
)


@few(120)
@given(st.sampled_from(sorted(SEEDS)), st.lists(CUTS, min_size=1, max_size=3))
def test_damaged_text_is_the_clients_fault(kind: str, cuts: list[tuple[int, int, bytes]]) -> None:
    body = SEEDS[kind]
    for start, length, put in cuts:
        start %= len(body) + 1
        body = body[:start] + put + body[start + length :]

    async def story(world: World) -> None:
        await world.ask("POST", DEPLOYMENTS, DEPLOYMENT)
        await world.ask("PUT" if kind in (JSON, YAML) else "PATCH", f"{DEPLOYMENTS}/d", body, kind)

    tell(story)


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def record(number: int, body: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(body)) + body


def envelope(raw: bytes) -> bytes:
    return b"k8s\0" + record(1, record(1, b"v1") + record(2, b"ConfigMap")) + record(2, raw)


BINARY = envelope(record(1, record(1, b"p")) + record(2, record(1, b"key") + record(2, b"value")))


def nested(depth: int) -> bytes:
    body = b""
    for _ in range(depth):
        body = record(1, body)
    return envelope(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"k8s\0",
        b"k8s\1" + BINARY[4:],
        *(BINARY[:n] for n in range(4, len(BINARY), 3)),
        BINARY.replace(b"\x05value", b"\xff\xff\xff\xff\xff\xff\xff\xff\x7fvalue"),
        BINARY.replace(b"\x05value", b"\xff" * 30),
        BINARY.replace(b"value", b"\xff\xfe\xfd\xfc\xfb"),
        nested(20_000),
        envelope(varint(1 << 3) + b"\xff" * 11),
        envelope(b"\x0b" * 5000),
        b"k8s\0" + b"\0" * 1000,
    ],
)
def test_damaged_protobuf_is_the_clients_fault(body: bytes) -> None:
    async def story(world: World) -> None:
        answer = await world.ask("POST", CONFIG_MAPS, body, PROTOBUF)
        assert answer.status in (400, 413, 415, 422), (answer.status, answer.body)

    tell(story)


@few(90)
@given(st.lists(CUTS, min_size=1, max_size=3))
def test_random_protobuf_is_taken_or_refused(cuts: list[tuple[int, int, bytes]]) -> None:
    body = BINARY
    for start, length, put in cuts:
        start %= len(body) + 1
        body = body[:start] + put + body[start + length :]

    async def story(world: World) -> None:
        await world.ask("POST", CONFIG_MAPS, body, PROTOBUF)

    tell(story)


# --------------------------------------------------------------------------------------------- sizes, depths, names

DEEP = 100_000


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (JSON, b'{"a":' * DEEP),
        (JSON, b'{"a":' * DEEP + b"1" + b"}" * DEEP),
        (JSON, b"[" * DEEP + b"]" * DEEP),
        (YAML, b"[" * DEEP),
        (YAML, b"- " * DEEP + b"1"),
        (YAML, b"{a: " * 5000 + b"1" + b"}" * 5000),
        (YAML, b"? " * 5000),
        (MERGE, b'{"data":' * DEEP + b"1" + b"}" * DEEP),
        (STRATEGIC, b'{"data":' * DEEP + b"1" + b"}" * DEEP),
        (JSON_PATCH, b"[" * DEEP + b"]" * DEEP),
        (JSON_PATCH, b'[{"op":"add","path":"/data/x","value":' + b"[" * 3000 + b"]" * 3000 + b"}]"),
        (JSON_PATCH, orjson.dumps([{"op": "test", "path": "/" + "a/" * 50_000, "value": 1}])),
        (JSON_PATCH, orjson.dumps([{"op": "add", "path": "/data/x", "value": "y"}] * 10_001)),
        (APPLY, b"{a: " * 5000 + b"1" + b"}" * 5000),
        (APPLY, b'{"apiVersion":"v1","kind":"ConfigMap","data":' * 5000 + b"{}" + b"}" * 5000),
        (
            YAML,
            b"a: &a [x,x,x,x,x,x,x,x,x]\n"
            + b"".join(
                b"%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n" % ((c + 1, c + 1) + (c,) * 8) for c in range(97, 110)
            ),
        ),
        (YAML, b"a: &a {b: *a}"),
        (YAML, b"!!python/object/apply:os.system ['true']"),
        (YAML, b"a: " + b"9" * 5000),
        (YAML, b"a: !!int x"),
        (YAML, b"a: !!bool x"),
        (YAML, b"a: !!float x"),
        (YAML, b"a: !!null x"),
        (YAML, b"a: .nan"),
        (YAML, b"? {a: b}\n: c"),
        (YAML, b"? [a]\n: c"),
        (YAML, b"<<: 5"),
    ],
)
def test_deep_and_folded_bodies_end_soon(kind: str, body: bytes) -> None:
    async def story(world: World) -> None:
        await world.ask("POST", CONFIG_MAPS, config("c", a="b"))
        began = time.process_time()
        method, path = ("POST", CONFIG_MAPS) if kind in (JSON, YAML) else ("PATCH", f"{CONFIG_MAPS}/c")
        query: dict[str, Any] = {"fieldManager": "m"} if kind == APPLY else {}
        answer = await world.ask(method, path, body, kind, **query)
        assert 400 <= answer.status < 500
        assert time.process_time() - began < 1.0
        assert (await world.json("GET", f"{CONFIG_MAPS}/c"))[1]["data"] == {"a": "b"}

    tell(story)


def test_sizes_have_bounds() -> None:
    async def story(world: World) -> None:
        annotated = config("a")
        annotated["metadata"]["annotations"] = {"k": "v" * (256 * 1024 - 1)}
        assert (await world.ask("POST", CONFIG_MAPS, annotated)).status == 201
        annotated["metadata"] |= {"name": "b", "annotations": {"k": "v" * (256 * 1024)}}
        status, refused = await world.json("POST", CONFIG_MAPS, annotated)
        assert status == 422
        assert refused["details"]["causes"][0]["message"] == "Too long: may not be more than 262144 bytes"
        fits = config("fits", k="v" * (1024 * 1024))
        assert (await world.ask("POST", CONFIG_MAPS, fits)).status == 201
        status, refused = await world.json("POST", CONFIG_MAPS, config("no", k="v" * (1024 * 1024 + 1)))
        assert status == 422
        assert "Too long" in refused["details"]["causes"][0]["message"]
        await world.ask("POST", DEFINITIONS, definition(GADGET))
        gadget = {"apiVersion": "fuzz.example.org/v1", "kind": "Gadget", "metadata": {"name": "g"}}
        big = {**gadget, "spec": {"free": {"x": "y" * (1600 * 1024)}}}
        assert (await world.ask("POST", GADGETS, big)).status == 413
        await world.ask("POST", GADGETS, gadget)
        grow: list[Any] = [{"op": "add", "path": "/spec", "value": {"free": {"a": ["x" * 1000] * 100}}}]
        grow += [{"op": "copy", "from": "/spec/free/a", "path": "/spec/free/a/-"}] * 30
        began = time.process_time()
        assert (await world.ask("PATCH", f"{GADGETS}/g", grow, JSON_PATCH)).status == 413
        for letter in "abcd":
            more = {"spec": {"free": {letter: "x" * (500 * 1024)}}}
            answer = await world.ask("PATCH", f"{GADGETS}/g", more, MERGE)
        assert answer.status == 413, "no object grows without end"
        assert (await world.ask("DELETE", f"{GADGETS}/g")).status == 200
        assert time.process_time() - began < 1.0

    tell(story)


NAMES = st.one_of(
    st.text(min_size=1, max_size=20),
    st.sampled_from(("A", "a_b", "a.", "-a", "a" * 254, "..", ".", "%", "é", "a/b", "\u202e", "x\0")),
)


@few(60)
@given(NAMES, st.sampled_from(("name", "namespace", "generateName", "label", "annotation", "finalizer", "key")))
def test_names_are_good_or_refused(text: str, where: str) -> None:
    body = config("good", a="b")
    meta = body["metadata"]
    if where in ("name", "namespace", "generateName"):
        meta[where] = text
    elif where == "label":
        meta["labels"] = {text: text}
    elif where == "annotation":
        meta["annotations"] = {text: text}
    elif where == "finalizer":
        meta["finalizers"] = [text]
    else:
        body["data"] = {text: text}

    async def story(world: World) -> None:
        try:
            raw = orjson.dumps(body)
        except orjson.JSONEncodeError:  # a lone surrogate
            raw = plain(body)
        answer = await world.ask("POST", CONFIG_MAPS, raw)
        assert answer.status in (201, 400, 422)
        if answer.status == 201:
            name = orjson.loads(answer.body)["metadata"]["name"]
            assert (await world.ask("GET", f"{CONFIG_MAPS}/{name}")).status == 200

    tell(story)


@few(90)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                (
                    "api",
                    "apis",
                    "v1",
                    "namespaces",
                    "pods",
                    "..",
                    ".",
                    "",
                    "clusters",
                    "*",
                    "root",
                    "log",
                    "status",
                    "watch",
                    "proxy",
                    "%2e%2e",
                    "apps",
                    "configmaps",
                    "openapi",
                    "v3",
                )
            ),
            st.text(max_size=5),
        ),
        max_size=9,
    ),
    METHODS,
)
def test_any_path_has_an_answer(parts: list[str], method: str) -> None:
    async def story(world: World) -> None:
        answer = await world.ask(method, "/" + "/".join(parts), SMALL if method != "GET" else b"", allow=(503,))
        if answer.stream is not None:
            await answer.close()

    tell(story)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("22:22", "22:22"),
        ("1e3", 1000),
        ("1.0", 1),
        ("1.50", 1.5),
        ("-.5", -0.5),
        ("0o14", 12),
        ("014", 12),
        ("089", 89),
        ("0x1F", 31),
        ("-0b11", -3),
        ("1_000", 1000),
        ("y", True),
        ("No", False),
        ("nO", "nO"),
        ("~", None),
        ("", None),
        ("=", "="),
        ("1.2.3", "1.2.3"),
        ("0xg", "0xg"),
        ("2020-01-01", "2020-01-01"),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", 2.0**64),
        ("1e999", "1e999"),
        ("+", "+"),
        (".", "."),
        ("_1", "_1"),
        ("!!str 5", "5"),
        ("!!float 5", 5),
    ],
)
def test_plain_words_mean_what_they_mean_to_go(text: str, value: Any) -> None:
    assert yamlbody.load(f"a: {text}\n".encode()) == {"a": value}
    assert type(yamlbody.load(f"a: {text}\n".encode())["a"]) is type(value) or value == 2.0**64


@given(
    st.recursive(st.one_of(st.text("yn01xeob.:-+_~ é", max_size=6), st.integers(), st.booleans(), st.none()), st.lists)
)
def test_yaml_that_is_written_is_read_again(value: Any) -> None:
    assert yamlbody.load(yamlbody.dump({"a": value})) == {"a": value} or too_big(value)


def too_big(value: Any) -> bool:
    """Does it hold an integer that no 64 bits hold? Those become floats."""
    if isinstance(value, list):
        return any(map(too_big, value))
    return isinstance(value, int) and not -(2**63) <= value < 2**64

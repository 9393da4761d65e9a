"""Random histories of apply, update and patch by several managers: who owns what is as in a plain model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson
from fuzz_world import (
    APPLY,
    CONFIG_MAPS,
    DEFINITIONS,
    GADGET,
    GADGETS,
    JSON,
    JSON_PATCH,
    MERGE,
    World,
    definition,
    few,
    tell,
)
from hypothesis import given
from hypothesis import strategies as st

Owner = tuple[str, str]

KEYS, VALUES = st.sampled_from("abcd"), st.sampled_from(("", "1", "2"))
MANAGERS = st.sampled_from(("ann", "bob", "cy"))
DATA = st.dictionaries(KEYS, VALUES, max_size=4)
APPLIED = st.dictionaries(KEYS, VALUES, min_size=1, max_size=4)
STEPS = st.one_of(
    st.tuples(st.just("apply"), MANAGERS, APPLIED, st.booleans()),
    st.tuples(st.just("apply"), MANAGERS, APPLIED, st.booleans()),
    st.tuples(st.sampled_from(("put", "merge", "json")), MANAGERS, DATA, st.booleans()),
)


@dataclass
class Model:
    """A ConfigMap's data and the owners of its keys, as the documentation of server-side apply has it."""

    data: dict[str, str] = field(default_factory=dict)
    owned: dict[Owner, set[str]] = field(default_factory=dict)

    def conflicts(self, who: str, wanted: dict[str, str]) -> set[str]:
        differing = {k for k, v in wanted.items() if k in self.data and self.data[k] != v}
        others = [keys for owner, keys in self.owned.items() if owner != (who, "Apply")]
        return differing & set().union(*others) if others else set()

    def apply(self, who: str, wanted: dict[str, str]) -> None:
        changed = {k for k, v in wanted.items() if self.data.get(k) != v}
        me = (who, "Apply")
        for owner, keys in self.owned.items():
            if owner != me:
                keys -= changed & set(self.data)
        kept = set(wanted).union(*(keys for owner, keys in self.owned.items() if owner != me))
        for key in self.owned.get(me, set()) - kept:
            self.data.pop(key, None)
        self.owned[me] = set(wanted)
        self.data |= wanted

    def update(self, who: str, wanted: dict[str, str]) -> None:
        changed = {k for k, v in wanted.items() if self.data.get(k) != v}
        gone = set(self.data) - set(wanted)
        for keys in self.owned.values():
            keys -= changed | gone
        self.owned.setdefault((who, "Update"), set()).update(changed)
        self.data = dict(wanted)


def config(data: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}


def owners(obj: dict[str, Any]) -> dict[Owner, set[str]]:
    """The keys of data that each manager owns; no manager has two entries."""
    found: dict[Owner, set[str]] = {}
    for entry in obj["metadata"].get("managedFields", ()):
        assert (entry["fieldsType"], entry["apiVersion"]) == ("FieldsV1", obj["apiVersion"])
        owner = (entry["manager"], entry["operation"])
        assert owner not in found
        assert entry["fieldsV1"]
        found[owner] = {key[2:] for key in entry["fieldsV1"].get("f:data", {}) if key != "."}
    return {owner: keys for owner, keys in found.items() if keys}


async def take_step(world: World, model: Model, step: tuple[str, str, dict[str, str], bool]) -> None:
    how, who, data, force = step
    path, before = f"{CONFIG_MAPS}/c", dict(model.data)
    if how == "apply":
        query = {"fieldManager": who, "force": str(force).lower()}
        status, answer = await world.json("PATCH", path, config(data), APPLY, **query)
        conflicts = model.conflicts(who, data)
        if conflicts and not force:
            assert status == 409
            assert {c["field"] for c in answer["details"]["causes"]} == {f".data.{k}" for k in conflicts}
            return
        assert status == 200, (model, step, answer)
        model.apply(who, data)
        again = await world.json("PATCH", path, config(data), APPLY, **query)
        assert again == (200, answer), "applied twice is applied once"
        return
    if how == "put":
        body: Any = config(data)
        kind, method = JSON, "PUT"
    elif how == "merge":
        body, kind, method = {"data": {**dict.fromkeys(before), **data}}, MERGE, "PATCH"
    else:
        body, kind, method = [{"op": "add", "path": "/data", "value": data}], JSON_PATCH, "PATCH"
    status, answer = await world.json(method, path, body, kind, fieldManager=who)
    assert status == 200, answer
    model.update(who, data)


@few(80)
@given(DATA, st.lists(STEPS, max_size=8))
def test_config_maps_are_owned_as_in_the_model(first: dict[str, str], steps: list[Any]) -> None:
    async def story(world: World) -> None:
        model = Model()
        await world.json("POST", CONFIG_MAPS, config(first), fieldManager="ann")
        model.update("ann", first)
        for step in steps:
            await take_step(world, model, step)
            _, live = await world.json("GET", f"{CONFIG_MAPS}/c")
            assert live.get("data", {}) == model.data
            assert owners(live) == {owner: keys for owner, keys in model.owned.items() if keys}

    tell(story)


TEXT = st.sampled_from(("x", "y", "z"))
PARTS = st.lists(
    st.fixed_dictionaries({"id": TEXT}, optional={"size": st.integers(0, 2), "on": st.booleans()}),
    max_size=3,
    unique_by=lambda part: part["id"],
)
SPEC = st.fixed_dictionaries(
    {},
    optional={
        "map": st.dictionaries(TEXT, TEXT, max_size=2),
        "atom": st.dictionaries(TEXT, TEXT, max_size=2),
        "set": st.lists(TEXT, max_size=3, unique=True),
        "list": st.lists(TEXT, max_size=3),
        "parts": PARTS,
        "level": st.integers(0, 2),
        "either": st.one_of(st.integers(0, 2), TEXT),
        "free": st.dictionaries(TEXT, st.one_of(TEXT, st.lists(TEXT, max_size=2)), max_size=2),
    },
)


def gadget(spec: dict[str, Any], **meta: Any) -> dict[str, Any]:
    return {"apiVersion": "fuzz.example.org/v1", "kind": "Gadget", "metadata": {"name": "g", **meta}, "spec": spec}


def holds(live: Any, wanted: Any, merging: str = "map") -> bool:
    """Is everything that was applied there? Lists by their kind: of parts by id, sets as sets, others whole."""
    if isinstance(wanted, dict):
        if merging == "atom":
            return bool(live == wanted)
        return isinstance(live, dict) and all(k in live and holds(live[k], v, k) for k, v in wanted.items())
    if merging == "parts":
        by_id = {part["id"]: part for part in live}
        return all(holds(by_id.get(part["id"]), part) for part in wanted)
    return set(wanted) <= set(live) if merging == "set" else bool(live == wanted)


def reaches(fields: dict[str, Any], value: Any, path: str = "") -> None:
    """Every field that an owner has is there."""
    for name, below in fields.items():
        if name == ".":
            continue
        kind, _, key = name.partition(":")
        if kind == "f":
            assert isinstance(value, dict), path
            assert key in value, (path, name)
            reaches(below, value[key], f"{path}.{key}")
        elif kind == "k":
            keys = orjson.loads(key)
            found = [item for item in value if all(item.get(k) == v for k, v in keys.items())]
            assert len(found) == 1, (path, name)
            reaches(below, found[0], f"{path}[{key}]")
        else:
            assert kind == "v", name
            assert orjson.loads(key) in value, (path, name)


GADGET_STEPS = st.tuples(st.sampled_from(("apply", "apply", "put", "merge")), MANAGERS, SPEC, st.booleans())


@few(80)
@given(SPEC, st.lists(GADGET_STEPS, max_size=6))
def test_nested_fields_have_owners_that_fit(first: dict[str, Any], steps: list[Any]) -> None:
    async def story(world: World) -> None:
        await world.ask("POST", DEFINITIONS, definition(GADGET))
        status, live = await world.json("POST", GADGETS, gadget(first))
        assert status == 201, live
        for how, who, spec, force in steps:
            path = f"{GADGETS}/g"
            if how == "apply":
                query = {"fieldManager": who, "force": str(force).lower()}
                status, answer = await world.json("PATCH", path, gadget(spec), APPLY, **query)
                assert status == 200 or (status == 409 and not force), answer
                if status == 200:
                    assert holds(answer["spec"], spec) if spec else True
                    assert await world.json("PATCH", path, gadget(spec), APPLY, **query) == (200, answer)
            elif how == "put":
                status, answer = await world.json("PUT", path, gadget(spec), fieldManager=who)
            else:
                status, answer = await world.json("PATCH", path, {"spec": spec}, MERGE, fieldManager=who)
            _, live = await world.json("GET", path)
            for entry in live["metadata"]["managedFields"]:
                reaches(entry["fieldsV1"], live)
            assert await world.json("PUT", path, live) == (200, live), (
                "what was read may be written, and changes nothing"
            )

    tell(story)

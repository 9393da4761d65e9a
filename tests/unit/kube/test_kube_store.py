from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kube_fake import make

from glebe.kube.objects import Object, ObjectKey
from glebe.kube.store import Store


def by_colour(obj: Object) -> list[str]:
    return obj["metadata"].get("labels", {}).get("colours", "").split()


def by_size(obj: Object) -> list[str]:
    return [obj["metadata"]["labels"]["size"]]


def key(name: str) -> ObjectKey:
    return ObjectKey("", "x", name)


STEPS = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.one_of(st.none(), st.lists(st.sampled_from(["red", "green", "blue"]), max_size=3)),
        st.sampled_from("12"),
    ),
    max_size=30,
)


@settings(max_examples=200)
@given(STEPS, st.integers(0, 30))
def test_indexes_agree_with_a_search(steps: list[tuple[str, list[str] | None, str]], late: int) -> None:
    store = Store({"colour": by_colour})
    model: dict[str, Object] = {}
    for number, (name, colours, size) in enumerate(steps):
        if number == late:
            store.add_indexer("size", by_size)
        if colours is None:
            assert store.delete(key(name)) is model.pop(name, None)
        else:
            obj = make(name, "x", colours=" ".join(colours), size=size)
            assert store.set(key(name), obj) is model.get(name)
            model[name] = obj
        assert {k.name for k in store.keys()} == set(model)  # noqa: SIM118 - a store is no mapping
        assert len(store) == len(model)
        for index, of in (("colour", by_colour), ("size", by_size)):
            if not store.has_index(index):
                continue
            values = {value for obj in model.values() for value in of(obj)}
            assert set(store.index_values(index)) == values
            for value in values | {"none"}:
                found = sorted(obj["metadata"]["name"] for obj in store.by_index(index, value))
                assert found == sorted(name for name, obj in model.items() if value in of(obj))
                assert store.count(index, value) == len(found)


def test_index_names() -> None:
    store = Store({"colour": by_colour})
    store.add_indexer("colour", by_colour)
    with pytest.raises(ValueError, match="exists already"):
        store.add_indexer("colour", by_size)
    with pytest.raises(KeyError):
        store.by_index("nothing", "x")
    assert key("a") not in store

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glebe.kube.selectors import (
    FieldSelector,
    LabelSelector,
    Requirement,
    SelectorError,
    escape_field,
    field_of,
)


@pytest.mark.parametrize(
    ("text", "labels", "selected"),
    [
        ("", {}, True),
        ("a=b", {"a": "b"}, True),
        ("a==b", {"a": "b"}, True),
        ("a=b", {}, False),
        ("a=", {"a": ""}, True),
        ("a=", {}, False),
        ("a!=b", {}, True),
        ("a!=b", {"a": "c"}, True),
        ("a!=b", {"a": "b"}, False),
        ("a in (x,y)", {"a": "y"}, True),
        ("a in (x,y)", {}, False),
        ("a notin (x, y)", {}, True),
        ("a notin (x,y)", {"a": "x"}, False),
        ("a", {"a": ""}, True),
        ("!a", {}, True),
        ("! a", {"a": "1"}, False),
        ("a>3", {"a": "4"}, True),
        ("a>3", {"a": "3"}, False),
        ("a<3", {"a": "x"}, False),
        ("a<3", {}, False),
        ("a=b,c in (x,y),!d", {"a": "b", "c": "x"}, True),
        ("a=b,c in (x,y),!d", {"a": "b", "c": "x", "d": ""}, False),
        (" a = b , example.com/c ", {"a": "b", "example.com/c": "1"}, True),
        ("in in (in,notin)", {"in": "in"}, True),
        ("notin!=in", {"notin": "in"}, False),
        ("a in (,x)", {"a": ""}, True),
    ],
)
def test_labels(text: str, labels: dict[str, str], selected: bool) -> None:
    assert LabelSelector.parse(text).matches(labels) is selected


@pytest.mark.parametrize(
    "text",
    [
        "a=b,",
        ",",
        "a==b=c",
        "a in x",
        "a in (x",
        "a in x)",
        "!",
        "=b",
        "a b",
        "-a=b",
        "a=b c",
        "a>x",
        "a=-b",
        "a/b/c",
        "!a=b",
    ],
)
def test_not_a_label_selector(text: str) -> None:
    with pytest.raises(SelectorError):
        LabelSelector.parse(text)


def test_from_object() -> None:
    assert LabelSelector.from_object({}).empty
    assert not LabelSelector.from_object(None).matches({})
    selector = LabelSelector.from_object(
        {
            "matchLabels": {"b": "1", "a": "2"},
            "matchExpressions": [
                {"key": "c", "operator": "In", "values": ["x"]},
                {"key": "d", "operator": "DoesNotExist"},
            ],
        }
    )
    assert str(selector) == "a=2,b=1,c=x,!d"
    assert selector.matches({"a": "2", "b": "1", "c": "x"})
    for bad in (
        {"key": "a", "operator": "in", "values": ["x"]},
        {"key": "a", "operator": "In"},
        {"key": "a", "operator": "Exists", "values": ["x"]},
        {"key": "a b", "operator": "Exists"},
    ):
        with pytest.raises(SelectorError):
            LabelSelector.from_object({"matchExpressions": [bad]})


KEYS = st.sampled_from(["a", "b", "in", "example.com/c"])
VALUES = st.sampled_from(["", "x", "y", "in", "3"])
TERMS = st.one_of(
    st.builds(
        lambda k, op, v: Requirement(k, op, tuple(sorted(v))),
        KEYS,
        st.sampled_from(["In", "NotIn"]),
        st.sets(VALUES, min_size=1),
    ),
    st.builds(Requirement, KEYS, st.sampled_from(["Exists", "DoesNotExist"])),
    st.builds(lambda k, op, n: Requirement(k, op, (str(n),)), KEYS, st.sampled_from(["Gt", "Lt"]), st.integers(-5, 5)),
)


def means(term: Requirement, labels: dict[str, str]) -> bool:
    """What upstream documents, spelt out."""
    has = term.key in labels
    value = labels.get(term.key, "")
    number = int(value) if value.isdigit() else None
    return {
        "In": has and value in term.values,
        "NotIn": not has or value not in term.values,
        "Exists": has,
        "DoesNotExist": not has,
        "Gt": has and number is not None and bool(term.values) and number > _int(term),
        "Lt": has and number is not None and bool(term.values) and number < _int(term),
    }[term.operator]


def _int(term: Requirement) -> int:
    return int(term.values[0]) if term.operator in ("Gt", "Lt") else 0


@settings(max_examples=300)
@given(st.lists(TERMS, max_size=4), st.dictionaries(KEYS, VALUES))
def test_text_and_meaning_agree(terms: list[Requirement], labels: dict[str, str]) -> None:
    selector = LabelSelector(tuple(terms))
    expected = all(means(term, labels) for term in terms)
    assert selector.matches(labels) is expected
    again = LabelSelector.parse(str(selector))
    assert again.matches(labels) is expected
    assert str(again) == str(selector)


POD = {"metadata": {"name": "x"}, "spec": {"nodeName": "n=1,2", "hostNetwork": True}, "status": {"phase": "Running"}}


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", True),
        ("metadata.name=x", True),
        ("metadata.name==x,status.phase!=Failed", True),
        ("status.phase!=Running", False),
        ("status.reason=", True),
        ("spec.hostNetwork=true", True),
        (f"spec.nodeName={escape_field('n=1,2')}", True),
    ],
)
def test_fields(text: str, selected: bool) -> None:
    assert FieldSelector.parse(text).matches(lambda path: field_of(POD, path)) is selected


@pytest.mark.parametrize("text", ["metadata.name", "=x", "a=b=c", "a=\\x"])
def test_not_a_field_selector(text: str) -> None:
    with pytest.raises(SelectorError):
        FieldSelector.parse(text)


@settings(max_examples=200)
@given(st.text(max_size=20))
def test_escaped_values_come_back(value: str) -> None:
    selector = FieldSelector.parse(f"metadata.name={escape_field(value)},spec.nodeName!=q")
    assert selector.required("metadata.name") == value
    assert selector.required("spec.nodeName") is None

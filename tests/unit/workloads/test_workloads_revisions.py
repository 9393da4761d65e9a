"""History of pod templates."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from glebe.kube.objects import Object
from glebe.kube.resources import DAEMON_SETS
from glebe.workloads.revisions import build, hash_of, in_order, restored, same, snapshot, surplus, template_of

JSON = st.recursive(
    st.one_of(st.text(max_size=5), st.integers(-9, 9), st.booleans()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def owner(template: Any) -> Object:
    return {"metadata": {"name": "a", "namespace": "n", "uid": "u"}, "spec": {"template": template}}


@given(st.dictionaries(st.text(max_size=4).filter(lambda k: k not in ("$patch", "metadata")), JSON, max_size=4))
def test_a_revision_brings_its_template_back(template: Object) -> None:
    first = build(owner(template), DAEMON_SETS, 1, 0, "hash")
    assert template_of(first) == template
    assert restored(owner({}), first) == owner(template)
    shuffled = owner(json.loads(json.dumps(dict(reversed(template.items())))))
    again = build(shuffled, DAEMON_SETS, 7, 0, "hash")
    assert same(first, again)
    assert first["metadata"] == again["metadata"]
    assert build(owner(template), DAEMON_SETS, 1, 1, "hash")["metadata"]["name"] != first["metadata"]["name"]


def test_a_patch_is_written_as_upstream_writes_it() -> None:
    template = {"spec": {"b": 1, "a": [{"d": 1, "c": 2}]}, "metadata": {"labels": {}, "creationTimestamp": None}}
    inner = '{"$patch": "replace", "metadata": {"labels": {}}, "spec": {"a": [{"c": 2, "d": 1}], "b": 1}}'
    assert json.dumps(snapshot(owner(template))) == '{"spec": {"template": ' + inner + "}}"


def test_hashes_form_no_words() -> None:
    for number in range(200):
        assert not set(hash_of({"n": number}, 0)) & set("aeiou013l")


def test_the_oldest_that_nobody_has_go() -> None:
    revisions = in_order(
        {"metadata": {"name": n, "creationTimestamp": ""}, "revision": r} for n, r in (("c", 3), ("a", 1), ("b", 2))
    )
    assert [r["metadata"]["name"] for r in revisions] == ["a", "b", "c"]
    assert [r["metadata"]["name"] for r in surplus(revisions, ["a"], 1)] == ["b"]
    assert surplus(revisions, [], 3) == []

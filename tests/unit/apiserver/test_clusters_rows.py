"""What the register keeps of a cluster, and what it makes of it again."""

from __future__ import annotations

import orjson

from glebe.apiserver.clusters import logical
from glebe.apiserver.store import Entry

ASKED = {"metadata": {"name": "a", "labels": {"team": "x"}}, "spec": {"budget": {"objects": 5}}}


def test_a_row_holds_only_what_is_its_own() -> None:
    obj = logical.new("a", "u1", "2026-01-01T00:00:00Z", {})
    value = logical.row(obj, first=True)(7)
    meta = {"name": "a", "uid": "u1", "creationTimestamp": "2026-01-01T00:00:00Z"}
    assert orjson.loads(value) == {"metadata": meta}
    assert logical.full(Entry(7, value)) == {
        "apiVersion": "glebe.dev/v1alpha1",
        "kind": "LogicalCluster",
        "metadata": {**meta, "resourceVersion": "7"},
        "spec": {},
        "status": {"phase": "Ready", "firstResourceVersion": "7"},
    }
    assert logical.read(Entry(7, value)).revision == 7


def test_a_changed_cluster_keeps_its_beginning() -> None:
    first = Entry(7, logical.row(logical.new("a", "u1", "2026-01-01T00:00:00Z", ASKED), first=True)(7))
    changed = logical.changed(logical.full(first), {"metadata": {"labels": {"team": "y"}}, "spec": {}})
    again = Entry(9, logical.row(changed)(9))
    assert logical.full(again)["status"] == {"phase": "Ready", "firstResourceVersion": "7"}
    assert logical.full(again)["metadata"]["labels"] == {"team": "y"}
    assert logical.full(again)["metadata"]["resourceVersion"] == "9"
    cluster = logical.read(again)
    assert (cluster.revision, cluster.budget, cluster.uid) == (7, None, "u1")


def test_rows_of_before_are_understood() -> None:
    old = {
        "apiVersion": "glebe.dev/v1alpha1",
        "kind": "LogicalCluster",
        "metadata": {"name": "a", "uid": "u1", "creationTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": "9"},
        "spec": {},
        "status": {"phase": "Ready", "firstResourceVersion": "7"},
    }
    entry = Entry(9, orjson.dumps(old))
    assert logical.full(entry) == old
    assert logical.read(entry).revision == 7

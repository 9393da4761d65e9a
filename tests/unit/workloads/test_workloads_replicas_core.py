"""The pure parts of ReplicaSets: who goes first, what the status says."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glebe.kube.clock import format_time
from glebe.kube.objects import Object
from glebe.workloads.replicas.kinds import REPLICA_SET, REPLICATION_CONTROLLER
from glebe.workloads.replicas.plan import BURST, Facts, next_look, plan, status
from glebe.workloads.replicas.pods import DELETION_COST, deletion_cost
from glebe.workloads.replicas.template import build_pod

NOW = 1_000_000.0


def rs(count: int = 1, **spec: Any) -> Object:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {}}
    return {
        "metadata": {"name": "r", "namespace": "n", "uid": "R", "generation": 1},
        "spec": {"replicas": count, "template": template, **spec},
    }


def pod(
    name: str, *, node: str = "", phase: str = "", ready: float | None = None, restarts: int = 0, age: float = 1000.0,
    cost: str | None = None, sidecar: int = 0,
) -> Object:  # fmt: skip
    meta: Object = {"name": name, "uid": name, "labels": {"a": "b"}, "creationTimestamp": format_time(NOW - age)}
    if cost is not None:
        meta["annotations"] = {DELETION_COST: cost}
    phase = phase or ("Running" if ready is not None else "Pending")
    state: Object = {"phase": phase, "containerStatuses": [{"name": "m", "restartCount": restarts}]}
    state["initContainerStatuses"] = [{"name": "s", "restartCount": sidecar}]
    if ready is not None:
        since = format_time(NOW - ready)
        state["conditions"] = [{"type": "Ready", "status": "True", "lastTransitionTime": since}]
    spec: Object = {"initContainers": [{"name": "s", "restartPolicy": "Always"}]}
    if node:
        spec["nodeName"] = node
    return {"metadata": meta, "spec": spec, "status": state}


def chosen(count: int, *pods: Object, related: tuple[Object, ...] = ()) -> list[str]:
    facts = Facts(REPLICA_SET, rs(count), list(pods), NOW, related=lambda: related or pods)
    return [p["metadata"]["name"] for p in plan(facts).delete]


@pytest.mark.parametrize(
    ("goes", "stays"),
    [
        (pod("x", ready=50), pod("a", node="n", phase="Pending")),
        (pod("x", node="n", phase="Pending"), pod("a", node="n", phase="Running")),
        (pod("x", node="n", phase="Unknown"), pod("a", node="n", phase="Running")),
        (pod("x", node="n", phase="Running"), pod("a", node="n", ready=1)),
        (pod("x", node="n", ready=500, cost="-5"), pod("a", node="n", ready=1)),
        (pod("x", node="n", ready=500), pod("a", node="n", ready=1, cost="5")),
        (pod("x", node="n", ready=1), pod("a", node="n", ready=500)),
        (pod("x", node="n", ready=500, restarts=3), pod("a", node="n", ready=500, restarts=1, sidecar=9)),
        (pod("x", node="n", ready=500, sidecar=3), pod("a", node="n", ready=500)),
        (pod("x", node="n", ready=500, age=600), pod("a", node="n", ready=500, age=60000)),
    ],
)
def test_what_goes_first(goes: Object, stays: Object) -> None:
    assert chosen(1, stays, goes) == ["x"]


def test_the_more_crowded_node_loses_first() -> None:
    alone = pod("a", node="n1", ready=1)
    pair = [pod("x", node="n2", ready=500), pod("y", node="n2", ready=500)]
    assert chosen(2, alone, *pair)[0] in ("x", "y")
    # Pods of a sibling set count, too; those that have ended do not.
    crowd = (pod("o", node="n1", ready=5), pod("p", node="n1", phase="Failed"), pod("q", node="n1", ready=5))
    assert chosen(1, alone, pod("x", node="n2", ready=500), related=(alone, *crowd)) == ["a"]


@pytest.mark.parametrize(
    ("text", "cost"),
    [("10", 10), ("-10", -10), ("", 0), ("+1", 0), ("01", 0), ("x", 0), ("9999999999", 0), ("-", 0), ("0", 0)],
)
def test_deletion_costs(text: str, cost: int) -> None:
    assert deletion_cost(pod("p", cost=text)) == cost


@given(st.integers(0, 3 * BURST), st.integers(0, 40), st.booleans(), st.booleans())
def test_a_step_never_overshoots(wanted: int, there: int, settled: bool, going: bool) -> None:
    obj = rs(wanted)
    if going:
        obj["metadata"]["deletionTimestamp"] = "x"
    facts = Facts(REPLICA_SET, obj, [pod(str(i)) for i in range(there)], NOW, settled=settled)
    done = plan(facts)
    if not settled or going:
        assert (done.create, done.delete) == (0, [])
        return
    after = there + done.create - len(done.delete)
    assert min(done.create, len(done.delete)) == 0
    assert after == wanted or (done.create == BURST and after < wanted)


def test_status() -> None:
    pods = [pod("a"), pod("b", node="n", ready=3), pod("c", node="n", ready=30)]
    pods[0]["metadata"]["labels"] = {"a": "other"}
    f = Facts(REPLICA_SET, rs(3, minReadySeconds=10), pods, NOW, terminating=2)
    assert status(f) == {
        "replicas": 3,
        "fullyLabeledReplicas": 2,
        "readyReplicas": 2,
        "availableReplicas": 1,
        "observedGeneration": 1,
        "terminatingReplicas": 2,
    }
    assert next_look(f) == pytest.approx(7.0)
    again = Facts(REPLICA_SET, {**f.obj, "status": status(f)}, pods, NOW, terminating=2)
    assert status(again) is None
    assert "terminatingReplicas" not in (status(Facts(REPLICATION_CONTROLLER, rs(3), pods, NOW)) or {})


def test_the_first_failure_stays_until_a_success() -> None:
    f = Facts(REPLICA_SET, rs(2), [pod("a")], NOW)
    first = status(f, "no room")
    assert first
    (condition,) = first["conditions"]
    assert (condition["reason"], condition["message"]) == ("FailedCreate", "no room")
    later = Facts(REPLICA_SET, {**f.obj, "status": first}, [pod("a")], NOW + 60)
    assert status(later, "still no room") is None
    assert "conditions" not in (status(later) or {})


def test_pods_take_after_their_template() -> None:
    obj = rs()
    obj["metadata"]["name"] = "long" * 20
    made = build_pod(REPLICA_SET, obj, random.Random(1))
    meta = made["metadata"]
    assert len(meta["name"]) == 63
    assert meta["labels"] == {"a": "b"}
    assert meta["ownerReferences"][0]["uid"] == "R"
    assert made["spec"] is obj["spec"]["template"]["spec"]

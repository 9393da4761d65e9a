"""Pure parts of the queue: requests, run times, workload construction, admission of jobs, assignments, releases."""

from __future__ import annotations

import base64
import copy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glebe.apiserver.patch import json_patch as apply_patch
from glebe.kube.objects import Object, condition_is_true, get_condition
from glebe.kube.pods import requests_of
from glebe.kube.resources import WORKLOAD_CLASSES, Resource
from glebe.queueing import labels
from glebe.queueing.gatekeeping import jobadmission
from glebe.queueing.gatekeeping.admission import json_patch, review
from glebe.queueing.gatekeeping.jobadmission import check, suspend_and_gate
from glebe.queueing.jobs import construct, integrations
from glebe.queueing.jobs.construct import Priority, in_sync, priority_of, workload_for, workload_name
from glebe.queueing.jobs.integrations import for_kind
from glebe.queueing.jobs.ungate import plan
from glebe.queueing.life import evictions, transitions
from glebe.queueing.picture import podsets, topology
from glebe.queueing.picture.nodeuse import NodeUse
from glebe.queueing.picture.runtimes import UNKNOWN, parse_expected, predict
from glebe.scheduling.model import (
    Decision,
    Forecast,
    Outcome,
    PodSetAssignment,
    Reason,
    RunTime,
    Slice,
    TopologyMode,
    TopologyRequest,
)

JOB = for_kind("batch/v1", "Job")
assert JOB is not None


def none(resource: Resource, name: str) -> Object | None:
    return None


def job(**spec: Any) -> Object:
    container = {"name": "m", "resources": {"requests": {"cpu": "500m", "nvidia.com/gpu": "8"}}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "train", "namespace": "ns", "uid": "u1", "labels": {labels.QUEUE_NAME: "main"}},
        "spec": {"parallelism": 4, "completions": 2, "template": {"spec": {"containers": [container]}}, **spec},
    }


def test_pod_requests_follow_kubernetes() -> None:
    def asks(cpu: str, **more: Any) -> dict[str, Any]:
        return {"resources": {"requests": {"cpu": cpu}}, **more}

    assert requests_of({"containers": [asks("500m"), asks("0.25")]}) == {"cpu": 750}
    assert requests_of({"containers": [asks("1")], "initContainers": [asks("3")]}) == {"cpu": 3000}
    sidecar = asks("1", restartPolicy="Always")
    assert requests_of({"containers": [asks("1")], "initContainers": [sidecar, asks("3")]}) == {"cpu": 4000}
    assert requests_of({"containers": [{"resources": {"limits": {"nvidia.com/gpu": 8}}}]}) == {"nvidia.com/gpu": 8}
    assert requests_of({"containers": [asks("1")], "overhead": {"cpu": "250m"}}) == {"cpu": 1250}


def test_run_times() -> None:
    assert parse_expected("20m..35m") == RunTime(1200, 2100)
    assert parse_expected("20m") == RunTime(1200, 1800)
    assert predict(None, None, None, None) == UNKNOWN
    assert predict("2h", 60, 90, 1800) == RunTime(1800, 1800)
    assert predict("nonsense", 60, 90, None) == RunTime(60, 90)
    for wrong in ("", "x", "5m..1m", "0s", "1m..2m..3m"):
        with pytest.raises(ValueError, match="is not a run time"):
            parse_expected(wrong)


def test_workload_of_a_job() -> None:
    one = job()
    one["spec"]["template"]["metadata"] = {"annotations": {labels.REQUIRED_TOPOLOGY: "rack"}}
    workload = workload_for(JOB, one, Priority(7, {"group": "glebe.dev", "kind": "WorkloadClass", "name": "c"}))
    assert workload["metadata"]["name"] == workload_name(JOB, one)
    assert workload["metadata"]["name"].startswith("job-train-")
    assert workload["metadata"]["ownerReferences"][0]["uid"] == "u1"
    pod_set = workload["spec"]["podSets"][0]
    assert (pod_set["name"], pod_set["count"]) == ("main", 2)
    assert pod_set["topologyRequest"] == {"required": "rack", "podIndexLabel": labels.COMPLETION_INDEX}
    assert workload["spec"]["priority"] == 7
    again = copy.deepcopy(one)
    again["metadata"]["uid"] = "u2"
    assert workload_name(JOB, again) != workload_name(JOB, one)
    assert in_sync(workload, workload_for(JOB, one, Priority(0)))
    one["spec"]["completions"] = 3
    assert not in_sync(workload, workload_for(JOB, one, Priority(0)))


def test_priority_comes_from_the_class() -> None:
    one = job()
    one["metadata"]["labels"][labels.CLASS] = "urgent"

    def find(resource: Resource, name: str) -> Object | None:
        return {"spec": {"priority": 50}} if (resource, name) == (WORKLOAD_CLASSES, "urgent") else None

    assert priority_of(JOB, one, find).value == 50
    assert priority_of(JOB, one, none).missing == 'WorkloadClass "urgent"'


def test_admission_suspends_and_gates_once() -> None:
    one = job()
    suspend_and_gate(JOB, one, "ada")
    template = one["spec"]["template"]
    assert one["spec"]["suspend"] is True
    assert template["spec"]["schedulingGates"] == [{"name": labels.GATE}]
    assert template["metadata"]["labels"] == {labels.POD_SET: "main", labels.LOCAL_QUEUE: "main"}
    again = copy.deepcopy(one)
    suspend_and_gate(JOB, again, "bob")
    assert again == one


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"labels": {labels.CLASS: "nope"}}, f"metadata.labels[{labels.CLASS}]"),
        ({"labels": {labels.PRIORITY_CLASS: "nope"}}, f"metadata.labels[{labels.PRIORITY_CLASS}]"),
        ({"labels": {labels.MAX_EXEC_TIME: "-1"}}, f"metadata.labels[{labels.MAX_EXEC_TIME}]"),
        ({"annotations": {labels.EXPECTED_RUN_TIME: "soon"}}, f"metadata.annotations[{labels.EXPECTED_RUN_TIME}]"),
    ],
)
def test_wrong_jobs_are_refused_by_field(change: dict[str, dict[str, str]], field: str) -> None:
    one = job()
    for part, values in change.items():
        one["metadata"].setdefault(part, {}).update(values)
    assert [c.field for c in check(JOB, one, none)] == [field]


def test_negative_counts_are_refused() -> None:
    assert [c.field for c in check(JOB, job(parallelism=-1), none)] == ["spec.parallelism"]


def test_negative_amounts_are_refused_by_field() -> None:
    one = job()
    one["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "-1"}}
    field = "spec.template.spec.containers[0].resources.limits[nvidia.com/gpu]"
    assert [c.field for c in check(JOB, one, none)] == [field]


def test_webhook_answers_with_a_patch_that_gives_what_the_plugin_gives() -> None:
    one = job()
    request = {
        "uid": "r1",
        "operation": "CREATE",
        "kind": {"group": "batch", "version": "v1", "kind": "Job"},
        "object": one,
        "userInfo": {"username": "ada"},
    }
    answer = review({"request": request}, none)["response"]
    assert answer["allowed"]
    assert answer["uid"] == "r1"
    wanted = copy.deepcopy(one)
    suspend_and_gate(JOB, wanted, "ada")
    patched = apply_patch.apply(copy.deepcopy(one), orjson.loads(base64.b64decode(answer["patch"])))
    assert patched == wanted
    one["metadata"]["labels"][labels.CLASS] = "nope"
    refused = review({"request": request}, none)["response"]
    assert not refused["allowed"]
    assert refused["status"]["code"] == 422


json_names = st.sampled_from(("a", "b", "a/b", "~", "/", ""))
json_leaves = st.none() | st.integers() | json_names
json_values = json_leaves | st.lists(json_leaves, max_size=3) | st.dictionaries(json_names, json_leaves, max_size=3)
json_objects = st.dictionaries(json_names, json_values, max_size=3)


@given(json_objects, json_objects)
def test_json_patch_turns_old_into_new(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert apply_patch.apply(copy.deepcopy(old), json_patch(old, new)) == new


@given(
    st.lists(st.tuples(st.from_regex(r"(a|gpu)-[0-9]{1,3}", fullmatch=True), st.integers(1, 9)), min_size=1, max_size=8)
)
def test_topology_assignment_keeps_nodes_and_order(nodes: list[tuple[str, int]]) -> None:
    written = topology.encode(nodes)
    assert topology.decode(written) == tuple(nodes)
    assert topology.modern({"podSetAssignments": [{"topologyAssignment": written}]})["podSetAssignments"] == [
        {"topologyAssignment": written}
    ]


def test_topology_assignment_is_written_as_kueue_writes_it() -> None:
    def values(*names: str) -> object:
        return topology.encode([(n, 1) for n in names])["slices"][0]["valuesPerLevel"]

    assert values("a", "a") == [{"universal": "a"}]
    assert values("pool-1-x", "pool-22-x") == [
        {"individual": {"prefix": "pool-", "suffix": "-x", "roots": ["1", "22"]}}
    ]
    assert values("aba", "ababa") == [{"individual": {"prefix": "aba", "roots": ["", "ba"]}}]  # they do not overlap
    assert values("x", "y") == [{"individual": {"roots": ["x", "y"]}}]
    assert topology.encode([("a", 2), ("b", 2)])["slices"][0]["podCounts"] == {"universal": 2}
    assert topology.encode([("a", 2), ("b", 1)])["slices"][0]["podCounts"] == {"individual": [2, 1]}


def test_earlier_forms_of_topology_assignments_are_read_and_rewritten() -> None:
    ours = {
        "levels": [labels.HOSTNAME],
        "slices": [
            {"domainCount": 2, "valuesPerLevel": [{"prefix": "n", "roots": ["1", "2"]}], "podCounts": [3, 1]},
            {"domainCount": 1, "valuesPerLevel": [{"universalValue": "m"}], "universalPodCount": 2},
        ],
    }
    v1beta1 = {"levels": ["rack", labels.HOSTNAME], "domains": [{"values": ["r", "n1"], "count": 4}]}
    assert topology.decode(ours) == (("n1", 3), ("n2", 1), ("m", 2))
    assert topology.decode(v1beta1) == (("n1", 4),)
    admission = {"clusterQueue": "q", "podSetAssignments": [{"name": "a"}, {"name": "b", "topologyAssignment": ours}]}
    workload: Object = {"metadata": {"name": "w", "namespace": "ns"}, "status": {"admission": admission}}
    written = transitions.pods_ready(workload, True, 0)["status"]["admission"]
    assert written["podSetAssignments"][0] == {"name": "a"}
    assert written["podSetAssignments"][1]["topologyAssignment"] == topology.encode(topology.decode(ours))


def pod(rank: int, *, gated: bool = True, node: str = "", phase: str = "Pending", uid: str = "") -> Object:
    spec: dict[str, Any] = {"schedulingGates": [{"name": labels.GATE}]} if gated else {}
    if node:
        spec["nodeSelector"] = {labels.HOSTNAME: node}
    return {
        "metadata": {
            "name": f"p-{rank}-{uid}",
            "uid": uid or f"u{rank}",
            "annotations": {labels.COMPLETION_INDEX: str(rank)},
        },
        "spec": spec,
        "status": {"phase": phase},
    }


GANG = PodSetAssignment("main", 4, {}, {}, (("a", 2), ("b", 2)))


def test_no_pod_is_released_before_the_gang_is_whole() -> None:
    assert plan(GANG, [pod(i) for i in range(3)], 4, {}) == []
    released = plan(GANG, [pod(i) for i in (3, 1, 0, 2)], 4, {})
    assert [(rel.pod["metadata"]["name"], rel.node) for rel in released] == [
        *(("p-0-", "a"), ("p-1-", "a"), ("p-2-", "b"), ("p-3-", "b"))
    ]


def test_a_replacement_gets_the_node_of_its_rank_at_once() -> None:
    running = [pod(i, gated=False, node="a" if i < 2 else "b", phase="Running") for i in (0, 1, 3)]
    failed = pod(2, gated=False, node="b", phase="Failed", uid="old")
    released = plan(GANG, [*running, failed, pod(2, uid="new")], 4, {})
    assert [(rel.pod["metadata"]["uid"], rel.node) for rel in released] == [("new", "b")]


def test_a_release_that_was_sent_is_not_sent_again() -> None:
    pods = [pod(i) for i in range(4)]
    sent = {p["metadata"]["uid"]: "a" for p in pods}
    assert plan(GANG, pods, 4, sent) == []


def test_pods_beyond_the_slots_wait_for_a_free_one() -> None:
    pods = [pod(i, gated=False, node="a" if i < 2 else "b", phase="Running") for i in range(4)]
    assert plan(GANG, [*pods, pod(7)], 4, {}) == []
    pods[1]["status"]["phase"] = "Succeeded"
    assert [rel.node for rel in plan(GANG, [*pods, pod(7)], 4, {})] == ["a"]


def forecast(position: int = 1, start: float | None = 1000.0, reason: Reason = Reason.WAITING_FOR_QUOTA) -> Forecast:
    decision = Decision("ns/w", Outcome.WAIT, reason, "It waits.", "Wait.")
    return Forecast("ns/w", position, 8, start, None if start is None else start + 100, decision)


def test_only_material_changes_are_published() -> None:
    workload: Object = {"metadata": {"name": "w", "namespace": "ns"}, "spec": {}}
    assert transitions.differs_materially(workload, forecast(), 0)
    known = transitions.wait(workload, forecast().decision, forecast(), 0)
    assert not transitions.differs_materially(known, forecast(), 0)
    assert not transitions.differs_materially(known, forecast(start=1040), 0)
    assert transitions.differs_materially(known, forecast(start=1060), 0)
    assert transitions.differs_materially(known, forecast(start=1003), 990)
    assert transitions.differs_materially(known, forecast(position=2), 0)
    assert transitions.differs_materially(known, forecast(start=None), 0)
    assert transitions.differs_materially(known, forecast(reason=Reason.BEHIND_HEAD), 0)


def test_sentences_of_the_first_in_line_are_up_to_date() -> None:
    workload: Object = {"metadata": {"name": "w", "namespace": "ns"}, "spec": {}}
    for position, news in ((1, True), (20, True), (21, False)):
        known = transitions.wait(workload, forecast().decision, forecast(position), 0)
        other = Decision("ns/w", Outcome.WAIT, Reason.WAITING_FOR_QUOTA, "It waits for less.", "Wait.")
        later = Forecast("ns/w", position, 8, 1000.0, 1100.0, other)
        assert transitions.differs_materially(known, later, 0) is news


def test_a_workload_whose_queue_is_stopped_has_no_place() -> None:
    workload: Object = {"metadata": {"name": "w", "namespace": "ns"}, "spec": {}}
    waiting = transitions.wait(workload, forecast().decision, forecast(), 0)
    stopped = Decision("ns/w", Outcome.WAIT, Reason.QUEUE_STOPPED, "queue q is stopped", "start it")
    shown = transitions.wait(waiting, stopped, None, 1)["status"]["forecast"]
    assert not shown.keys() & {"position", "gpusAhead", "startP50", "startP90"}
    assert shown["message"] == "queue q is stopped"


def test_the_same_sentence_stands_in_condition_and_forecast() -> None:
    workload: Object = {"metadata": {"name": "w", "namespace": "ns"}, "spec": {}}
    shown = transitions.wait(workload, forecast().decision, forecast(), 0)
    assert (get_condition(shown, labels.QUOTA_RESERVED) or {})["message"] == shown["status"]["forecast"]["message"]


def test_evicted_and_released_and_admitted_again() -> None:
    workload: Object = {"metadata": {"name": "w", "namespace": "ns"}, "spec": {}}
    decision = Decision("ns/w", Outcome.ADMIT, Reason.ADMITTED, "Admitted.", assignments=(GANG,))
    running = transitions.admit(workload, "q", decision, 100)
    assert topology.decode(running["status"]["admission"]["podSetAssignments"][0]["topologyAssignment"]) == GANG.nodes
    stopped = evictions.evict(running, "NodeFailures", "Node a is gone.", 160)
    waiting = transitions.release(stopped, 170)
    assert "admission" not in waiting["status"]
    assert waiting["status"]["accumulatedPastExecutionTimeSeconds"] == 70
    assert waiting["status"]["schedulingStats"]["evictions"][0]["count"] == 1
    again = transitions.admit(waiting, "q", decision, 200)
    assert not condition_is_true(again, labels.EVICTED)
    assert workload == {"metadata": {"name": "w", "namespace": "ns"}, "spec": {}}


def held(name: str, owner: str, node: str = "n", gpus: int = 1) -> Object:
    refs = [{"controller": True, "uid": owner, "kind": "Job", "name": "j"}] if owner else []
    container = {"resources": {"requests": {"nvidia.com/gpu": gpus}}}
    return {
        "metadata": {"name": name, "ownerReferences": refs},
        "spec": {"nodeName": node, "containers": [container]},
        "status": {"phase": "Running"},
    }


def test_pods_of_placed_workloads_are_not_other_use() -> None:
    use = NodeUse()
    use.pod_changed(None, held("a", "job"))
    use.pod_changed(None, held("b", "", gpus=2))
    assert use.other_use("n") == {"nvidia.com/gpu": 3, "pods": 2}
    use.take_dirty()
    use.set_placed("job", True)
    assert list(use.take_dirty()) == ["n"]
    assert use.other_use("n") == {"nvidia.com/gpu": 2, "pods": 1}
    leaving = held("a", "job")
    leaving["metadata"]["deletionTimestamp"] = "x"
    use.pod_changed(held("a", "job"), leaving)
    assert use.other_use("n") == {"nvidia.com/gpu": 3, "pods": 2}
    use.pod_changed(leaving, None)
    assert use.other_use("n") == {"nvidia.com/gpu": 2, "pods": 1}


def test_the_last_words_of_a_finished_workload_say_how_it_ended() -> None:
    workload = {"metadata": {"generation": 1}, "spec": {}}
    shown = transitions.wait(workload, forecast().decision, forecast(), 0)
    ended = transitions.finish(shown, "Failed", "Job has reached the specified backoff limit", 50)["status"]
    assert ended["conditions"][-1]["type"] == "Finished"
    last, before = ended["forecast"], shown["status"]["forecast"]
    assert (last["reason"], last["message"]) == ("Failed", "Job has reached the specified backoff limit")
    assert last["startP50"] == before["startP50"]  # what was promised stays readable
    assert "position" in before
    assert "position" not in last


def test_finished_and_expected_pods_of_a_job() -> None:
    one = job(parallelism=2, completions=4)
    one["status"] = {"succeeded": 3, "conditions": [{"type": "Complete", "status": "True", "message": "done"}]}
    assert integrations.expected_pods(JOB, one) == 1
    assert integrations.finished(JOB, one) == ("Succeeded", "done")


def test_slices_are_read_from_a_jobs_annotations() -> None:
    prefix = "kueue.x-k8s.io/podset-slice-"
    one = {f"{prefix}required-topology": "rack", f"{prefix}size": "4"}
    assert construct.topology_request(one) == {"podSetSliceRequiredTopology": "rack", "podSetSliceSize": 4}
    nested = {
        "kueue.x-k8s.io/podset-required-topology": "block",
        f"{prefix}required-topology-constraints": '[{"topology": "rack", "size": 4}, {"topology": "host", "size": 2}]',
    }
    request = construct.topology_request(nested)
    pod_set = {"name": "main", "count": 8, "template": {}, "topologyRequest": request}
    (read,) = podsets.pod_sets({"spec": {"podSets": [pod_set]}})
    slices = (Slice("rack", 4), Slice("host", 2))
    assert read.topology == TopologyRequest(TopologyMode.REQUIRED, "block", slices)


@pytest.mark.parametrize(
    ("notes", "why"),
    [
        ({"size": "4"}, "must be given together"),
        ({"size": "0", "required-topology": "rack"}, "must be a whole number above zero"),
        ({"required-topology-constraints": "[]"}, "at least one item"),
        ({"required-topology-constraints": "rack"}, "podset-slice-required-topology-constraints: "),
        ({"required-topology-constraints": '[{"topology": "rack", "size": 0}]'}, "above zero"),
        ({"required-topology-constraints": '[{"topology": "rack", "size": 1}]', "size": "1"}, "not together with"),
    ],
)
def test_slices_that_say_nothing_are_refused(notes: dict[str, str], why: str) -> None:
    integration = integrations.for_kind("batch/v1", "Job")
    assert integration is not None
    annotations = {f"kueue.x-k8s.io/podset-slice-{name}": value for name, value in notes.items()}
    job = {"metadata": {"name": "j"}, "spec": {"template": {"metadata": {"annotations": annotations}, "spec": {}}}}
    (cause,) = jobadmission.check(integration, job, lambda _resource, _name: None)
    assert why in cause.message

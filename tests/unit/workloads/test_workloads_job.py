"""The Job controller's decisions, one at a time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glebe.kube.clock import LoopClock, format_time
from glebe.kube.objects import Object, get_condition
from glebe.workloads.job.backoff import delay
from glebe.workloads.job.facts import Facts
from glebe.workloads.job.indexes import format_indexes, parse_indexes
from glebe.workloads.job.plan import Plan
from glebe.workloads.job.pods import FAILURE_COUNT, FINALIZER, INDEX, index_of
from glebe.workloads.job.reconcile import reconcile

NOW = LoopClock.EPOCH


def job(status: Object | None = None, **spec: Any) -> Object:
    template = {"spec": {"containers": [{"name": "main"}], "restartPolicy": "Never"}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "train", "namespace": "team", "uid": "J", "resourceVersion": "1"},
        "spec": {"parallelism": 1, "completions": 1, "backoffLimit": 6, "template": template, **spec},
        "status": status or {},
    }


def pod(name: str, phase: str = "Running", index: int | None = None, *, tracked: bool = True, **more: Any) -> Object:
    annotations = {} if index is None else {INDEX: str(index)}
    meta = {
        "name": name,
        "namespace": "team",
        "uid": name,
        "creationTimestamp": more.pop("created", format_time(NOW - 100)),
        "annotations": annotations | more.pop("annotations", {}),
        "finalizers": [FINALIZER] if tracked else [],
        "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "train", "uid": "J", "controller": True}],
    }
    if more.pop("deleting", False):
        meta["deletionTimestamp"] = format_time(NOW)
    status: Object = {"phase": phase}
    if phase in ("Succeeded", "Failed"):
        end = {"exitCode": more.pop("code", 0 if phase == "Succeeded" else 1), "finishedAt": format_time(NOW - 50)}
        status["containerStatuses"] = [{"name": "main", "state": {"terminated": end}}]
    status.update(more)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {}, "status": status}


def plan(j: Object, *pods: Object, now: float = NOW, settled: bool = True) -> Plan:
    return reconcile(Facts(j, list(pods), now, settled))


def names(pods: list[Object]) -> list[str]:
    return [p["metadata"]["name"] for p in pods]


def status_of(p: Plan) -> Object:
    assert p.status is not None
    return p.status


def true_condition(p: Plan, kind: str) -> Object | None:
    condition = get_condition({"status": status_of(p)}, kind)
    return condition if condition and condition["status"] == "True" else None


@given(st.sets(st.integers(0, 60)))
def test_indexes_round_trip(indexes: set[int]) -> None:
    assert parse_indexes(format_indexes(indexes)) == indexes


def test_indexes_are_written_as_upstream_writes_them() -> None:
    assert format_indexes([0, 1, 2, 3, 5, 7, 8]) == "0-3,5,7,8"
    assert parse_indexes("0-3,5,9-12", limit=11) == {0, 1, 2, 3, 5, 9, 10}


def test_a_new_indexed_job_gets_one_pod_per_index() -> None:
    p = plan(job(parallelism=3, completions=3, completionMode="Indexed"))
    assert [index_of(x) for x in p.create] == [0, 1, 2]
    first = p.create[1]
    assert first["metadata"]["name"].startswith("train-1-")
    assert len(first["metadata"]["name"]) == len("train-1-") + 5
    assert first["spec"]["hostname"] == "train-1"
    assert first["metadata"]["labels"]["batch.kubernetes.io/job-name"] == "train"
    assert first["spec"]["containers"][0]["env"][0]["name"] == "JOB_COMPLETION_INDEX"
    assert status_of(p)["active"] == 3
    assert status_of(p)["startTime"] == format_time(NOW)


def test_the_same_facts_choose_the_same_names() -> None:
    for spec in ({"completionMode": "Indexed"}, {}):
        first, second = (plan(job(parallelism=4, completions=4, **spec)) for _ in range(2))
        assert names(first.create) == names(second.create)
        assert len(set(names(first.create))) == 4


def test_nothing_is_created_while_the_cache_lags() -> None:
    p = plan(job(parallelism=3, completions=3), settled=False)
    assert not p.create


def test_a_suspended_job_has_no_pods_and_no_start_time() -> None:
    j = job(suspend=True, status={"startTime": format_time(NOW - 9), "active": 1})
    p = plan(j, pod("a"))
    assert names(p.discard) == ["a"]
    assert "startTime" not in status_of(p)
    assert true_condition(p, "Suspended")
    assert [e.reason for e in p.events] == ["Suspended"]


def test_resuming_starts_the_clock_anew() -> None:
    suspended = {"type": "Suspended", "status": "True", "lastTransitionTime": format_time(NOW - 9)}
    p = plan(job(status={"conditions": [suspended]}))
    condition = get_condition({"status": status_of(p)}, "Suspended")
    assert condition
    assert condition["status"] == "False"
    assert status_of(p)["startTime"] == format_time(NOW)
    assert [e.reason for e in p.events] == ["Resumed"]
    assert len(p.create) == 1


def test_a_success_is_counted_in_two_steps_and_then_completes() -> None:
    start = {"startTime": format_time(NOW - 60)}
    done = pod("a", "Succeeded")
    first = plan(job(status=start), done)
    assert status_of(first)["uncountedTerminatedPods"] == {"succeeded": ["a"]}
    assert true_condition(first, "SuccessCriteriaMet")
    assert not true_condition(first, "Complete")
    assert names(first.release) == ["a"]
    done["metadata"]["finalizers"] = []
    second = plan(job(status=status_of(first)), done)
    assert status_of(second)["succeeded"] == 1
    assert status_of(second)["uncountedTerminatedPods"] == {}
    assert true_condition(second, "Complete")
    assert status_of(second)["completionTime"] == format_time(NOW)
    assert [e.reason for e in second.events] == ["Completed"]


def test_a_counted_pod_that_vanished_is_still_counted_once() -> None:
    status = {"startTime": format_time(NOW), "uncountedTerminatedPods": {"failed": ["gone"]}, "failed": 1}
    p = plan(job(status=status))
    assert status_of(p)["failed"] == 2


def test_failures_beyond_the_limit_fail_the_job() -> None:
    j = job(backoffLimit=1, parallelism=2, completions=4, status={"startTime": format_time(NOW), "failed": 1})
    p = plan(j, pod("a", "Failed"), pod("b"))
    target = true_condition(p, "FailureTarget")
    assert target
    assert target["reason"] == "BackoffLimitExceeded"
    assert names(p.delete) == ["b"]
    assert status_of(p)["uncountedTerminatedPods"] == {"failed": ["a", "b"]}
    after = plan({**j, "status": status_of(p)})
    assert true_condition(after, "Failed")
    assert status_of(after)["failed"] == 3
    assert [(e.type, e.reason) for e in after.events] == [("Warning", "BackoffLimitExceeded")]


@pytest.mark.parametrize(("failures", "seconds"), [(0, 0), (1, 10), (2, 20), (5, 160), (6, 320), (7, 360), (90, 360)])
def test_backoff_doubles_up_to_six_minutes(failures: int, seconds: float) -> None:
    assert delay(failures) == seconds


def test_a_failed_pod_is_replaced_after_the_backoff() -> None:
    j = job(status={"startTime": format_time(NOW - 60), "failed": 1})
    failed = pod("a", "Failed", tracked=False)  # it ended at NOW - 50
    assert len(plan(j, failed).create) == 1
    early = plan(j, failed, now=NOW - 45)
    assert not early.create
    assert early.requeue_after == 5


def test_the_deadline_fails_the_job() -> None:
    j = job(activeDeadlineSeconds=60, status={"startTime": format_time(NOW)})
    assert plan(j, pod("a")).requeue_after == 60
    target = true_condition(plan(j, pod("a"), now=NOW + 60), "FailureTarget")
    assert target
    assert target["reason"] == "DeadlineExceeded"


def test_indexes_succeed_once_and_are_written_compressed() -> None:
    j = job(parallelism=4, completions=4, completionMode="Indexed", status={"startTime": format_time(NOW)})
    p = plan(j, pod("a", "Succeeded", 0), pod("b", "Succeeded", 1), pod("c", index=2), pod("d", "Succeeded", 1))
    assert status_of(p)["completedIndexes"] == "0,1"
    assert status_of(p)["succeeded"] == 2
    assert [index_of(x) for x in p.create] == [3]


def test_a_second_pod_of_an_index_is_removed() -> None:
    j = job(parallelism=2, completions=2, completionMode="Indexed", status={"startTime": format_time(NOW)})
    p = plan(j, pod("a", "Running", 0), pod("b", "Pending", 0))
    assert names(p.discard) == ["b"]


def test_each_index_has_its_own_limit() -> None:
    spec: Any = {"parallelism": 2, "completions": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1}
    j = job(**spec, backoffLimit=2**31 - 1, status={"startTime": format_time(NOW - 60)})
    p = plan(j, pod("a", "Failed", 0, annotations={FAILURE_COUNT: "0"}), pod("b", index=1))
    assert not p.release  # it carries the count until its replacement exists
    assert p.create[0]["metadata"]["annotations"][FAILURE_COUNT] == "1"
    last = pod("a2", "Failed", 0, annotations={FAILURE_COUNT: "1"})
    q = plan(j, last, pod("b", index=1))
    assert status_of(q)["failedIndexes"] == "0"
    assert not q.create
    end = plan(j, last, pod("b", "Succeeded", 1))
    target = true_condition(end, "FailureTarget")
    assert target
    assert target["reason"] == "FailedIndexes"


@pytest.mark.parametrize(("action", "code"), [("FailJob", 42), ("Ignore", 42), ("Count", 42), ("FailJob", 1)])
def test_the_pod_failure_policy_decides(action: str, code: int) -> None:
    rule = {"action": action, "onExitCodes": {"operator": "In", "values": [42]}}
    j = job(podFailurePolicy={"rules": [rule]}, status={"startTime": format_time(NOW - 60)})
    p = plan(j, pod("a", "Failed", code=code))
    target = true_condition(p, "FailureTarget")
    if action == "FailJob" and code == 42:
        assert target
        text = "Container main for pod team/a failed with exit code 42 matching FailJob rule at index 0"
        assert (target["reason"], target["message"]) == ("PodFailurePolicy", text)
    else:
        assert target is None
    counted = status_of(p)["uncountedTerminatedPods"]
    assert counted == ({} if action == "Ignore" else {"failed": ["a"]})
    assert names(p.release) == ["a"]


def test_a_disruption_can_be_ignored() -> None:
    rule = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    j = job(podFailurePolicy={"rules": [rule]}, backoffLimit=0, status={"startTime": format_time(NOW - 60)})
    lost = pod("a", "Failed", conditions=[{"type": "DisruptionTarget", "status": "True"}])
    p = plan(j, lost)
    assert true_condition(p, "FailureTarget") is None
    assert len(p.create) == 1


def test_a_terminating_pod_is_replaced_at_once_or_when_it_has_ended() -> None:
    going = pod("a", deleting=True)
    status = {"startTime": format_time(NOW - 60)}
    assert len(plan(job(status=status), going).create) == 1
    patient = plan(job(status=status, podReplacementPolicy="Failed"), going)
    assert not patient.create
    assert status_of(patient)["terminating"] == 1


def test_a_finished_job_goes_when_its_time_is_up() -> None:
    done = {"type": "Complete", "status": "True", "lastTransitionTime": format_time(NOW)}
    j = job(ttlSecondsAfterFinished=30, status={"conditions": [done]})
    assert plan(j).requeue_after == 30
    assert plan(j, now=NOW + 30).delete_job


def test_a_work_queue_ends_when_its_pods_do() -> None:
    j = job(parallelism=2, completions=None, status={"startTime": format_time(NOW - 60)})
    going = plan(j, pod("a", "Succeeded"), pod("b"))
    assert not going.create
    assert not going.discard
    assert true_condition(plan(j, pod("a", "Succeeded"), pod("b", "Succeeded")), "SuccessCriteriaMet")


def test_success_policy() -> None:
    policy = {"rules": [{"succeededIndexes": "0", "succeededCount": 1}]}
    spec: Any = {"parallelism": 3, "completions": 3, "completionMode": "Indexed", "successPolicy": policy}
    p = plan(job(**spec, status={"startTime": format_time(NOW)}), pod("a", "Succeeded", 0), pod("b", index=1))
    met = true_condition(p, "SuccessCriteriaMet")
    assert met
    assert met["reason"] == "SuccessPolicy"
    assert names(p.discard) == ["b"]


def test_a_job_managed_by_another_controller_is_left_alone() -> None:
    assert plan(job(managedBy="kueue.x-k8s.io/multikueue")) == Plan()


def test_a_job_with_nothing_to_do_completes_and_has_a_start_time() -> None:
    status = status_of(plan(job(completions=0)))
    assert status["startTime"] == format_time(NOW)
    assert [c["type"] for c in status["conditions"]] == ["SuccessCriteriaMet", "Complete"]

"""What a job's objects say about its state."""

from __future__ import annotations

from typing import Any

from glebe.kube.objects import Object
from glebe.platform.views import NEVER_REASONS, State, job_view, job_views
from glebe.scheduling.model import Reason


def job(**status: Any) -> Object:
    container = {"name": "main", "resources": {"limits": {"nvidia.com/gpu": "8"}}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "train",
            "namespace": "team-a",
            "uid": "job-1",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"kueue.x-k8s.io/queue-name": "gpus"},
        },
        "spec": {
            "suspend": not status,
            "parallelism": 8,
            "completions": 8,
            "template": {"spec": {"containers": [container]}},
        },
        "status": status,
    }


def workload(**status: Any) -> Object:
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "train", "uid": "job-1", "controller": True}
    return {
        "apiVersion": "kueue.x-k8s.io/v1beta2",
        "kind": "Workload",
        "metadata": {
            "name": "job-train-abc",
            "namespace": "team-a",
            "ownerReferences": [owner],
            "creationTimestamp": "2026-01-01T00:00:01Z",
        },
        "spec": {
            "queueName": "gpus",
            "priority": 50,
            "podSets": [{"name": "main", "count": 8, "template": job()["spec"]["template"]}],
        },
        "status": status,
    }


FORECAST = {
    "position": 2,
    "gpusAhead": 16,
    "startP50": "2026-01-01T00:10:00Z",
    "startP90": "2026-01-01T00:20:00Z",
    "reason": "WaitingForQuota",
    "message": "64 GPUs needed, 32 free",
    "remedy": "wait for b-1",
    "computedAt": "2026-01-01T00:00:02Z",
}


def test_a_new_job_is_accepted_at_once() -> None:
    view = job_view(job(), None)
    assert (view.state, view.reason, view.gpus, view.queue) == (State.WAITING, "Accepted", 64, "gpus")


def test_a_waiting_job_shows_its_forecast() -> None:
    view = job_view(job(), workload(forecast=FORECAST))
    assert view.state is State.WAITING
    assert (view.position, view.gpus_ahead, view.reason) == (2, 16, "WaitingForQuota")
    assert (view.message, view.remedy) == ("64 GPUs needed, 32 free", "wait for b-1")
    assert view.started is None


def test_what_never_starts_has_no_place_in_line() -> None:
    never = {"reason": "ExceedsCapacity", "message": "too large", "position": 1, "gpusAhead": 0}
    view = job_view(job(), workload(forecast=never))
    assert (view.position, view.gpus_ahead) == (None, None)


def test_never_is_not_waiting() -> None:
    never = {"reason": "ExceedsCapacity", "message": "the fleet has 128 GPUs, 256 are needed"}
    assert job_view(job(), workload(forecast=never)).state is State.NEVER


def test_admitted_jobs_start_then_run() -> None:
    admitted = workload(admission={"clusterQueue": "team-a"})
    starting = job_view(job(startTime="2026-01-01T00:09:00Z", active=8, ready=3), admitted)
    assert (starting.state, starting.message) == (State.STARTING, "3 of 8 pods are ready")
    again = job_view(job(startTime="2026-01-01T00:09:00Z", active=8, ready=7, failed=1), admitted)
    assert again.message == "7 of 8 pods are ready; 1 failed so far"
    running = job_view(job(startTime="2026-01-01T00:09:00Z", active=8, ready=8), admitted)
    assert (running.state, running.cluster_queue, running.position) == (State.RUNNING, "team-a", None)
    assert running.started == "2026-01-01T00:09:00Z"


def running_pod(index: int, since: str) -> Object:
    return {
        "metadata": {"name": f"train-{index}", "ownerReferences": [{"uid": "job-1", "controller": True}]},
        "spec": {"nodeName": f"node-{index}", "containers": []},
        "status": {"phase": "Running", "containerStatuses": [{"state": {"running": {"startedAt": since}}}]},
    }


def test_a_replaced_pod_does_not_move_the_start() -> None:
    now_admitted = {"type": "Admitted", "status": "True", "lastTransitionTime": "2026-01-01T00:08:59Z"}
    admitted = workload(admission={"clusterQueue": "team-a"}, conditions=[now_admitted])
    pods = [running_pod(0, "2026-01-01T00:09:01Z"), running_pod(1, "2026-01-01T01:30:00Z")]
    resumed = job(startTime="2026-01-01T00:09:00Z", ready=8)
    assert job_view(resumed, admitted, pods[:1]).started == "2026-01-01T00:08:59Z"
    assert job_view(resumed, admitted, pods).started == "2026-01-01T00:08:59Z"
    assert job_view(resumed, None, pods).started == "2026-01-01T00:09:00Z"  # in no queue
    assert job_view(resumed, None, pods).nodes == ("node-0", "node-1")


def test_without_any_stamp_a_gang_has_started_when_its_last_pod_has() -> None:
    pods = [running_pod(0, "2026-01-01T00:10:00Z"), running_pod(1, "2026-01-01T00:10:01Z")]
    assert job_view(job(ready=8), None, pods).started == "2026-01-01T00:10:01Z"


def test_ended_jobs_say_how() -> None:
    failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "too many failures"}
    view = job_view(job(conditions=[failed]), workload(admission={"clusterQueue": "team-a"}))
    assert (view.state, view.reason, view.message) == (State.FAILED, "BackoffLimitExceeded", "too many failures")


def test_workloads_of_other_kinds_stand_for_themselves() -> None:
    alone = workload(forecast=FORECAST)
    alone["metadata"]["ownerReferences"][0] |= {"kind": "RayJob", "name": "ray", "uid": "other"}
    views = job_views([job()], [alone])
    assert [(v.kind, v.name) for v in views] == [("Job", "train"), ("RayJob", "ray")]


def test_reasons_of_never_are_the_cores() -> None:
    assert set(NEVER_REASONS) <= {str(reason) for reason in Reason}

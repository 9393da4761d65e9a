"""The life of one workload, step by step: what is written next, and when it is looked at again."""

from __future__ import annotations

from typing import Any

import pytest

from glebe.kube.clock import format_time
from glebe.kube.objects import Object, get_condition
from glebe.queueing.configuration import DEFAULT, Configuration, parsed
from glebe.queueing.life import checks, evictions, transitions
from glebe.queueing.life.steps import Facts, Step, next_step
from glebe.scheduling.model import Decision, Outcome, PodSetAssignment, Reason, VictimReason

GIVEN = PodSetAssignment("main", 2, {"cpu": "spot"}, {"cpu": 2000})
ADMIT = Decision("w", Outcome.ADMIT, Reason.ADMITTED, "two pods on spot", assignments=(GIVEN,))


def waiting(**spec: Any) -> Object:
    meta = {"name": "w", "namespace": "team", "uid": "uid-w", "ownerReferences": [{"uid": "j", "controller": True}]}
    pods = [{"name": "main", "count": 2, "template": {"spec": {}}}]
    return {"metadata": meta, "spec": {"podSets": pods, "queueName": "main", **spec}}


def running(now: float = 0.0, *needed: str, **spec: Any) -> Object:
    return transitions.admit(waiting(**spec), "q", ADMIT, now, needed)


def queue(policy: str = "", *listed: dict[str, Any]) -> Object:
    spec: dict[str, Any] = {"resourceGroups": [{"flavors": [{"name": "spot"}, {"name": "reserved"}]}]}
    if policy:
        spec["stopPolicy"] = policy
    if listed:
        spec["admissionChecksStrategy"] = {"admissionChecks": list(listed)}
    return {"metadata": {"name": "q"}, "spec": spec}


def facts(now: float = 0.0, config: Configuration = DEFAULT, **more: Any) -> Facts:
    return Facts(now=now, config=config, **{"local": {"metadata": {}, "spec": {}}, "queue": queue(), **more})


def reason(workload: Object | None, kind: str) -> tuple[str, str]:
    condition = get_condition(workload, kind) if workload else None
    return (condition["status"], condition["reason"]) if condition else ("", "")


def written(step: Step) -> Object:
    assert step.status is not None, step
    return step.status


def test_what_runs_is_left_alone() -> None:
    ready = transitions.pods_ready(running(), True, 5)
    assert next_step(ready, facts(10)) == Step()


def test_pods_that_are_not_ready_in_time_give_the_quota_back_and_come_again_later() -> None:
    config = parsed({"waitForPodsReady": {"timeout": "5m", "requeuingStrategy": {"backoffLimitCount": 2}}})
    workload = running(0)
    assert next_step(workload, facts(100, config)).after == 200
    step = next_step(workload, facts(300, config))
    stopped = written(step)
    assert reason(stopped, "Evicted") == ("True", "PodsReadyTimeout")
    assert step.events == (("Normal", "EvictedDueToPodsReadyTimeout", "Exceeded the PodsReady timeout team/w"),)
    assert stopped["status"]["requeueState"] == {"requeueAt": format_time(360), "count": 1}
    assert stopped["status"]["schedulingStats"]["evictions"] == [
        {"reason": "PodsReadyTimeout", "underlyingCause": "WaitForStart", "count": 1}
    ]
    assert next_step(stopped, facts(301, config)).halt
    freed = transitions.release(stopped, 310)
    assert reason(freed, "Requeued") == ("False", "PodsReadyTimeout")
    assert next_step(freed, facts(310, config)).after == 50
    back = written(next_step(freed, facts(360, config)))
    assert reason(back, "Requeued") == ("True", "BackoffFinished")
    assert back["status"]["requeueState"] == {"count": 1}
    again = transitions.admit(back, "q", ADMIT, 400)
    assert reason(again, "Evicted") == ("False", "QuotaReserved")
    second = written(next_step(again, facts(700, config)))
    assert second["status"]["requeueState"] == {"requeueAt": format_time(700 + 120), "count": 2}
    third = transitions.admit(transitions.release(second, 710), "q", ADMIT, 900)
    off = written(next_step(third, facts(1200, config)))
    assert reason(off, "DeactivationTarget") == ("True", "RequeuingLimitExceeded")
    assert next_step(off, facts(1200, config)).spec == {"active": False}


def test_a_lost_pod_has_its_own_time_to_come_back() -> None:
    config = parsed({"waitForPodsReady": {"timeout": "5m", "recoveryTimeout": "1m"}})
    lost = transitions.pods_ready(transitions.pods_ready(running(), True, 10), False, 500)
    assert reason(lost, "PodsReady") == ("False", "WaitForRecovery")
    assert next_step(lost, facts(530, config)).after == 30
    stopped = written(next_step(lost, facts(560, config)))
    assert stopped["status"]["schedulingStats"]["evictions"][0]["underlyingCause"] == "WaitForRecovery"
    patient = parsed({"waitForPodsReady": {"timeout": "5m", "recoveryTimeout": "0s"}})
    assert next_step(lost, facts(9999, patient)) == Step()
    back = transitions.pods_ready(lost, True, 600)
    assert reason(back, "PodsReady") == ("True", "Recovered")


def test_checks_hold_admission_until_all_are_ready() -> None:
    asked = queue("", {"name": "budget"}, {"name": "images", "onFlavors": ["reserved"]})
    pending = next_step(waiting(), facts(1, queue=asked))
    assert [c["name"] for c in written(pending)["status"]["admissionChecks"]] == ["budget"]
    workload = running(1, "budget")
    assert reason(workload, "Admitted") == ("False", "UnsatisfiedAdmissionChecks")
    assert next_step(workload, facts(2, queue=asked)) == Step()
    listed = checks.with_state(checks.listed(workload), "budget", "Ready", "fine", 3)
    workload = transitions.with_status(workload, 3, admissionChecks=listed)
    step = next_step(workload, facts(4, queue=asked))
    assert reason(written(step), "Admitted") == ("True", "Admitted")
    assert step.events[0][2] == "Admitted by ClusterQueue q, wait time since reservation was 3s"


def test_a_check_of_other_flavors_is_not_needed() -> None:
    asked = queue("", {"name": "images", "onFlavors": ["reserved"]})
    given = [{"flavors": {"cpu": "spot"}}]
    assert checks.required(asked, (), given) == ()
    assert checks.required(asked, (), [{"flavors": {"cpu": "reserved"}}]) == ("images",)
    assert checks.required(asked, ({"spec": {"admissionChecks": ["boss"]}},), None) == ("boss",)
    noted = {"metadata": {"annotations": {"glebe.dev/admission-checks": "boss, money"}}}
    assert checks.required(asked, (noted, None), given) == ("boss", "money")


def test_a_check_that_wants_a_retry_frees_the_quota_until_its_time() -> None:
    asked = queue("", {"name": "budget"})
    workload = running(0, "budget")
    listed = checks.with_state(checks.listed(workload), "budget", "Retry", "no money", 10, requeueAfterSeconds=60)
    workload = transitions.with_status(workload, 10, admissionChecks=listed)
    timed = written(next_step(workload, facts(11, queue=asked)))
    assert timed["status"]["requeueState"] == {"requeueAt": format_time(70)}
    step = next_step(timed, facts(11, queue=asked))
    assert step.events[0][1:] == (
        "EvictedDueToAdmissionCheck",
        'Evicted due to AdmissionCheck in Retry state: "budget" (no money)',
    )
    stopped = written(step)
    (check,) = stopped["status"]["admissionChecks"]
    assert (check["state"], check["retryCount"]) == ("Pending", 1)
    assert check["message"] == "Reset to Pending after eviction. Previously: Retry"
    freed = transitions.release(stopped, 12)
    assert next_step(freed, facts(12, queue=asked)).after == 58
    assert reason(written(next_step(freed, facts(70, queue=asked))), "Requeued") == ("True", "BackoffFinished")


def test_a_rejected_check_switches_the_workload_off() -> None:
    asked = queue("", {"name": "budget"})
    workload = running(0, "budget")
    listed = checks.with_state(checks.listed(workload), "budget", "Rejected", "never", 10)
    workload = transitions.with_status(workload, 10, admissionChecks=listed)
    target = written(next_step(workload, facts(11, queue=asked)))
    assert next_step(target, facts(11, queue=asked)).spec == {"active": False}
    target["spec"]["active"] = False
    step = next_step(target, facts(12, queue=asked))
    assert reason(written(step), "Evicted") == ("True", "DeactivatedDueToAdmissionCheck")
    assert step.events[0][1] == "EvictedDueToDeactivatedDueToAdmissionCheck"
    message = 'The workload is deactivated due to AdmissionCheck in Rejected state: "budget" (never)'
    assert step.events[0][2] == message
    freed = transitions.release(written(step), 13)
    assert next_step(freed, facts(14, queue=asked)).halt
    freed["spec"]["active"] = True
    assert reason(written(next_step(freed, facts(15, queue=asked))), "Requeued") == ("True", "Reactivated")


@pytest.mark.parametrize("kind", ["local", "queue"])
def test_drained_queues_stop_what_runs_and_take_it_again_when_they_start(kind: str) -> None:
    drained = {"metadata": {}, "spec": {"stopPolicy": "HoldAndDrain"}}
    called = {"local": "LocalQueue", "queue": "ClusterQueue"}[kind]
    stopped = written(next_step(running(), facts(5, **{kind: drained})))
    assert reason(stopped, "Evicted") == ("True", f"{called}Stopped")
    assert (get_condition(stopped, "Evicted") or {})["message"] == f"The {called} is stopped"
    freed = transitions.release(stopped, 6)
    assert next_step(freed, facts(7, **{kind: drained})) == Step()
    assert reason(written(next_step(freed, facts(8))), "Requeued") == ("True", f"{called}Restarted")
    assert next_step(running(), facts(5, **{kind: {"metadata": {}, "spec": {"stopPolicy": "Hold"}}})).status is None


def test_a_stopped_queue_takes_back_what_was_not_admitted_yet() -> None:
    asked = queue("Hold", {"name": "budget"})
    freed = written(next_step(running(0, "budget"), facts(5, queue=asked)))
    assert "admission" not in freed["status"]
    assert reason(freed, "QuotaReserved") == ("False", "Suspended")


def test_the_maximum_execution_time_adds_up_over_runs() -> None:
    workload = running(0, maximumExecutionTimeSeconds=100)
    stopped = evictions.preempt(workload, VictimReason.IN_CLUSTER_QUEUE, "m", 60)
    freed = transitions.release(stopped, 70)
    assert freed["status"]["accumulatedPastExecutionTimeSeconds"] == 70
    again = transitions.admit(freed, "q", ADMIT, 1000)
    assert next_step(again, facts(1010)).after == 20
    step = next_step(again, facts(1030))
    assert step.events[0][2] == "The maximum execution time (100s) exceeded"
    assert reason(written(step), "DeactivationTarget") == ("True", "MaximumExecutionTimeExceeded")


def test_preemption_is_written_and_counted_as_kueue_does() -> None:
    preemptor = {"metadata": {"name": "p", "uid": "uid-p", "labels": {"kueue.x-k8s.io/job-uid": "job-p"}}, "spec": {}}
    message = evictions.preemption_message(preemptor, VictimReason.IN_COHORT_RECLAMATION, "/all/a", "/all/b")
    assert message == (
        "Preempted to accommodate a workload (UID: uid-p, JobUID: job-p) due to reclamation within the cohort; "
        "preemptor path: /all/a; preemptee path: /all/b"
    )
    stopped = evictions.preempt(running(), VictimReason.IN_COHORT_RECLAMATION, message, 10)
    assert reason(stopped, "Evicted") == ("True", "Preempted")
    assert reason(stopped, "Preempted") == ("True", "InCohortReclamation")
    assert stopped["status"]["admission"], "the quota is held until the pods are gone"
    freed = transitions.release(stopped, 20)
    assert reason(freed, "Requeued") == ("True", "Preempted")
    assert reason(freed, "QuotaReserved") == ("False", "PendingEvaluation")
    again = evictions.preempt(transitions.admit(freed, "q", ADMIT, 30), VictimReason.IN_CLUSTER_QUEUE, "m", 40)
    assert again["status"]["schedulingStats"]["evictions"] == [
        {"reason": "Preempted", "underlyingCause": "", "count": 2}
    ]


def test_finished_workloads_go_when_their_time_is_over() -> None:
    config = parsed({"objectRetentionPolicies": {"workloads": {"afterFinished": "1h"}}})
    ended = transitions.finish(running(), "Succeeded", "done", 100)
    assert next_step(ended, facts(200)).halt
    assert next_step(ended, facts(200, config)).after == 3500
    assert next_step(ended, facts(3700, config)).delete


def test_who_is_denied_before_there_is_quota_is_switched_off_all_the_same() -> None:
    asked = queue("", {"name": "boss"})
    listed = [{"name": "boss", "state": "Rejected", "message": "no", "lastTransitionTime": format_time(1)}]
    workload = transitions.with_status(waiting(), 1, admissionChecks=listed)
    target = written(next_step(workload, facts(2, queue=asked)))
    assert next_step(target, facts(2, queue=asked)).spec == {"active": False}
    target["spec"]["active"] = False
    off = written(next_step(target, facts(3, queue=asked)))
    assert reason(off, "QuotaReserved") == ("False", "Deactivated")
    assert '"boss" (no)' in (get_condition(off, "QuotaReserved") or {})["message"]
    assert next_step(off, facts(4, queue=asked)).halt


def test_a_retry_before_there_is_quota_is_judged_anew_when_its_time_has_come() -> None:
    asked = queue("", {"name": "boss"})
    listed = [{"name": "boss", "state": "Retry", "message": "busy", "lastTransitionTime": format_time(1)}]
    listed[0]["requeueAfterSeconds"] = 30  # type: ignore[assignment]
    workload = transitions.with_status(waiting(), 1, admissionChecks=listed)
    waits = written(next_step(workload, facts(2, queue=asked)))
    assert next_step(waits, facts(2, queue=asked)).after == 29
    again = written(next_step(waits, facts(31, queue=asked)))
    fresh = written(next_step(again, facts(31, queue=asked)))
    assert checks.listed(fresh)[0]["state"] == "Pending"
    assert checks.listed(fresh)[0]["retryCount"] == 1

from __future__ import annotations

from typing import Any

import pytest

from glebe.node.backoff import CrashLoop, text
from glebe.node.status import Container, Exit, PodState, State, containers_of, phase_of, pod_status, qos_class

NOW = 1_767_225_600.0


def make(state: str, code: int = 0, *, last: int | None = None) -> Container:
    container = Container("c")
    if last is not None:
        container.last = Exit(last, NOW)
    if state == "running":
        container.start(NOW)
    elif state == "terminated":
        container.end(Exit(code, NOW))
    return container


@pytest.mark.parametrize(
    ("policy", "init", "main", "phase"),
    [
        ("Never", [], [make("waiting")], "Pending"),
        ("Never", [], [make("running")], "Running"),
        ("Never", [], [make("running"), make("waiting")], "Pending"),
        ("Never", [], [make("terminated", 0)], "Succeeded"),
        ("Never", [], [make("terminated", 3)], "Failed"),
        ("Never", [], [make("terminated", 0), make("terminated", 1)], "Failed"),
        ("Never", [], [make("terminated", 1), make("running")], "Running"),
        ("OnFailure", [], [make("terminated", 0)], "Succeeded"),
        ("OnFailure", [], [make("terminated", 1)], "Running"),
        ("OnFailure", [], [make("waiting", last=1)], "Running"),
        ("Always", [], [make("terminated", 0)], "Running"),
        ("Never", [make("running")], [make("waiting")], "Pending"),
        ("Never", [make("terminated", 1)], [make("waiting")], "Failed"),
        ("OnFailure", [make("terminated", 1)], [make("waiting")], "Pending"),
        ("Never", [make("terminated", 0)], [make("running")], "Running"),
    ],
)
def test_phase_follows_the_kubelets_rules(
    policy: str, init: list[Container], main: list[Container], phase: str
) -> None:
    assert phase_of(policy, init, main) == phase


def pod(**spec: Any) -> dict[str, Any]:
    body = {"containers": [{"name": "c", "image": "img"}], "restartPolicy": "Never"} | spec
    return {"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": body}


def test_status_of_a_running_pod() -> None:
    init, main = containers_of(pod())
    state = PodState(init, main, NOW, host_ip="10.0.0.1", pod_ip="127.1.2.3")
    main[0].start(NOW)
    status = pod_status(pod(), state, NOW)
    assert status["phase"] == "Running"
    assert status["startTime"] == "2026-01-01T00:00:00Z"
    assert status["podIPs"] == [{"ip": "127.1.2.3"}]
    assert {c["type"]: c["status"] for c in status["conditions"]} == dict.fromkeys(
        ("PodScheduled", "PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"), "True"
    )
    assert status["containerStatuses"][0]["state"] == {"running": {"startedAt": "2026-01-01T00:00:00Z"}}


def test_status_of_a_failed_pod_keeps_foreign_conditions_and_transition_times() -> None:
    seen = pod()
    seen["status"] = {
        "conditions": [
            {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": "2025-01-01T00:00:00Z"},
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2025-01-01T00:00:00Z"},
        ]
    }
    init, main = containers_of(seen)
    state = PodState(init, main, NOW)
    main[0].start(NOW)
    main[0].end(Exit(137, NOW + 5, NOW, "OOMKilled"))
    status = pod_status(seen, state, NOW + 5)
    conditions = {c["type"]: c for c in status["conditions"]}
    assert conditions["PodScheduled"]["lastTransitionTime"] == "2025-01-01T00:00:00Z"
    assert "DisruptionTarget" in conditions
    assert conditions["Ready"]["reason"] == "PodFailed"
    assert status["phase"] == "Failed"
    assert status["containerStatuses"][0]["state"]["terminated"] == {
        "exitCode": 137,
        "reason": "OOMKilled",
        "startedAt": "2026-01-01T00:00:00Z",
        "finishedAt": "2026-01-01T00:00:05Z",
        "containerID": "",
    }


def test_verdict_of_the_node_wins() -> None:
    init, main = containers_of(pod(restartPolicy="Always"))
    main[0].start(NOW)
    state = PodState(init, main, NOW, verdict=("DeadlineExceeded", "too long"))
    assert pod_status(pod(), state, NOW)["phase"] == "Running"  # as long as something runs
    main[0].end(Exit(0, NOW))
    status = pod_status(pod(), state, NOW)
    assert (status["phase"], status["reason"], status["message"]) == ("Failed", "DeadlineExceeded", "too long")


def test_init_containers_hold_the_pod_pending() -> None:
    seen = pod(initContainers=[{"name": "setup"}])
    init, main = containers_of(seen)
    init[0].start(NOW)
    status = pod_status(seen, PodState(init, main, NOW), NOW)
    initialized = next(c for c in status["conditions"] if c["type"] == "Initialized")
    assert initialized["message"] == "containers with incomplete status: [setup]"
    assert status["phase"] == "Pending"
    assert status["containerStatuses"][0]["state"]["waiting"]["reason"] == "PodInitializing"


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, "BestEffort"),
        ({"requests": {"nvidia.com/gpu": "1"}}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, "Burstable"),
    ],
)
def test_qos_class(resources: dict[str, Any], expected: str) -> None:
    assert qos_class(pod(containers=[{"name": "c", "resources": resources}])) == expected


def test_crash_loop_doubles_to_five_minutes_and_forgets_after_a_long_run() -> None:
    loop = CrashLoop()
    assert [loop.after(1.0) for _ in range(7)] == [0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0]
    assert loop.after(601.0) == 0.0
    again = CrashLoop()
    again.resume(3)
    assert again.after(1.0) == 40.0
    assert (text(10.0), text(160.0)) == ("10s", "2m40s")


def test_a_container_in_back_off_reports_its_last_end() -> None:
    container = make("terminated", 2)
    container.back_off("back-off 10s restarting failed container=c")
    body = container.to_object()
    assert body["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert body["lastState"]["terminated"]["exitCode"] == 2
    assert container.state is State.WAITING


def test_readiness_gates_hold_the_pod_back_and_say_which() -> None:
    seen = pod(readinessGates=[{"conditionType": "x/a"}, {"conditionType": "x/b"}])
    seen["status"] = {"conditions": [{"type": "x/b", "status": "False"}]}
    seen["metadata"]["generation"] = 3
    init, main = containers_of(seen)
    main[0].start(NOW)
    status = pod_status(seen, PodState(init, main, NOW), NOW)
    conditions = {c["type"]: c for c in status["conditions"]}
    assert conditions["ContainersReady"]["status"] == "True"
    assert (conditions["Ready"]["status"], conditions["Ready"]["reason"]) == ("False", "ReadinessGatesNotReady")
    assert conditions["Ready"]["message"] == (
        'corresponding condition of pod readiness gate "x/a" does not exist., '
        'the status of pod readiness gate "x/b" is not "True", but False'
    )
    assert status["observedGeneration"] == 3
    assert conditions["Ready"]["observedGeneration"] == 3


def test_the_status_says_what_a_container_was_given() -> None:
    asked = {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}
    seen = pod(containers=[{"name": "c", "resources": asked}])
    init, main = containers_of(seen)
    status = pod_status(seen, PodState(init, main, NOW, resizes=True), NOW)
    assert status["containerStatuses"][0]["resources"] == asked
    assert status["containerStatuses"][0]["allocatedResources"] == {"cpu": "1"}

from __future__ import annotations

from typing import Any

import pytest

from glebe.node.simulated.plan import EXIT_CODE, FAIL_AFTER, INIT_EXIT_CODE, INIT_TIME, RUN_TIME, STOP_TIME, Plan
from glebe.node.simulated.pod import SimPod
from glebe.node.spec import NodeSpec
from glebe.node.status import pod_status

NOW = 1_767_225_600.0
SPEC = NodeSpec("n1", {"cpu": "1"}, start_delay="1s", run_time="60s")


def pod(policy: str = "Never", annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "namespace": "d", "uid": "uid-1", "annotations": annotations or {}},
        "spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": policy, "nodeName": "n1", **spec},
    }


def run(sim: SimPod, until: float) -> list[tuple[float, str]]:
    """(time, phase) after each transition up to ``until``."""
    out = []
    while sim.next is not None and sim.next <= until:
        at = sim.next
        sim.advance(at)
        out.append((at - NOW, sim.phase))
    return out


def test_runs_for_the_default_time_and_succeeds() -> None:
    assert run(SimPod(pod(), SPEC, NOW), NOW + 1000) == [(1.0, "Running"), (61.0, "Succeeded")]


def test_exit_code_and_fail_after() -> None:
    failing = SimPod(pod(annotations={RUN_TIME: "30s", EXIT_CODE: "3"}), SPEC, NOW)
    assert run(failing, NOW + 1000) == [(1.0, "Running"), (31.0, "Failed")]
    early = SimPod(pod(annotations={RUN_TIME: "30s", FAIL_AFTER: "5s"}), SPEC, NOW)
    assert run(early, NOW + 1000) == [(1.0, "Running"), (6.0, "Failed")]
    assert early.state.main[0].exit is not None
    assert early.state.main[0].exit.code == 1


def test_on_failure_restarts_with_back_off() -> None:
    sim = SimPod(pod("OnFailure", {RUN_TIME: "5s", EXIT_CODE: "1"}), SPEC, NOW)
    moments = [at for at, _ in run(sim, NOW + 80)]
    assert moments == [1.0, 6.0, 11.0, 21.0, 26.0, 46.0, 51.0]
    assert sim.state.main[0].restarts == 3
    assert sim.phase == "Running"


def test_active_deadline_ends_the_pod() -> None:
    sim = SimPod(pod("OnFailure", activeDeadlineSeconds=10), SPEC, NOW)
    assert run(sim, NOW + 100) == [(1.0, "Running"), (11.0, "Failed")]
    assert sim.state.verdict is not None
    assert sim.state.verdict[0] == "DeadlineExceeded"


def test_a_new_process_continues_a_running_pod_for_the_rest_of_its_time() -> None:
    seen = pod(annotations={RUN_TIME: "lognormal(60s, 0.5)"})
    first = SimPod(seen, SPEC, NOW)
    first.advance(NOW + 1)
    end = first.next
    seen["status"] = pod_status(seen, first.state, NOW + 1)
    second = SimPod(seen, SPEC, NOW + 20)
    assert second.running
    assert not second.dirty
    assert second.next == end


def test_a_new_process_continues_a_back_off() -> None:
    seen = pod("OnFailure", {RUN_TIME: "5s", EXIT_CODE: "1"})
    first = SimPod(seen, SPEC, NOW)
    run(first, NOW + 12)  # second failure at 11, next start at 21
    seen["status"] = pod_status(seen, first.state, NOW + 12)
    second = SimPod(seen, SPEC, NOW + 15)
    assert second.next == first.next == NOW + 21
    second.advance(NOW + 21)
    assert second.state.main[0].restarts == 2


@pytest.mark.parametrize(
    ("annotations", "says"),
    [({RUN_TIME: "soon"}, RUN_TIME), ({EXIT_CODE: "x"}, "0 to 255"), ({FAIL_AFTER: "-1s"}, FAIL_AFTER)],
)
def test_bad_annotations_are_said_in_the_status(annotations: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        Plan.of(annotations, "60s")
    sim = SimPod(pod(annotations=annotations), SPEC, NOW)
    status = pod_status(pod(), sim.state, NOW)
    waiting = status["containerStatuses"][0]["state"]["waiting"]
    assert waiting["reason"] == "CreateContainerConfigError"
    assert says in waiting["message"]
    assert sim.next is None


def test_termination_before_and_during_the_run() -> None:
    waiting = SimPod(pod(), SPEC, NOW)
    waiting.terminate(NOW)
    assert waiting.phase == "Failed"
    running = SimPod(pod("Always"), SPEC, NOW)
    running.advance(NOW + 1)
    running.terminate(NOW + 2)
    assert running.phase == "Failed"
    assert running.state.main[0].exit is not None
    assert running.state.main[0].exit.code == 143


def states(sim: SimPod) -> dict[str, str]:
    return {c.name: str(c.state) for c in [*sim.state.init, *sim.state.main]}


INIT = [{"name": "one"}, {"name": "side", "restartPolicy": "Always"}, {"name": "two"}]


def test_init_containers_run_one_after_the_other_and_sidecars_stay() -> None:
    sim = SimPod(pod(annotations={INIT_TIME: "5s", RUN_TIME: "10s"}, initContainers=INIT), SPEC, NOW)
    seen = []
    while sim.next is not None:
        at = sim.next
        sim.advance(at)
        seen.append((at - NOW, sim.phase, states(sim)))
    assert seen == [
        (1.0, "Pending", {"one": "running", "side": "waiting", "two": "waiting", "c": "waiting"}),
        (6.0, "Pending", {"one": "terminated", "side": "running", "two": "running", "c": "waiting"}),
        (11.0, "Running", {"one": "terminated", "side": "running", "two": "terminated", "c": "running"}),
        (21.0, "Succeeded", {"one": "terminated", "side": "terminated", "two": "terminated", "c": "terminated"}),
    ]


def test_an_init_container_that_fails_is_started_again_or_fails_the_pod() -> None:
    notes = {INIT_TIME: "5s", INIT_EXIT_CODE: "3"}
    never = SimPod(pod(annotations=notes, initContainers=INIT), SPEC, NOW)
    assert run(never, NOW + 100) == [(1.0, "Pending"), (6.0, "Failed")]
    assert states(never)["side"] == "waiting"
    again = SimPod(pod("Always", notes, initContainers=INIT), SPEC, NOW)
    assert [at for at, _ in run(again, NOW + 40)] == [1.0, 6.0, 11.0, 21.0, 26.0]
    assert again.phase == "Pending"
    assert again.state.init[0].restarts == 2
    status = pod_status(pod("Always", initContainers=INIT), again.state, NOW + 40)
    waiting = status["initContainerStatuses"][0]["state"]["waiting"]
    assert waiting["reason"] == "CrashLoopBackOff"
    assert waiting["message"] == "back-off 20s restarting failed container=one"


def test_a_new_process_continues_among_init_containers() -> None:
    seen = pod(annotations={INIT_TIME: "30s"}, initContainers=INIT)
    first = SimPod(seen, SPEC, NOW)
    run(first, NOW + 40)
    seen["status"] = pod_status(seen, first.state, NOW + 40)
    second = SimPod(seen, SPEC, NOW + 45)
    assert states(second) == states(first)
    assert second.next == first.next == NOW + 61
    second.advance(NOW + 61)
    assert second.phase == "Running"


def test_what_is_always_restarted_runs_until_it_is_told_to_end() -> None:
    sim = SimPod(pod("Always"), SPEC, NOW)
    assert run(sim, NOW + 1e6) == [(1.0, "Running")]
    sim.terminate(NOW + 2e6)
    assert sim.phase == "Failed"
    asked = SimPod(pod("Always", {RUN_TIME: "5s"}), SPEC, NOW)
    assert [at for at, _ in run(asked, NOW + 12)] == [1.0, 6.0, 11.0]


@pytest.mark.parametrize(("deadline", "ends", "code"), [(30.0, 20.0, 143), (10.0, 10.0, 137)])
def test_containers_take_their_time_to_stop_and_are_killed_after_the_grace(
    deadline: float, ends: float, code: int
) -> None:
    sim = SimPod(pod("Always", {STOP_TIME: "20s"}), SPEC, NOW)
    sim.advance(NOW + 1)
    sim.terminate(NOW + 1, NOW + 1 + deadline)
    sim.terminate(NOW + 2, NOW + 2 + deadline)
    assert sim.stopping
    assert sim.next == NOW + 1 + ends
    sim.advance(sim.next)
    assert not sim.stopping
    assert sim.phase == "Failed"
    assert sim.state.main[0].exit is not None
    assert sim.state.main[0].exit.code == code


def test_the_deadline_counts_while_containers_initialize() -> None:
    sim = SimPod(pod(annotations={INIT_TIME: "1h"}, initContainers=INIT, activeDeadlineSeconds=10), SPEC, NOW)
    assert run(sim, NOW + 100) == [(1.0, "Pending"), (11.0, "Failed")]

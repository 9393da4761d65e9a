"""Restart policies, thresholds of probes, the order of ends: pure rules, against the words of their specification."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glebe.node.conditions import phase_of
from glebe.node.process.ordering import Turns, predecessors
from glebe.node.process.probing import Kind, Probe, Series, early, first_at, probes_of
from glebe.node.restarts import Restarts
from glebe.node.status import Container, Exit

RULE = {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}
OTHERS = {"action": "RestartAllContainers", "exitCodes": {"operator": "NotIn", "values": [0, 1]}}


@pytest.mark.parametrize(
    ("pod", "container", "code", "again"),
    [
        ("Always", {}, 0, True),
        ("OnFailure", {}, 0, False),
        ("OnFailure", {}, 1, True),
        ("Never", {}, 1, False),
        ("Never", {"restartPolicy": "Always"}, 0, True),
        ("Always", {"restartPolicy": "Never"}, 1, False),
        ("Always", {"restartPolicy": "OnFailure"}, 0, False),
        ("Never", {"restartPolicy": "Never", "restartPolicyRules": [RULE]}, 42, True),
        ("Never", {"restartPolicy": "Never", "restartPolicyRules": [RULE]}, 43, False),
        ("Never", {"restartPolicy": "Never", "restartPolicyRules": [OTHERS]}, 2, True),
        ("Never", {"restartPolicy": "Never", "restartPolicyRules": [OTHERS]}, 1, False),
        ("Never", {"restartPolicy": "Never", "restartPolicyRules": [{**RULE, "action": "Dance"}]}, 42, False),
    ],
)
def test_who_is_started_again(pod: str, container: dict[str, Any], code: int, again: bool) -> None:
    assert Restarts.of({"restartPolicy": pod}, container).after(code) is again


def test_a_rule_may_restart_the_whole_pod_and_only_the_first_counts() -> None:
    container = {"restartPolicy": "Never", "restartPolicyRules": [RULE, OTHERS]}
    policy = Restarts.of({}, container)
    assert policy.whole_pod_after(7)
    assert not policy.whole_pod_after(42)  # the first rule takes it
    assert not policy.whole_pod_after(0)
    assert not policy.after_kill  # rules are not asked when it is the node that kills
    assert Restarts("OnFailure").after_kill


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 5), st.integers(1, 5))
def test_a_verdict_needs_that_many_results_in_a_row(results: list[bool], successes: int, failures: int) -> None:
    series = Series(Probe(Kind.READINESS, {}, successes=successes, failures=failures))
    for index, result in enumerate(results):
        verdict = series.note(result)
        needed = successes if result else failures
        row = 0
        for earlier in reversed(results[: index + 1]):
            if earlier is not result:
                break
            row += 1
        assert verdict == (result if row >= needed else None)


def test_probes_have_upstreams_defaults() -> None:
    body = {"livenessProbe": {"exec": {"command": ["x"]}, "terminationGracePeriodSeconds": 0}, "readinessProbe": {}}
    probes = probes_of(body)
    assert probes[Kind.LIVENESS] == Probe(Kind.LIVENESS, {"exec": {"command": ["x"]}}, 0, 10, 1, 1, 3, 0.0)
    assert list(probes) == [Kind.LIVENESS]  # an empty one is none


@pytest.mark.parametrize(
    ("kind", "delay", "now", "first", "before"),
    [
        (Kind.READINESS, 0, 100.0, 100.0, []),
        (Kind.READINESS, 5, 102.0, 105.0, []),
        (Kind.READINESS, 5, 200.0, 200.0, []),
        (Kind.LIVENESS, 0, 100.0, 110.0, []),
        (Kind.LIVENESS, 5, 100.0, 110.0, []),
        (Kind.LIVENESS, 15, 100.0, 120.0, []),
        (Kind.LIVENESS, 0, 205.0, 210.0, []),  # an agent that came later
        (Kind.STARTUP, 0, 100.0, 110.0, [100.0, 101.0, 102.0, 104.0, 108.0]),
        (Kind.STARTUP, 9, 100.0, 110.0, [109.0]),
    ],
)
def test_when_probes_begin(kind: Kind, delay: float, now: float, first: float, before: list[float]) -> None:
    probe = Probe(kind, {}, delay=delay)
    assert first_at(probe, 100.0, now) == first
    assert early(probe, 100.0, now) == before


def test_main_containers_end_first_then_sidecars_the_last_started_first() -> None:
    assert predecessors(["a", "b"], ["s1", "s2"]) == {"s2": ("a", "b"), "s1": ("a", "b", "s2")}
    assert predecessors(["a"], []) == {}


async def test_turns_wait_for_those_before_them_but_not_for_ever() -> None:
    turns = Turns(predecessors(["a"], ["s1", "s2"]), ["a", "s1", "s2"])
    done: list[str] = []

    async def end(name: str, takes: float) -> None:
        await turns.wait(name, 30.0)
        await asyncio.sleep(takes)
        done.append(name)
        turns.ended(name)

    await asyncio.gather(end("s1", 0.0), end("s2", 1.0), end("a", 5.0))
    assert done == ["a", "s2", "s1"]
    late = Turns(predecessors(["a"], ["s"]), ["a", "s"])
    loop = asyncio.get_running_loop()
    began = loop.time()
    await late.wait("s", 3.0)  # "a" never ends
    assert loop.time() - began == pytest.approx(3.0)
    await Turns(predecessors(["a"], ["s"]), ["s"]).wait("s", 3.0)  # "a" does not run at all
    assert loop.time() - began == pytest.approx(3.0)


# --- the phase, over all small pods

SHAPES = ("untouched", "running", "starting", "done", "failed", "waiting again")


def shaped(name: str, shape: str, **more: Any) -> Container:
    container = Container(name, **more)
    if shape in ("running", "starting"):
        container.start(0.0)
        container.started = False if shape == "starting" else None
    elif shape in ("done", "failed"):
        container.end(Exit(int(shape == "failed"), 0.0))
    elif shape == "waiting again":
        container.end(Exit(1, 0.0))
        container.back_off("")
    return container


@given(
    st.sampled_from(["Always", "OnFailure", "Never"]),
    st.lists(st.sampled_from(SHAPES), max_size=2),
    st.lists(st.sampled_from(SHAPES), max_size=2),
    st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3),
    st.booleans(),
)
def test_the_phase_keeps_its_promises(
    policy: str, regular: list[str], sidecars: list[str], main: list[str], terminal: bool
) -> None:
    init = [shaped(f"i{n}", shape) for n, shape in enumerate(regular)]
    init += [
        shaped(f"s{n}", shape, sidecar=True, restarts_by=Restarts(policy, "Always")) for n, shape in enumerate(sidecars)
    ]
    containers = [shaped(f"c{n}", shape) for n, shape in enumerate(main)]
    phase = phase_of(policy, init, containers, terminal)
    running = any(c.running for c in (*init, *containers))
    if phase == "Succeeded":
        assert all(c.ended_with == 0 for c in containers)
        assert not running
        assert policy != "Always" or terminal
    if phase == "Running":
        assert not any(c.untouched for c in containers)
        assert running or not terminal
    if phase == "Failed" and all(shape == "done" for shape in regular):
        assert not running
        assert any(c.ended_with for c in containers)
    if phase == "Pending":
        assert any(c.untouched or c.running for c in (*init, *containers))

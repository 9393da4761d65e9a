"""The autoscalers' arithmetic: scenarios in ``tests/scenario/autoscaling`` and what holds for all numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glebe.kube.clock import LoopClock, format_time
from glebe.kube.objects import Object
from glebe.kube.selectors import LabelSelector
from glebe.workloads.autoscaling import behavior, calculator
from glebe.workloads.autoscaling.behavior import History, Sample
from glebe.workloads.autoscaling.calculator import Reading, Tolerances, Uncountable
from glebe.workloads.autoscaling.selecting import Pods, Selectors

NOW = LoopClock.EPOCH + 100_000
SCENARIOS = Path(__file__).parents[2] / "scenario" / "autoscaling"
MARKS = "hufdp"


def lines(name: str) -> Iterator[Any]:
    section = ""
    for line in (SCENARIOS / f"{name}.txt").read_text().splitlines():
        if not line.startswith("  "):
            section = line
        else:
            given_, _, want = line.partition("->")
            title, *words = re.split(r"\s{2,}", given_.strip(), maxsplit=1)
            yield pytest.param(section, words[0].split(), want.split(), id=f"{section} - {title}")


# --- pods


def pod(name: str, mark: str = "") -> Object:
    old, just = format_time(NOW - 3600), format_time(NOW - 5)
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": old}
    status: Object = {"phase": "Running", "startTime": old, "conditions": [ready]}
    meta: Object = {"name": name}
    match mark:
        case "h":
            status["startTime"] = ready["lastTransitionTime"] = just
        case "u":
            ready["status"] = "False"
        case "f":
            status["phase"] = "Failed"
        case "p":
            status["phase"] = "Pending"
        case "d":
            meta["deletionTimestamp"] = just
    resources = {"requests": {"cpu": "1", "memory": "1"}}
    return {"metadata": meta, "spec": {"containers": [{"name": "c", "resources": resources}]}, "status": status}


def make(levels: list[str]) -> tuple[list[Object], dict[str, Reading]]:
    pods, readings = [], {}
    for number, level in enumerate(w for w in levels if w != "."):
        mark = level[-1] if level[-1] in MARKS else ""
        pods.append(pod(f"p{number}", mark))
        value = level.rstrip(MARKS)
        if value != "-":
            readings[f"p{number}"] = Reading(int(value), NOW - 1, 60.0)
    return pods, readings


def tolerance(want: list[str]) -> Tolerances:
    if "down" not in want:
        return Tolerances()
    at = want.index("down")
    return Tolerances(float(want[at + 1]), float(want[at + 3]))


@pytest.mark.parametrize(("section", "words", "want"), list(lines("replicas")))
def test_replicas(section: str, words: list[str], want: list[str]) -> None:
    current, target, *levels = words
    allowed = tolerance(want)
    number = int(target.rstrip("%/:"))
    if target.endswith(":"):
        got = calculator.by_share(int(current), int(levels[0]), number, allowed)
    elif target.endswith("/"):
        pods = [pod(str(i), "" if mark == "r" else "u") for i, mark in enumerate(levels[2:])]
        got = calculator.by_ratio(int(current), int(levels[0]), number, pods, allowed)
    else:
        pods, readings = make(levels)
        if not want[0].isdigit():
            with pytest.raises(Uncountable, match=re.escape(" ".join(want))):
                calculator.by_utilization(int(current), number, pods, readings, "cpu", allowed, NOW)
            return
        if target.endswith("%"):
            got = calculator.by_utilization(int(current), number, pods, readings, "cpu", allowed, NOW)
            assert f"{got.utilization}%" == want.pop(1)
        else:
            got = calculator.by_value(int(current), number, pods, readings, "", allowed, NOW)
    assert [str(got.replicas), str(got.usage)] == want[:2]


# --- behavior


def rules(words: list[str]) -> Object:
    out: Object = {"policies": [], "selectPolicy": "Max", "stabilizationWindowSeconds": 0}
    while words and (words[0] in ("min", "disabled", "window") or "/" in words[0]):
        word = words.pop(0)
        if word == "window":
            out["stabilizationWindowSeconds"] = int(words.pop(0))
        elif "/" in word:
            value, period = word.split("/")
            kind = "Percent" if value.endswith("%") else "Pods"
            out["policies"].append({"type": kind, "value": int(value.rstrip("%")), "periodSeconds": int(period)})
        else:
            out["selectPolicy"] = word.capitalize()
    return out


def samples(words: list[str]) -> list[Sample]:
    out = []
    while words and "@" in words[0]:
        replicas, ago = words.pop(0).split("@")
        out.append(Sample(NOW - int(ago), int(replicas)))
    return out


@pytest.mark.parametrize(("section", "words", "want"), list(lines("behavior")))
def test_behavior(section: str, words: list[str], want: list[str]) -> None:
    current, desired, bounds, *rest = words
    least, most = (int(n) for n in bounds.split(".."))
    history, spec = History(), None
    plain: Object = {"policies": [{"type": "Pods", "value": 9999, "periodSeconds": 1}], "stabilizationWindowSeconds": 0}
    while rest:
        word = rest.pop(0)
        if word in ("up", "down"):
            spec = spec or {"scaleUp": plain, "scaleDown": plain}
            spec[f"scale{word.capitalize()}"] = rules(rest)
        else:
            field = {"ups": "ups", "downs": "downs", "wished": "recommendations"}[word]
            setattr(history, field, samples(rest))
    got = behavior.normalize(spec, history, int(current), int(desired), least, most, NOW)
    assert [str(got.replicas), got.limit[0]] == want
    assert got.limited == (got.limit[0] != "DesiredWithinRange")
    assert history.recommendations[-1] == Sample(NOW, int(desired))


def test_a_scale_down_is_not_stabilized_for_less_than_the_window() -> None:
    history = History()
    spec = {"scaleUp": rules([]), "scaleDown": {**rules(["100%/15"]), "stabilizationWindowSeconds": 300}}
    seen: list[tuple[int, int]] = []
    for at in range(0, 600, 15):
        got = behavior.normalize(spec, history, 10 if not seen else seen[-1][1], 10 if at == 0 else 2, 1, 20, NOW + at)
        seen.append((at, got.replicas))
        if 0 < at < 300:
            assert got.able[0] == "ScaleDownStabilized"
    assert next(at for at, replicas in seen if replicas == 2) == 300


def test_what_no_rule_looks_back_to_is_forgotten() -> None:
    history = History()
    spec = {"scaleUp": rules(["4/60"]), "scaleDown": rules(["4/60", "window", "300"])}
    for at in range(0, 100_000, 15):
        behavior.normalize(spec, history, 10, 12, 1, 20, NOW + at)
        history.scaled(spec, 10, 12, NOW + at)
        history.scaled(spec, 12, 10, NOW + at)
    assert len(history.recommendations) <= 22
    assert len(history.ups) <= 6
    assert len(history.downs) <= 6


@given(
    current=st.integers(1, 200),
    levels=st.lists(st.tuples(st.integers(0, 5000), st.sampled_from(["", "h", "u", "f", "d", "p"])), min_size=1),
    missing=st.integers(0, 5),
    target=st.integers(1, 300),
)
def test_what_is_not_known_never_turns_a_change_round(
    current: int, levels: list[tuple[int, str]], missing: int, target: int
) -> None:
    pods, readings = make([f"{value}{mark}" for value, mark in levels] + ["-"] * missing)
    try:
        got = calculator.by_utilization(current, target, pods, readings, "cpu", Tolerances(), NOW)
    except Uncountable:
        return
    known = [r.value for name, r in readings.items() if int(name[1:]) < len(levels) and not levels[int(name[1:])][1]]
    unsure = missing or any(mark in ("h", "u", "p") for _, mark in levels)
    if unsure and sum(known) * 100 // (1000 * len(known)) > target:
        assert got.replicas >= min(current, len(known))
    if got.utilization is not None and Tolerances().hold(got.utilization / target):
        assert got.replicas == current


policy = st.builds(
    lambda kind, value, period: {"type": kind, "value": value, "periodSeconds": period},
    st.sampled_from(["Pods", "Percent"]),
    st.integers(1, 300),
    st.integers(1, 600),
)
direction = st.builds(
    lambda policies, select, window: {
        "policies": policies,
        "selectPolicy": select,
        "stabilizationWindowSeconds": window,
    },
    st.lists(policy, min_size=1, max_size=3),
    st.sampled_from(["Max", "Min", "Disabled"]),
    st.integers(0, 600),
)


@given(
    spec=st.none() | st.builds(lambda up, down: {"scaleUp": up, "scaleDown": down}, direction, direction),
    start=st.integers(1, 50),
    wishes=st.lists(st.integers(0, 500), min_size=1, max_size=40),
    least=st.integers(1, 5),
    more=st.integers(0, 100),
)
def test_the_range_and_the_rules_hold_for_every_course(
    spec: Object | None, start: int, wishes: list[int], least: int, more: int
) -> None:
    most, current, history = least + more, max(least, min(start, least + more)), History()
    for turn, wish in enumerate(wishes):
        now = NOW + 15 * turn
        got = behavior.normalize(spec, history, current, wish, least, most, now)
        assert least <= got.replicas <= most
        if spec is not None:
            for name, grows in (("scaleUp", got.replicas > current), ("scaleDown", got.replicas < current)):
                if grows:
                    assert spec[name]["selectPolicy"] != "Disabled"
        if got.replicas != current:
            history.scaled(spec, current, got.replicas, now)
            current = got.replicas


def test_requests_of_containers_sidecars_and_whole_pods() -> None:
    one = pod("a")
    one["spec"]["containers"].append({"name": "d", "resources": {"requests": {"cpu": "250m"}}})
    one["spec"]["initContainers"] = [
        {"name": "once", "resources": {"requests": {"cpu": "9"}}},
        {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
    ]
    assert calculator.request(one, "", "cpu") == 1350
    assert calculator.request(one, "d", "cpu") == 250
    with pytest.raises(Uncountable, match="container x not found in Pod a"):
        calculator.request(one, "x", "cpu")
    with pytest.raises(Uncountable, match="missing request for memory in container d of Pod a"):
        calculator.request(one, "", "memory")
    one["spec"]["resources"] = {"requests": {"cpu": "2"}}
    assert calculator.request(one, "", "cpu") == 2000
    assert calculator.request(one, "", "memory") == 1000  # as its containers ask for it
    with pytest.raises(Uncountable, match="missing pod-level request for storage in Pod a"):
        calculator.request(one, "", "storage")


labels = st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy"), max_size=2)
terms = st.lists(st.sampled_from(["a=x", "a=y", "b=x", "a in (x,y)", "b!=x", "a", "!b"]), min_size=1, max_size=2)


@given(pods=st.lists(labels, max_size=6), selectors=st.lists(terms, min_size=1, max_size=5))
def test_pods_and_rivals_are_found_as_by_looking_at_all(pods: list[dict[str, str]], selectors: list[list[str]]) -> None:
    there: list[Object] = [{"metadata": {"name": str(i), "labels": each}} for i, each in enumerate(pods)]
    sorted_ = Pods(lambda where: there)
    near = Selectors()
    parsed = {str(i): LabelSelector.parse(",".join(text)) for i, text in enumerate(selectors)}
    near.put("0", LabelSelector.parse("a=z"))
    for name, selector in parsed.items():
        near.put(name, selector)
    for name, selector in parsed.items():
        mine = sorted_.selected("n", selector, 0.0)
        assert mine == [pod for pod in there if selector.matches(pod["metadata"]["labels"])]
        others = [n for n, s in parsed.items() if n != name and any(s.matches(p["metadata"]["labels"]) for p in mine)]
        assert near.rivals(name, mine) == sorted(others)
    for name in parsed:
        near.drop(name)
    assert not near
    assert not near._by_pair

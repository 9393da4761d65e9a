"""Run times learned from Workloads: the same after a restart, in any order of listing; what is declared stands."""

from __future__ import annotations

from typing import Any

import pytest

from glebe.kube.clock import Env, format_time
from glebe.kube.objects import Object
from glebe.queueing.picture import convert, queueobjects
from glebe.queueing.picture.learning import ENOUGH, Learning, facts
from glebe.queueing.picture.runtimes import UNKNOWN
from glebe.scheduling.model import Admitted, Backfill, Decision, Forecast, Outcome, Pending, Reason, RunTime, Snapshot


def workload(name: str, created: float, user: str = "ann", **when: float) -> Object:
    """``started``, ``ended``, ``evicted``: seconds since the epoch."""
    conditions: list[dict[str, Any]] = []
    status: dict[str, Any] = {"conditions": conditions}

    def condition(kind: str, at: float, value: str = "True") -> None:
        conditions.append({"type": kind, "status": value, "reason": "X", "lastTransitionTime": format_time(at)})

    if "started" in when:
        condition("QuotaReserved", when["started"])
        condition("Admitted", when["started"])
        status["admission"] = {"clusterQueue": "q", "podSetAssignments": []}
    if "evicted" in when:
        condition("Evicted", when["evicted"])
    if "ended" in when:
        condition("Finished", when["ended"])
    container = {"name": "main", "image": "train:1", "resources": {"requests": {"nvidia.com/gpu": "2"}}}
    return {
        "metadata": {
            "name": name,
            "namespace": "team",
            "creationTimestamp": format_time(created),
            "annotations": {"glebe.dev/submitted-by": user},
        },
        "spec": {
            "queueName": "local",
            "podSets": [{"name": "main", "count": 3, "template": {"spec": {"containers": [container]}}}],
        },
        "status": status,
    }


@pytest.fixture
def env() -> Env:
    return Env.system()


def undeclared(_: str) -> bool:
    return False


def waiting(name: str) -> Pending:
    return Pending(f"team/{name}", "q", 0, 0.0, (), UNKNOWN)


def finished(count: int = 12, length: float = 600.0) -> list[Object]:
    return [
        workload(f"w{i}", i * 1000.0, started=i * 1000.0 + 50, ended=i * 1000.0 + 50 + length) for i in range(count)
    ]


def test_facts_of_a_workload() -> None:
    found = facts(workload("w", 0.0))
    assert (found.group, found.user, found.image, found.gpus) == ("team/local", "ann", "train:1", 6)


def test_what_ended_teaches_what_waits_and_what_runs(env: Env) -> None:
    learning, other = Learning("", env), Learning("", env)
    now = 20_000.0
    for one in (*finished(), workload("new", now), workload("old", 15_000.0, started=15_000.0)):
        learning.change(None, one)
        other.change(None, one)
    runs = Admitted("team/old", "q", 0, 15_000.0, (), (), UNKNOWN)
    seen = Snapshot(pending=(waiting("new"),), admitted=(runs,))
    found = learning.applied(seen, now, undeclared)
    assert 500 < found.pending[0].run_time.p50 < 700
    assert found.admitted[0].run_time.p50 > 5000.0, "it runs for 5000 s already"
    assert other.applied(seen, now, lambda _: True) == seen, "what is declared stands"
    again = learning.applied(seen, now + 1, undeclared)
    assert again.pending[0] is found.pending[0], "equal parts of successive snapshots are the same objects"


def test_too_little_is_known_at_first(env: Env) -> None:
    learning = Learning("", env)
    for one in (*finished(ENOUGH - 1), workload("new", 20_000.0)):
        learning.change(None, one)
    seen = Snapshot(pending=(waiting("new"),))
    assert learning.applied(seen, 20_000.0, undeclared) is seen


def test_a_restart_forgets_nothing_that_the_objects_still_say(env: Env) -> None:
    """One hears changes as they happen, the other finds the finished objects in another order."""
    lived, restarted = Learning("", env), Learning("", env)
    for one in finished():
        name, created = one["metadata"]["name"], int(one["metadata"]["name"][1:]) * 1000.0
        before = workload(name, created)
        running = workload(name, created, started=created + 50)
        lived.change(None, before)
        lived.change(before, running)
        lived.change(running, one)
        lived.change(one, one)
    for one in reversed(finished()):
        restarted.change(None, one)
    seen = Snapshot(pending=(waiting("new"),))
    said = []
    for learning in (lived, restarted):
        learning.change(None, workload("new", 20_000.0))
        said.append(learning.applied(seen, 20_000.0, undeclared).pending[0].run_time)
    assert said[0] == said[1] != UNKNOWN


def test_an_eviction_is_no_end(env: Env) -> None:
    """Runs that were cut short after a minute do not teach that work takes a minute."""
    learning = Learning("", env)
    for one in finished():
        learning.change(None, one)
    for i in range(20):
        before = workload(f"e{i}", 12_000.0 + i, started=12_000.0 + i)
        learning.change(None, before)
        learning.change(before, workload(f"e{i}", 12_000.0 + i, started=12_000.0 + i, evicted=12_060.0 + i))
    learning.change(None, workload("new", 20_000.0))
    found = learning.applied(Snapshot(pending=(waiting("new"),)), 20_000.0, undeclared)
    assert found.pending[0].run_time.p50 > 400


def test_forecasts_that_are_late_get_wider(env: Env) -> None:
    learning = Learning("", env)
    for one in finished():
        learning.change(None, one)
    wait = Decision("", Outcome.WAIT, Reason.WAITING_FOR_QUOTA, "")
    last = None
    for i in range(40):
        now = 20_000.0 + i * 5000.0
        name = f"n{i}"
        learning.change(None, workload(name, now))
        seen = learning.applied(Snapshot(pending=(waiting(name),)), now, undeclared)
        (last,) = learning.calibrated(seen, [Forecast(f"team/{name}", 1, 0, now + 600, now + 900, wait)], now)
        learning.change(workload(name, now), workload(name, now, started=now + 4000))
    assert last is not None
    assert last.start_p50 == now + 600
    assert last.start_p90 is not None
    assert last.start_p90 > now + 3500


@pytest.mark.parametrize(
    ("text", "mode"), [("Reserve", Backfill.RESERVE), (None, Backfill.GREEDY), ("?", Backfill.GREEDY)]
)
def test_backfill_of_a_queue(text: str | None, mode: Backfill) -> None:
    notes = {} if text is None else {"glebe.dev/backfill": text}
    assert queueobjects.cluster_queue({"metadata": {"name": "q", "annotations": notes}}).backfill is mode


def test_a_time_limit_bounds_what_is_predicted() -> None:
    limited = workload("w", 0.0)
    limited["spec"]["maximumExecutionTimeSeconds"] = 60
    assert convert.run_time(limited, lambda _: {}) == RunTime(60.0, 60.0, bound=60.0)

"""Facts in any order, with restarts: the sums are those of the true story."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glebe.kube.clock import format_time
from glebe.metering import report
from glebe.metering.facts import Charge, Row, charge_of, end_of, gpus_of_pod
from glebe.metering.intervals import DAY, Allocation, Point
from glebe.metering.ledger import Entry, Ledger, LedgerError
from glebe.metering.recorder import Recorder

T0 = 1_767_225_600  # 2026-01-01T00:00:00Z


def node(name: str, gpus: int, *, ready: bool = True, since: int = T0, created: int = T0) -> dict[str, Any]:
    ready_condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": format_time(since)}
    return {
        "metadata": {"name": name, "creationTimestamp": format_time(created)},
        "status": {"capacity": {"nvidia.com/gpu": str(gpus)}, "conditions": [ready_condition]},
    }


def pod(uid: str, on: str, gpus: int, start: int, end: int | None = None, **meta: Any) -> dict[str, Any]:
    status: dict[str, Any] = {
        "phase": "Running",
        "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": format_time(start)}],
    }
    if end is not None:
        status["phase"] = "Succeeded"
        status["containerStatuses"] = [{"name": "c", "state": {"terminated": {"finishedAt": format_time(end)}}}]
    resources = {"limits": {"nvidia.com/gpu": str(gpus)}}
    return {
        "metadata": {"name": uid, "namespace": "ns", "uid": uid, **meta},
        "spec": {"nodeName": on, "containers": [{"name": "c", "resources": resources}]},
        "status": status,
    }


def check(recorder: Recorder, now: int) -> dict[str, int]:
    totals = recorder.book.totals(now - now % DAY, now)
    assert totals.seconds["owned"] == sum(totals.seconds[s] for s in ("allocated", "idle", "unhealthy"))
    assert totals.gpus["owned"] == sum(totals.gpus[s] for s in ("allocated", "idle", "unhealthy"))
    assert totals.seconds["allocated"] == sum(row.gpu_seconds for row in totals.rows.values())
    return totals.seconds


def test_a_simple_day() -> None:
    recorder = Recorder(None, T0)
    assert recorder.node(node("a", 8), T0)
    assert recorder.pod(pod("p", "a", 4, T0 + 10), None, T0 + 11)
    assert not recorder.pod(pod("p", "a", 4, T0 + 10), None, T0 + 12)
    assert recorder.pod(pod("p", "a", 4, T0 + 10, T0 + 30), None, T0 + 35)
    assert check(recorder, T0 + 100) == {"owned": 800, "allocated": 80, "idle": 720, "unhealthy": 0}


def test_unhealthy_wins_and_the_pod_is_not_charged_meanwhile() -> None:
    recorder = Recorder(None, T0)
    recorder.node(node("a", 8), T0)
    recorder.pod(pod("p", "a", 8, T0), None, T0)
    recorder.node(node("a", 8, ready=False, since=T0 + 40), T0 + 45)
    recorder.node(node("a", 8, ready=True, since=T0 + 60), T0 + 61)
    assert check(recorder, T0 + 100) == {"owned": 800, "allocated": 640, "idle": 0, "unhealthy": 160}


def test_node_resized_and_removed() -> None:
    recorder = Recorder(None, T0)
    recorder.node(node("a", 8), T0)
    recorder.pod(pod("p", "a", 8, T0), None, T0)
    recorder.node(node("a", 4), T0 + 10)
    recorder.node_gone("a", T0 + 20)
    assert check(recorder, T0 + 100) == {"owned": 120, "allocated": 120, "idle": 0, "unhealthy": 0}


def test_day_rollover_splits_at_midnight() -> None:
    recorder = Recorder(None, T0)
    recorder.node(node("a", 8), T0)
    recorder.pod(pod("p", "a", 2, T0 + DAY - 100), None, T0 + DAY - 100)
    now = T0 + DAY + 50
    first, second = recorder.book.totals(T0, now), recorder.book.totals(T0 + DAY, now)
    assert (first.seconds["allocated"], first.gpus["owned"]) == (200, 0)
    assert (second.seconds["allocated"], second.seconds["owned"], second.gpus["allocated"]) == (100, 400, 2)
    recorder.forget_old(now)
    assert check(recorder, now)["allocated"] == 100


def test_restart_with_a_ledger_learns_ends_from_status_and_estimates_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = Ledger(path)
    recorder = Recorder(ledger, T0)
    recorder.node(node("a", 8), T0)
    recorder.pod(pod("seen", "a", 2, T0), None, T0)
    recorder.pod(pod("lost", "a", 2, T0), None, T0)
    ledger.close()

    ledger = Ledger(path)
    again = Recorder(ledger, T0 + 50)
    again.node(node("a", 8), T0 + 50)
    again.pod(pod("seen", "a", 2, T0, T0 + 20), None, T0 + 50)
    assert again.book.open_allocations() == ["lost"]
    again.end("lost", T0 + 50, estimated=True)
    assert check(again, T0 + 100) == {"owned": 800, "allocated": 140, "idle": 660, "unhealthy": 0}
    assert {e.allocation.uid: e.estimated for e in ledger.allocations(T0)} == {"seen": False, "lost": True}
    ledger.close()


def test_continuing_from_a_published_report_without_a_ledger() -> None:
    first = Recorder(None, T0)
    first.node(node("a", 8), T0)
    first.pod(pod("done", "a", 2, T0, T0 + 10), None, T0 + 10)
    first.pod(pod("p", "a", 4, T0), None, T0)
    status = report.status_of(first.book.totals(T0, T0 + 30))
    carry = report.carry_of({"status": status})
    assert carry is not None
    second = Recorder(None, T0 + 60)
    second.carry(carry)
    second.node(node("a", 8), T0 + 60)
    second.pod(pod("p", "a", 4, T0, T0 + 50), None, T0 + 60)
    assert check(second, T0 + 100) == check_of(first, pod("p", "a", 4, T0, T0 + 50), T0 + 100)
    (row,) = second.book.totals(T0, T0 + 100).rows.values()
    assert row.workloads == 2


def check_of(recorder: Recorder, ended: dict[str, Any], now: int) -> dict[str, int]:
    recorder.pod(ended, None, now)
    return check(recorder, now)


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**32))
def test_any_order_with_replays_and_restarts_gives_the_same_sums(seed: int) -> None:
    rng = random.Random(seed)
    ledger = Ledger(":memory:")
    recorder = Recorder(ledger, T0)
    nodes = {name: rng.randint(0, 8) for name in ("a", "b", "c")}
    for name, gpus in nodes.items():
        recorder.node(node(name, gpus), T0)
    stories = []
    for i in range(rng.randint(0, 12)):
        start = T0 + rng.randint(0, 500)
        end = None if rng.random() < 0.3 else start + rng.randint(0, 500)
        stories.append((f"p{i}", rng.choice("abc"), rng.randint(1, 8), start, end))
    now = T0 + 1000
    said = [(s[:4], None) for s in stories] + [(s[:4], s[4]) for s in stories if s[4] is not None]
    said += rng.choices(said, k=5) if said else []
    rng.shuffle(said)
    for (uid, on, gpus, start), end in said:
        recorder.pod(pod(uid, on, gpus, start, end), None, now)
        if rng.random() < 0.1:
            recorder = Recorder(ledger, now)
    seconds = check(recorder, now)
    in_order = Recorder(None, T0)
    for name, gpus in nodes.items():
        in_order.node(node(name, gpus), T0)
    for uid, on, gpus, start, end in stories:
        in_order.pod(pod(uid, on, gpus, start, end), None, now)
    assert seconds == check(in_order, now)
    ledger.close()


def test_facts_are_read_from_pod_then_job() -> None:
    job = {
        "metadata": {
            "name": "j",
            "uid": "job",
            "labels": {"kueue.x-k8s.io/queue-name": "q"},
            "annotations": {"glebe.dev/user": "ada"},
        }
    }
    owner = [{"kind": "Job", "name": "j", "uid": "job", "controller": True}]
    made = pod("p", "a", 1, T0, ownerReferences=owner)
    assert charge_of(made, job) == Charge(Row("ns", "q", "", "ada"), "job")
    made["metadata"]["labels"] = {"kueue.x-k8s.io/local-queue-name": "mine", "kueue.x-k8s.io/cluster-queue-name": "cq"}
    assert charge_of(made, job).row == Row("ns", "mine", "cq", "ada")
    assert charge_of(pod("solo", "a", 1, T0), None) == Charge(Row("ns", "", "", ""), "solo")


def test_gpus_of_a_pod_with_init_containers() -> None:
    made = pod("p", "a", 2, T0)
    made["spec"]["initContainers"] = [
        {"name": "i", "resources": {"limits": {"nvidia.com/gpu": "4"}}},
        {"name": "s", "restartPolicy": "Always", "resources": {"limits": {"nvidia.com/gpu": 1}}},
    ]
    assert gpus_of_pod(made) == 4
    assert gpus_of_pod({"spec": {"containers": [{"name": "c"}]}}) == 0


def test_an_end_nobody_wrote_down_is_estimated() -> None:
    made = pod("p", "a", 2, T0)
    assert end_of(made, T0 + 5) is None
    made["status"]["phase"] = "Failed"
    end = end_of(made, T0 + 5)
    assert end is not None
    assert (end.at, end.estimated) == (T0 + 5, True)


def test_ledger_file_errors_are_clear(tmp_path: Path) -> None:
    bad = tmp_path / "bad.db"
    bad.write_bytes(b"not a database" * 100)
    with pytest.raises(LedgerError, match=r"bad\.db: cannot be opened"):
        Ledger(bad)


def test_ledger_returns_the_last_word_and_the_point_before(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.db")
    charge = Charge(Row("n", "q", "c", "u"), "w")
    ledger.add_point("a", Point(10, 8, True), 10)
    ledger.add_point("a", Point(20, 8, False), 20)
    ledger.add_allocation(Entry("a", "p", Allocation("u1", 5, None, 4, charge)), 5)
    ledger.add_allocation(Entry("a", "p", Allocation("u1", 5, 15, 4, charge)), 15)
    assert ledger.points(15) == [("a", Point(10, 8, True)), ("a", Point(20, 8, False))]
    assert [e.allocation.end for e in ledger.allocations(10)] == [15]
    assert ledger.allocations(15) == []
    ledger.close()


def test_report_reads_back_exactly_at_any_later_moment() -> None:
    recorder = Recorder(None, T0)
    recorder.node(node("a", 8), T0)
    recorder.node(node("b", 8, ready=False), T0)
    recorder.pod(pod("p", "a", 3, T0 + 5), None, T0 + 5)
    then = {**report.object_of(T0), "status": report.status_of(recorder.book.totals(T0, T0 + 10))}
    for now in (T0 + 10, T0 + 11, T0 + 5000):
        exact = {**report.object_of(T0), "status": report.status_of(recorder.book.totals(T0, now))}
        assert report.at([then], now) == report.at([exact], now)
    after = T0 + DAY + 100
    both = [{**report.object_of(d), "status": report.status_of(recorder.book.totals(d, after))} for d in (T0, T0 + DAY)]
    usage = report.at(both, after)
    assert usage.owned_gpu_seconds == 16 * (DAY + 100)
    assert usage.allocated_gpu_seconds == 3 * (DAY + 95)
    assert (usage.rows[0].gpus, usage.allocated_gpus, usage.unhealthy_gpus) == (3, 3, 8)
    assert report.at([], T0) == report.Usage()


def test_a_full_disk_delays_the_ledger_and_loses_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    recorder = Recorder(ledger, T0)
    recorder.node(node("a", 8), T0)
    ledger.commit()
    (pages,) = ledger._db.execute("PRAGMA page_count").fetchone()
    ledger._db.execute(f"PRAGMA max_page_count={pages}")
    for number in range(200):  # informers tell these to handlers: nothing may be raised there
        recorder.pod(pod(f"p{number:03}", "a", 1, T0, T0 + 10), None, T0 + 10)
    for _ in range(2):
        with pytest.raises(LedgerError, match="disk full"):
            ledger.commit()
    ledger._db.execute("PRAGMA max_page_count=100000")
    ledger.commit()
    ledger.close()
    again = Ledger(tmp_path / "ledger.db")
    assert len(again.allocations(T0)) == 200
    again.close()


def test_nodes_that_are_gone_are_forgotten_after_their_last_day() -> None:
    recorder = Recorder(None, T0)
    for number in range(50):  # an elastic fleet never uses a name twice
        recorder.node(node(f"n{number}", 8), T0 + number)
        recorder.node_gone(f"n{number}", T0 + number + 10)
    recorder.node(node("cpu", 0), T0)
    recorder.node(node("stays", 8), T0)
    before = check(recorder, T0 + DAY - 1)
    recorder.forget_old(T0 + DAY)
    assert check(recorder, T0 + DAY - 1) == before
    recorder.forget_old(T0 + 3 * DAY)
    assert list(recorder.book._nodes) == ["stays"]
    assert check(recorder, T0 + 3 * DAY + 5)["owned"] == 8 * 5
    assert recorder.node(node("n1", 8, created=T0 + 3 * DAY + 5), T0 + 3 * DAY + 6)

"""Counts kept change by change equal counts made from everything."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from glebe.kube.objects import Object
from glebe.queueing.picture.tallies import Tallies, Tally, holds_in, local_queue_of, tally_of

STATES = ("waiting", "inactive", "reserving", "admitted", "finished")


def workload(name: int, queue: str, state: str, gpus: int) -> Object:
    conditions: list[dict[str, Any]] = []
    status: dict[str, Any] = {"conditions": conditions}
    if state in ("reserving", "admitted", "finished"):
        usage = {"name": "main", "count": 1, "flavors": {"gpu": "h100"}, "resourceUsage": {"gpu": str(gpus)}}
        status["admission"] = {"clusterQueue": "c", "podSetAssignments": [usage]}
    if state == "admitted":
        conditions.append({"type": "Admitted", "status": "True"})
    if state == "finished":
        conditions.append({"type": "Finished", "status": "True"})
    spec = {"queueName": queue, "active": state != "inactive"}
    return {"metadata": {"name": f"w{name}", "namespace": "team"}, "spec": spec, "status": status}


CHANGES = st.tuples(
    st.integers(0, 5),
    st.none() | st.tuples(st.sampled_from(("a", "b")), st.sampled_from(STATES), st.integers(1, 9)),
)


def cleaned(tally: Tally) -> Tally:
    """Without amounts of zero: what was there once is the same as what never was."""
    for table in (tally.reserved, tally.used):
        for flavor in list(table):
            table[flavor] = {name: amount for name, amount in table[flavor].items() if amount}
            if not table[flavor]:
                del table[flavor]
    return tally


@settings(max_examples=60)
@given(st.lists(CHANGES, max_size=30))
def test_sums_are_those_of_the_workloads_there_are(changes: list[Any]) -> None:
    tallies = Tallies("")
    live: dict[int, Object] = {}
    for name, what in changes:
        old = live.pop(name, None)
        if what is not None:
            live[name] = workload(name, *what)
        if old is None and what is None:
            continue
        changed = tallies.change(old, live.get(name))
        if old == live.get(name):
            assert not changed
        held = [w for w in live.values() if holds_in(w) == "c"]
        assert tallies.in_use("c") is bool(held)
        for queues in (["team/a"], ["team/b"], ["team/a", "team/b"]):
            expected = Tally()
            for each in live.values():
                if local_queue_of(each) in queues:
                    expected.add(tally_of(each))
            assert cleaned(tallies.total(queues)) == cleaned(expected)

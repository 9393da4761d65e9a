"""Looking at the heads of classes must decide as looking at everything."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from glebe.queueing.picture.heads import Heads, certain, roots, shown
from glebe.scheduling import decide
from glebe.scheduling.model import (
    ClusterQueue,
    Cohort,
    Flavor,
    FlavorQuotas,
    Outcome,
    Pending,
    PodSet,
    Quota,
    ResourceGroup,
    RunTime,
    Snapshot,
    Strategy,
)


def queue(name: str, cohort: str | None, nominal: int, strict: bool = False) -> ClusterQueue:
    groups = (ResourceGroup(("cpu",), (FlavorQuotas("f", {"cpu": Quota(nominal)}),)),)
    return ClusterQueue(name, groups, cohort, Strategy.STRICT_FIFO if strict else Strategy.BEST_EFFORT_FIFO)


def waiting(key: str, queue: str, cpu: int, priority: int = 0, at: float = 0.0) -> Pending:
    return Pending(key, queue, priority, at, (PodSet("main", 1, {"cpu": cpu}),), RunTime(60, 120))


def heads_of(pending: list[Pending]) -> Heads:
    heads = Heads()
    for p in pending:
        heads.change(None, p)
    return heads


def world(queues: tuple[ClusterQueue, ...], pending: list[Pending]) -> Snapshot:
    return Snapshot((), (), (Flavor("f"),), queues, (Cohort("c"),), (), tuple(pending))


def test_the_oldest_of_each_class_are_shown() -> None:
    listed = [waiting(f"w{i}", "q", 1, at=9 - i) for i in range(5)] + [waiting("big", "q", 8, at=20)]
    found, last = heads_of(listed).first(2)
    assert [p.key for p in found] == ["w4", "w3", "big"]
    assert last == {"w3"}


def test_a_head_that_leaves_makes_room_for_the_next() -> None:
    listed = [waiting(f"w{i}", "q", 1, at=i) for i in range(4)]
    heads = heads_of(listed)
    assert [p.key for p in heads.first(2)[0]] == ["w0", "w1"]
    heads.change(listed[0], None)
    assert [p.key for p in heads.first(2)[0]] == ["w1", "w2"]
    older = replace(listed[3], queued_at=-1.0)
    heads.change(listed[3], older)
    assert [p.key for p in heads.first(2)[0]] == ["w3", "w1"]
    assert len(heads) == 3


def test_priorities_local_queues_and_gates_make_classes_of_their_own() -> None:
    first = waiting("a", "q", 1)
    others = [
        replace(first, key="b", priority=5),
        replace(first, key="c", local_queue="x/y"),
        replace(first, key="d", gated=True),
        replace(first, key="e", run_time=RunTime(1, 2)),
    ]
    found, last = heads_of([first, *others]).first(1)
    assert len(found) == 5
    assert not last


def test_what_follows_the_last_one_shown_is_not_certain() -> None:
    snapshot = world((queue("q", None, 10), queue("p", None, 10)), [waiting(f"w{i}", "q", 1, at=i) for i in range(4)])
    heads = heads_of([*snapshot.pending, waiting("big", "q", 2, at=10), waiting("other", "p", 1, at=11)])
    found, last = heads.first(2)
    trees = roots(snapshot)
    by_key = {p.key: trees[p.queue] for p in found}
    kept, again = certain(decide(shown(snapshot, found), 0.0), last, lambda key: by_key[key])
    assert [d.key for d in kept if d.outcome is Outcome.ADMIT] == ["w0", "other", "w1"]
    assert again


def test_roots_of_trees_and_rings() -> None:
    cohorts = (Cohort("a", "b"), Cohort("b", "top"), Cohort("top"), Cohort("r", "s"), Cohort("s", "r"))
    snapshot = replace(
        world((queue("q", "a", 1), queue("p", "top", 1), queue("o", None, 1), queue("x", "r", 1)), []), cohorts=cohorts
    )
    found = roots(snapshot)
    assert found["q"] == found["p"] == "cohort top"
    assert found["o"] == "queue o"
    assert found["x"].startswith("cohort ")


_jobs = st.lists(
    st.tuples(st.sampled_from(["q0", "q1", "q2"]), st.integers(1, 5), st.integers(0, 2), st.integers(0, 30)),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(_jobs, st.integers(1, 4), st.integers(1, 20), st.booleans())
def test_rounds_over_heads_start_who_would_start_anyway(
    jobs: list[tuple[str, int, int, int]], each: int, nominal: int, strict: bool
) -> None:
    queues = (queue("q0", "c", nominal, strict), queue("q1", "c", nominal), queue("q2", None, nominal))
    pending = [waiting(f"w{i:02}", q, cpu, pr, float(at)) for i, (q, cpu, pr, at) in enumerate(jobs)]
    snapshot = world(queues, pending)
    whole = [d.key for d in decide(snapshot, 0.0) if d.outcome is Outcome.ADMIT]
    tree = {p.key: roots(snapshot)[p.queue] for p in pending}
    found, last = heads_of(pending).first(each)
    kept, again = certain(decide(shown(snapshot, found), 0.0), last, lambda key: tree[key])
    started = [d.key for d in kept if d.outcome is Outcome.ADMIT]
    for name in dict.fromkeys(tree.values()):
        mine, all_of_it = [k for k in started if tree[k] == name], [k for k in whole if tree[k] == name]
        assert mine == all_of_it[: len(mine)]
    if not again:
        assert started == whole
    elif whole:
        assert started

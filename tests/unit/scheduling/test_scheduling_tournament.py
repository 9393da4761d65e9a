"""The order between heads: as the plain statement of the tournament says, whatever is admitted in between."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction

import preemptionworlds as p
from hypothesis import given, settings
from hypothesis import strategies as st

from glebe.scheduling.cycle.tournament import Contender, Tournament
from glebe.scheduling.model import Cohort, FairSharing, Snapshot
from glebe.scheduling.quotas.quota import QuotaState
from glebe.scheduling.quotas.shares import share
from glebe.scheduling.world import World


def plain(world: World, quotas: QuotaState, cohort: int, heads: dict[int, Contender[int]]) -> Contender[int] | None:
    """The winner below a cohort, computed from nothing."""
    tree = world.tree
    best = None
    for child in range(len(tree.names)):
        if tree.parent[child] != cohort:
            continue
        head = plain(world, quotas, child, heads) if child < tree.cohorts else heads.get(child)
        if head is None:
            continue
        after = quotas.copy()
        after.add(head.node, head.need)
        borrows = any(n and after.usage[child][c] > tree.subtree[child][c] for c, n in head.need)
        key = (borrows, share(after, child).rank, head.key[1:])
        if best is None or key < best[0]:
            best = (key, head)
    return best and best[1]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6))
def test_the_tournament_is_won_by_whom_the_plain_statement_names(seed: int) -> None:
    rng = random.Random(seed)
    snapshot = p.snapshot(seed, fair=True, resources=("cpu", "memory"))
    world = World(snapshot)
    state, _ = world.state(snapshot.admitted)
    quotas, tree = state.quotas, world.tree
    heads = {}
    for queue in sorted(world.queues):
        node = tree.queue_index[queue]
        if tree.parent[node] >= 0 and rng.random() < 0.8:
            need = tuple((c, rng.randint(0, 5)) for c in range(len(tree.cell_names)))
            level = quotas.borrowing_level(node, need)
            heads[node] = Contender(node, need, (level, rng.randint(-1, 1), float(rng.randint(0, 3)), queue), node)
    tournament = Tournament(world, quotas, heads.values())
    roots = {tree.top[n] for n in heads}
    while heads:
        winners = [w for root in roots if (w := plain(world, quotas, root, heads)) is not None]
        winner = tournament.pop()
        assert winner is min(winners, key=lambda c: c.key)
        del heads[winner.node]
        assert len(tournament) == len(heads)
        if rng.random() < 0.7:
            quotas.add(winner.node, winner.need)


def contender(world: World, quotas: QuotaState, queue: str, amount: int, priority: int = 0) -> Contender[str]:
    node = world.tree.queue_index[queue]
    need = ((0, amount),)
    return Contender(node, need, (quotas.borrowing_level(node, need), -priority, 0.0, queue), queue)


def order(snapshot: Snapshot, use: dict[str, int], asks: dict[str, tuple[int, int]]) -> list[str]:
    """Names of queues, as their heads (amount, priority) come up, each admitted in turn."""
    world = World(snapshot)
    quotas = QuotaState(world.tree)
    for queue, amount in use.items():
        quotas.add(world.tree.queue_index[queue], ((0, amount),))
    tournament = Tournament(world, quotas, [contender(world, quotas, q, n, prio) for q, (n, prio) in asks.items()])
    found = []
    while tournament:
        winner = tournament.pop()
        quotas.add(winner.node, winner.need)
        found.append(winner.entry)
    return found


def queues(weights: dict[str, int], cohort: str = "all") -> Snapshot:
    base = p.snapshot(0, fair=True).queues[0]
    quota = p.groups(random.Random(3), ("cpu",), 0)
    return Snapshot(
        queues=tuple(
            replace(base, name=n, cohort=cohort, weight=Fraction(w), resource_groups=quota) for n, w in weights.items()
        ),
        cohorts=(Cohort(cohort, resource_groups=p.groups(random.Random(1), ("cpu",), 100)),),
        fair_sharing=FairSharing(),
    )


def test_who_has_borrowed_less_goes_first_by_weight_and_priority_only_breaks_ties() -> None:
    snapshot = queues({"a": 1, "b": 1, "c": 2})
    assert order(snapshot, {"a": 4, "b": 2, "c": 5}, {"a": (1, 9), "b": (1, 0), "c": (1, 0)}) == ["b", "c", "a"]
    assert order(snapshot, {}, {"a": (1, 0), "b": (1, 1)}) == ["b", "a"]


def test_a_tree_that_does_not_share_fairly_keeps_the_classical_order() -> None:
    snapshot = queues({"a": 1, "b": 1})
    off = replace(snapshot, cohorts=tuple(replace(c, fair_sharing=False) for c in snapshot.cohorts))
    asks = {"a": (1, 9), "b": (1, 0)}
    assert order(snapshot, {"a": 4}, asks) == ["b", "a"]
    assert order(off, {"a": 4}, asks) == ["a", "b"]

"""Cohort trees in general: what can be used at most, what may be lent, and shares, against plain restatements."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from glebe.scheduling.model import ClusterQueue, Cohort, FlavorQuotas, Quota, ResourceGroup
from glebe.scheduling.quotas.quota import QuotaState, QuotaTree
from glebe.scheduling.quotas.shares import INFINITE, MOST, NO_SHARE, share

LIMIT = st.none() | st.integers(0, 12)
QUOTA = st.builds(Quota, st.integers(0, 12), LIMIT, LIMIT)
WEIGHT = st.sampled_from([Fraction(0), Fraction(1, 2), Fraction(1), Fraction(3)])


def group(quotas: list[Quota]) -> tuple[ResourceGroup, ...]:
    flavors = tuple(FlavorQuotas(f"f{i}", {"cpu": q}) for i, q in enumerate(quotas))
    return (ResourceGroup(("cpu",), flavors),)


@st.composite
def trees(draw: st.DrawFn) -> QuotaTree:
    cohorts: list[Cohort] = []
    for i in range(draw(st.integers(1, 4))):
        above = None if i == 0 else f"c{draw(st.integers(0, i - 1))}"
        quotas = draw(st.lists(QUOTA, max_size=2))
        cohorts.append(Cohort(f"c{i}", above, group(quotas), draw(WEIGHT)))
    queues = [
        ClusterQueue(
            f"q{i}",
            group(draw(st.lists(QUOTA, min_size=1, max_size=2))),
            f"c{draw(st.integers(0, len(cohorts) - 1))}",
            weight=draw(WEIGHT),
        )
        for i in range(draw(st.integers(1, 5)))
    ]
    return QuotaTree(queues, cohorts)


USE = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1), st.integers(0, 15)), max_size=6)


def used(tree: QuotaTree, use: list[tuple[int, int, int]]) -> QuotaState:
    """Whatever the limits say: quotas may have been cut since."""
    state = QuotaState(tree)
    for queue, flavor, amount in use:
        cell = tree.cells.get((f"f{flavor}", "cpu"))
        if f"q{queue}" in tree.queue_index and cell is not None:
            state.add(tree.queue_index[f"q{queue}"], ((cell, amount),))
    return state


@given(trees(), USE)
def test_what_is_available_is_at_most_what_an_empty_tree_offers(
    tree: QuotaTree, use: list[tuple[int, int, int]]
) -> None:
    empty, busy = QuotaState(tree), used(tree, use)
    for node in range(len(tree.names)):
        for cell in range(len(tree.cell_names)):
            assert empty.available(node, cell) == tree.potential(node, cell)
            assert busy.available(node, cell) <= tree.potential(node, cell)


@given(trees(), USE)
def test_taking_all_that_is_available_breaks_no_limit(tree: QuotaTree, use: list[tuple[int, int, int]]) -> None:
    state = QuotaState(tree)
    for queue, flavor, amount in use:
        node, cell = tree.queue_index.get(f"q{queue}"), tree.cells.get((f"f{flavor}", "cpu"))
        if node is not None and cell is not None:
            state.add(node, ((cell, min(amount, state.available(node, cell))),))
    for node in range(len(tree.names)):
        for cell in range(len(tree.cell_names)):
            above, limit = state.usage[node][cell] - tree.subtree[node][cell], tree.borrowing_limit[node][cell]
            if tree.parent[node] < 0:
                assert above <= 0, "a root has nobody to borrow from"
            elif limit is not None:
                assert above <= limit


@given(trees(), USE)
def test_shares(tree: QuotaTree, use: list[tuple[int, int, int]]) -> None:
    state = used(tree, use)
    for node, above in enumerate(tree.parent):
        found = share(state, node)
        over = [max(0, n - own) for n, own in zip(state.usage[node], tree.subtree[node], strict=True)]
        if above < 0 or not any(over):
            assert found == NO_SHARE
            continue
        lendable = sum(tree.potential(above, cell) for cell in range(len(tree.cell_names)))
        ratio = Fraction(sum(over) * 1000, lendable) if lendable else Fraction(0)
        weight = tree.weight[node]
        assert found.borrowing
        assert found.resource == ("cpu" if lendable else "")
        endless = not weight and ratio > 0
        assert found.weighted == (INFINITE if endless else ratio / (weight or 1))
        assert found.rounded == (MOST if endless else -(-ratio // (weight or 1)))

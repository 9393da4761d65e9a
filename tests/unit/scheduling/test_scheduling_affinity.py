"""Required node affinity chooses between flavors by their labels; other labels are the nodes' affair."""

from __future__ import annotations

import pytest

from glebe.queueing.picture import podsets
from glebe.scheduling.decide import decide
from glebe.scheduling.flavoring.affinity import chosen_by
from glebe.scheduling.model import (
    ClusterQueue,
    Expression,
    Flavor,
    FlavorQuotas,
    Outcome,
    Pending,
    PodSet,
    Quota,
    Reason,
    ResourceGroup,
    RunTime,
    Snapshot,
)

H100 = {"gpu": "h100", "generation": "9"}


@pytest.mark.parametrize(
    ("operator", "values", "holds"),
    [
        ("In", ("h100", "h200"), True),
        ("In", ("a100",), False),
        ("NotIn", ("a100",), True),
        ("NotIn", ("h100",), False),
        ("Exists", (), True),
        ("DoesNotExist", (), False),
    ],
)
def test_operators(operator: str, values: tuple[str, ...], holds: bool) -> None:
    assert chosen_by(((Expression("gpu", operator, values),),), H100) is holds


@pytest.mark.parametrize(
    ("key", "operator", "bound", "holds"),
    [
        ("generation", "Gt", "8", True),
        ("generation", "Gt", "9", False),
        ("generation", "Lt", "10", True),
        ("generation", "Lt", "9", False),
        ("gpu", "Gt", "8", False),
    ],
)
def test_numbers(key: str, operator: str, bound: str, holds: bool) -> None:
    assert chosen_by(((Expression(key, operator, (bound,)),),), H100) is holds


def test_terms_are_alternatives_and_expressions_add_up() -> None:
    h100, old, zone = (
        Expression("gpu", "In", ("h100",)),
        Expression("generation", "Lt", ("9",)),
        Expression("zone", "In", ("a",)),
    )
    assert not chosen_by(((h100, old),), H100)
    assert chosen_by(((h100, old), (h100,)), H100)
    assert chosen_by(((h100, zone),), H100), "zone is not a label of the flavor"
    assert chosen_by(((old,), (zone,)), H100), "the second term leaves the flavor open"
    assert chosen_by((), H100)


def decide_with(terms: tuple[tuple[Expression, ...], ...]) -> tuple[Outcome, Reason, str]:
    flavors = (Flavor("a", {"gpu": "a100"}), Flavor("h", {"gpu": "h100"}))
    group = ResourceGroup(("cpu",), tuple(FlavorQuotas(f.name, {"cpu": Quota(1000)}) for f in flavors))
    pods = PodSet("main", 1, {"cpu": 1000}, affinity=terms)
    waiting = Pending("w", "q", 0, 0.0, (pods,), RunTime(1, 1))
    snapshot = Snapshot(flavors=flavors, queues=(ClusterQueue("q", (group,)),), pending=(waiting,))
    (decision,) = decide(snapshot, 0.0)
    return decision.outcome, decision.reason, "".join(a.flavors["cpu"] for a in decision.assignments)


def test_the_flavor_is_chosen_by_it() -> None:
    assert decide_with(()) == (Outcome.ADMIT, Reason.ADMITTED, "a")
    assert decide_with(((Expression("gpu", "NotIn", ("a100",)),),)) == (Outcome.ADMIT, Reason.ADMITTED, "h")
    assert decide_with(((Expression("gpu", "In", ("b200",)),),)) == (Outcome.NEVER, Reason.NO_MATCHING_FLAVOR, "")


def test_it_is_read_from_pod_templates() -> None:
    expression = {"key": "gpu", "operator": "In", "values": ["h100"]}
    terms = [{"matchExpressions": [expression]}, {"matchFields": [{"key": "metadata.name"}]}]
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    workload = {"spec": {"podSets": [{"template": {"spec": {"containers": [], "affinity": affinity}}}]}}
    (pods,) = podsets.pod_sets(workload)
    assert pods.affinity == ((Expression("gpu", "In", ("h100",)),), ())
    (plain,) = podsets.pod_sets({"spec": {"podSets": [{"template": {"spec": {"containers": []}}}]}})
    assert plain.affinity == ()

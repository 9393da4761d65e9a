"""The pure parts of Deployments: every step of a rollout keeps its bounds, and rollouts end."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glebe.kube.objects import Object, annotations_of, get_condition
from glebe.workloads.deployment import annotate
from glebe.workloads.deployment.plan import Plan
from glebe.workloads.deployment.progress import is_complete
from glebe.workloads.deployment.proportions import proportional
from glebe.workloads.deployment.reconcile import Facts, reconcile
from glebe.workloads.deployment.sets import find_new, name_of, same_template, size, template_hash, total
from glebe.workloads.deployment.strategy import max_surge, max_unavailable, wanted


def template(image: str = "v1", **labels: str) -> Object:
    return {"metadata": {"labels": {"a": "b", **labels}}, "spec": {"containers": [{"name": "m", "image": image}]}}


def deployment(count: int = 3, image: str = "v1", surge: Any = "25%", unavailable: Any = "25%", **spec: Any) -> Object:
    rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "n", "uid": "D", "generation": 1, "resourceVersion": "1"},
        "spec": {
            "replicas": count,
            "selector": {"matchLabels": {"a": "b"}},
            "template": template(image),
            "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
            "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 2,
            **spec,
        },
    }


class World:
    """Sets that follow their spec after a while; a pod of theirs is ready or not."""

    def __init__(self, obj: Object, rng: random.Random) -> None:
        self.d = obj
        self.rng = rng
        self.now = 1000.0
        self.sets: list[Object] = []
        self.pods: dict[str, list[bool]] = {}  # name of a set -> its pods: ready?
        self.broken: set[str] = set()  # images that never get ready

    def step(self) -> Plan:
        self.now += 1
        plan = reconcile(Facts(copy.deepcopy(self.d), copy.deepcopy(self.sets), self.now))
        if plan.create is not None:
            made = plan.create.replica_set
            made["metadata"] |= {"uid": name_of(made), "creationTimestamp": f"{self.now:09.0f}", "generation": 1}
            self.sets.append(made)
            self.pods[name_of(made)] = []
        for change in plan.change:
            (index,) = [i for i, s in enumerate(self.sets) if name_of(s) == name_of(change.replica_set)]
            new = change.replica_set
            new["metadata"]["generation"] += 1
            self.sets[index] = new
        for gone in plan.delete:
            assert size(gone) == 0
            self.sets = [s for s in self.sets if name_of(s) != name_of(gone)]
        if plan.status is not None:
            self.d = plan.status
        return plan

    def follow(self) -> None:
        """One set's controller has its turn; some pods get ready."""
        if not self.sets:
            return
        one = self.rng.choice(self.sets)
        pods = self.pods[name_of(one)]
        pods.sort()  # those that are not ready go first
        del pods[: max(0, len(pods) - size(one))]
        pods += [False] * (size(one) - len(pods))
        if one["spec"]["template"]["spec"]["containers"][0]["image"] not in self.broken:
            pods[:] = [ready or self.rng.random() < 0.5 for ready in pods]
        ready = sum(pods)
        one["status"] = {
            "replicas": len(pods), "readyReplicas": ready, "availableReplicas": ready, "terminatingReplicas": 0,
            "observedGeneration": one["metadata"]["generation"],
        }  # fmt: skip

    def change(self, **spec: Any) -> None:
        self.d = {**self.d, "spec": {**self.d["spec"], **spec}}
        self.d["metadata"] = {**self.d["metadata"], "generation": self.d["metadata"]["generation"] + 1}

    def run(self, check: bool = True, turns: int = 2000) -> None:
        for _ in range(turns):
            if self.rng.random() < 0.5:
                self.follow()
                continue
            plan = self.step()
            if check:
                assert total(self.sets) <= wanted(self.d) + max_surge(self.d)
                keep = sum(min(size(s), sum(self.pods[name_of(s)])) for s in self.sets)
                assert keep >= wanted(self.d) - max_unavailable(self.d)
            quiet = plan.status is None and not plan.change and not plan.delete and plan.create is None
            settled = all(len(self.pods[name_of(s)]) == size(s) for s in self.sets)
            if quiet and settled and is_complete(self.d, self.d["status"]):
                return
        raise AssertionError(self.d["status"])


AMOUNTS = st.one_of(st.integers(0, 5), st.sampled_from(["0%", "10%", "25%", "50%", "100%"]))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 12), AMOUNTS, AMOUNTS, st.integers(0, 10**6), st.integers(1, 3))
def test_rollouts_keep_their_bounds_and_end(count: int, surge: Any, unavailable: Any, seed: int, versions: int) -> None:
    world = World(deployment(count, "v0", surge, unavailable), random.Random(seed))
    world.run(check=False)
    for version in range(1, versions + 1):
        world.change(template=template(f"v{version}"))
        world.run()
        new = find_new(world.d, world.sets)
        assert new
        assert [size(s) for s in world.sets if s is not new and size(s)] == []
        assert annotations_of(world.d)[annotate.REVISION] == str(version + 1)
        assert (get_condition(world.d, "Progressing") or {})["reason"] == "NewReplicaSetAvailable"
    for _ in range(60):  # the history is cut when the sets' own status has caught up
        world.follow()
        world.step()
    assert len(world.sets) <= 3


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), AMOUNTS, AMOUNTS, st.integers(0, 10**6))
def test_a_broken_version_costs_no_more_than_is_allowed(count: int, surge: Any, unavailable: Any, seed: int) -> None:
    world = World(deployment(count, "v0", surge, unavailable), random.Random(seed))
    world.run(check=False)
    world.broken.add("bad")
    world.change(template=template("bad"))
    with pytest.raises(AssertionError):
        world.run(turns=200)
    keep = sum(min(size(s), sum(self_pods)) for s in world.sets for self_pods in [world.pods[name_of(s)]])
    assert keep >= count - max_unavailable(world.d)
    world.change(template=template("v0"))  # undo
    world.run()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 20), st.integers(0, 40), AMOUNTS, AMOUNTS, st.integers(0, 10**6), st.integers(0, 30))
def test_scaling_amid_a_rollout_ends_well(
    count: int, other: int, surge: Any, unavailable: Any, seed: int, after: int
) -> None:
    world = World(deployment(count, "v0", surge, unavailable), random.Random(seed))
    world.run(check=False)
    world.change(template=template("v1"))
    for _ in range(after):
        world.follow()
        world.step()
    world.change(replicas=other)
    world.run(check=False)
    assert total(world.sets) == other


@given(st.lists(st.integers(1, 30), min_size=2, max_size=5), st.integers(0, 60), st.integers(0, 5))
def test_proportions_add_up(sizes: list[int], count: int, surge: int) -> None:
    before = sum(sizes)
    d = deployment(count, surge=surge, unavailable=1)
    sets = [
        {
            "metadata": {"name": f"s{i}", "creationTimestamp": str(i), "annotations": {annotate.MAX: str(before)}},
            "spec": {"replicas": n},
        }
        for i, n in enumerate(sizes)
    ]
    out = proportional(d, sets)
    assert min(out.values()) >= 0
    wanted = count + surge if count else 0
    # What rounding leaves over is the first set's to lose, and no set has fewer than none, as upstream.
    assert sum(out.values()) == wanted or (sum(out.values()) > wanted and min(out.values()) == 0)


def test_equal_sets_grow_newest_first() -> None:
    d = deployment(11, surge=0, unavailable=1)
    sets = [
        {"metadata": {"name": n, "creationTimestamp": n, "annotations": {annotate.MAX: "10"}}, "spec": {"replicas": 5}}
        for n in ("old", "ounger")
    ]
    assert proportional(d, sets) == {"ounger": 5 + 1, "old": 5}


def test_templates_are_the_same_whatever_says_nothing() -> None:
    left, right = template(), template()
    right["metadata"] |= {"creationTimestamp": None, "annotations": {}}
    right["metadata"]["labels"]["pod-template-hash"] = "x"
    right["spec"] |= {"hostNetwork": False, "nodeSelector": {}, "volumes": []}
    right["spec"]["containers"][0]["resources"] = {}
    assert same_template(left, right)
    assert template_hash(left, None) == template_hash(right, None)
    assert template_hash(left, None) != template_hash(left, 0) != template_hash(left, 1)
    changes: tuple[Object, ...] = (
        {"securityContext": {}},
        {"volumes": [{"name": "v", "emptyDir": {}}]},
        {"automountToken": False},
    )
    for change in changes:
        other = template()
        other["spec"] |= change
        assert not same_template(left, other)


def test_history_drops_its_beginning() -> None:
    d = deployment()
    long = ",".join(str(n) for n in range(1000, 1400))
    notes = annotate.for_new_set(d, {annotate.REVISION: "1400", annotate.HISTORY: long}, 1400)
    assert notes[annotate.REVISION] == "1401"
    assert len(notes[annotate.HISTORY]) <= 2000
    assert notes[annotate.HISTORY].endswith(",1399,1400")
    assert annotate.for_new_set(d, {annotate.REVISION: "5"}, 3) == {annotate.REVISION: "5"}


def test_annotations_travel_with_a_rollback_but_for_those_of_bookkeeping() -> None:
    d = deployment()
    d["metadata"]["annotations"] = {"mine": "new", annotate.REVISION: "2", annotate.ROLLBACK: "1"}
    old = {"metadata": {"annotations": {"mine": "old", annotate.REVISION: "1", annotate.DESIRED: "3"}}}
    assert annotate.after_rollback(d, old) == {"mine": "old", annotate.REVISION: "2"}


@pytest.mark.parametrize(
    ("surge", "unavailable", "count", "numbers"),
    [
        ("25%", "25%", 10, (3, 2)),
        ("0%", "10%", 5, (0, 1)),
        (0, "100%", 4, (0, 4)),
        (1, 9, 4, (1, 4)),
        (1, 1, 0, (1, 0)),
    ],
)
def test_amounts(surge: Any, unavailable: Any, count: int, numbers: tuple[int, int]) -> None:
    d = deployment(count, surge=surge, unavailable=unavailable)
    assert (max_surge(d), max_unavailable(d)) == numbers

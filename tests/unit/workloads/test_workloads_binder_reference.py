"""The binder's vectors against a reference that asks every node about every pod, one at a time."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from glebe.kube.objects import Object
from glebe.kube.selectors import LabelSelector
from glebe.workloads.binder.choose import choose
from glebe.workloads.binder.filters import diagnose, feasible
from glebe.workloads.binder.fleet import Fleet
from glebe.workloads.binder.needs import Needs
from glebe.workloads.binder.preempt import preempt

ZONE, HOST = "zone", "kubernetes.io/hostname"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
READY = [{"type": "Ready", "status": "True"}]
SPACES = {"n": {"team": "a"}, "m": {"team": "b"}}


def a_node(rng: random.Random, number: int) -> Object:
    labels = {HOST: f"n{number}"}
    if rng.random() < 0.85:
        labels[ZONE] = rng.choice("abc")
    taints = [{"key": "t", "effect": rng.choice(["NoSchedule", "PreferNoSchedule"])}] if rng.random() < 0.2 else []
    return {
        "metadata": {"name": f"n{number}", "uid": f"n{number}", "labels": labels},
        "spec": {"taints": taints, "unschedulable": rng.random() < 0.1},
        "status": {"conditions": READY, "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "5"}},
    }


def a_selector(rng: random.Random) -> Object:
    return rng.choice(
        [{"matchLabels": {"app": rng.choice("xy")}}, {}, {"matchExpressions": [{"key": "app", "operator": "Exists"}]}]
    )


def a_term(rng: random.Random) -> Object:
    term: Object = {"labelSelector": a_selector(rng), "topologyKey": rng.choice([ZONE, HOST])}
    match rng.randrange(4):
        case 0:
            term["namespaces"] = ["m"]
        case 1:
            term["namespaceSelector"] = rng.choice([{}, {"matchLabels": {"team": "a"}}])
        case 2:
            term["matchLabelKeys"] = ["rev"]
    return term


def a_pod(rng: random.Random, name: str) -> Object:
    affinity: Object = {}
    for kind in ("podAffinity", "podAntiAffinity"):
        if rng.random() < 0.3:
            affinity[kind] = {
                "requiredDuringSchedulingIgnoredDuringExecution": [a_term(rng) for _ in range(rng.choice([1, 1, 2]))]
            }
        if rng.random() < 0.2:
            weighted = [{"weight": rng.randint(1, 9), "podAffinityTerm": a_term(rng)}]
            affinity.setdefault(kind, {})["preferredDuringSchedulingIgnoredDuringExecution"] = weighted
    if rng.random() < 0.2:
        expression = {"key": ZONE, "operator": "In", "values": ["a", "b"]}
        affinity["nodeAffinity"] = {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [expression]}]
            }
        }
    spread = [
        {
            "maxSkew": rng.randint(1, 2),
            "topologyKey": rng.choice([ZONE, HOST]),
            "whenUnsatisfiable": rng.choice(["DoNotSchedule", "DoNotSchedule", "ScheduleAnyway"]),
            "labelSelector": a_selector(rng),
            **({"minDomains": rng.randint(1, 4)} if rng.random() < 0.3 else {}),
            **({"nodeAffinityPolicy": "Ignore"} if rng.random() < 0.3 else {}),
            **({"nodeTaintsPolicy": "Honor"} if rng.random() < 0.3 else {}),
        }
        for _ in range(rng.choice([0, 0, 0, 1, 2]))
    ]
    ports = [{"hostPort": 80, **({"hostIP": rng.choice(["1.1.1.1", "0.0.0.0"])} if rng.random() < 0.5 else {})}]
    requests = {"cpu": rng.choice(["1", "2"])}
    container = {"name": "c", "resources": {"requests": requests}, "ports": ports if rng.random() < 0.2 else []}
    labels = {"app": rng.choice("xy"), "rev": rng.choice("12")}
    return {
        "metadata": {"name": name, "uid": name, "namespace": rng.choice("nnm"), "labels": labels},
        "spec": {
            "containers": [container],
            "affinity": affinity,
            "topologySpreadConstraints": spread,
            "priority": rng.randint(0, 2),
        },
        "status": {},
    }


# --- the reference: nodes and (pod, node) pairs, nothing remembered


class Reference:
    def __init__(self, nodes: list[Object], placed: list[tuple[Object, Object, bool]]) -> None:
        self.nodes, self.placed = nodes, placed

    def reason(self, pod: Object, node: Object) -> str | None:
        spec, meta = node["spec"], node["metadata"]
        if spec["unschedulable"]:
            return "node(s) were unschedulable"
        if not self.calm(node):
            return "node(s) had untolerated taint(s)"
        if not self.affine(pod, node):
            return "node(s) didn't match Pod's node affinity/selector"
        here = [p for p, n, _ in self.placed if n is node]
        if any(conflict(a, b) for p in here for a in ports(p) for b in ports(pod)):
            return "node(s) didn't have free ports for the requested pod ports"
        if len(here) + 1 > 5:
            return "Too many pods"
        if sum(cpu(p) for p in here) + cpu(pod) > 4:
            return "Insufficient cpu"
        return self.spread(pod, node) or self.company(pod, meta["labels"])

    def calm(self, node: Object) -> bool:
        return not any(t["effect"] == "NoSchedule" for t in node["spec"]["taints"])

    def affine(self, pod: Object, node: Object) -> bool:
        return "nodeAffinity" not in pod["spec"]["affinity"] or node["metadata"]["labels"].get(ZONE) in ("a", "b")

    def spread(self, pod: Object, node: Object) -> str | None:
        hard = [c for c in pod["spec"]["topologySpreadConstraints"] if c["whenUnsatisfiable"] == "DoNotSchedule"]
        for c in hard:
            key = c["topologyKey"]
            value = node["metadata"]["labels"].get(key)
            if value is None:
                return "node(s) didn't match pod topology spread constraints (missing required label)"
            selector = LabelSelector.from_object(c["labelSelector"])
            totals: dict[str, int] = {}
            for other in self.nodes:
                labels = other["metadata"]["labels"]
                if any(d["topologyKey"] not in labels for d in hard):
                    continue
                if c.get("nodeAffinityPolicy", "Honor") == "Honor" and not self.affine(pod, other):
                    continue
                if c.get("nodeTaintsPolicy", "Ignore") == "Honor" and not self.calm(other):
                    continue
                totals.setdefault(labels[key], 0)
                for p, n, leaving in self.placed:
                    same = n is other and not leaving and p["metadata"]["namespace"] == pod["metadata"]["namespace"]
                    totals[labels[key]] += same and not selector.empty and selector.matches(p["metadata"]["labels"])
            least = min(totals.values(), default=10**9)
            if len(totals) < c.get("minDomains", 1):
                least = 0
            if totals.get(value, 0) + selector.matches(pod["metadata"]["labels"]) - least > c["maxSkew"]:
                return "node(s) didn't match pod topology spread constraints"
        return None

    def company(self, pod: Object, labels: Object) -> str | None:
        near, apart = required(pod, "podAffinity"), required(pod, "podAntiAffinity")
        matching = [n for p, n, _ in self.placed if near and all(meant(t, pod, p) for t in near)]

        def has(nodes: list[Object], key: str) -> bool:
            return any(n["metadata"]["labels"].get(key) == labels[key] for n in nodes)

        if any(t["topologyKey"] not in labels for t in near):
            return "node(s) didn't match pod affinity rules"
        if not all(has(matching, t["topologyKey"]) for t in near):
            anywhere = any(t["topologyKey"] in n["metadata"]["labels"] for n in matching for t in near)
            if anywhere or not all(meant(t, pod, pod) for t in near):
                return "node(s) didn't match pod affinity rules"
        for t in apart:
            if t["topologyKey"] in labels and has([n for p, n, _ in self.placed if meant(t, pod, p)], t["topologyKey"]):
                return "node(s) didn't match pod anti-affinity rules"
        for p, n, _ in self.placed:
            for t in required(p, "podAntiAffinity"):
                if meant(t, p, pod) and t["topologyKey"] in labels and has([n], t["topologyKey"]):
                    return "node(s) didn't satisfy existing pods anti-affinity rules"
        return None


def required(pod: Object, kind: str) -> list[Any]:
    return pod["spec"]["affinity"].get(kind, {}).get(REQUIRED, [])


def meant(term: Object, owner: Object, pod: Object) -> bool:
    space = pod["metadata"]["namespace"]
    if "namespaces" in term:
        inside = space in term["namespaces"]
    elif "namespaceSelector" in term:
        inside = LabelSelector.from_object(term["namespaceSelector"]).matches(SPACES[space])
    else:
        inside = space == owner["metadata"]["namespace"]
    labels = pod["metadata"]["labels"]
    same = all(labels.get(k) == owner["metadata"]["labels"][k] for k in term.get("matchLabelKeys", ()))
    return inside and same and LabelSelector.from_object(term["labelSelector"]).matches(labels)


def ports(pod: Object) -> list[Object]:
    return pod["spec"]["containers"][0]["ports"]


def conflict(a: Object, b: Object) -> bool:
    one, two = (p.get("hostIP", "0.0.0.0") for p in (a, b))
    return one == two or "0.0.0.0" in (one, two)


def cpu(pod: Object) -> int:
    return int(pod["spec"]["containers"][0]["resources"]["requests"]["cpu"])


def a_cluster(rng: random.Random) -> tuple[Fleet, list[Object], list[tuple[Object, Object, bool]]]:
    """Pods come and go, so that remembered answers have to follow."""
    nodes = [a_node(rng, i) for i in range(rng.randint(1, 7))]
    fleet = Fleet()
    fleet.crowd.set_namespaces(SPACES)
    for node in nodes:
        fleet.set_node(node)
    placed: dict[str, tuple[Object, Object, bool]] = {}
    for number in range(rng.randint(0, 25)):
        pod = a_pod(rng, f"p{number}")
        if placed and rng.random() < 0.25:
            gone = rng.choice(sorted(placed))
            fleet.release(gone)
            del placed[gone]
        if rng.random() < 0.5:
            name = choose(fleet, Needs.of(pod)).node  # also asks questions whose answers are kept
        else:
            name = rng.choice(nodes)["metadata"]["name"]
        if name is not None:
            node = next(n for n in nodes if n["metadata"]["name"] == name)
            placed[pod["metadata"]["uid"]] = (pod, node, leaving := rng.random() < 0.1)
            fleet.hold(pod["metadata"]["uid"], name, Needs.of(pod), deleting=leaving)
    return fleet, nodes, list(placed.values())


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9))
def test_every_node_is_judged_as_the_reference_judges_it(seed: int) -> None:
    rng = random.Random(seed)
    fleet, nodes, placed = a_cluster(rng)
    reference = Reference(nodes, placed)
    for number in range(4):
        pod = a_pod(rng, f"new{number}")
        needs = Needs.of(pod)
        fleet.refresh()
        expected = {n["metadata"]["name"]: reference.reason(pod, n) for n in nodes}
        found = feasible(fleet, needs, {})
        assert {n: bool(found[row]) for row, n in enumerate(fleet.names)} == {n: r is None for n, r in expected.items()}
        diagnosis = diagnose(fleet, needs, {})
        assert list(diagnosis.left) == list(found)
        reasons = {r for r in expected.values() if r}
        # several amounts may be lacking at once; the reference names the first
        assert reasons <= set(diagnosis.reasons)
        chosen = choose(fleet, needs).node
        assert (chosen is None) == (not found.any())
        assert chosen is None or expected[chosen] is None


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9))
def test_victims_are_of_lower_priority_enough_and_none_too_many(seed: int) -> None:
    rng = random.Random(seed)
    fleet, nodes, placed = a_cluster(rng)
    pod = a_pod(rng, "new")
    pod["spec"]["priority"] = 2
    needs = Needs.of(pod)
    if choose(fleet, needs).node is not None:
        return
    by_uid = {p["metadata"]["uid"]: p for p, _, _ in placed}
    before = fleet.used.copy()
    outcome = preempt(fleet, needs, "new", diagnose(fleet, needs, {}), by_uid.get, [])
    assert (fleet.used == before).all()

    def reason(without: set[str], node: Object) -> str | None:
        return Reference(nodes, [e for e in placed if e[0]["metadata"]["uid"] not in without]).reason(pod, node)

    lower = {
        n["metadata"]["name"]: {p["metadata"]["uid"] for p, on, _ in placed if on is n and p["spec"]["priority"] < 2}
        for n in nodes
    }
    if outcome.victims is None:
        assert outcome.text.startswith(f"preemption: 0/{len(nodes)} nodes are available")
        near = "node(s) didn't match pod affinity rules"
        for n in nodes:
            helped = lower[n["metadata"]["name"]] and reason(lower[n["metadata"]["name"]], n) is None
            assert not helped or reason(set(), n) == near  # upstream: never helped by removing
        return
    node = next(n for n in nodes if n["metadata"]["name"] == outcome.victims.node)
    gone = {p["metadata"]["uid"] for p in outcome.victims.pods}
    assert gone
    assert gone <= lower[node["metadata"]["name"]]
    assert reason(gone, node) is None
    if not needs.relations.near and not needs.relations.spread:  # with these, more pods can help
        assert all(reason(gone - {uid}, node) is not None for uid in gone)

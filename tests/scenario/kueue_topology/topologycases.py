"""Kueue's topology cases (plain data) in the words of the core, read by the queue's own conversion of API objects."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from glebe.kube.quantity import to_int
from glebe.queueing.jobs.lonepods import owned_by_pod
from glebe.queueing.picture import fleetobjects, podsets, topology
from glebe.queueing.picture.nodeuse import NodeUse
from glebe.scheduling.cycle.secondpass import second_pass
from glebe.scheduling.decide import decide_one_cycle
from glebe.scheduling.model import (
    Admitted,
    ClusterQueue,
    FlavorQuotas,
    Gates,
    Node,
    Outcome,
    Pending,
    PodSet,
    PodSetAssignment,
    Quota,
    ResourceGroup,
    RunTime,
    Snapshot,
    TopologyMode,
    TopologyRequest,
)
from glebe.scheduling.placement.placement import assignments, find
from glebe.scheduling.world import Holding, World

Case = dict[str, Any]
FAMILIES = ("TestFindTopologyAssignments", "TestFindTopologyAssignmentsMultiLayerReplacement")
HOST = "kubernetes.io/hostname"
Domains = Counter[tuple[str, ...]]
GATES = {
    "ElasticJobsViaWorkloadSlicesWithTAS": "elastic_with_topology",
    "SkipReassignmentForPodOwnedWorkloads": "skip_reassignment_of_pods",
    "TASBalancedPlacement": "balanced_placement",
    "TASRespectNodeAffinityPreferred": "preferred_affinity",
}


def load(data: Path) -> list[Case]:
    """All cases of both families."""
    cases: list[Case] = []
    for family in FAMILIES:
        with gzip.open(data / "kueue-scenarios" / f"{family}.jsonl.gz", "rt") as lines:
            cases += [json.loads(line) for line in lines]
    return cases


def outcome(case: Case) -> dict[str, Domains | None]:
    """What the core does: by pod set, pods by domain; ``None`` where there is no placement."""
    snapshot = _snapshot(case)
    if case["input"].get("workload"):
        return _replaced(case, snapshot)
    (pending,) = snapshot.pending
    if any(p.get("previousAssignment") for p in case["input"]["podSets"]):
        return _grown(case, snapshot)
    placed: tuple[PodSetAssignment, ...] = ()
    for first in range(len(pending.pod_sets), 0, -1):  # a case says how far the pod sets fit, one after the other
        some = replace(snapshot, pending=(replace(pending, pod_sets=pending.pod_sets[:first]),))
        (decision,) = decide_one_cycle(some, 0.0)
        if decision.outcome is Outcome.ADMIT:
            placed = decision.assignments
            break
    return _shown(case, snapshot, placed)


def _shown(case: Case, snapshot: Snapshot, placed: tuple[PodSetAssignment, ...]) -> dict[str, Domains | None]:
    nodes = {n.name: n for n in snapshot.nodes}
    return dict.fromkeys(case["expect"]["podSets"]) | {
        a.pod_set: _domains(a.nodes, expected(case)[a.pod_set][0] or [HOST], nodes) for a in placed
    }


def expected(case: Case) -> dict[str, tuple[list[str] | None, Domains | None]]:
    """By pod set: levels and pods by domain, or ``None`` twice."""
    out: dict[str, tuple[list[str] | None, Domains | None]] = {}
    for name, want in case["expect"]["podSets"].items():
        assignment = want["assignment"]
        domains: Domains | None = None
        if assignment:
            domains = Counter()
            for d in assignment["domains"]:
                domains[tuple(d["values"])] += d["count"]
        out[name] = (assignment["levels"] if assignment else None, domains)
    return out


def _domains(placed: tuple[tuple[str, int], ...], levels: list[str], nodes: Mapping[str, Node]) -> Domains:
    found: Domains = Counter()
    for name, pods in placed:
        found[tuple(nodes[name].labels[level] for level in levels)] += pods
    return found


def _objects(case: Case, kind: str) -> list[dict[str, Any]]:
    return [*case["base"].get(kind, []), *case["input"].get(kind, [])]


def _snapshot(case: Case) -> Snapshot:
    use = NodeUse()
    for pod in _objects(case, "pods"):
        use.pod_changed(None, pod)
    topologies = tuple(fleetobjects.topology_levels(t) for t in _objects(case, "topologies"))
    nodes = tuple(_node(n, case, use, topologies[0].levels) for n in _objects(case, "nodes"))
    pod_sets = tuple(pod_set(p) for p in case["input"]["podSets"])
    resources = tuple(sorted({"pods", *(r for p in pod_sets for r in p.requests)}))
    group = ResourceGroup(resources, (FlavorQuotas("tas", {r: Quota(10**15) for r in resources}),))
    return Snapshot(
        nodes=nodes,
        topologies=topologies,
        flavors=tuple(fleetobjects.flavor(f) for f in _objects(case, "resourceFlavors")),
        queues=(ClusterQueue("q", (group,)),),
        pending=(Pending("w", "q", 0, 0.0, pod_sets, RunTime(1, 1)),),
        gates=Gates(**{GATES[name]: on for name, on in case["featureGates"].items() if name in GATES}),
    )


def _node(obj: dict[str, Any], case: Case, use: NodeUse, levels: tuple[str, ...]) -> Node:
    """A node beside whose pods the usage of flavors counts as well."""
    labels = obj["metadata"].get("labels", {})
    other = Counter(use.other_use(obj["metadata"]["name"]))
    for held in (*(case["input"].get("ownUsage") or ()), *(case["input"].get("otherFlavorUsage") or ())):
        if list(held["values"]) == [labels.get(level) for level in levels[-len(held["values"]) :]]:
            other["pods"] += held["count"]
            for resource, amount in held["requests"].items():
                other[resource] += to_int(amount, resource) * held["count"]
    return fleetobjects.node(obj, other)


def pod_set(item: dict[str, Any]) -> PodSet:
    """A pod set of a case as the queue would read it from a Workload."""
    request = dict(item.get("topologyRequest") or {"unconstrained": True})
    if group := item.get("podSetGroupName"):
        request["podSetGroupName"] = group
    spec: dict[str, Any] = {"containers": [{"name": "c", "resources": {"requests": item["requests"]}}]}
    if item.get("nodeAffinity"):
        spec["affinity"] = {"nodeAffinity": item["nodeAffinity"]}
    for field in ("nodeSelector", "tolerations"):
        if item.get(field):
            spec[field] = item[field]
    workload = {
        "spec": {
            "podSets": [
                {
                    "name": item["name"],
                    "count": item["count"],
                    "template": {"spec": spec},
                    "topologyRequest": request,
                }
            ]
        }
    }
    (found,) = podsets.pod_sets(workload)
    return found if found.topology else _anywhere(found)


def _anywhere(found: PodSet) -> PodSet:
    return replace(found, topology=TopologyRequest(TopologyMode.UNCONSTRAINED))


def _grown(case: Case, snapshot: Snapshot) -> dict[str, Domains | None]:
    """A slice of an elastic workload replaces another, whose own usage the case leaves out."""
    world = World(snapshot)
    (pending,) = snapshot.pending
    plan = world.plan(snapshot.queues[0], pending.pod_sets)
    state, _ = world.state(())
    hosts = {n.labels.get(HOST, n.name): n.name for n in snapshot.nodes}
    previous = {
        p["name"]: tuple(
            (world.fleet.index.get(hosts.get(values[-1], ""), -1), pods)
            for values, pods in topology.domains(p["previousAssignment"])
        )
        for p in case["input"]["podSets"]
        if p.get("previousAssignment")
    }
    choice = tuple(option for this in plan.sets for option in this.options)
    fit = find(plan, state, world, choice, previous)
    placed = assignments(plan, fit, world.fleet) if fit is not None else ()
    return _shown(case, snapshot, placed)


def _replaced(case: Case, snapshot: Snapshot) -> dict[str, Domains | None]:
    """A node failed under a gang, whose own usage the case leaves out."""
    (pending,) = snapshot.pending
    given = case["input"]["workload"]
    hosts = {n.labels.get(HOST, n.name): n.name for n in snapshot.nodes}
    held = []
    for assigned in given["status"]["admission"]["podSetAssignments"]:
        placed = tuple((hosts.get(h, h), n) for h, n in topology.decode(assigned["topologyAssignment"]))
        held.append(PodSetAssignment(assigned["name"], assigned["count"], {}, {}, placed))
    running = Admitted(
        "w",
        "q",
        0,
        0.0,
        pending.pod_sets,
        tuple(
            replace(a, flavors=dict.fromkeys(("pods", *s.requests), "tas"))
            for a, s in zip(held, pending.pod_sets, strict=True)
        ),
        RunTime(1, 1),
        unhealthy=tuple(hosts.get(n["name"], n["name"]) for n in given["status"]["unhealthyNodes"]),
        second_pass=True,
        owned_by_pod=owned_by_pod(given),
    )
    world = World(replace(snapshot, admitted=(running,), pending=()))
    state, _ = world.state(())
    (decision,) = second_pass(world, state, {"w": Holding(-1, (), ())})
    return _shown(case, snapshot, decision.assignments if decision.outcome is Outcome.ADMIT else ())

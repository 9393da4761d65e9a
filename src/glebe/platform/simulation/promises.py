"""What running workloads were promised of the nodes: never more than there is, also while failed nodes are replaced."""

from __future__ import annotations

from fractions import Fraction

from glebe.kube.objects import Object
from glebe.kube.quantity import parse
from glebe.platform.simulation import world as w
from glebe.platform.simulation.world import World
from glebe.queueing.picture import topology


def by_node(workload: Object | None) -> dict[str, dict[str, Fraction]]:
    """Resources by node, as the workload was given them."""
    found: dict[str, dict[str, Fraction]] = {}
    if workload is None or not w.holds_quota(workload):
        return found
    templates = {p.get("name", "main"): p["template"] for p in workload["spec"]["podSets"]}
    for assigned in workload["status"]["admission"]["podSetAssignments"]:
        per_pod = w.requests(templates[assigned["name"]])
        for node, pods in topology.decode(assigned.get("topologyAssignment")):
            total = found.setdefault(node, {})
            for resource, amount in per_pod.items():
                total[resource] = total.get(resource, Fraction(0)) + amount * pods
    return found


def no_node_is_promised_twice(world: World, old: Object | None, new: Object | None) -> str:
    """The nodes that a write gives to a workload have room for it beside all others that were given them."""
    before, now = by_node(old), by_node(new)
    given = [node for node, amounts in now.items() if amounts != before.get(node)]
    if not given:
        return ""
    promised = [by_node(workload) for workload in world.all("workloads.kueue.x-k8s.io")]
    for name in given:
        node = world.get("nodes", "", name)
        if node is None:
            continue  # it has just gone: others will replace it
        allocatable = node["status"]["allocatable"]
        total: dict[str, Fraction] = {}
        for nodes in promised:
            for resource, amount in nodes.get(name, {}).items():
                total[resource] = total.get(resource, Fraction(0)) + amount
        for resource, amount in sorted(total.items()):
            if amount > Fraction(parse(allocatable.get(resource, "0"))):
                return f"node {name}: {resource} {amount} promised, {allocatable.get(resource, 0)} there"
    return ""

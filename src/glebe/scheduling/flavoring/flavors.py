"""Which flavors a pod set may use, in the order in which they are tried, and what each choice would take.

An ``Option`` is one complete choice for one pod set: a flavor per resource group, the quota cells it needs, and where
its pods could be placed. Options come in the order of Kueue's search: first flavor of the first group first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice, product

from glebe.scheduling.flavoring.affinity import chosen_by
from glebe.scheduling.model import GPU, ClusterQueue, Flavor, PodSet, QuotaCheck, ResourceGroup, TopologyMode
from glebe.scheduling.placement.capacity import Shape
from glebe.scheduling.placement.fleet import PODS, Fleet, PodKind, merged_labels, tolerated
from glebe.scheduling.placement.topology import Ask
from glebe.scheduling.quotas.quota import Need, QuotaTree

MAX_OPTIONS = 64  # combinations of flavors over several resource groups that are looked at per pod set


@dataclass(frozen=True, slots=True)
class Option:
    """``shape``: ``None`` if a requested resource exists on no node. ``ask``: ``None`` if the core places no pods.

    ``need`` starts with the scarcest kind of resource, GPUs, so that a refusal shows early. ``slot`` numbers the pair
    of ``kind`` and ``shape`` within the fleet, ``ask_number`` these with ``ask`` and the pod set's count.
    """

    flavors: Mapping[str, str]  # by resource
    need: Need
    kind: PodKind
    shape: Shape | None
    ask: Ask | None
    slot: int
    ask_number: int
    delayed: bool = False  # its nodes are provisioned after it got its quota, and its pods placed then


@dataclass(frozen=True, slots=True)
class SetPlan:
    """One pod set with its options; ``refused`` says why other flavors cannot be used."""

    pod_set: PodSet
    usage: Mapping[str, int]  # totals over the pods, for the resources that have quota
    options: tuple[Option, ...]
    refused: tuple[str, ...]
    uncovered: tuple[str, ...] = ()  # resources that it asks for and that the queue does not list


def plan_pod_set(
    pod_set: PodSet,
    queue: ClusterQueue,
    flavors: Mapping[str, Flavor],
    tree: QuotaTree,
    fleet: Fleet,
    quota_check: QuotaCheck = QuotaCheck.BLOCK_UNDECLARED,
) -> SetPlan:
    """All options of a pod set in a queue."""
    charged = pod_set.requests if pod_set.charged is None else pod_set.charged
    totals = {r: amount * pod_set.count for r, amount in sorted(charged.items())}
    if any(PODS in g.covered for g in queue.resource_groups):
        totals[PODS] = pod_set.count
    covered = {r for g in queue.resource_groups for r in g.covered}
    uncovered = tuple(r for r, n in totals.items() if r not in covered and n > 0)
    refused: list[str] = []
    totals = {r: n for r, n in totals.items() if r in covered}
    if uncovered and quota_check is QuotaCheck.BLOCK_UNDECLARED:
        refused = [f"queue {queue.name} has no quota for {r}" for r in uncovered]
        return SetPlan(pod_set, totals, (), tuple(refused), uncovered)
    only_placed = all(
        fq.flavor in flavors and flavors[fq.flavor].topology for g in queue.resource_groups for fq in g.flavors
    )
    choices: list[list[tuple[tuple[str, ...], Flavor]]] = []
    for group in queue.resource_groups:
        wanted = tuple(r for r in group.covered if r in totals)
        if not wanted:
            continue
        possible, why = _candidates(pod_set, group, flavors, fleet, only_placed)
        refused += why
        choices.append([(wanted, flavor) for flavor in possible])
    options = []
    for combination in islice(product(*choices), MAX_OPTIONS):
        option = _option(pod_set, totals, combination, tree, fleet, refused)
        if option is not None:
            options.append(option)
    return SetPlan(pod_set, totals, tuple(options), tuple(refused), uncovered)


def _candidates(
    pod_set: PodSet, group: ResourceGroup, flavors: Mapping[str, Flavor], fleet: Fleet, only_placed: bool
) -> tuple[list[Flavor], list[str]]:
    known = [flavors[fq.flavor] for fq in group.flavors if fq.flavor in flavors]
    possible, refused = [], []
    for flavor in known:
        why = refusal(pod_set, flavor, fleet, only_placed, group.covered)
        if why:
            refused.append(f"flavor {flavor.name}: {why}")
        else:
            possible.append(flavor)
    return possible, refused


def refusal(pod_set: PodSet, flavor: Flavor, fleet: Fleet, only_placed: bool, covered: tuple[str, ...]) -> str:
    """Why the pods cannot use a flavor, ``""`` if they can. ``covered``: the resources of the flavor's group."""
    if not tolerated(flavor.node_taints, pod_set.tolerations + flavor.tolerations):
        taints = ", ".join(f"{t.key}={t.value}:{t.effect}" for t in flavor.node_taints)
        return f"taint {taints} is not tolerated"
    for key, value in sorted(pod_set.node_selector.items()):
        if flavor.node_labels.get(key, value) != value:  # labels that the flavor does not set are the nodes' affair
            return f"node selector {key}={value} does not match"
    if pod_set.affinity and not chosen_by(pod_set.affinity, flavor.node_labels):
        return "node affinity does not match"
    if flavor.topology is None:
        # Resources that only quota knows (by transformations) may come from a flavor without topology.
        places = pod_set.topology is not None and any(r in pod_set.requests for r in covered)
        return "it has no topology and the pods ask for one" if places else ""
    if pod_set.topology is None:
        return "" if only_placed else "it places by topology and the pods ask for none"
    if pod_set.topology.mode is TopologyMode.UNCONSTRAINED:
        return ""
    topology = fleet.topologies.get(flavor.topology)
    levels = topology.levels if topology else ()
    if pod_set.topology.level not in levels:
        return f"topology {flavor.topology} has no level {pod_set.topology.level} (it has {', '.join(levels)})"
    return ""


def _option(
    pod_set: PodSet,
    totals: Mapping[str, int],
    combination: tuple[tuple[tuple[str, ...], Flavor], ...],
    tree: QuotaTree,
    fleet: Fleet,
    refused: list[str],
) -> Option | None:
    chosen = {r: flavor.name for wanted, flavor in combination for r in wanted}
    used = tuple({flavor.name: flavor for _, flavor in combination}.values())
    labels = merged_labels(used, pod_set.node_selector)
    if labels is None:
        refused.append(f"no node can carry the labels of {' and '.join(sorted(f.name for f in used))} together")
        return None
    topologies = [f.topology for f in used if f.topology]
    if len(set(topologies)) > 1:
        refused.append(f"flavors {' and '.join(sorted(f.name for f in used))} place by different topologies")
        return None
    topology = topologies[0] if topologies else None
    tolerations = pod_set.tolerations + tuple(t for f in used for t in f.tolerations)
    kind = PodKind(labels, tolerations, topology)
    scarce_first = sorted(totals.items(), key=lambda item: item[0] != GPU)
    cells = [(tree.cells.get((chosen[r], r)), r, n) for r, n in scarce_first if n > 0]
    need = tuple((cell, n) for cell, _, n in cells if cell is not None)
    if len(need) < len(cells):
        without = next(r for cell, r, _ in cells if cell is None)
        refused.append(f"flavor {chosen[without]} has no quota for {without}")
        return None
    shape = fleet.vector(pod_set.requests)
    ask = _ask(pod_set, topology, fleet)
    slot = fleet.number((kind, shape))
    return Option(chosen, need, kind, shape, ask, slot, fleet.number((slot, ask, pod_set.count)))


def _ask(pod_set: PodSet, topology: str | None, fleet: Fleet) -> Ask | None:
    if topology is None or topology not in fleet.topologies:
        return None
    levels = fleet.topologies[topology].levels
    request = pod_set.topology
    if request is None or request.mode is TopologyMode.UNCONSTRAINED or request.level not in levels:
        return Ask(len(levels) - 1, scattered=True)
    return Ask(levels.index(request.level), required=request.mode is TopologyMode.REQUIRED)

"""Second looks at running workloads: nodes for those whose placement was put off, other nodes for those that failed.

A workload that got its quota before its nodes existed (``delayedTopologyRequest``) is placed once they do. When nodes
of a running gang fail, other nodes take over their pods and everybody else stays. If none can, the workload is evicted
at once (gate TASFailedNodeReplacementFailFast) or waits for better times. Quota is not looked at: it is held already.
Source: KEP-2724. Not as in Kueue: any number of nodes that fail together is replaced, not only one.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import replace

from glebe.scheduling.flavoring.flavors import Option, SetPlan
from glebe.scheduling.model import Admitted, ClusterQueue, Decision, Outcome, PodSetAssignment, Reason
from glebe.scheduling.placement.capacity import Shape, Spot
from glebe.scheduling.placement.fleet import Fleet
from glebe.scheduling.placement.placing import place
from glebe.scheduling.placement.replacement import replacement
from glebe.scheduling.world import Holding, Plan, State, World

PENDING, READY = "Pending", "Ready"
Moved = dict[str, PodSetAssignment]  # by pod set


def second_pass(world: World, state: State, holdings: MutableMapping[str, Holding]) -> list[Decision]:
    """One decision per running workload that is looked at again; ``state`` and ``holdings`` change with them."""
    waiting = [a for a in world.snapshot.admitted if a.second_pass and not a.evicted]
    decisions = []
    for admitted in sorted(waiting, key=lambda a: (-a.priority, a.queued_at, a.key)):
        decision = _again(admitted, world, state)
        if decision.outcome is Outcome.ADMIT:
            state.release(holdings[admitted.key])
            changed = replace(admitted, assignments=decision.assignments)
            holdings[admitted.key] = world.holding(changed)
            state.hold(holdings[admitted.key])
        decisions.append(decision)
    return decisions


def _again(admitted: Admitted, world: World, state: State) -> Decision:
    queue = world.queues.get(admitted.queue)
    if queue is None:
        return _waits(admitted, f"its queue {admitted.queue} is gone")
    queue = replace(queue, delays_topology=())  # the nodes are there now
    if admitted.unhealthy:
        return _replaced(admitted, world.plan(queue, admitted.pod_sets), world, state)
    return _placed(admitted, queue, world, state)


def _waits(admitted: Admitted, why: str) -> Decision:
    return Decision(admitted.key, Outcome.WAIT, Reason.TOPOLOGY_PLACEMENT_FAILED, why)


def _admits(admitted: Admitted, moved: Moved, message: str) -> Decision:
    assignments = tuple(moved.get(a.pod_set, a) for a in admitted.assignments)
    return Decision(admitted.key, Outcome.ADMIT, Reason.ADMITTED, message, assignments=assignments)


def _placed(admitted: Admitted, queue: ClusterQueue, world: World, state: State) -> Decision:
    """Nodes for the pod sets whose placement was put off."""
    put_off = {a.pod_set: a for a in admitted.assignments if a.delayed == PENDING and not a.nodes}
    plan = world.plan(queue, tuple(s for s in admitted.pod_sets if s.name in put_off))
    choice = tuple(_option(s, put_off[s.pod_set.name]) for s in plan.sets)
    if None in choice:
        return _waits(admitted, "its flavors cannot be used any more")
    options = tuple(o for o in choice if o is not None)
    spots = place(plan, options, state, world)
    if spots is None:
        return _waits(admitted, "no nodes have room for its pods yet")
    moved = {
        s.pod_set.name: replace(put_off[s.pod_set.name], nodes=_named(where, world.fleet), delayed=READY)
        for s, where in zip(plan.sets, spots, strict=True)
    }
    return _admits(admitted, moved, "its pods have nodes now")


def _replaced(admitted: Admitted, plan: Plan, world: World, state: State) -> Decision:
    """Other nodes for the pods of failed ones, all of them or none."""
    admitted = replace(admitted, unhealthy=_with_those_gone(admitted, world.fleet))
    names = ", ".join(admitted.unhealthy)
    if admitted.owned_by_pod and world.snapshot.gates.skip_reassignment_of_pods:
        return _admits(admitted, {}, f"{names} failed; a single pod cannot move")
    moved: Moved = {}
    given: list[tuple[Shape, tuple[Spot, ...]]] = []
    for assignment in admitted.assignments:
        if not any(node in admitted.unhealthy for node, _ in assignment.nodes):
            continue
        found = _other_nodes(admitted, assignment, plan, world, state, given)
        if found is None:
            break
        moved[assignment.pod_set] = replace(assignment, nodes=found)
    else:
        _give(state, given)
        new = _new_nodes(admitted, moved)
        return _admits(admitted, moved, f"{names} failed; its pods go to {new}" if new else f"{names} is not used")
    _give(state, given)
    if world.snapshot.gates.fail_fast:
        message = f"Workload was evicted as there was no replacement for a failed node: {names}"
        return Decision(admitted.key, Outcome.EVICT, Reason.NODE_FAILURES, message)
    return _waits(admitted, f"{names} failed, and no other node can take over its pods yet")


def _with_those_gone(admitted: Admitted, fleet: Fleet) -> tuple[str, ...]:
    """The failed nodes that are named, and those that are gone and will be named next."""
    used = (node for a in admitted.assignments for node, _ in a.nodes)
    gone = (node for node in used if node not in fleet.index)
    return tuple(dict.fromkeys((*admitted.unhealthy, *gone)))


def _give(state: State, given: list[tuple[Shape, tuple[Spot, ...]]]) -> None:
    for shape, spots in reversed(given):
        state.nodes.give(shape, spots)


def _new_nodes(admitted: Admitted, moved: Moved) -> str:
    before = {node for a in admitted.assignments for node, _ in a.nodes}
    names = [node for a in moved.values() for node, _ in a.nodes if node not in before]
    more = [node for a in moved.values() for node, _ in a.nodes if node in before]
    return ", ".join(dict.fromkeys(names)) or ("others of its nodes" if more else "")


def _other_nodes(
    admitted: Admitted,
    assignment: PodSetAssignment,
    plan: Plan,
    world: World,
    state: State,
    given: list[tuple[Shape, tuple[Spot, ...]]],
) -> tuple[tuple[str, int], ...] | None:
    """The pod set's nodes afterwards; the new ones are taken from ``state`` and noted in ``given``."""
    this = next((s for s in plan.sets if s.pod_set.name == assignment.pod_set), None)
    option = _option(this, assignment) if this is not None else None
    if option is None or option.ask is None or option.shape is None:
        return None
    nodes = state.nodes
    index = _Numbers(world.fleet, assignment)
    failed = tuple(index.number[name] for name in admitted.unhealthy if name in index.number)
    table = nodes.table(option.slot, option.kind, option.shape)
    now = replacement(table, option.ask, index.held, *failed)
    if now is None:
        return None
    taken = _difference(index.held, now)
    nodes.take(option.shape, taken)
    given.append((option.shape, taken))
    return tuple((index.name(node), pods) for node, pods in now)


class _Numbers:
    """Numbers for an assignment's nodes: the fleet's, and numbers beyond it for nodes that are gone."""

    def __init__(self, fleet: Fleet, assignment: PodSetAssignment) -> None:
        self._fleet = fleet
        self._gone: list[str] = []
        self.number: dict[str, int] = {}
        for node, _ in assignment.nodes:
            known = fleet.index.get(node)
            if known is None and node not in self.number:
                known = len(fleet.nodes) + len(self._gone)
                self._gone.append(node)
            if known is not None:
                self.number[node] = known
        self.held = tuple((self.number[node], pods) for node, pods in assignment.nodes)

    def name(self, node: int) -> str:
        nodes = self._fleet.nodes
        return nodes[node].name if node < len(nodes) else self._gone[node - len(nodes)]


def _difference(before: tuple[Spot, ...], after: tuple[Spot, ...]) -> tuple[Spot, ...]:
    """What ``after`` has more on any node."""
    more: dict[int, int] = {}
    for node, pods in after:
        more[node] = more.get(node, 0) + pods
    for node, pods in before:
        more[node] = more.get(node, 0) - pods
    return tuple((node, pods) for node, pods in more.items() if pods > 0)


def _option(this: SetPlan, assignment: PodSetAssignment) -> Option | None:
    """The option with the flavors that were assigned."""
    wanted = assignment.flavors
    return next(
        (o for o in this.options if all(wanted.get(resource) == flavor for resource, flavor in o.flavors.items())),
        None,
    )


def _named(spots: tuple[Spot, ...], fleet: Fleet) -> tuple[tuple[str, int], ...]:
    return tuple((fleet.nodes[node].name, pods) for node, pods in spots)

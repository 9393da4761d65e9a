"""Who is next: the order within a queue, the equivalence classes in it, and the order between queues' heads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from glebe.scheduling.cycle.turns import Turns
from glebe.scheduling.foresight.runtime import reach
from glebe.scheduling.model import ClusterQueue, Pending, PreemptionPolicy, Strategy, TryNext
from glebe.scheduling.policies import Preference
from glebe.scheduling.world import Plan, World

HeadKey = tuple[int, int, float, str]


def queue_key(pending: Pending) -> tuple[bool, int, float, str]:
    """Order within a queue: for whom others leave, priority, age, key."""
    return (not pending.preempting, -pending.priority, pending.queued_at, pending.key)


def strict_key(pending: Pending) -> tuple[int, float, str]:
    """The same in a StrictFIFO queue: nobody is first but by priority and age."""
    return (-pending.priority, pending.queued_at, pending.key)


FIRST = -1  # level of borrowing of those for whom others leave: what they were promised is not taken by somebody else


def head_key(level: int, pending: Pending) -> HeadKey:
    """Order between heads of queues: for whom others leave, less borrowing, higher priority, older."""
    return (FIRST if pending.preempting else level, -pending.priority, pending.queued_at, pending.key)


@dataclass(slots=True, eq=False)
class Group:
    """Equivalent workloads of one line, by rank (place in the line). ``head`` is the next one's rank, or ``DONE``.

    ``careful``: whether it fits is for the full search to say (partial admission, slices, variants, flavors by what
    preemption could do), not for the quick one.
    """

    plan: Plan
    ranks: list[int] = field(default_factory=list)
    next: int = 0
    head: int = 0
    held: tuple[int, tuple[int, ...]] = (-1, ())  # (quota version, who claims) at which claims left no room for it
    careful: bool = False
    local_queue: str = ""  # where local queues take turns

    def advance(self) -> None:
        self.next += 1
        self.held = (-1, ())
        self.head = self.ranks[self.next] if self.next < len(self.ranks) else DONE


DONE = 1 << 60


@dataclass(slots=True, eq=False)
class Line:
    """The pending workloads of one ClusterQueue, in order, with their classes."""

    queue: ClusterQueue
    node: int
    root: int
    waiting: list[Pending]
    groups: list[Group]
    group_of: list[Group]  # by rank
    turns: Turns | None = None  # its local queues take turns (admission fair sharing)
    strict: bool = field(init=False)
    _front: tuple[Group, int] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.strict = self.queue.strategy is Strategy.STRICT_FIFO

    def front(self) -> Group | None:
        """The group of the first workload that still waits."""
        if self.turns is not None:
            waiting = [g for g in self.groups if g.head != DONE]
            return min(waiting, key=self.place, default=None)
        known = self._front
        if known is not None and known[0].head == known[1]:
            return known[0]  # the others' heads only move back
        best = min(self.groups, key=_head, default=None)
        if best is None or best.head == DONE:
            return None
        self._front = (best, best.head)
        return best

    def place(self, group: Group) -> tuple[float, int]:
        """Where the group's head stands: before all others if its local queue has used least."""
        return (0.0 if self.turns is None else self.turns.use(group.local_queue), group.head)

    def ordered(self) -> list[Group]:
        """The groups that have anybody left, in order."""
        waiting = [g for g in self.groups if g.head != DONE]
        waiting.sort(key=_head if self.turns is None else self.place)
        return waiting

    def passed(self, group: Group) -> None:
        """The group's head is admitted."""
        if self.turns is not None:
            self.turns.charge(group.local_queue, self.waiting[group.head].pod_sets)
        group.advance()


def _head(group: Group) -> int:
    return group.head


def fork(line: Line) -> Line:
    """The same line, to be worked off independently."""
    copies = {
        g: Group(g.plan, g.ranks, g.next, g.head, careful=g.careful, local_queue=g.local_queue)
        for g in dict.fromkeys(line.group_of)
    }
    group_of = [copies[g] for g in line.group_of]
    groups = [copies[g] for g in line.groups]
    turns = None if line.turns is None else line.turns.fork()
    return Line(line.queue, line.node, line.root, line.waiting, groups, group_of, turns)


def lines(world: World, pending: Iterable[Pending], *, everybody: bool = False) -> list[Line]:
    """One line per queue that exists, works and is not stopped; by queue name.

    ``everybody``: workloads that cannot be admitted as they are written stand in line, too.
    """
    by_queue: dict[str, list[Pending]] = {}
    for p in pending:
        by_queue.setdefault(p.queue, []).append(p)
    result = []
    for name in sorted(by_queue):
        queue = world.queues.get(name)
        if queue is None or queue.stopped or name in world.misconfigured:
            continue
        place = strict_key if queue.strategy is Strategy.STRICT_FIFO else queue_key
        waiting = sorted((p for p in by_queue[name] if everybody or startable(p)), key=place)
        turns = Turns(world.snapshot.afs) if queue.afs and world.snapshot.afs is not None else None
        groups, group_of = _groups(world, queue, waiting, by_local_queue=turns is not None)
        node = world.tree.queue_index[name]
        result.append(Line(queue, node, world.tree.root(node), waiting, groups, group_of, turns))
    return result


def startable(pending: Pending) -> bool:
    """Could it be admitted as it is written? If not it stands in no line."""
    return not pending.invalid and not pending.failed_checks


def _groups(
    world: World, queue: ClusterQueue, waiting: list[Pending], *, by_local_queue: bool
) -> tuple[list[Group], list[Group]]:
    """The classes of a line, and the class of each workload."""
    groups: dict[object, Group] = {}
    group_of = []
    for rank, p in enumerate(waiting):
        plan = world.plan(queue, p.pod_sets)
        kind: object = id(plan)
        if by_local_queue or p.gated or p.replaces or p.flavors or not startable(p):
            flags = (p.gated, p.replaces, p.flavors, p.variant_of, startable(p))
            kind = (id(plan), p.local_queue if by_local_queue else "", *flags)
        if world.reserves:  # who may fill the time before a reserved start depends on run times
            kind = (kind, *(reach(p.run_time, predicted=predicted) for predicted in (False, True)))
        group = groups.get(kind)
        if group is None:
            group = groups[kind] = Group(plan, head=rank, careful=_careful(plan, p), local_queue=p.local_queue)
        group.ranks.append(rank)
        group_of.append(group)
    return list(groups.values()), group_of


def _careful(plan: Plan, pending: Pending) -> bool:
    if pending.replaces or pending.flavors or any(s.pod_set.min_count is not None for s in plan.sets):
        return True
    fungible = plan.queue.fungibility
    if fungible.when_can_preempt is TryNext.NEXT and fungible.preference is Preference.BORROWING:
        return False  # whatever fits comes first
    return preempts(plan.queue) and any(len(s.options) > 1 for s in plan.sets)


def preempts(queue: ClusterQueue) -> bool:
    """May workloads of the queue ever preempt?"""
    policy = queue.preemption
    return policy.within is not PreemptionPolicy.NEVER or policy.reclaim is not PreemptionPolicy.NEVER

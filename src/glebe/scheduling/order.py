"""Who is next: the order within a queue, the equivalence classes in it, and the order between queues' heads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from glebe.scheduling.model import ClusterQueue, Pending, Strategy
from glebe.scheduling.world import Plan, World

HeadKey = tuple[int, int, float, str]


def queue_key(pending: Pending) -> tuple[int, float, str]:
    """Order within a queue: priority, then age, then key."""
    return (-pending.priority, pending.queued_at, pending.key)


def head_key(level: int, pending: Pending) -> HeadKey:
    """Order between heads of queues: less borrowing, higher priority, older."""
    return (level, -pending.priority, pending.queued_at, pending.key)


@dataclass(slots=True, eq=False)
class Group:
    """Equivalent workloads of one line, by rank (place in the line). ``head`` is the next one's rank, or ``DONE``."""

    plan: Plan
    ranks: list[int] = field(default_factory=list)
    next: int = 0
    head: int = 0
    held: tuple[int, tuple[int, ...]] = (-1, ())  # (quota version, who claims) at which claims left no room for it

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
    strict: bool = field(init=False)
    _front: tuple[Group, int] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.strict = self.queue.strategy is Strategy.STRICT_FIFO

    def front(self) -> Group | None:
        """The group of the first workload that still waits."""
        known = self._front
        if known is not None and known[0].head == known[1]:
            return known[0]  # the others' heads only move back
        best = min(self.groups, key=_head, default=None)
        if best is None or best.head == DONE:
            return None
        self._front = (best, best.head)
        return best


def _head(group: Group) -> int:
    return group.head


def fork(line: Line) -> Line:
    """The same line, to be worked off independently."""
    copies = {g: Group(g.plan, g.ranks, g.next, g.head) for g in dict.fromkeys(line.group_of)}
    group_of = [copies[g] for g in line.group_of]
    return Line(line.queue, line.node, line.root, line.waiting, [copies[g] for g in line.groups], group_of)


def lines(world: World, pending: Iterable[Pending]) -> list[Line]:
    """One line per queue that exists, works and is not stopped; by queue name."""
    by_queue: dict[str, list[Pending]] = {}
    for p in pending:
        by_queue.setdefault(p.queue, []).append(p)
    result = []
    for name in sorted(by_queue):
        queue = world.queues.get(name)
        if queue is None or queue.stopped or name in world.misconfigured:
            continue
        waiting = sorted(by_queue[name], key=queue_key)
        groups: dict[int, Group] = {}
        group_of = []
        for rank, p in enumerate(waiting):
            plan = world.plan(queue, p.pod_sets)
            group = groups.get(id(plan))
            if group is None:
                group = groups[id(plan)] = Group(plan, head=rank)
            group.ranks.append(rank)
            group_of.append(group)
        node = world.tree.queue_index[name]
        result.append(Line(queue, node, world.tree.root(node), waiting, list(groups.values()), group_of))
    return result

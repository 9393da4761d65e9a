"""All timelines of the fleet, and their sums per day. In memory, pure: facts in, totals out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from glebe.metering.facts import Charge, Row
from glebe.metering.intervals import DAY, Allocation, Point, Usage, day_of, integrate


@dataclass(frozen=True, slots=True)
class RowTotal:
    """GPU-seconds so far, GPUs now, and how many workloads."""

    gpu_seconds: int
    gpus: int
    workloads: int


@dataclass(frozen=True, slots=True)
class Totals:
    """One day at one moment: ``seconds`` and ``gpus`` by state (owned, allocated, idle, unhealthy), and the rows."""

    at: int
    seconds: dict[str, int]
    gpus: dict[str, int]
    rows: dict[Row, RowTotal]


@dataclass(frozen=True, slots=True)
class Carry:
    """Sums of a day up to ``at`` that were published before; the book counts from ``at`` on."""

    at: int
    seconds: dict[str, int]
    rows: dict[Row, RowTotal]


@dataclass(slots=True)
class _Timeline:
    points: list[Point] = field(default_factory=list)
    allocations: dict[str, Allocation[Charge]] = field(default_factory=dict)


@dataclass(slots=True)
class _Day:
    """Contributions of the nodes, and which must be worked out anew."""

    usage: dict[str, Usage[Charge]] = field(default_factory=dict)
    dirty: dict[str, None] = field(default_factory=dict)


class Book:
    """Facts about nodes and allocations. Telling it a fact twice changes nothing."""

    def __init__(self) -> None:
        self._nodes: dict[str, _Timeline] = {}
        self._node_of: dict[str, str] = {}  # uid of an allocation -> node
        self._days: dict[int, _Day] = {}
        self._carry: Carry | None = None

    # --- facts

    def node_state(self, node: str) -> Point | None:
        """The latest known point of a node."""
        timeline = self._nodes.get(node)
        return timeline.points[-1] if timeline is not None and timeline.points else None

    def nodes(self) -> list[str]:
        """Nodes that had GPUs when last heard of."""
        return [name for name, t in self._nodes.items() if t.points and t.points[-1].gpus]

    def set_node(self, node: str, point: Point) -> Point | None:
        """From ``point.at`` on the node is so. Returns the point that was added, ``None`` if it says nothing new.

        A point earlier than the latest one is moved up to it: what was known then is not rewritten.
        """
        timeline = self._nodes.setdefault(node, _Timeline())
        last = timeline.points[-1] if timeline.points else None
        if last is None and point.gpus == 0:
            return None
        if last is not None:
            if (last.gpus, last.ready) == (point.gpus, point.ready):
                return None
            if point.at <= last.at:
                point = replace(point, at=last.at)
                timeline.points.pop()
        timeline.points.append(point)
        self._touch(node, point.at)
        return point

    def allocation(self, uid: str) -> Allocation[Charge] | None:
        """The allocation of the pod with this uid."""
        node = self._node_of.get(uid)
        return self._nodes[node].allocations.get(uid) if node is not None else None

    def node_of(self, uid: str) -> str:
        """The node that the pod with this uid is on.

        :raises KeyError: the pod has no allocation.
        """
        return self._node_of[uid]

    def open_allocations(self) -> list[str]:
        """Uids of allocations that have not ended."""
        return [uid for t in self._nodes.values() for uid, a in t.allocations.items() if a.end is None]

    def set_allocation(self, node: str, allocation: Allocation[Charge]) -> bool:
        """Record, or correct, an allocation; whether that changed anything."""
        timeline = self._nodes.setdefault(self._node_of.setdefault(allocation.uid, node), _Timeline())
        old = timeline.allocations.get(allocation.uid)
        if old == allocation:
            return False
        timeline.allocations[allocation.uid] = allocation
        self._touch(
            self._node_of[allocation.uid], min(allocation.start, old.start if old is not None else allocation.start)
        )
        return True

    def carry(self, carry: Carry) -> None:
        """Count from ``carry.at`` on, on top of what was published before."""
        self._carry = carry
        self._days.clear()

    def _touch(self, node: str, since: int) -> None:
        for day, sums in self._days.items():
            if since < day + DAY:
                sums.dirty[node] = None

    def forget_before(self, day: int) -> None:
        """Drop what no day from ``day`` on needs."""
        self._days = {d: sums for d, sums in self._days.items() if d >= day}
        for timeline in self._nodes.values():
            gone = [uid for uid, a in timeline.allocations.items() if a.end is not None and a.end <= day]
            for uid in gone:
                del timeline.allocations[uid]
                del self._node_of[uid]
            before = [p for p in timeline.points if p.at <= day]
            timeline.points = before[-1:] + [p for p in timeline.points if p.at > day]
        for node in [name for name, timeline in self._nodes.items() if _is_past(timeline)]:
            del self._nodes[node]
            for sums in self._days.values():
                sums.usage.pop(node, None)
                sums.dirty.pop(node, None)

    # --- sums

    def totals(self, day: int, now: int) -> Totals:
        """The sums of the UTC day that starts at ``day``, as they stand at ``now`` (or at the end of that day)."""
        sums = self._days.get(day)
        if sums is None:
            sums = self._days[day] = _Day(dirty=dict.fromkeys(self._nodes))
        carry = self._carry if self._carry is not None and day_of(self._carry.at) == day else None
        start = carry.at if carry is not None else day
        for node in sums.dirty:
            timeline = self._nodes[node]
            sums.usage[node] = integrate(timeline.points, timeline.allocations.values(), start, day + DAY)
        sums.dirty.clear()
        return self._add_up(sums.usage.values(), carry, day, min(now, day + DAY))

    def _add_up(self, usages: Iterable[Usage[Charge]], carry: Carry | None, day: int, at: int) -> Totals:
        running = at < day + DAY
        seconds = dict.fromkeys(("owned", "allocated", "idle", "unhealthy"), 0)
        gpus = dict(seconds)
        rows: dict[Row, RowTotal] = {}
        if carry is not None:
            seconds.update(carry.seconds)
            rows.update(carry.rows)
        charges: dict[Charge, tuple[int, int]] = {}
        for usage in usages:
            for state, line in (("owned", usage.owned), ("idle", usage.idle), ("unhealthy", usage.unhealthy)):
                seconds[state] += line.value(at)
                gpus[state] += line.rate * running
            for charge, line in usage.rows.items():
                base, rate = charges.get(charge, (0, 0))
                charges[charge] = (base + line.value(at), rate + line.rate * running)
        for charge, (base, rate) in charges.items():
            seconds["allocated"] += base
            gpus["allocated"] += rate
            old = rows.get(charge.row, RowTotal(0, 0, 0))
            known = carry is not None and self._began_before(charge, carry.at)
            rows[charge.row] = RowTotal(old.gpu_seconds + base, old.gpus + rate, old.workloads + (not known))
        return Totals(at, seconds, gpus, dict(sorted(rows.items())))

    def _began_before(self, charge: Charge, at: int) -> bool:
        return any(a.row == charge and a.start < at for t in self._nodes.values() for a in t.allocations.values())


def _is_past(timeline: _Timeline) -> bool:
    """Whether the node has nothing, and had nothing on any day that is still kept."""
    return not timeline.allocations and not any(p.gpus for p in timeline.points)

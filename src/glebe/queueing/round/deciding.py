"""What a cycle asks the core: decisions about the heads of what waits, which are the decisions about everything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from glebe.queueing.picture.heads import certain, roots
from glebe.queueing.picture.snapshot import SnapshotBuilder
from glebe.queueing.round.planner import Planner
from glebe.scheduling.model import Decision, Snapshot

#: When a class was admitted to the last one shown, so many times more are shown to the next cycle.
_MORE = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """``again``: with more of some class the core may decide more; ask at once when these decisions are written."""

    snapshot: Snapshot
    decisions: list[Decision]
    again: bool


class Deciding:
    """Asks the planner about heads."""

    def __init__(self, builder: SnapshotBuilder, planner: Planner) -> None:
        self._builder = builder
        self._planner = planner
        self._more = 1
        self._roots: tuple[object, object, dict[str, str]] | None = None

    async def decide(self, now: float) -> Answer:
        """Decisions on the world as it is; those to wait may be missing."""
        snapshot, last = self._builder.heads(self._more)
        if not snapshot.pending and not any(a.second_pass for a in snapshot.admitted):
            return Answer(snapshot, [], again=False)
        made = await self._planner.decide(snapshot, now)
        kept, again = certain(made, last, self._trees(snapshot))
        self._more = self._more * _MORE if again else 1
        return Answer(snapshot, kept, again)

    def _trees(self, snapshot: Snapshot) -> Callable[[str], str]:
        """Which workloads compete with which: those under one root, unless nodes are given out, too."""
        if snapshot.topologies:
            return lambda _: ""
        tree = self._roots
        if tree is None or tree[0] is not snapshot.queues or tree[1] is not snapshot.cohorts:
            tree = self._roots = snapshot.queues, snapshot.cohorts, roots(snapshot)
        root = tree[2]
        queue = {p.key: p.queue for p in snapshot.pending}
        return lambda key: root.get(queue.get(key, ""), "")

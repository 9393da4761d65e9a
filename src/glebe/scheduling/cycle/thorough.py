"""The full search of the production cycle, for those of a line whom the quick one does not let in.

It is made for lines whose queue may preempt, and for workloads that the quick search cannot judge. Everybody is asked
at most once in a run: room only shrinks in it, and nobody new can be preempted. Who asks for no less than somebody of
at least its rank for whom nobody could be found is not asked at all.
"""

from __future__ import annotations

from collections.abc import Iterator

from glebe.scheduling.cycle.nominations import Nomination, Nominator
from glebe.scheduling.cycle.order import Group, Line, preempts
from glebe.scheduling.flavoring.assign import Mode
from glebe.scheduling.model import Pending, PreemptionPolicy
from glebe.scheduling.placement.placement import nominate, possible
from glebe.scheduling.preemption.roster import Roster
from glebe.scheduling.quotas.quota import QuotaState
from glebe.scheduling.world import Holding, Plan, State

PATIENCE = 2  # searches of a line that may fail before it is checked first whether the next can succeed at all
SEQUEL = 3  # of a line whose head preempts, so many in a row are asked in vain in the same run
Vector = tuple[float, ...]
Found = tuple[Group, Nomination]


class Thorough:
    """Finds heads that preempt, or fit in ways that only the full search sees; for one state that changes."""

    def __init__(self, nominator: Nominator, state: State, lines: list[Line]) -> None:
        self._nominator = nominator
        self._state = state
        self._ahead: tuple[State, Roster] | None = None  # what will be, and who is not leaving, once somebody preempts
        self._all = lines
        self.lines = self._relevant()
        self._asked: set[tuple[int, int]] = set()  # (group, rank)
        self._refused: dict[object, list[Vector]] = {}  # by what is asked for: the least of those who found nobody
        self._done: set[int] = set()  # lines in which everybody has been asked
        self._lowest: dict[int, int | None] = {}  # by queue: the lowest priority of its holders
        self._borrowers: dict[int, set[int]] = {}  # by root
        self._failures: dict[int, int] = {}  # by line: searches for victims that found nobody
        self._sequel: dict[int, int] = {}  # by line whose head preempts: how many may still be asked in vain after it
        self._bests: dict[tuple[int, int], State] = {}  # by queue and priority

    def _relevant(self) -> list[Line]:
        """Lines of which somebody may preempt or has to be asked in full; nobody preempts where nobody can be."""
        anybody = not self._nominator.roster.empty
        return [line for line in self._all if (anybody and preempts(line.queue)) or any(g.careful for g in line.groups)]

    def begin(self, nominator: Nominator | None = None) -> None:
        """A new run, after something was freed or somebody was admitted elsewhere."""
        if nominator is not None:
            self._nominator = nominator
            self.lines = self._relevant()
        self._ahead = None
        for memory in (self._asked, self._refused, self._done, self._lowest, self._borrowers):
            memory.clear()
        self._failures.clear()
        self._sequel.clear()
        self._bests.clear()

    def head(self, line: Line, before: tuple[float, int] | None) -> Found | None:
        """The line's first who preempts or is let in by the full search, ahead of place ``before``."""
        if before is None and id(line) in self._done:
            return None
        if line.strict:
            front = line.front()
            groups = [] if front is None else [front]
        else:
            groups = line.ordered()
        for group in groups:
            if before is not None and line.place(group) >= before:
                return None
            if self._sequel.get(id(line)) == 0:
                return None
            found = self._ask(line, group)
            if found is not None:
                if found.victims:
                    self._sequel[id(line)] = SEQUEL
                return group, found
        if before is None:
            self._done.add(id(line))
        return None

    def goes_on(self, then: State, roster: Roster) -> None:
        """Others are leaving: from now on victims are sought in what will be then, among those who stay."""
        self._ahead = then, roster

    def ask_again(self, line: Line, group: Group) -> None:
        """What was found for the group's head is not used now."""
        self._asked.discard((id(group), group.head))
        self._done.discard(id(line))

    def moved(self, line: Line) -> None:
        """Somebody of the line was admitted, or others leave for it: the next of the group has not been asked."""
        self._done.discard(id(line))

    def _ask(self, line: Line, group: Group) -> Nomination | None:
        key = (id(group), group.head)
        if key in self._asked:
            return None
        self._asked.add(key)
        pending = line.waiting[group.head]
        if not group.careful and (not self._may(line, pending) or not possible(group.plan, self._nominator.world)):
            return None
        kind, vector = _measure(group.plan, pending)
        comparable = not group.careful and not group.plan.fair
        if comparable and any(harder(known, vector) for known in self._refused.get(kind, ())):
            return None
        if (
            not group.careful
            and self._failures.get(id(line), 0) >= PATIENCE
            and not self._at_best(line, pending, group.plan)
        ):
            return None
        state, roster = self._ahead or (self._state, None)
        found = self._nominator.nominate(pending, group.plan, state, roster)
        if id(line) in self._sequel and not found.victims:
            self._sequel[id(line)] -= 1
        if (found.mode is Mode.FIT and group.careful) or (found.victims and found.mode is Mode.PREEMPT):
            return found
        if not group.careful and found.mode is not Mode.FIT:
            self._failures[id(line)] = self._failures.get(id(line), 0) + 1
            if comparable:
                known = self._refused.get(kind, ())
                least = [v for v in known if not harder(vector, v)]
                self._refused[kind] = [*least, vector]
        return None

    def _at_best(self, line: Line, pending: Pending, plan: Plan) -> bool:
        """Would it fit if everybody left whom it could preempt by any rule?"""
        key = line.node, pending.priority
        best = self._bests.get(key)
        if best is None:
            best = self._bests[key] = self._state.copy()
            for holding in self._reachable(line, pending.priority):
                best.release(holding)
        return nominate(plan, best, self._nominator.world) is not None

    def _reachable(self, line: Line, priority: int) -> Iterator[Holding]:
        """What those hold who are not out of reach by their priority."""
        tree, roster, policy = self._state.quotas.tree, self._nominator.roster, line.queue.preemption
        for node in range(tree.cohorts, len(tree.names)):
            if tree.top[node] != line.root:
                continue
            rule = policy.within if node == line.node else policy.reclaim
            if rule is PreemptionPolicy.NEVER:
                continue
            for holder in roster.of(node):
                if rule is PreemptionPolicy.ANY or holder.priority <= priority:
                    yield holder.holding

    def _may(self, line: Line, pending: Pending) -> bool:
        """Is there anybody at all whom it might preempt?"""
        policy, node = line.queue.preemption, line.node
        if policy.within is not PreemptionPolicy.NEVER:
            if node not in self._lowest:
                held = self._nominator.roster.of(node)
                self._lowest[node] = min((h.priority for h in held), default=None)
            lowest = self._lowest[node]
            if lowest is not None and lowest <= pending.priority:
                return True
        if policy.reclaim is PreemptionPolicy.NEVER or self._state.quotas.tree.parent[node] < 0:
            return False
        if line.root not in self._borrowers:
            self._borrowers[line.root] = borrowers(self._state.quotas, line.root)
        return bool(self._borrowers[line.root] - {node})


def harder(known: Vector, vector: Vector) -> bool:
    """Is ``vector`` no easier to get than ``known``?"""
    return all(a <= b for a, b in zip(known, vector, strict=True))


def borrowers(quotas: QuotaState, root: int) -> set[int]:
    """Queues of a tree that use more than their own of anything."""
    tree = quotas.tree
    return {
        node
        for node in range(tree.cohorts, len(tree.names))
        if tree.top[node] == root and any(u > s for u, s in zip(quotas.usage[node], tree.subtree[node], strict=True))
    }


def _measure(plan: Plan, pending: Pending) -> tuple[object, Vector]:
    """What it asks for, and how much of it; more is harder to get, and so is anything for who stands further back."""
    kind = []
    amounts: list[float] = [-pending.priority, pending.queued_at]
    for this in plan.sets:
        kind.append(tuple((tuple(c for c, _ in o.need), o.slot if o.ask else -1, o.ask) for o in this.options))
        amounts.append(this.pod_set.count if any(o.ask for o in this.options) else 0)
        amounts += [n for o in this.options for _, n in o.need]
    return (plan.node, pending.gated, *kind), tuple(amounts)

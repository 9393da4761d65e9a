"""What is free on the nodes now, and how many pods of a shape fit where: kept up to date incrementally.

``NodeState`` is the mutable counterpart of ``Fleet``. Free amounts are rows of plain ints because most changes touch
few nodes. A ``SlotTable`` answers for one pod shape how many such pods fit on each node and in each domain; it catches
up with the changed nodes only when it is asked.
"""

from __future__ import annotations

import numpy as np

from glebe.scheduling.placement.fleet import PLENTY, Arrangement, Fleet, Ints, PodKind

Shape = tuple[int, ...]  # per-pod needs by the fleet's resource columns
Spot = tuple[int, int]  # (node, pods there)
Rooms = list[int] | Ints  # pods that fit, by domain: a list if there are few
SHORT = 64  # up to so many numbers, lists are faster than arrays
MOST_TABLES = 1024  # of one state; the one that was made first goes first
BULK = 48  # more changed nodes than this are recomputed with numpy


class SlotTable:
    """Pods of one shape that fit in each domain of each level; the last level is single nodes. Call ``sync`` first.

    With ``beside``, those that fit on a node beside one pod of that shape.

    Single nodes are kept as an array, the few domains above them as lists, which change one by one at less cost.
    """

    __slots__ = ("_climb", "_columns", "_most", "_nodes", "_state", "_upper", "arrangement", "at", "levels", "total")

    def __init__(self, state: NodeState, arrangement: Arrangement, shape: Shape, beside: Shape = ()) -> None:
        self.arrangement = arrangement
        self._state = state
        less = beside or (0,) * len(shape)
        self._columns = tuple((c, amount, less[c]) for c, amount in enumerate(shape) if amount > 0)
        self._rebuild()

    def _slots(self, rows: Ints) -> Ints:
        slots = np.full(len(rows), PLENTY, dtype=np.int64)
        for column, amount, less in self._columns:
            have = rows[:, column]
            np.minimum(slots, (have - less if less else have) // amount, out=slots)
        return np.maximum(slots, 0)

    def _rebuild(self) -> None:
        state, arrangement = self._state, self.arrangement
        slots = self._slots(state.rows(arrangement.nodes))
        self._nodes = slots
        self._upper: list[list[int]] = [
            np.add.reduceat(slots, first).tolist() if len(first) else [] for first in arrangement.first[:-1]
        ]
        self._climb = list(zip(self._upper, arrangement.domain, strict=True))
        self.levels = len(self._upper) + 1
        self.total = int(slots.sum())
        self._most: list[int] = [-1] * self.levels
        self.at = len(state.changed)

    def sync(self) -> None:
        """Catch up with the nodes that changed since the last call."""
        state = self._state
        changed = state.changed
        behind = len(changed) - self.at
        self._most = [-1] * self.levels
        if behind > BULK:
            recent = set(changed[self.at :])
            if len(recent) > BULK:
                self._sync_bulk(sorted(recent))
            else:
                self._sync_few(recent)
        else:
            self._sync_few(changed[self.at :])
        self.at = len(changed)

    def _sync_few(self, nodes: list[int] | set[int]) -> None:
        free, position, columns = self._state.free, self.arrangement.position_list, self._columns
        last = self._nodes
        upper = self._climb
        for node in nodes:
            at = position[node]
            if at < 0:
                continue
            row = free[node]
            slots = PLENTY
            for column, amount, less in columns:
                fit = (row[column] - less) // amount
                if fit < slots:
                    slots = fit
            if slots < 0:
                slots = 0
            delta = slots - last.item(at)
            if delta:
                last[at] = slots
                self.total += delta
                for sums, domain in upper:
                    sums[domain[at]] += delta

    def _sync_bulk(self, nodes: list[int]) -> None:
        arrangement = self.arrangement
        at = arrangement.position[nodes]
        keep = at >= 0
        at = at[keep]
        if not len(at):
            return
        slots = self._slots(self._state.rows(np.array(nodes, dtype=np.int64)[keep]))
        delta = slots - self._nodes[at]
        self._nodes[at] = slots
        self.total += int(delta.sum())
        changes = [(a, d) for a, d in zip(at.tolist(), delta.tolist(), strict=True) if d]
        for sums, domain in self._climb:
            for a, d in changes:
                sums[domain[a]] += d

    def most(self, level: int) -> int:
        """The most pods that one domain of ``level`` holds."""
        most = self._most[level]
        if most < 0:
            rooms = self._upper[level] if level < self.levels - 1 else self._nodes.tolist()
            most = self._most[level] = max(rooms, default=0)
        return most

    def rooms(self, level: int, start: int = 0, end: int | None = None) -> Rooms:
        """Pods that fit in each domain of a level, from domain ``start`` up to ``end``."""
        if level < self.levels - 1:
            return self._upper[level][start:end]
        rooms = self._nodes[start:end]
        return rooms.tolist() if len(rooms) <= SHORT else rooms

    def rooms_of(self, level: int, domains: list[int]) -> Rooms:
        """The same for the given domains."""
        if level < self.levels - 1:
            sums = self._upper[level]
            return [sums[d] for d in domains]
        rooms = self._nodes[domains]
        return rooms.tolist() if len(rooms) <= SHORT else rooms


class NodeState:
    """Free amounts per node; ``take`` and ``give`` are the only ways to change them."""

    __slots__ = ("_rows", "_rows_at", "_tables", "answers", "changed", "fleet", "free", "freed", "width")

    def __init__(self, fleet: Fleet, free: list[list[int]]) -> None:
        self.fleet = fleet
        self.free = free
        self.width = len(fleet.resources)
        self.changed: list[int] = []  # log of touched nodes; tables remember how far they have read
        self._tables: dict[int, SlotTable] = {}
        self._rows: Ints | None = None  # ``free`` as an array, as it was when ``changed`` was so long:
        self._rows_at = 0
        self.freed = 0  # length of the log when something was last given back: what did not fit since, does not fit
        self.answers: dict[int, tuple[int, bool]] = {}  # by ask number: when asked (length of the log), did it fit?

    @staticmethod
    def of(fleet: Fleet) -> NodeState:
        """Ready nodes less other use; a node that is not ready has nothing."""
        free = np.where(fleet.ready[:, None], fleet.capacity, 0) - fleet.other_use
        return NodeState(fleet, free.tolist())

    @staticmethod
    def pristine(fleet: Fleet) -> NodeState:
        """The fleet when everything has left and every node is back: what NEVER is judged on."""
        return NodeState(fleet, fleet.capacity.tolist())

    def copy(self) -> NodeState:
        return NodeState(self.fleet, [list(row) for row in self.free])

    def rows(self, nodes: Ints) -> Ints:
        """What is free on these nodes."""
        if self._rows is None:
            self._rows = np.array(self.free, dtype=np.int64).reshape(len(self.free), self.width)
        elif self._rows_at < len(self.changed):
            recent = list(dict.fromkeys(self.changed[self._rows_at :]))
            self._rows[recent] = [self.free[n] for n in recent]
        self._rows_at = len(self.changed)
        return self._rows[nodes]

    def table(self, slot: int, kind: PodKind, shape: Shape, beside: Shape = ()) -> SlotTable:
        """The up-to-date table of a pod kind and shape (``beside`` another), whose number in the fleet is ``slot``."""
        found = self._tables.get(slot)
        if found is None:
            if len(self._tables) >= MOST_TABLES:
                del self._tables[next(iter(self._tables))]
            found = self._tables[slot] = SlotTable(self, self.fleet.arrangement(kind), shape, beside)
        elif found.at != len(self.changed):
            found.sync()
        return found

    def take(self, shape: Shape, spots: tuple[Spot, ...]) -> None:
        """``pods`` of ``shape`` start on each node of ``spots``."""
        columns = [(c, amount) for c, amount in enumerate(shape) if amount]
        for node, pods in spots:
            row = self.free[node]
            for column, amount in columns:
                row[column] -= amount * pods
            self.changed.append(node)

    def give(self, shape: Shape, spots: tuple[Spot, ...]) -> None:
        """The reverse of ``take``."""
        columns = [(c, amount) for c, amount in enumerate(shape) if amount]
        for node, pods in spots:
            row = self.free[node]
            for column, amount in columns:
                row[column] += amount * pods
            self.changed.append(node)
        self.freed = len(self.changed)

    def known(self, ask_number: int) -> bool | None:
        """Whether that ask can be placed now, if it is known."""
        found = self.answers.get(ask_number)
        if found is None:
            return None
        at, fits = found
        return fits if at == len(self.changed) or (not fits and at >= self.freed) else None

"""Which asks for nodes could be answered now, as bits: all asks of one pod shape are checked in one step.

Workloads that wait ask for few different things. Every distinct ask has a bit; what a workload waits for is a mask of
bits, and one look at the nodes gives the mask of all asks that can be placed at the moment.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable
from itertools import accumulate
from operator import or_

from glebe.scheduling.flavoring.flavors import Option
from glebe.scheduling.placement.capacity import NodeState, Shape
from glebe.scheduling.placement.fleet import PodKind

ANYTIME = 1  # the bit of those for whom the core places no pods
Bits = int
TOTAL = -1  # in place of a level: pods may be spread over all nodes


class _Ladder:
    """Asks that differ only in the number of pods: with room for n pods, those for up to n can be placed."""

    __slots__ = ("_counts", "_masks", "_steps")

    def __init__(self) -> None:
        self._steps: list[tuple[int, Bits]] = []
        self._counts: list[int] = []
        self._masks: list[Bits] = [0]  # by number of steps

    def insert(self, count: int, bit: Bits) -> None:
        insort(self._steps, (count, bit))

    def up_to(self, room: int) -> Bits:
        if len(self._counts) != len(self._steps):
            self._counts = [count for count, _ in self._steps]
            self._masks = [0, *accumulate((bit for _, bit in self._steps), or_)]
        return self._masks[bisect_right(self._counts, room)]


class _Board:
    """All asks of one pod kind and shape; ``ladders`` by the level at which one domain must hold the pods."""

    __slots__ = ("kind", "ladders", "mask", "shape", "slot")

    def __init__(self, slot: int, kind: PodKind, shape: Shape) -> None:
        self.slot, self.kind, self.shape = slot, kind, shape
        self.mask: Bits = 0
        self.ladders: dict[int, _Ladder] = {}

    def insert(self, level: int, count: int, bit: Bits) -> None:
        self.mask |= bit
        self.ladders.setdefault(level, _Ladder()).insert(count, bit)

    def open(self, nodes: NodeState) -> Bits:
        table = nodes.table(self.slot, self.kind, self.shape)
        found = 0
        for level, ladder in self.ladders.items():
            found |= ladder.up_to(table.total if level == TOTAL else table.most(level))
        return found


class Asks:
    """The distinct asks of a world's plans."""

    def __init__(self) -> None:
        self._bits: dict[int, Bits] = {}  # by the option's ask number
        self._boards: dict[int, _Board] = {}  # by the option's slot

    def mask(self, options: Iterable[Option], count: int) -> Bits:
        """The asks of ``count`` pods' options; each is given a bit if it is new."""
        mask = 0
        for option in options:
            if option.ask is None:
                mask |= ANYTIME
            elif option.shape is not None:
                mask |= self._bits.get(option.ask_number) or self._new(option, option.shape, count)
        return mask

    def _new(self, option: Option, shape: Shape, count: int) -> Bits:
        bit = self._bits[option.ask_number] = ANYTIME << (len(self._bits) + 1)
        board = self._boards.get(option.slot)
        if board is None:
            board = self._boards[option.slot] = _Board(option.slot, option.kind, shape)
        ask = option.ask
        board.insert(ask.level if ask is not None and ask.required else TOTAL, count, bit)
        return bit

    def open(self, nodes: NodeState, wanted: Bits) -> Bits:
        """Those of ``wanted`` that can be placed now."""
        found = ANYTIME
        for board in self._boards.values():
            if board.mask & wanted:
                found |= board.open(nodes)
        return found & wanted

"""What is asked for, and trying who must leave for it: holders are removed from a state and put back."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from glebe.scheduling.model import Pending, Victim, VictimReason
from glebe.scheduling.preemption.roster import Holder
from glebe.scheduling.quotas.quota import Cell, Need
from glebe.scheduling.world import State

Places = Callable[[State], bool]


class Want(NamedTuple):
    """A workload with its assignment; see the room's docstring."""

    pending: Pending
    node: int
    need: Need
    short: frozenset[Cell]
    places: Places | None = None


class Target(NamedTuple):
    """Who is to leave, and why."""

    holder: Holder
    reason: VictimReason


class Trial:
    """A state in which holders are absent for the moment. Nodes are only touched when nodes are asked about."""

    __slots__ = ("_short_of", "_state", "_want", "gone")

    def __init__(self, state: State, want: Want) -> None:
        self._state = state
        self._want = want
        self._short_of = 0  # index in the need of what was missing last: most likely it still is
        self.gone: list[Target] = []

    def remove(self, target: Target) -> None:
        self.gone.append(target)
        self._release(target.holder)

    def _release(self, holder: Holder) -> None:
        if self._want.places is None:
            self._state.quotas.remove(holder.node, holder.holding.need)
        else:
            self._state.release(holder.holding)

    def _hold(self, holder: Holder) -> None:
        if self._want.places is None:
            self._state.quotas.add(holder.node, holder.holding.need)
        else:
            self._state.hold(holder.holding)

    def restore(self) -> None:
        """Everybody is back."""
        for target in reversed(self.gone):
            self._hold(target.holder)
        self.gone = []

    def fits(self, borrowing: bool) -> bool:
        """Does the workload fit now, on its queue's own nominal quota unless ``borrowing``?"""
        quotas, node, need = self._state.quotas, self._want.node, self._want.need
        used, nominal = quotas.usage[node], quotas.tree.nominal[node]
        last = self._short_of
        for i in range(last, last + len(need)):
            i %= len(need)
            cell, amount = need[i]
            if (not borrowing and used[cell] + amount > nominal[cell]) or amount > quotas.available(node, cell):
                self._short_of = i
                return False
        places = self._want.places
        return places is None or places(self._state)

    def fill_back(self, borrowing: bool) -> tuple[Victim, ...]:
        """Put back whoever need not leave, the last chosen first; everybody is back afterwards.

        The last one chosen made it fit, so it is needed in any case.
        """
        kept = [self.gone[-1]]
        for target in reversed(self.gone[:-1]):
            self._hold(target.holder)
            if not self.fits(borrowing):
                self._release(target.holder)
                kept.append(target)
        for target in kept:
            self._hold(target.holder)
        self.gone = []
        return tuple(Victim(t.holder.key, t.reason) for t in reversed(kept))

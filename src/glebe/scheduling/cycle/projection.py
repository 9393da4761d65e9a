"""A state while preemptions are under way: as it is, as it will be, and with everybody in it at once.

Victims hold what they have until they are gone; preemptors hold nothing until they start. What is admitted meanwhile
must fit both *now* and *then*: when the victims have left and the preemptors are in.
"""

from __future__ import annotations

from collections.abc import Iterable

from glebe.scheduling.model import Victim
from glebe.scheduling.quotas.quota import Need
from glebe.scheduling.world import Holding, State


class Projection:
    """``now`` is the caller's state, changed by ``admit`` and ``finish`` only. Costs nothing while nobody preempts."""

    def __init__(self, now: State) -> None:
        self.now = now
        self._then: State | None = None
        self._crowded: State | None = None
        self.leaving: dict[str, Holding] = {}  # victims, by key
        self.crowd: list[tuple[int, Need]] = []  # what preemptors and claims keep, by queue

    @property
    def then(self) -> State:
        """When everybody who must leave has left and those for whom they leave are in."""
        if self._then is None:
            self._then = self.now.copy()
        return self._then

    @property
    def still(self) -> bool:
        """Is nobody preempting, so that ``then`` is as now?"""
        return self._then is None

    def admit(self, holding: Holding) -> None:
        """It starts now."""
        for state in self._all():
            state.hold(holding)

    def finish(self, holding: Holding) -> None:
        """It leaves now."""
        for state in self._all():
            state.release(holding)

    def _all(self) -> list[State]:
        return [state for state in (self.now, self._then, self._crowded) if state is not None]

    def keep(self, holding: Holding) -> None:
        """It is kept for somebody who does not start now."""
        self.then.hold(holding)
        if self._crowded is not None:
            self._crowded.hold(holding)
        self.crowd.append((holding.node, holding.need))

    def evict(self, victims: Iterable[tuple[Victim, Holding]]) -> None:
        """They must leave."""
        for victim, holding in victims:
            if victim.key not in self.leaving:
                self.leaving[victim.key] = holding
                self.then.release(holding)

    @property
    def crowded(self) -> State:
        """With everybody in it: those who leave and those who come."""
        if self._crowded is None:
            self._crowded = self.then.copy()
            for holding in self.leaving.values():
                self._crowded.hold(holding)
        return self._crowded

    def fits_then(self, holding: Holding, without: Iterable[Holding] = ()) -> tuple[bool, bool]:
        """Do (quota, nodes) suffice then, with the very nodes of ``holding``, once those of ``without`` are gone?"""
        return fits(self.now if self._then is None else self._then, holding, without)


def fits(state: State, holding: Holding, without: Iterable[Holding] = ()) -> tuple[bool, bool]:
    """Do (quota, nodes) suffice in ``state``, which stays as it is, without some holdings?"""
    gone = list(without)
    for other in gone:
        state.release(other)
    answer = state.quotas.fits(holding.node, holding.need), _free(state, holding)
    for other in reversed(gone):
        state.hold(other)
    return answer


def _free(state: State, holding: Holding) -> bool:
    """Are the nodes of ``holding`` free for it? The state is as before afterwards."""
    if not holding.taken:
        return True
    nodes = state.nodes
    for shape, spots in holding.taken:
        nodes.take(shape, spots)
    free = all(
        nodes.free[node][column] >= 0
        for shape, spots in holding.taken
        for node, _ in spots
        for column, amount in enumerate(shape)
        if amount
    )
    for shape, spots in reversed(holding.taken):
        nodes.give(shape, spots)
    return free

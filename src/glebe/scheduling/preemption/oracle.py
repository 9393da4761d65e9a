"""The oracle of the flavor search: would preemption make room for one resource of one flavor?"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from glebe.scheduling.model import Pending
from glebe.scheduling.preemption.roster import Roster
from glebe.scheduling.preemption.search import victims
from glebe.scheduling.preemption.trial import Want
from glebe.scheduling.quotas.quota import Cell
from glebe.scheduling.world import State, World


class Possibility(StrEnum):
    """In ascending order of preference."""

    NO_CANDIDATES = "NoCandidates"
    PREEMPT = "Preempt"  # victims exist
    RECLAIM = "Reclaim"  # victims exist, all of them in other queues


class Outlook(NamedTuple):
    """``level``: the borrowing level (0 = within the queue's own quota) once the victims are gone."""

    possibility: Possibility
    level: int


def possibility(
    world: World, state: State, roster: Roster, pending: Pending, node: int, cell: Cell, amount: int
) -> Outlook:
    """By quota alone, whatever the nodes. The state is as before afterwards."""
    quotas = state.quotas
    found = victims(world, state, roster, Want(pending, node, ((cell, amount),), frozenset((cell,))))
    holdings = [roster.holding(v.key) for v in found]
    root = world.tree.top[node]
    version = quotas.version[root]
    for holding in holdings:
        quotas.remove(holding.node, holding.need)
    level = quotas.level(node, cell, amount)
    for holding in holdings:
        quotas.add(holding.node, holding.need)
    quotas.is_again(root, version)
    if not found:
        return Outlook(Possibility.NO_CANDIDATES, level)
    own = any(holding.node == node for holding in holdings)
    return Outlook(Possibility.PREEMPT if own else Possibility.RECLAIM, level)

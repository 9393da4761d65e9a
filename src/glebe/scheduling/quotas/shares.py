"""Dominant resource shares: how much of what its parent could lend a queue or cohort has borrowed.

For each resource: what the node uses above its own (subtree) quota, summed over flavors, in thousandths of what its
parent could lend at most. The largest counts (of equal ones the first by name), divided by the node's weight. As in
Kueue (KEP-1714), but in exact fractions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache

from glebe.scheduling.quotas.quota import Cell, QuotaState, QuotaTree

INFINITE = math.inf
MOST = (1 << 63) - 1  # how an infinite share is written in an object
Rank = tuple[int, Fraction | float]
_ZERO = Fraction(0)
_NOTHING: Mapping[Cell, int] = {}


@dataclass(frozen=True, slots=True)
class Share:
    """``weighted`` is in thousandths, infinite for a borrower of weight 0; ``resource`` is empty if it is 0.

    ``ratio`` is the share before it is divided by the weight.
    """

    weighted: Fraction | float
    resource: str
    borrowing: bool
    ratio: Fraction = field(default=_ZERO, compare=False)

    @property
    def rank(self) -> Rank:
        """Its place among shares, the least first: borrowers of weight 0 come last, by what they borrow."""
        return (1, self.ratio) if self.endless else (0, self.weighted)

    @property
    def endless(self) -> bool:
        """Is it a borrower's of weight 0?"""
        return isinstance(self.weighted, float)  # a fraction would be compared slowly

    @property
    def rounded(self) -> int:
        """As objects tell it: rounded up."""
        return MOST if self.endless else min(MOST, math.ceil(self.weighted))


NO_SHARE = Share(_ZERO, "", False)


def share(state: QuotaState, node: int, more: Mapping[Cell, int] = _NOTHING) -> Share:
    """The share of ``node``, with ``more`` in use there. A root borrows from nobody: its share is 0."""
    return share_of(state.tree, node, state.usage[node], more)


def share_of(tree: QuotaTree, node: int, usage: Sequence[int], more: Mapping[Cell, int] = _NOTHING) -> Share:
    """The same for a node of which only the use is known, by cell."""
    if tree.parent[node] < 0:
        return NO_SHARE
    subtree = tree.subtree[node]
    borrowed: dict[str, int] = {}
    for cell, used in enumerate(usage):
        above = used + more.get(cell, 0) - subtree[cell]
        if above > 0:
            resource = tree.cell_names[cell][1]
            borrowed[resource] = borrowed.get(resource, 0) + above
    if not borrowed:
        return NO_SHARE
    lendable = tree.lendable(tree.parent[node])
    most, dominant = _ZERO, ""
    for resource in sorted(borrowed):
        if lendable.get(resource, 0) > 0:
            ratio = _ratio(borrowed[resource] * 1000, lendable[resource])
            if ratio > most:
                most, dominant = ratio, resource
    return Share(_weighted(most, tree.weight[node]), dominant, True, most)


@lru_cache(maxsize=1 << 14)
def _ratio(above: int, below: int) -> Fraction:
    """Equal ones are the same object, as a rule: so they compare at once."""
    return Fraction(above, below)


@lru_cache(maxsize=1 << 14)
def _weighted(ratio: Fraction, weight: Fraction) -> Fraction | float:
    if weight:
        return ratio / weight
    return INFINITE if ratio else _ZERO

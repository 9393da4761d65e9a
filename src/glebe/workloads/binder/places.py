"""What a class of pods thinks of the nodes' fixed properties. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from glebe.kube.nodes import selected, tolerated
from glebe.kube.objects import Object
from glebe.workloads.binder import nodematch
from glebe.workloads.binder.needs import Needs

SUITS: Final = 0
#: (reason, plugin) by code, from 1 on, in the order in which upstream asks.
REFUSALS: Final = (
    ("node(s) didn't satisfy plugin(s) [NodeAffinity]", "NodeAffinity"),
    ("node(s) were unschedulable", "NodeUnschedulable"),
    ("node(s) had untolerated taint(s)", "TaintToleration"),
    ("node(s) didn't match Pod's node affinity/selector", "NodeAffinity"),
)
_OUTSIDE, _CORDONED, _TAINTED, _OTHER = 1, 2, 3, 4


@dataclass(frozen=True, slots=True)
class Opinion:
    """By row: whether the node suits, the code of the refusal if not, and preferences (``None``: none anywhere)."""

    eligible: npt.NDArray[np.bool_]
    codes: npt.NDArray[np.int8]
    likes: npt.NDArray[np.int64] | None
    dislikes: npt.NDArray[np.int64] | None

    def revise(self, needs: Needs, row: int, node: Object) -> bool:
        """Judge one row anew; ``False`` when that is not to be said in these arrays."""
        if self.codes[row] == _OUTSIDE:
            return True
        code = judge(needs, node)
        self.codes[row], self.eligible[row] = code, code == SUITS
        for array, count in ((self.likes, needs.likes), (self.dislikes, needs.dislikes)):
            value = count(node) if code == SUITS else 0
            if array is not None:
                array[row] = value
            elif value:
                return False
        return True


def opinion_of(needs: Needs, nodes: Sequence[Object], only: Sequence[int] | None) -> Opinion:
    """Judge all nodes, or those in the rows ``only`` while the others are not considered."""
    codes = np.full(len(nodes), SUITS if only is None else _OUTSIDE, np.int8)
    likes, dislikes = np.zeros(len(nodes), np.int64), np.zeros(len(nodes), np.int64)
    for row in range(len(nodes)) if only is None else only:
        node = nodes[row]
        codes[row] = judge(needs, node)
        if codes[row] == SUITS:
            dislikes[row] = needs.dislikes(node)
            if needs.preferred:
                likes[row] = needs.likes(node)
    return Opinion(codes == SUITS, codes, likes if likes.any() else None, dislikes if dislikes.any() else None)


def judge(needs: Needs, node: Object) -> int:
    """:data:`SUITS`, or the code of the first refusal."""
    if (node.get("spec") or {}).get("unschedulable") and not tolerated(nodematch.CORDON, needs.tolerations):
        return _CORDONED
    if not nodematch.schedulable(nodematch.taints_of(node), needs.tolerations):
        return _TAINTED
    if not selected(node, needs.selector, needs.terms):
        return _OTHER
    return SUITS

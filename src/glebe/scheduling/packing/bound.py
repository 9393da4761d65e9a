"""How much of a fleet's GPUs any policy could give out: a bound, not a plan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from glebe.scheduling.packing.demand import WHOLE, Ask
from glebe.scheduling.packing.machines import Machine


def ceiling(machines: Sequence[Machine], arrivals: Iterable[Ask]) -> float:
    """The most of all GPUs, in %, that arrivals up to 100 % of them could hold, were they known beforehand.

    CPUs, memory and machines' bounds are ignored. Two shares above one half never share a GPU; what is left beside one
    of them is of use only to shares that fit there. Where everything needs more GPUs than there are, it is the smallest
    of the shares above one half that are left out: nothing else loses less per GPU that it frees.
    """
    gpus = sum(m.gpus for m in machines)
    whole, large, small = 0, list[int](), list[int]()
    total = 0
    for ask in arrivals:
        total += ask.milli
        if ask.gpus and ask.share == WHOLE:
            whole += ask.gpus
        elif ask.gpus:
            (large if 2 * ask.share > WHOLE else small).append(ask.share)
        if total >= gpus * WHOLE:
            break
    needed = whole + len(large) + (sum(small) - _beside(large, small)) / WHOLE
    lost = 0.0
    missing = needed - gpus
    for share in sorted(large):
        if missing <= 0:
            break
        lost += share * min(1.0, missing)
        missing -= 1
    lost += max(0.0, missing) * WHOLE
    return 100 * min(total - lost, gpus * WHOLE) / (gpus * WHOLE)


def _beside(large: Iterable[int], small: Iterable[int]) -> int:
    """The most thousandths of ``small`` that could stand beside ``large`` ones, cut at will."""
    gaps = sorted((WHOLE - share for share in large), reverse=True)
    used = room = at = 0
    for share in sorted(small, reverse=True):
        while at < len(gaps) and gaps[at] >= share:
            room += gaps[at]
            at += 1
        used = min(room, used + share)
    return used

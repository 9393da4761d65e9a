"""Admission fair sharing: LocalQueues of one ClusterQueue take turns by what they used, decayed (Kueue's KEP-4136).

Use is by resource in the API's units (cores, bytes, units), each times its resource weight, divided by the
LocalQueue's weight. Every admission adds an entry penalty at once, so that a burst cannot slip in before the next
sample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from glebe.scheduling.model import Afs, PodSet

Use = Mapping[str, float]
_NO_USE: Use = {}
_BASE = {"cpu": 1000.0}  # the model's base units per unit of the API


def alpha(elapsed: float, half_life: float) -> float:
    """How much of the difference to the present use a sample after ``elapsed`` seconds takes over."""
    return 1.0 - 0.5 ** (elapsed / half_life) if half_life > 0 else 0.0


def decayed(old: Use, live: Use, elapsed: float, half_life: float) -> dict[str, float]:
    """Consumed resources after ``elapsed`` seconds with ``live`` in use; without a half-life nothing is kept."""
    if half_life <= 0:
        return {}
    taken = alpha(max(0.0, elapsed), half_life)
    return {r: old.get(r, 0.0) * (1.0 - taken) + live.get(r, 0.0) * taken for r in sorted({*old, *live})}


def requested(pod_sets: tuple[PodSet, ...]) -> dict[str, float]:
    """What all pods ask for together, in the API's units."""
    total: dict[str, float] = {}
    for s in pod_sets:
        for resource, amount in s.requests.items():
            total[resource] = total.get(resource, 0.0) + amount * s.count / _BASE.get(resource, 1.0)
    return total


def entry_penalty(pod_sets: tuple[PodSet, ...], half_life: float, sampling: float) -> dict[str, float]:
    """What an admission costs its LocalQueue at once: what one sample of its requests would add."""
    share = alpha(sampling, half_life)
    return {r: n * share for r, n in requested(pod_sets).items()}


def weighed(use: Use, weight: float, resource_weights: Mapping[str, float]) -> float:
    """One figure for a LocalQueue's use; infinite for a weight of 0, which is served last."""
    if weight <= 0:
        return math.inf
    return sum(resource_weights.get(r, 1.0) * use[r] for r in sorted(use)) / weight


class Turns:
    """What LocalQueues have used by now, in one figure each. ``charge`` is told of every admission."""

    def __init__(self, afs: Afs | None) -> None:
        self._afs = afs
        self._use: dict[str, float] = {}
        self._charged: dict[str, dict[str, float]] = {}

    def use(self, local_queue: str) -> float:
        """The LocalQueue's weighed use, penalties of this cycle included; who used less goes first."""
        afs = self._afs
        if afs is None:
            return 0.0
        known = self._use.get(local_queue)
        if known is None:
            total = dict(afs.usage.get(local_queue, _NO_USE))
            for resource, amount in self._charged.get(local_queue, _NO_USE).items():
                total[resource] = total.get(resource, 0.0) + amount
            weight = float(afs.weights.get(local_queue, 1))
            known = self._use[local_queue] = weighed(total, weight, afs.resource_weights)
        return known

    def charge(self, local_queue: str, pod_sets: tuple[PodSet, ...]) -> None:
        """A workload of the LocalQueue is admitted."""
        if self._afs is None:
            return
        charged = self._charged.setdefault(local_queue, {})
        for resource, amount in entry_penalty(pod_sets, self._afs.half_life, self._afs.sampling).items():
            charged[resource] = charged.get(resource, 0.0) + amount
        self._use.pop(local_queue, None)

    def fork(self) -> Turns:
        """The same standing, to go on from independently."""
        other = Turns(self._afs)
        other._charged = {queue: dict(charged) for queue, charged in self._charged.items()}
        return other

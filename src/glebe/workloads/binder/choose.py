"""Chooses a node for one pod, or says why there is none. Deterministic: of equally good nodes, the first by name."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from glebe.workloads.binder.fleet import Fleet
from glebe.workloads.binder.needs import Needs


@dataclass(frozen=True, slots=True)
class Choice:
    """``node``, or (when it is ``None``) how many nodes failed for which reason."""

    node: str | None
    nodes: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def message(self) -> str:
        """kube-scheduler's sentence."""
        if self.nodes == 0:
            return "no nodes available to schedule pods"
        parts = sorted(f"{count} {reason}" for reason, count in self.reasons.items())
        return f"0/{self.nodes} nodes are available: {', '.join(parts)}."


def choose(fleet: Fleet, needs: Needs) -> Choice:
    """The best node that fits now."""
    fleet.refresh()
    if not fleet.names:
        return Choice(None)
    if (only := fleet.only_node(needs)) is not None:
        return Choice(only)
    opinion = fleet.opinion(needs)
    candidates = opinion.eligible
    for resource, amount in needs.requests.items():
        column = fleet.column(resource)
        if column is None:
            return _none(fleet, needs)
        candidates = candidates & (fleet.allocatable[:, column] - fleet.used[:, column] >= amount)
    if not candidates.any():
        return _none(fleet, needs)
    score = np.where(candidates, _score(fleet, needs) - 10.0 * opinion.dislikes, -np.inf)
    return Choice(fleet.names[int(np.argmax(score))])


def _score(fleet: Fleet, needs: Needs) -> npt.NDArray[np.float64]:
    """Devices are packed (fullest node first, so that whole nodes stay free for gangs); all else is spread."""
    resources = needs.extended or ("cpu", "memory", "pods")
    total = np.zeros(len(fleet.names), np.float64)
    for resource in resources:
        column = fleet.column(resource)
        if column is None:
            continue
        used = fleet.used[:, column] + needs.requests.get(resource, 0)
        share = used / np.maximum(fleet.allocatable[:, column], 1)
        total += share if needs.extended else 1.0 - share
    return total / len(resources)


def _none(fleet: Fleet, needs: Needs) -> Choice:
    opinion = fleet.opinion(needs)
    reasons = dict(opinion.refusals)
    for resource, amount in needs.requests.items():
        column = fleet.column(resource)
        if column is None:
            count = int(opinion.eligible.sum())
        else:
            free = fleet.allocatable[:, column] - fleet.used[:, column]
            count = int((opinion.eligible & (free < amount)).sum())
        if count:
            reasons["Too many pods" if resource == "pods" else f"Insufficient {resource}"] = count
    return Choice(None, len(fleet.names), reasons)

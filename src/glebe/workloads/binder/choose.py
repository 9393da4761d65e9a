"""Chooses a node for one pod, or says why there is none. Deterministic: of equally good nodes, the first by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from glebe.workloads.binder import company
from glebe.workloads.binder.filters import Diagnosis, Rivals, diagnose, feasible, fits
from glebe.workloads.binder.fleet import Bools, Fleet
from glebe.workloads.binder.needs import Needs

#: Weights of the scores, upstream's (``default_plugins.go``). What fits best by amounts weighs 1.
_TAINTS, _AFFINITY, _SPREAD, _COMPANY = 3.0, 2.0, 2.0, 2.0


@dataclass(frozen=True, slots=True)
class Choice:
    """``node``, or (when it is ``None``) how many of how many nodes failed for which reason."""

    node: str | None
    nodes: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    diagnosis: Diagnosis | None = None

    def message(self) -> str:
        """kube-scheduler's sentence."""
        if self.nodes == 0:
            return "no nodes available to schedule pods"
        return sentence(self.nodes, self.reasons, self.diagnosis.objection if self.diagnosis else "")


def sentence(nodes: int, reasons: Mapping[str, int], objection: str = "") -> str:
    """``0/N nodes are available: ...``"""
    parts = objection or ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
    return f"0/{nodes} nodes are available: {parts}." if parts else f"0/{nodes} nodes are available:"


def choose(fleet: Fleet, needs: Needs, uid: str = "") -> Choice:
    """The best node that fits now; for a nominated pod its own if that fits."""
    fleet.refresh()
    if not fleet.names:
        return Choice(None)
    rivals = fleet.rivals(needs, uid)
    for row in _favourites(fleet, needs, uid):
        if fits(fleet, needs, row) and (not rivals.get(fleet.names[row]) or feasible(fleet, needs, rivals)[row]):
            return Choice(fleet.names[row])
    left = feasible(fleet, needs, rivals)
    if not left.any():
        found = diagnose(fleet, needs, rivals)
        return Choice(None, len(fleet.names), found.reasons, found)
    score = np.where(left, _score(fleet, needs, left), -np.inf)
    return Choice(fleet.names[int(np.argmax(score))])


def _favourites(fleet: Fleet, needs: Needs, uid: str) -> list[int]:
    nominated = fleet.nomination(uid) if uid else None
    row = fleet.row(nominated.node) if nominated is not None else None
    if row is None:
        row = fleet.only_row(needs)
    return [] if row is None or fleet.objection(needs) is not None else [row]


def _score(fleet: Fleet, needs: Needs, left: Bools) -> npt.NDArray[np.float64]:
    total = 100.0 * _by_amounts(fleet, needs)
    opinion = fleet.opinion(needs)
    if opinion.dislikes is not None and (most := opinion.dislikes[left].max()):
        total += _TAINTS * (100.0 - np.floor(100.0 * opinion.dislikes / most))
    if opinion.likes is not None and (most := opinion.likes[left].max()):
        total += _AFFINITY * np.floor(100.0 * opinion.likes / most)
    if (spread := company.spread_score(fleet, needs, left)) is not None:
        total += _SPREAD * spread
    if (near := company.company_score(fleet, needs, left)) is not None:
        total += _COMPANY * near
    for plugin in fleet.concerned(needs):
        if (own := plugin.score(needs, left)) is not None:
            total += own
    return total


def _by_amounts(fleet: Fleet, needs: Needs) -> npt.NDArray[np.float64]:
    """Devices are packed (fullest node first, so that whole nodes stay free for gangs); all else is spread: what is
    least used, and upstream's balance between processors and memory."""
    if not needs.extended:
        return _least_used(fleet, needs) + _balance(fleet, needs)
    total = np.zeros(len(fleet.names), np.float64)
    for resource in needs.extended:
        if (column := fleet.column(resource)) is not None:
            used = fleet.used[:, column] + needs.requests.get(resource, 0)
            total += used / np.maximum(fleet.allocatable[:, column], 1)
    return total / len(needs.extended)


def _least_used(fleet: Fleet, needs: Needs) -> npt.NDArray[np.float64]:
    """``NodeResourcesFit`` with ``LeastAllocated``, 0 to 1, as fractions: whole percents would make clumps."""
    total = np.zeros(len(fleet.names), np.float64)
    for number, resource in enumerate(("cpu", "memory")):
        if (column := fleet.column(resource)) is not None:
            there = np.maximum(fleet.allocatable[:, column], 1)
            total += np.maximum(1.0 - (fleet.weight[:, number] + needs.weight[number]) / there, 0.0)
    return total / 2


def _balance(fleet: Fleet, needs: Needs) -> npt.NDArray[np.float64] | float:
    """``NodeResourcesBalancedAllocation``, 0 to 1; nothing to say of pods that ask for neither."""
    asked = [needs.requests.get(name, 0) for name in ("cpu", "memory")]
    columns = [fleet.column(name) for name in ("cpu", "memory")]
    if not any(asked) or columns[0] is None or columns[1] is None:
        return 0.0
    shares = [
        np.minimum((fleet.used[:, column] + amount) / np.maximum(fleet.allocatable[:, column], 1), 1.0)
        for column, amount in zip(columns, asked, strict=True)
    ]
    balance: npt.NDArray[np.float64] = 1.0 - np.abs(shares[0] - shares[1]) / 2
    return balance


__all__ = ["Choice", "Rivals", "choose", "sentence"]

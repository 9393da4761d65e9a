"""Which rows can take a pod, and for the others why not, in kube-scheduler's order and words. Pure.

A filter is a list of refusals. Of several filters that refuse a row the first counts; all refusals of that one count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from glebe.workloads.binder import company
from glebe.workloads.binder.fleet import Bools, Fleet, Hold
from glebe.workloads.binder.needs import Needs
from glebe.workloads.binder.places import REFUSALS
from glebe.workloads.binder.plugins import Refusal

PORTS: Final = "node(s) didn't have free ports for the requested pod ports"
Rivals = dict[str, list[tuple[str, Hold]]]


@dataclass(slots=True)
class Diagnosis:
    """Why rows are refused."""

    left: Bools
    curable: Bools
    objection: str = ""
    reasons: dict[str, int] = field(default_factory=dict)
    plugins: set[str] = field(default_factory=set)


def is_plain(fleet: Fleet, needs: Needs) -> bool:
    """Whether nothing but amounts and fixed properties of nodes matters."""
    return not (
        needs.ports or needs.extras or needs.relations.near or needs.relations.apart or needs.relations.spread
    ) and (not fleet.crowd.choosy or not fleet.crowd.avoiding(needs.namespace, needs.labels))


def feasible(fleet: Fleet, needs: Needs, rivals: Rivals) -> Bools:
    """Rows that can take the pod now, also with the pods that are nominated to them."""
    left = _roomy(fleet, needs, rivals)
    if is_plain(fleet, needs):
        return left
    if not left.any():
        return left
    if fleet.objection(needs) is not None:
        return np.zeros_like(left)
    for refusals in _special(fleet, needs, left):
        for refusal in refusals:
            left &= ~refusal.rows
    for node, nominated in rivals.items():
        row = fleet.row(node)
        if row is not None and left[row]:
            with fleet.assuming(nominated):
                left[row] = fits(fleet, needs, row)
    return left


def _roomy(fleet: Fleet, needs: Needs, rivals: Rivals) -> Bools:
    left = fleet.opinion(needs).eligible.copy()
    for resource, amount in needs.requests.items():
        column = fleet.column(resource)
        if column is None:
            left[:] = False
            break
        left &= _free(fleet, resource, column, rivals) >= amount
    return left


def _free(fleet: Fleet, resource: str, column: int, rivals: Rivals) -> npt.NDArray[np.int64]:
    free: npt.NDArray[np.int64] = fleet.allocatable[:, column] - fleet.used[:, column]
    for node, nominated in rivals.items():
        row = fleet.row(node)
        if row is not None:
            free[row] -= sum(hold.needs.requests.get(resource, 0) for _, hold in nominated)
    return free


def fits(fleet: Fleet, needs: Needs, row: int) -> bool:
    """Whether one row can take the pod now (whoever is nominated)."""
    if not fleet.opinion(needs).eligible[row] or lacking(fleet, needs, row):
        return False
    if is_plain(fleet, needs):
        return True
    among = np.zeros(len(fleet.names), np.bool_)
    among[row] = True
    return not any(refusal.rows[row] for refusals in _special(fleet, needs, among) for refusal in refusals)


def lacking(fleet: Fleet, needs: Needs, row: int) -> list[str]:
    """Resources of which the row has too little."""
    found = []
    for resource, amount in needs.requests.items():
        column = fleet.column(resource)
        if column is None or fleet.allocatable[row, column] - fleet.used[row, column] < amount:
            found.append(resource)
    return found


def diagnose(fleet: Fleet, needs: Needs, rivals: Rivals, only: int | None = None) -> Diagnosis:
    """Every row's reason, or that of row ``only``."""
    rows = len(fleet.names)
    found = Diagnosis(np.full(rows, only is None), np.zeros(rows, np.bool_))
    if only is not None:
        found.left[only] = True
    if (objection := fleet.objection(needs)) is not None:
        found.left[:] = False
        plugin, found.objection = objection
        found.plugins = {plugin}
        return found
    for refusals in _all(fleet, needs, rivals, found.left):
        _apply(found, refusals, found.left.copy())
    for node, nominated in rivals.items():
        row = fleet.row(node)
        if row is None or not found.left[row]:
            continue
        here = np.zeros(rows, np.bool_)
        here[row] = True
        with fleet.assuming(nominated):
            for refusals in _special(fleet, needs, here):
                _apply(found, refusals, here & found.left)
    return found


def _apply(found: Diagnosis, refusals: list[Refusal], among: Bools) -> None:
    refused = np.zeros_like(among)
    incurable = np.zeros_like(among)
    for refusal in refusals:
        hit = refusal.rows & among
        count = int(hit.sum())
        if count:
            found.reasons[refusal.reason] = found.reasons.get(refusal.reason, 0) + count
            found.plugins.add(refusal.plugin)
            refused |= hit
            incurable |= hit & ~np.asarray(refusal.curable)
    found.left &= ~refused
    found.curable |= refused & ~incurable


def _all(fleet: Fleet, needs: Needs, rivals: Rivals, left: Bools) -> Iterator[list[Refusal]]:
    codes = fleet.opinion(needs).codes
    yield [Refusal(codes == i, reason, plugin, False) for i, (reason, plugin) in enumerate(REFUSALS, 1)]
    if needs.ports:
        yield _ports(fleet, needs)
    yield [_insufficient(fleet, needs, resource, rivals) for resource in needs.requests]
    yield from _special(fleet, needs, left, ports=False)


def _insufficient(fleet: Fleet, needs: Needs, resource: str, rivals: Rivals) -> Refusal:
    reason = "Too many pods" if resource == "pods" else f"Insufficient {resource}"
    column = fleet.column(resource)
    if column is None:
        return Refusal(np.ones(len(fleet.names), np.bool_), reason, "NodeResourcesFit", False)
    amount = needs.requests[resource]
    curable: Bools | bool = resource == "pods" or fleet.allocatable[:, column] >= amount
    return Refusal(_free(fleet, resource, column, rivals) < amount, reason, "NodeResourcesFit", curable)


def _special(fleet: Fleet, needs: Needs, among: Bools, *, ports: bool = True) -> Iterator[list[Refusal]]:
    """The filters that most pods do not need. ``among``: rows that matter; it may shrink while this is read."""
    if ports and needs.ports:
        yield _ports(fleet, needs)
    for plugin in fleet.concerned(needs):
        yield from plugin.refusals(needs, among)
    for spread in needs.relations.spread:
        absent, skewed = company.spread_refusals(fleet, needs, spread)
        yield [Refusal(absent, company.NO_DOMAIN, "PodTopologySpread", False)]
        yield [Refusal(skewed, company.SKEWED, "PodTopologySpread")]
    if needs.relations.near:
        yield [Refusal(company.lonely(fleet, needs), company.LONELY, "InterPodAffinity", False)]
    if needs.relations.apart:
        yield [Refusal(company.crowded(fleet, needs), company.CROWDED, "InterPodAffinity")]
    if fleet.crowd.choosy:
        yield [Refusal(company.unwelcome(fleet, needs), company.UNWELCOME, "InterPodAffinity")]


def _ports(fleet: Fleet, needs: Needs) -> list[Refusal]:
    rows = np.zeros(len(fleet.names), np.bool_)
    for name in fleet.ports.conflicts(needs.ports):
        if (row := fleet.row(name)) is not None:
            rows[row] = True
    return [Refusal(rows, PORTS, "NodePorts")]

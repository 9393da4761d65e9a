"""Rows judged by the pods that are there: topology spread, affinity and anti-affinity in both directions. Pure."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from glebe.workloads.binder.fleet import HOSTNAME, Bools, Fleet, Ints
from glebe.workloads.binder.needs import Needs
from glebe.workloads.binder.relations import Spread

SKEWED: Final = "node(s) didn't match pod topology spread constraints"
NO_DOMAIN: Final = f"{SKEWED} (missing required label)"
LONELY: Final = "node(s) didn't match pod affinity rules"
CROWDED: Final = "node(s) didn't match pod anti-affinity rules"
UNWELCOME: Final = "node(s) didn't satisfy existing pods anti-affinity rules"
Floats = npt.NDArray[np.float64]


def _by_domain(fleet: Fleet, topology: str, counts: Ints) -> Ints:
    """The sum of ``counts`` over each row's domain; 0 for rows in none."""
    codes, none = fleet.domains(topology)
    sums = np.bincount(codes, counts, none + 1).astype(np.int64)
    sums[none] = 0
    out: Ints = sums[codes]
    return out


def _inside(fleet: Fleet, topology: str) -> Bools:
    codes, none = fleet.domains(topology)
    inside: Bools = codes != none
    return inside


# --- required


def spread_refusals(fleet: Fleet, needs: Needs, spread: Spread) -> tuple[Bools, Bools]:
    """Rows without the label, and rows whose domain would have too many."""
    codes, none = fleet.domains(spread.topology)
    counted = _counted(fleet, needs, spread, needs.relations.spread)
    counts = fleet.crowd.count((spread.who,))
    sums = np.bincount(codes, np.where(counted, counts, 0), none + 1).astype(np.int64)
    domains = np.unique(codes[counted])
    least = int(sums[domains].min()) if len(domains) else np.iinfo(np.int32).max
    if len(domains) < spread.min_domains:
        least = 0
    return codes == none, sums[codes] + int(spread.own) - least > spread.max_skew


def _counted(fleet: Fleet, needs: Needs, spread: Spread, among: tuple[Spread, ...]) -> Bools:
    """Rows whose pods count: in a domain of every constraint, and included by the constraint's policies."""
    counted: Bools = np.ones(len(fleet.names), np.bool_)
    for each in among:
        counted &= _inside(fleet, each.topology)
    affine, calm = fleet.inclusion(needs)
    if spread.honor_affinity:
        counted &= affine
    if spread.honor_taints:
        counted &= calm
    return counted


def lonely(fleet: Fleet, needs: Needs) -> Bools:
    """Rows that lack the company that the pod requires. The first of its kind may go anywhere with the labels."""
    near = needs.relations.near
    counts = fleet.crowd.count(tuple(term.who for term in near))
    inside: Bools = np.ones(len(fleet.names), np.bool_)
    served: Bools = np.ones(len(fleet.names), np.bool_)
    nobody = True
    for term in near:
        inside &= _inside(fleet, term.topology)
        here = _by_domain(fleet, term.topology, counts) > 0
        served &= here
        nobody = nobody and not here.any()
    if nobody and all(t.who.matches(needs.namespace, needs.labels, fleet.crowd.labels_of) for t in near):
        return ~inside
    return ~(inside & served)


def crowded(fleet: Fleet, needs: Needs) -> Bools:
    """Rows near a pod that this one keeps away from."""
    rows: Bools = np.zeros(len(fleet.names), np.bool_)
    for term in needs.relations.apart:
        rows |= _by_domain(fleet, term.topology, fleet.crowd.count((term.who,))) > 0
    return rows


def unwelcome(fleet: Fleet, needs: Needs) -> Bools:
    """Rows near a pod that keeps away from pods like this one."""
    rows: Bools = np.zeros(len(fleet.names), np.bool_)
    for term, counts in fleet.crowd.avoiding(needs.namespace, needs.labels):
        rows |= _by_domain(fleet, term.topology, counts) > 0
    return rows


# --- preferred: 0 to 100 for each row that is left


def spread_score(fleet: Fleet, needs: Needs, left: Bools) -> Floats | None:
    """ScheduleAnyway constraints: the emptier the domain, the better."""
    constraints = needs.relations.soft_spread
    if not constraints:
        return None
    scored = left.copy()
    by_default = needs.relations.by_default
    if not by_default:
        for each in constraints:
            scored &= _inside(fleet, each.topology)
        if not scored.any():
            return None
    raw = np.zeros(len(fleet.names), np.float64)
    for each in constraints:
        counts = fleet.crowd.count((each.who,))
        if by_default and not fleet.domains(each.topology)[1]:
            continue
        if each.topology == HOSTNAME:
            size, found = int(scored.sum()), counts
        else:
            codes, _ = fleet.domains(each.topology)
            size = len(np.unique(codes[scored]))
            among = () if by_default else constraints
            found = _by_domain(fleet, each.topology, np.where(_counted(fleet, needs, each, among), counts, 0))
        raw += found * math.log(size + 2) + (each.max_skew - 1)
    raw = np.round(raw)
    most, least = raw[scored].max(), raw[scored].min()
    score = np.full(len(raw), 100.0) if most == 0 else np.floor(100 * (most + least - raw) / most)
    return np.where(scored, score, 0.0)


def company_score(fleet: Fleet, needs: Needs, left: Bools) -> Floats | None:
    """Preferred affinity and anti-affinity, the pod's own and that of those who are there."""
    likes = needs.relations.likes
    liking = fleet.crowd.liking(needs.namespace, needs.labels)
    if not likes and not liking:
        return None
    raw = np.zeros(len(fleet.names), np.int64)
    for term, weight in likes:
        raw += weight * _by_domain(fleet, term.topology, fleet.crowd.count((term.who,)))
    for term, weights in liking:
        raw += _by_domain(fleet, term.topology, weights)
    least, most = raw[left].min(), raw[left].max()
    if least == most:
        return None
    score: Floats = np.floor(100 * (raw - least) / (most - least))
    return score

"""Classical preemption: by priority within the queue, and taking quota back within the tree of cohorts.

Candidates of other queues are of two kinds. Over some, the preemptor has a *hierarchical advantage*: its request fits
into the quota of a subtree that they have left to borrow from; their priority counts only as ``reclaimWithinCohort``
says. From the others it may take without borrowing itself, or, with ``borrowWithinCohort``, while it borrows, if they
have a lower priority, not above the threshold. (Kueue KEP-1337, KEP-79.)
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from itertools import pairwise
from typing import NamedTuple

from glebe.scheduling.model import ClusterQueue, Pending, Victim, VictimReason
from glebe.scheduling.policies import PreemptionPolicy
from glebe.scheduling.preemption.roster import Holder, Roster, may_take
from glebe.scheduling.preemption.trial import Target, Trial, Want
from glebe.scheduling.quota import Cell, Need, QuotaState
from glebe.scheduling.world import State, World


class Claim(Enum):
    """On what ground a holder may be preempted."""

    WITHIN_QUEUE = VictimReason.IN_CLUSTER_QUEUE
    HIERARCHY = "advantage"
    NOT_BORROWING = "only while the preemptor's queue does not borrow"
    WHILE_BORROWING = VictimReason.IN_COHORT_WHILE_BORROWING

    @property
    def reason(self) -> VictimReason:
        return self.value if isinstance(self.value, VictimReason) else VictimReason.IN_COHORT_RECLAMATION


class Candidate(NamedTuple):
    holder: Holder
    claim: Claim
    shared: int  # the lowest cohort above both queues; -1 within one queue


class Candidates(NamedTuple):
    """In the order in which they are tried."""

    listed: list[Candidate]
    others: bool  # some are of other queues
    advantage: bool  # the preemptor has a hierarchical advantage over some


def within(quotas: QuotaState, node: int, cells: frozenset[Cell]) -> bool:
    """Does the node use no more than its own (subtree) quota of any of ``cells``?"""
    used, quota = quotas.usage[node], quotas.tree.subtree[node]
    return all(used[c] <= quota[c] for c in cells)


def classical(world: World, state: State, roster: Roster, want: Want) -> tuple[Victim, ...]:
    """Victims by classical preemption; the state is as before afterwards."""
    queue = world.queues[world.tree.names[want.node]]
    candidates = _candidates(queue, state.quotas, roster, want)
    if not candidates.listed:
        return ()
    trial = Trial(state, want)
    for borrowing in _attempts(queue, candidates, state.quotas, want):
        for candidate in _valid(candidates.listed, state.quotas, want, borrowing):
            trial.remove(Target(candidate.holder, candidate.claim.reason))
            if trial.fits(borrowing):
                return trial.fill_back(borrowing)
        trial.restore()
    return ()


def _attempts(queue: ClusterQueue, candidates: Candidates, quotas: QuotaState, want: Want) -> tuple[bool, ...]:
    """Whether the preemptor's queue may borrow, attempt by attempt. Not borrowing allows for more victims."""
    forbidden = queue.preemption.borrow_within is PreemptionPolicy.NEVER
    used, nominal = quotas.usage[want.node], quotas.tree.nominal[want.node]
    if not candidates.others or (forbidden and any(nominal[c] <= used[c] for c in want.short)):
        return (True,)
    if forbidden and not candidates.advantage:
        return (False, True)
    return (True, False)


def _valid(listed: list[Candidate], quotas: QuotaState, want: Want, borrowing: bool) -> Iterator[Candidate]:
    """Those who may be taken at their turn: of other queues only while their side borrows from the preemptor's."""
    for candidate in listed:
        if candidate.claim is not Claim.WITHIN_QUEUE:
            if borrowing and candidate.claim is Claim.NOT_BORROWING:
                continue
            path = quotas.tree.paths[candidate.holder.node]
            below = path[: path.index(candidate.shared)]
            if any(within(quotas, n, want.short) for n in below):
                continue
        yield candidate


def _candidates(queue: ClusterQueue, quotas: QuotaState, roster: Roster, want: Want) -> Candidates:
    policy, own = queue.preemption, want.node
    same: list[Candidate] = []
    if policy.within is not PreemptionPolicy.NEVER:
        same += [
            Candidate(holder, Claim.WITHIN_QUEUE, -1)
            for holder in roster.of(own)
            if may_take(policy.within, want.pending, holder) and holder.uses(want.short)
        ]
    advantage: list[Candidate] = []
    by_priority: list[Candidate] = []
    if quotas.tree.parent[own] >= 0 and policy.reclaim is not PreemptionPolicy.NEVER:
        _in_tree(queue, quotas, roster, want, advantage, by_priority)
    groups = [_in_order(g, roster, own) for g in (advantage, by_priority, same)]
    listed = [c for evicted in (True, False) for g in groups for c in g if c.holder.evicted is evicted]
    return Candidates(listed, bool(advantage or by_priority), bool(advantage))


def _in_order(candidates: list[Candidate], roster: Roster, own: int) -> list[Candidate]:
    by_holder = {c.holder: c for c in candidates}
    return [by_holder[h] for h in roster.in_order(list(by_holder), own)]


def _in_tree(
    queue: ClusterQueue,
    quotas: QuotaState,
    roster: Roster,
    want: Want,
    advantage: list[Candidate],
    by_priority: list[Candidate],
) -> None:
    """Candidates of other queues, subtree by subtree on the way up to the root."""
    path = quotas.tree.paths[want.node]
    ahead, rest = _fit_in_quota(quotas, want.node, want.need)
    for below, root in pairwise(path):
        found = advantage if ahead else by_priority
        for node in _borrowers(quotas, root, below, want):
            for holder in roster.of(node):
                claim = _claim(queue, want, holder, ahead)
                if claim is not None:
                    found.append(Candidate(holder, claim, root))
        fits, rest = _fit_in_quota(quotas, root, rest)
        ahead = ahead or fits


def _borrowers(quotas: QuotaState, cohort: int, skip: int, want: Want) -> Iterator[int]:
    """Queues below ``cohort`` that borrow what is short, through cohorts that do; ``skip`` has been seen."""
    tree = quotas.tree
    for child in tree.children[cohort]:
        if child in (skip, want.node) or within(quotas, child, want.short):
            continue
        if child < tree.cohorts:
            yield from _borrowers(quotas, child, skip, want)
        else:
            yield child


def _claim(queue: ClusterQueue, want: Want, holder: Holder, ahead: bool) -> Claim | None:
    policy = queue.preemption
    if not may_take(policy.reclaim, want.pending, holder) or not holder.uses(want.short):
        return None
    if ahead:
        return Claim.HIERARCHY
    if policy.borrow_within is PreemptionPolicy.NEVER or _too_important(want.pending, holder, policy.max_priority):
        return Claim.NOT_BORROWING
    return Claim.WHILE_BORROWING


def _too_important(pending: Pending, holder: Holder, threshold: int | None) -> bool:
    return holder.priority >= pending.priority or (threshold is not None and holder.priority > threshold)


def _fit_in_quota(quotas: QuotaState, node: int, need: Need) -> tuple[bool, Need]:
    """Does ``need`` fit into the node's own (subtree) quota, and what of it counts in the node's parent?"""
    used, quota, kept = quotas.usage[node], quotas.tree.subtree[node], quotas.tree.guaranteed[node]
    fits = all(used[c] + amount <= quota[c] for c, amount in need)
    return fits, tuple((c, max(0, amount - max(0, kept[c] - used[c]))) for c, amount in need)

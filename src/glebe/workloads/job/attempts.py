"""Which pods a running Job lacks or has too many of, and the failures of each index."""

from __future__ import annotations

from glebe.kube.objects import Object
from glebe.kube.pods import phase_of
from glebe.workloads.job import backoff
from glebe.workloads.job.facts import Facts
from glebe.workloads.job.pods import (
    by_index,
    creation_rank,
    failure_count,
    finish_time,
    index_of,
    is_active,
    is_terminating,
    is_tracked,
    name_of,
    removal_rank,
    uid_of,
)
from glebe.workloads.job.template import build_pod

MAX_PER_ROUND = 500
"""Pods created or removed in one reconciliation (as upstream)."""


def wanted(f: Facts, failed_indexes: set[int]) -> int:
    """How many pods should be active."""
    if f.completions is None:
        return len(f.active) if f.succeeded > 0 else f.parallelism
    done = len(f.succeeded_indexes | failed_indexes) if f.indexed else f.succeeded
    return max(0, min(f.completions - done, f.parallelism))


def surplus(f: Facts, failed_indexes: set[int]) -> list[Object]:
    """Active pods to remove: without a valid index, of an index that is settled or has another pod; then any excess."""
    out: list[Object] = []
    if f.indexed:
        settled = f.succeeded_indexes | failed_indexes
        out += [p for p in f.active if not f.valid_index(i := index_of(p)) or i in settled]
        for pods in by_index(p for p in f.active if p not in out).values():
            out += sorted(pods, key=removal_rank)[: len(pods) - 1]
    excess = len(f.active) - len(out) - wanted(f, failed_indexes)
    if excess > 0:
        rest = [p for p in f.active if p not in out]
        out += sorted(rest, key=removal_rank)[:excess]
    return out[:MAX_PER_ROUND]


def missing(f: Facts, failed_indexes: set[int]) -> int:
    """How many pods to create."""
    present = len(f.active) + (f.terminating if f.waits_for_failed else 0)
    return min(wanted(f, failed_indexes) - present, MAX_PER_ROUND)


def replacements(f: Facts, failed_indexes: set[int], count: int, start_time: str) -> tuple[list[Object], float]:
    """Up to ``count`` new pods, and the seconds until an index that still backs off may have its own (0: none does)."""
    if not f.indexed:
        return _numbered(f, count, start_time), 0.0
    pods = by_index(f.pods)
    out: list[Object] = []
    wait = 0.0
    for index in range(f.completions or 0):
        if len(out) >= count:
            break
        mine = pods.get(index, [])
        occupied = any(is_active(p) or (f.waits_for_failed and is_terminating(p)) for p in mine)
        if occupied or index in f.succeeded_indexes or index in failed_indexes:
            continue
        left = _index_backoff(f, mine) if f.per_index_limit is not None else 0.0
        if left > 0:
            wait = min(wait or left, left)
            continue
        out.append(_indexed(f, index, mine, start_time))
    return out, wait


def _numbered(f: Facts, count: int, start_time: str) -> list[Object]:
    """Names continue where the Job's count of pods stands, so that a repeated attempt chooses the same ones."""
    taken = {name_of(p) for p in f.pods}
    out: list[Object] = []
    serial = f.succeeded + f.failed
    while len(out) < count:
        pod = build_pod(f.job, salt=f"{start_time}/{serial}")
        serial += 1
        if name_of(pod) not in taken and not f.taken(name_of(pod)):
            taken.add(name_of(pod))
            out.append(pod)
    return out


def _indexed(f: Facts, index: int, before: list[Object], start_time: str) -> Object:
    last = max(before, key=creation_rank, default=None)
    failures = None
    if f.per_index_limit is not None:
        failures = _failures(f, before)
    salt = f"{start_time}/{uid_of(last) if last else ''}"
    while f.taken(name_of(pod := build_pod(f.job, salt=salt, index=index, failures=failures))):
        salt += "+"  # somebody else's: perhaps one that this Job has let go
    return pod


def _failures(f: Facts, before: list[Object]) -> int:
    """Failures of an index so far, from the newest pod that tells."""
    failed = [p for p in before if f.has_failed(p)]
    if not failed:
        return 0
    last = max(failed, key=creation_rank)
    return failure_count(last) + (1 if f.counts_as_failed(last) else 0)


def _index_backoff(f: Facts, before: list[Object]) -> float:
    failed = [p for p in before if f.has_failed(p)]
    if not failed:
        return 0.0
    # The failures before the newest pod's stand in its annotation: the pods themselves may be gone.
    ended = finish_time(max(failed, key=creation_rank)) or f.now
    return max(0.0, ended + backoff.delay(_failures(f, before)) - f.now)


def failed_indexes(f: Facts, known: set[int]) -> tuple[set[int], set[str]]:
    """Indexes newly failed for good, and the uids of failed pods to hold back.

    A failed pod carries its index's failure count to its replacement in an annotation, so it keeps its finalizer (and
    cannot vanish) until the replacement exists or the index has failed.
    """
    limit = f.per_index_limit or 0
    newly: set[int] = set()
    held: set[str] = set()
    for index, pods in by_index(f.pods).items():
        if not f.valid_index(index) or index in known or index in f.succeeded_indexes:
            continue
        failed = [p for p in pods if f.has_failed(p)]
        if not failed:
            continue
        last = max(failed, key=creation_rank)
        match = f.policy_match(last)
        if (match and match.action == "FailIndex") or _failures(f, pods) > limit:
            newly.add(index)
            continue
        replaced = any(creation_rank(p) > creation_rank(last) and phase_of(p) != "Failed" for p in pods)
        if is_tracked(last) and not replaced:
            held.add(uid_of(last))
    return newly, held

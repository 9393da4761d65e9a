"""Whether a Job has reached its end, and why: the first reason that applies, in upstream's order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from glebe.kube.objects import Object
from glebe.kube.pods import phase_of
from glebe.workloads.job.facts import Facts
from glebe.workloads.job.failurepolicy import success_rule


@dataclass(frozen=True, slots=True)
class Verdict:
    """``condition`` is FailureTarget or SuccessCriteriaMet; reason and message go on to Failed or Complete."""

    condition: str
    reason: str
    message: str

    @property
    def success(self) -> bool:
        return self.condition == "SuccessCriteriaMet"


def _failure(reason: str, message: str) -> Verdict:
    return Verdict("FailureTarget", reason, message)


def _written_before(f: Facts, failed_indexes: set[int]) -> Verdict | None:
    old = f.verdict
    return Verdict(old["type"], old.get("reason", ""), old.get("message", "")) if old else None


def _pod_failure_policy(f: Facts, failed_indexes: set[int]) -> Verdict | None:
    for pod in f.pods:
        match = f.policy_match(pod)
        if match is not None and match.action == "FailJob":
            return _failure("PodFailurePolicy", match.message)
    return None


def _success_policy(f: Facts, failed_indexes: set[int]) -> Verdict | None:
    message = success_rule(f.spec.get("successPolicy"), f.succeeded_indexes) if f.indexed else None
    return Verdict("SuccessCriteriaMet", "SuccessPolicy", message) if message else None


def _backoff_limit(f: Facts, failed_indexes: set[int]) -> Verdict | None:
    if f.failed > f.backoff_limit or _restarts_exceed(f):
        return _failure("BackoffLimitExceeded", "Job has reached the specified backoff limit")
    return None


def _restarts_exceed(f: Facts) -> bool:
    if f.spec["template"]["spec"].get("restartPolicy") != "OnFailure":
        return False
    restarts = sum(_restarts(p) for p in f.active if phase_of(p) in ("Running", "Pending"))
    return restarts > 0 if f.backoff_limit == 0 else restarts >= f.backoff_limit


def _restarts(pod: Object) -> int:
    status = pod.get("status") or {}
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return sum(int(c.get("restartCount", 0)) for c in containers)


def _deadline(f: Facts, failed_indexes: set[int]) -> Verdict | None:
    limit = f.spec.get("activeDeadlineSeconds")
    if limit is None or f.started_at is None or f.suspended or f.now - f.started_at < limit:
        return None
    return _failure("DeadlineExceeded", "Job was active longer than specified deadline")


def _failed_indexes(f: Facts, failed_indexes: set[int]) -> Verdict | None:
    if f.per_index_limit is None or f.completions is None:
        return None
    most = f.spec.get("maxFailedIndexes")
    if most is not None and len(failed_indexes) > most:
        text = "Job has exceeded the specified maximal number of failed indexes"
        return _failure("MaxFailedIndexesExceeded", text)
    if failed_indexes and len(failed_indexes | f.succeeded_indexes) >= f.completions:
        return _failure("FailedIndexes", "Job has failed indexes")
    return None


def _completions(f: Facts, failed_indexes: set[int]) -> Verdict | None:
    if f.completions is None:
        # A work queue: the first success says that there is no more work; the pods still busy may finish theirs.
        done = f.succeeded > 0 and not f.active
    else:
        done = f.succeeded >= f.completions
    if not done:
        return None
    return Verdict("SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods")


STEPS: tuple[Callable[[Facts, set[int]], Verdict | None], ...] = (
    _written_before,
    _pod_failure_policy,
    _success_policy,
    _backoff_limit,
    _deadline,
    _failed_indexes,
    _completions,
)


def judge(f: Facts, failed_indexes: set[int]) -> Verdict | None:
    """``None`` while the Job goes on."""
    for step in STEPS:
        verdict = step(f, failed_indexes)
        if verdict is not None:
            return verdict
    return None

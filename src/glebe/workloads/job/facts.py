"""What is known about a Job at one moment, counted: the first half of every reconciliation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from glebe.kube.clock import parse_time
from glebe.kube.objects import Object, condition_is_true, get_condition, is_deleting
from glebe.kube.pods import phase_of
from glebe.workloads.job import failurepolicy
from glebe.workloads.job.failurepolicy import Match
from glebe.workloads.job.indexes import parse_indexes
from glebe.workloads.job.pods import creation_rank, index_of, is_active, is_ready, is_terminating, is_tracked, uid_of


@dataclass
class Facts:
    """A Job, its pods and the time.

    ``settled``: the cache shows every creation and deletion that was sent before. ``taken``: whether a pod that is not
    the Job's has this name.
    """

    job: Object
    pods: list[Object]
    now: float
    settled: bool = True
    taken: Callable[[str], bool] = lambda _: False
    spec: Mapping[str, Any] = field(init=False)
    status: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.spec = self.job["spec"]
        self.status = self.job.get("status") or {}
        self.pods = sorted(self.pods, key=creation_rank)

    # --- the Job

    @property
    def indexed(self) -> bool:
        return self.spec.get("completionMode") == "Indexed"

    @property
    def suspended(self) -> bool:
        return bool(self.spec.get("suspend"))

    @property
    def deleting(self) -> bool:
        return is_deleting(self.job)

    @property
    def parallelism(self) -> int:
        return int(self.spec.get("parallelism", 1))

    @property
    def completions(self) -> int | None:
        """``None``: any success is enough (work queue)."""
        value = self.spec.get("completions")
        return None if value is None else int(value)

    @property
    def backoff_limit(self) -> int:
        default = 2**31 - 1 if self.per_index_limit is not None else 6
        return int(self.spec.get("backoffLimit", default))

    @property
    def per_index_limit(self) -> int | None:
        value = self.spec.get("backoffLimitPerIndex")
        return None if value is None else int(value)

    @property
    def waits_for_failed(self) -> bool:
        """``podReplacementPolicy: Failed``: a terminating pod is replaced only when it has ended."""
        return self.spec.get("podReplacementPolicy") == "Failed" or bool(self.spec.get("podFailurePolicy"))

    @property
    def started_at(self) -> float | None:
        text = self.status.get("startTime")
        return parse_time(text) if text else None

    @property
    def finished(self) -> bool:
        return condition_is_true(self.job, "Complete") or condition_is_true(self.job, "Failed")

    @property
    def verdict(self) -> dict[str, Any] | None:
        """The interim condition (FailureTarget or SuccessCriteriaMet) that an earlier reconciliation wrote."""
        for kind in ("FailureTarget", "SuccessCriteriaMet"):
            condition = get_condition(self.job, kind)
            if condition and condition.get("status") == "True":
                return condition
        return None

    # --- its pods

    @cached_property
    def active(self) -> list[Object]:
        return [p for p in self.pods if is_active(p)]

    @cached_property
    def terminating(self) -> int:
        return sum(1 for p in self.pods if is_terminating(p))

    @cached_property
    def ready(self) -> int:
        return sum(1 for p in self.active if is_ready(p))

    def has_failed(self, pod: Object) -> bool:
        """Failed, or deleted before it could say so (unless terminating pods are waited for)."""
        if phase_of(pod) == "Failed":
            return True
        return not self.waits_for_failed and is_deleting(pod) and phase_of(pod) != "Succeeded"

    def policy_match(self, pod: Object) -> Match | None:
        return failurepolicy.match(self.spec.get("podFailurePolicy"), pod)

    def counts_as_failed(self, pod: Object) -> bool:
        """Whether a failed pod adds to ``status.failed``: not when a rule says Ignore or its index is out of range."""
        if self.indexed and not self.valid_index(index_of(pod)):
            return False
        match = self.policy_match(pod)
        return match is None or match.action != "Ignore"

    def valid_index(self, index: int | None) -> bool:
        return index is not None and index < (self.completions or 0)

    # --- uncounted: listed in the status, not yet in the counters

    @cached_property
    def uncounted_succeeded(self) -> list[str]:
        return list((self.status.get("uncountedTerminatedPods") or {}).get("succeeded") or ())

    @cached_property
    def uncounted_failed(self) -> list[str]:
        return list((self.status.get("uncountedTerminatedPods") or {}).get("failed") or ())

    @cached_property
    def tracked(self) -> dict[str, Object]:
        """Pods with the finalizer, by uid."""
        return {uid_of(p): p for p in self.pods if is_tracked(p)}

    @cached_property
    def new_succeeded(self) -> list[Object]:
        known = set(self.uncounted_succeeded)
        return [p for uid, p in self.tracked.items() if phase_of(p) == "Succeeded" and uid not in known]

    @cached_property
    def new_failed(self) -> list[Object]:
        known = set(self.uncounted_failed)
        return [p for uid, p in self.tracked.items() if self.has_failed(p) and uid not in known]

    # --- totals, with what is not written yet

    @cached_property
    def succeeded_indexes(self) -> set[int]:
        done = parse_indexes(self.status.get("completedIndexes"), self.completions)
        return done | {i for p in self.new_succeeded if self.valid_index(i := index_of(p)) and i is not None}

    @cached_property
    def succeeded(self) -> int:
        if self.indexed:
            return len(self.succeeded_indexes)
        return int(self.status.get("succeeded", 0)) + len(self.uncounted_succeeded) + len(self.new_succeeded)

    @cached_property
    def failed(self) -> int:
        new = sum(1 for p in self.new_failed if self.counts_as_failed(p))
        return int(self.status.get("failed", 0)) + len(self.uncounted_failed) + new

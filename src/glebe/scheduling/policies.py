"""Policies of queues and of the whole system, in Kueue's words; the model uses and re-exports them.

Defaults are Kueue's (``kueue.x-k8s.io/v1beta2``, its configuration and its feature gates).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction


class PreemptionPolicy(StrEnum):
    """Whom a preemptor may take from; not every value has a meaning in every place."""

    NEVER = "Never"
    LOWER_PRIORITY = "LowerPriority"
    LOWER_OR_NEWER_EQUAL_PRIORITY = "LowerOrNewerEqualPriority"  # within a queue only
    ANY = "Any"  # in reclaim only


@dataclass(frozen=True, slots=True)
class Preemption:
    """``within``: withinClusterQueue; ``reclaim``: reclaimWithinCohort; the others: borrowWithinCohort.

    ``borrow_within`` is Never or LowerPriority; ``max_priority`` (maxPriorityThreshold) bounds who may be preempted
    by a preemptor that borrows.
    """

    within: PreemptionPolicy = PreemptionPolicy.NEVER
    reclaim: PreemptionPolicy = PreemptionPolicy.NEVER
    borrow_within: PreemptionPolicy = PreemptionPolicy.NEVER
    max_priority: int | None = None


class TryNext(StrEnum):
    """What the search for a flavor does when it could borrow, or preempt, in the one at hand."""

    STOP = "MayStopSearch"
    NEXT = "TryNextFlavor"


class Preference(StrEnum):
    """Between flavors that could all be had somehow."""

    BORROWING = "BorrowingOverPreemption"
    PREEMPTION = "PreemptionOverBorrowing"


@dataclass(frozen=True, slots=True)
class Fungibility:
    when_can_borrow: TryNext = TryNext.STOP
    when_can_preempt: TryNext = TryNext.NEXT
    preference: Preference = Preference.BORROWING


NO_PREEMPTION = Preemption()
FUNGIBLE = Fungibility()


class Backfill(StrEnum):
    """What work behind a queue's blocked head may do meanwhile."""

    GREEDY = "Greedy"  # start whenever it fits, as in Kueue; a large head may wait for ever
    RESERVE = "Reserve"  # start only where that does not delay the head's reserved start, by time limits alone
    RESERVE_PREDICTED = "ReservePredicted"  # the same, trusting the P90 of predicted run times where no limit is set


class FairStrategy(StrEnum):
    FINAL_SHARE = "LessThanOrEqualToFinalShare"
    INITIAL_SHARE = "LessThanInitialShare"


@dataclass(frozen=True, slots=True)
class FairSharing:
    """Instantaneous fair sharing is on; the strategies are tried in order."""

    strategies: tuple[FairStrategy, ...] = (FairStrategy.FINAL_SHARE, FairStrategy.INITIAL_SHARE)


@dataclass(frozen=True, slots=True)
class Afs:
    """Admission fair sharing: LocalQueues of a queue with ``afs`` take turns by decayed use.

    ``usage`` by local queue ("namespace/name") and resource, at the time of the snapshot; ``weights`` by local queue;
    ``resource_weights`` by resource; durations in seconds.
    """

    usage: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    half_life: float = 0.0
    sampling: float = 300.0
    weights: Mapping[str, Fraction] = field(default_factory=dict)
    resource_weights: Mapping[str, float] = field(default_factory=dict)


class QuotaCheck(StrEnum):
    """What a request for a resource means that the ClusterQueue does not list."""

    BLOCK_UNDECLARED = "BlockUndeclared"
    IGNORE_UNDECLARED = "IgnoreUndeclared"


@dataclass(frozen=True, slots=True)
class Gates:
    """Kueue's feature gates that change outcomes, with Kueue's defaults but for one.

    Elastic workloads keep their nodes by default: pods that run do not move because the books say so.
    """

    concurrent_admission: bool = False
    elastic_with_topology: bool = True  # ElasticJobsViaWorkloadSlicesWithTAS, off in Kueue
    orchestrated_preemption: bool = False  # MultiKueueOrchestratedPreemption
    recompute_overlapping: bool = True  # RecomputeAssignmentUponPreemptionTargetsOverlap
    skip_reassignment_of_pods: bool = True  # SkipReassignmentForPodOwnedWorkloads
    balanced_placement: bool = False  # TASBalancedPlacement
    fail_fast: bool = True  # TASFailedNodeReplacementFailFast
    recompute_placement: bool = True  # TASRecomputeAssignmentWithinSchedulingCycle
    preferred_affinity: bool = False  # TASRespectNodeAffinityPreferred
    profile_mixed: bool = True  # TASProfileMixed: unconstrained pods fill what has least room; off: best fit for all
    topology_aware: bool = True  # TopologyAwareScheduling


DEFAULT_GATES = Gates()


class VictimReason(StrEnum):
    IN_CLUSTER_QUEUE = "InClusterQueue"  # by priority within the queue
    IN_COHORT_RECLAMATION = "InCohortReclamation"  # nominal quota taken back from a borrower
    IN_COHORT_WHILE_BORROWING = "InCohortReclaimWhileBorrowing"  # borrowWithinCohort
    IN_COHORT_FAIR_SHARING = "InCohortFairSharing"
    FLAVOR_MIGRATION = "FlavorMigration"  # a variant on a better flavor takes over: an eviction, not a preemption


@dataclass(frozen=True, slots=True)
class Victim:
    """A running workload that must leave; ``key`` as in ``Admitted``."""

    key: str
    reason: VictimReason

"""What can be decided about a workload, and the machine-readable reasons for it; the model re-exports both."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    ADMIT = "Admit"
    WAIT = "Wait"  # will start when something that is in use becomes free
    EVICT = "Evict"  # a running workload must leave: no other node replaces its failed one
    NEVER = "Never"  # cannot start on this fleet and these quotas as they are written


class Reason(StrEnum):
    """Machine reasons; those that Kueue has are Kueue's (condition QuotaReserved)."""

    ADMITTED = "Admitted"
    WAITING_FOR_QUOTA = "WaitingForQuota"
    EXCEEDS_MAX_QUOTA = "ExceedsMaxQuota"
    NO_MATCHING_FLAVOR = "NoMatchingFlavor"
    TOPOLOGY_PLACEMENT_FAILED = "TopologyPlacementFailed"  # waits: capacity exists but is in use or fragmented
    EXCEEDS_CAPACITY = "ExceedsCapacity"  # never: the fleet, or one topology domain, is too small
    WAITING_FOR_PODS_READY = "WaitingForPodsReady"  # blockAdmission: pods of somebody admitted are not ready yet
    WAITING_FOR_PREEMPTED = "WaitingForPreemptedWorkloads"
    ADMISSION_GATED = "AdmissionGated"  # it would have to preempt, and its preemption gate is closed
    PENDING_EVALUATION = "PendingEvaluation"  # skipped: failed checks, or a better variant goes first
    NODE_FAILURES = "NodeFailures"  # with EVICT
    BEHIND_HEAD = "BehindHeadOfQueue"  # StrictFIFO: an older workload of the queue goes first
    QUEUE_STOPPED = "ClusterQueueStopped"
    QUEUE_NOT_FOUND = "ClusterQueueNotFound"
    MISCONFIGURED = "Misconfigured"

"""Words of docs/reference about the life of a workload: preemption, checks, time to save one's work, configuration."""

from __future__ import annotations

from docs_words.rows import Row
from glebe.queueing import labels
from glebe.queueing.admissionchecks import activity
from glebe.queueing.picture import corepolicies

#: (what, name, on, meaning)
ASKED: tuple[Row, ...] = (
    (
        "annotation",
        labels.CHECKPOINT_GRACE,
        "job",
        "`2m`: time to save its work before a preemption stops it, within the configuration's bounds.",
    ),
    ("annotation", labels.CHECKPOINT_SAVED, "job", "The value of `glebe.dev/stop-at`: it is saved, stop it now."),
    ("annotation", labels.ELASTIC_JOB, "job", "`true`: its number of pods may change while it runs."),
    ("annotation", labels.ADMISSION_GATED_BY, "job, Workload", "Names of those who hold it back until they remove it."),
    (
        "annotation",
        labels.ADMISSION_CHECKS,
        "WorkloadPriorityClass",
        "Admission checks that jobs of the class need beside their queue's, separated by commas.",
    ),
    (
        "annotation",
        labels.PRIORITY_BOOST,
        "Workload",
        "A whole number that is added to its priority, where the gate `PriorityBoost` is on.",
    ),
)
WRITTEN: tuple[Row, ...] = (
    ("annotation", labels.STOP_AT, "job, pod", "When it is stopped to make room. Read it, and save your work."),
    ("annotation", labels.APPROVALS, "Workload", "What a person has approved; it is not asked for again."),
    ("annotation", labels.SLICE_NAME, "Workload", "The first slice of an elastic job."),
    ("annotation", labels.REPLACEMENT_FOR, "Workload", "The slice that this one is to replace."),
    ("controller", activity.APPROVAL, "AdmissionCheck", "A person decides."),
    ("controller", corepolicies.PROVISIONING, "AdmissionCheck", "An autoscaler brings nodes."),
)
#: (condition, status, reason, meaning)
CONDITIONS: tuple[Row, ...] = (
    (
        "QuotaReserved",
        "False",
        "PendingEvaluation",
        "It was evicted and is looked at again, now or when its time comes.",
    ),
    ("QuotaReserved", "False", "Suspended", "It had quota, was not admitted yet, and its queue was stopped."),
    ("Admitted", "False", "UnsatisfiedAdmissionChecks", "It has quota; not all of its checks have passed."),
    ("Admitted", "False", "PendingDelayedTopologyRequests", "Its checks have passed; its nodes are being chosen."),
    ("PodsReady", "True", "Recovered", "A pod was lost, and all are ready again."),
    ("PodsReady", "False", "WaitForRecovery", "All pods were ready, and one was lost."),
    ("Evicted", "True", "Preempted", "Another one goes first; the condition Preempted says why."),
    ("Evicted", "True", "PodsReadyTimeout", "Not all pods were ready in time."),
    ("Evicted", "True", "AdmissionCheck", "A check asks to come again later."),
    ("Evicted", "True", "DeactivatedDueTo and the cause", "The queue has set `spec.active` to false; it stays off."),
    ("Preempted", "True", "InClusterQueue", "For a job of its queue, by priority or age."),
    ("Preempted", "True", "InCohortReclamation", "For a queue that takes its nominal quota back."),
    ("Preempted", "True", "InCohortReclaimWhileBorrowing", "For a queue that borrows itself (`borrowWithinCohort`)."),
    ("Preempted", "True", "InCohortFairSharing", "For a queue with a smaller share."),
    ("Evicted", "True", "FlavorMigration", "It moves to a flavor that its queue prefers."),
    ("Requeued", "True", "BackoffFinished", "It has waited, and is in its line again."),
    ("Requeued", "True", "LocalQueueRestarted", "Its LocalQueue was started again."),
    ("Requeued", "True", "ClusterQueueRestarted", "Its ClusterQueue was started again."),
    ("Requeued", "True", "Reactivated", "Somebody has set `spec.active` to true again."),
    ("DeactivationTarget", "True", "AdmissionCheck", "A check was rejected: `spec.active` becomes false."),
    ("DeactivationTarget", "True", "RequeuingLimitExceeded", "Its pods were not ready too often."),
    (
        "BlockedOnPreemptionGates",
        "True or False",
        "the reason of the change",
        "A closed gate keeps it from preempting.",
    ),
    ("Finished", "True", "WorkloadSliceReplaced", "Another slice of its elastic job has taken over."),
    ("Finished", "True", "OutOfSync", "A slice that its elastic job has no use for."),
)
#: (of, reason, meaning)
CHECKS: tuple[Row, ...] = (
    ("ClusterQueue", "AdmissionCheckNotFound", "An AdmissionCheck that it names does not exist: it admits nothing."),
    ("ClusterQueue", "AdmissionCheckInactive", "Nobody works on one of its AdmissionChecks: it admits nothing."),
    ("AdmissionCheck", "Active", "Somebody works on it."),
    ("AdmissionCheck", "BadParametersRef", "What it names as its parameters is missing or of another kind."),
)
#: (about, type, reason, meaning)
EVENTS: tuple[Row, ...] = (
    ("job, Workload", "Normal", "EvictedDueTo and the reason", "It must stop."),
    ("job, Workload", "Normal", "Preempted", "For whom, and both priorities."),
    ("job, Workload", "Normal", "PreemptedWorkload", "Who makes room for it."),
    ("job, Workload", "Warning", "CheckpointRequested", "It will be stopped at the time given: save your work."),
    ("job, Workload", "Normal", "ApprovalRequested", "A person is to decide."),
    ("job, Workload", "Warning", "AdmissionCheckRejected", "A check says no; it is switched off."),
    ("job, Workload", "Normal", "AdmissionCheckUpdated", "A check has another state."),
    ("job, Workload", "Normal", "ProvisioningRequestCreated", "Nodes were asked for."),
    ("Workload", "Normal", "Deleted", "It had ended, or was stopped for good, long enough ago."),
)

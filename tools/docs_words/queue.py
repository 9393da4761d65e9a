"""Reasons of the queue: why a job waits, conditions of Workloads and queues, answers at submission."""

from __future__ import annotations

from docs_words.rows import Row
from glebe.platform.views import State
from glebe.scheduling.model import Reason

#: Reason -> (waits or never, meaning, what helps)
DECISIONS: dict[Reason, tuple[str, str, str]] = {
    Reason.ADMITTED: ("-", "It starts, or has started.", "-"),
    Reason.WAITING_FOR_QUOTA: (
        "waits",
        "The quota that it may use is held by others, or kept for the head of a StrictFIFO queue.",
        "Wait, ask for less, or raise the quota.",
    ),
    Reason.EXCEEDS_MAX_QUOTA: (
        "never",
        "It asks for more than its queue may ever use, borrowing included.",
        "Ask for less, or raise `nominalQuota` or `borrowingLimit`.",
    ),
    Reason.NO_MATCHING_FLAVOR: (
        "never",
        "No flavor of its queue fits its requests, node selector, tolerations and topology level.",
        "Change these, or use another queue.",
    ),
    Reason.TOPOLOGY_PLACEMENT_FAILED: (
        "waits",
        "Quota is free, and there is no room on nodes that fit: they are in use, or not close enough together.",
        "Wait, or make the topology preferred instead of required.",
    ),
    Reason.EXCEEDS_CAPACITY: (
        "never",
        "The nodes, or one domain of the topology that it requires, are too small for it even when they are empty.",
        "Ask for less, prefer the topology instead of requiring it, or add nodes.",
    ),
    Reason.WAITING_FOR_PREEMPTED: (
        "waits",
        "Others must leave for it and have been told to, or it fits as soon as such workloads have left.",
        "-",
    ),
    Reason.WAITING_FOR_PODS_READY: (
        "waits",
        "With `waitForPodsReady.blockAdmission`, the pods of workloads that were admitted before are not ready yet.",
        "-",
    ),
    Reason.ADMISSION_GATED: (
        "waits",
        "It could start only by preemption, and one of its preemption gates is closed.",
        "Open the gate, or wait until something ends.",
    ),
    Reason.PENDING_EVALUATION: (
        "waits",
        "It is passed over: an admission check has failed and is tried again, or a variant of it on a better flavor "
        "goes first.",
        "-",
    ),
    Reason.NODE_FAILURES: (
        "-",
        "A node of it failed while it ran, and no other one can take over its pods: it is evicted, and waits again.",
        "-",
    ),
    Reason.WAITING_FOR_PREEMPTED: (
        "waits",
        "Others make room for it, or for one that goes first: their pods are being stopped.",
        "Wait: it goes first in its queue.",
    ),
    Reason.WAITING_FOR_PODS_READY: (
        "waits",
        "`blockAdmission`: pods of a job that was admitted before are not ready yet.",
        "Wait until they are, or until their time is over.",
    ),
    Reason.PENDING_EVALUATION: (
        "waits",
        "It was evicted and may not come back yet, or an admission check has failed.",
        "Wait for the time that the message names.",
    ),
    Reason.ADMISSION_GATED: (
        "waits",
        "Somebody holds it back, or it would have to preempt and a preemption gate is closed.",
        "Whoever set the gate opens it.",
    ),
    Reason.BEHIND_HEAD: (
        "waits",
        "An older workload of a StrictFIFO queue goes first.",
        "Wait, raise the priority, or use a BestEffortFIFO queue.",
    ),
    Reason.QUEUE_STOPPED: ("waits", "The queue is stopped.", "Set its `stopPolicy` to `None`."),
    Reason.QUEUE_NOT_FOUND: (
        "never",
        "Its LocalQueue or ClusterQueue does not exist or is being deleted.",
        "Create it, or name one that exists.",
    ),
    Reason.MISCONFIGURED: (
        "never",
        "A flavor or topology that its queue names does not exist, a class that its job names does not exist, the "
        "queue does not take workloads of its namespace, or its pod template cannot be understood.",
        "Correct what the message names.",
    ),
}


#: (condition, status, reason, meaning)
WORKLOAD: tuple[Row, ...] = (
    ("QuotaReserved", "True", "QuotaReserved", "It holds quota, and nodes where its flavor has a topology."),
    ("QuotaReserved", "False", "Deactivated", "`spec.active` is false: it has no place in the queue."),
    ("QuotaReserved", "False", "one of the reasons above", "It waits, or never starts."),
    ("Admitted", "True", "Admitted", "Its job may run."),
    ("Admitted", "False", "NoReservation", "It lost its quota."),
    ("PodsReady", "True", "Started", "All pods are ready or have succeeded."),
    ("PodsReady", "False", "WaitForStart", "Not all pods are ready, or it waits to be admitted again."),
    ("Evicted", "True", "Deactivated", "Somebody set `spec.active` to false."),
    ("Evicted", "True", "LocalQueueStopped", "Its LocalQueue was set to `HoldAndDrain`."),
    ("Evicted", "True", "ClusterQueueStopped", "Its ClusterQueue was set to `HoldAndDrain`."),
    (
        "Evicted",
        "True",
        "NodeFailures",
        "No other node can take over from a failed one, or too many failed at once; it starts anew as a whole.",
    ),
    ("Evicted", "False", "QuotaReserved", "It was evicted once and has been admitted again."),
    ("DeactivationTarget", "True", "MaximumExecutionTimeExceeded", "Its time is over: `spec.active` becomes false."),
    ("Requeued", "True", "the reason of the eviction", "Its pods are gone and it waits again."),
    ("Requeued", "False", "the reason of the eviction", "Its pods are gone and it does not wait again."),
    ("Finished", "True", "Succeeded", "Its job completed."),
    ("Finished", "True", "Failed", "Its job failed."),
)


#: (of, reason, meaning)
QUEUES: tuple[Row, ...] = (
    ("both", "Ready", "Active: workloads can be admitted."),
    ("ClusterQueue", "Stopped", "`spec.stopPolicy` is `Hold` or `HoldAndDrain`."),
    ("ClusterQueue", "Terminating", "It is being deleted."),
    ("ClusterQueue", "FlavorNotFound", "A flavor that it names does not exist."),
    ("ClusterQueue", "TopologyNotFound", "The topology of one of its flavors does not exist."),
    (
        "both",
        "FieldsNotActedOn",
        "Condition `NotActedOn`: the spec asks for what has no effect yet; the message says what.",
    ),
    ("LocalQueue", "ClusterQueueDoesNotExist", "Its ClusterQueue does not exist."),
    ("LocalQueue", "ClusterQueueIsInactive", "Its ClusterQueue cannot admit."),
    ("LocalQueue", "LocalQueueStopped", "`spec.stopPolicy` is `Hold` or `HoldAndDrain`."),
)


#: (state, meaning)
STATES: dict[State, str] = {
    State.WAITING: "In the queue. `Accepted` as reason: the queue has not looked at it yet.",
    State.NEVER: "As it is written it cannot start, however long it waits.",
    State.STARTING: "Admitted; some of its pods are not ready yet.",
    State.RUNNING: "All pods are ready or have succeeded.",
    State.SUSPENDED: "Suspended outside any queue, or its Workload is deactivated (`Deactivated`).",
    State.STOPPED: "Its maximum execution time is over (`MaximumExecutionTimeExceeded`). It does not start again.",
    State.SUCCEEDED: "It completed.",
    State.FAILED: "It failed.",
    State.DELETING: "It is being deleted.",
}


#: (answer, text begins with, when)
AT_SUBMISSION: tuple[Row, ...] = (
    ("warning", "there is no LocalQueue", "The job names a queue that its namespace lacks. It waits for it."),
    ("warning", "is accepted but not acted on yet", "A field, label or annotation of Kueue's that has no effect yet."),
    ("warning", "the job will never start as things are", "The core says *never* on the fleet and quotas of now."),
    ("refused, 422", "there is no such WorkloadClass", "`glebe.dev/class` names none."),
    ("refused, 422", "there is no WorkloadPriorityClass", "`kueue.x-k8s.io/priority-class` names none."),
    ("refused, 422", "must be whole seconds above zero", "`kueue.x-k8s.io/max-exec-time-seconds`."),
    ("refused, 422", "is not a run time", "`glebe.dev/expected-run-time`."),
    ("refused, 422", "at most one of them may be given", "More than one topology annotation."),
    ("refused, 422", "must be greater than or equal to 0", "A negative number of pods, or a negative request."),
    ("refused, 422", "the queue of a running job cannot change", "An update of the queue label."),
)

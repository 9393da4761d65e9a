"""Names of labels, annotations, gates and conditions: Kueue's where Kueue has one, ``glebe.dev`` else."""

from __future__ import annotations

PREFIX = "kueue.x-k8s.io/"

# What users write on a job.
QUEUE_NAME = PREFIX + "queue-name"
PRIORITY_CLASS = PREFIX + "priority-class"
MAX_EXEC_TIME = PREFIX + "max-exec-time-seconds"
CLASS = "glebe.dev/class"
EXPECTED_RUN_TIME = "glebe.dev/expected-run-time"

# What users write on a pod template.
REQUIRED_TOPOLOGY = PREFIX + "podset-required-topology"
PREFERRED_TOPOLOGY = PREFIX + "podset-preferred-topology"
UNCONSTRAINED_TOPOLOGY = PREFIX + "podset-unconstrained-topology"
SLICE_TOPOLOGY = PREFIX + "podset-slice-required-topology"
SLICE_SIZE = PREFIX + "podset-slice-size"
SLICE_CONSTRAINTS = PREFIX + "podset-slice-required-topology-constraints"

# What Glebe writes.
POD_SET = PREFIX + "podset"
LOCAL_QUEUE = PREFIX + "local-queue-name"
CLUSTER_QUEUE = PREFIX + "cluster-queue-name"
WORKLOAD = PREFIX + "workload"
JOB_UID = PREFIX + "job-uid"
MANAGED = PREFIX + "managed"
SUBMITTED_BY = "glebe.dev/submitted-by"
SUBMITTED_AT = "glebe.dev/submitted-at"
MISSING_CLASS = "glebe.dev/missing-class"

#: Every pod of a queued job carries this gate until its whole gang may start.
GATE = PREFIX + "topology"

HOSTNAME = "kubernetes.io/hostname"
COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"
JOB_CONTROLLER_UID = "batch.kubernetes.io/controller-uid"

#: Finalizer of ClusterQueues: one that is deleted goes only when nothing holds its quota any more.
IN_USE = PREFIX + "resource-in-use"

#: The LocalQueue that is taken when a job names none, where a namespace has one of this name.
DEFAULT_QUEUE = "default"
DEFAULT_POD_SET = "main"

# Workload conditions.
QUOTA_RESERVED = "QuotaReserved"
ADMITTED = "Admitted"
PODS_READY = "PodsReady"
EVICTED = "Evicted"
REQUEUED = "Requeued"
DEACTIVATION_TARGET = "DeactivationTarget"
FINISHED = "Finished"

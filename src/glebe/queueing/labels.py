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
#: What the other version of a kueue.x-k8s.io object says and this one has no field for.
FIELDS_OF_V1BETA1 = "glebe.dev/fields-of-v1beta1"
FIELDS_OF_V1BETA2 = "glebe.dev/fields-of-v1beta2"
#: A forecast where the status is not Glebe's to write (advisory mode).
FORECAST = "glebe.dev/forecast"
MISSING_CLASS = "glebe.dev/missing-class"

PROVISIONING_PREFIX = "provreq.kueue.x-k8s.io/"
PRIORITY_BOOST = PREFIX + "priority-boost"
ADMISSION_GATED_BY = PREFIX + "admission-gated-by"
ELASTIC_JOB = PREFIX + "elastic-job"
SLICE_NAME = PREFIX + "workload-slice-name"
REPLACEMENT_FOR = PREFIX + "workload-slice-replacement-for"

# Of classes and queues.
#: Which other logical clusters may use a ClusterQueue of the host: names or patterns, separated by commas.
CLUSTERS = "glebe.dev/clusters"
ADMISSION_CHECKS = "glebe.dev/admission-checks"
APPROVALS = "glebe.dev/approvals"
MINIMUM_RUN_TIME = "glebe.dev/minimum-run-time"
#: On a ClusterQueue: what may start behind its blocked head (Greedy, Reserve, ReservePredicted).
BACKFILL = "glebe.dev/backfill"
#: On a root Cohort: whether its tree shares fairly (Enabled, Disabled), whatever the configuration says.
FAIR_SHARING = "glebe.dev/fair-sharing"

# Before a preemption: what a job asks for, what it is told, what it answers.
CHECKPOINT_GRACE = "glebe.dev/checkpoint-grace"
STOP_AT = "glebe.dev/stop-at"
CHECKPOINT_SAVED = "glebe.dev/checkpoint-saved"

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
PREEMPTED = "Preempted"
BLOCKED_ON_GATES = "BlockedOnPreemptionGates"
REQUEUED = "Requeued"
DEACTIVATION_TARGET = "DeactivationTarget"
FINISHED = "Finished"

# Pods and pod groups.
#: The gate of pods that are queued themselves; :data:`GATE` holds them further until they have a place.
ADMISSION_GATE = PREFIX + "admission"
MANAGED_FINALIZER = MANAGED
POD_GROUP = PREFIX + "pod-group-name"
POD_GROUP_TOTAL = PREFIX + "pod-group-total-count"
POD_GROUP_FAST = PREFIX + "pod-group-fast-admission"
POD_GROUP_SERVING = PREFIX + "pod-group-serving"
POD_GROUP_INDEX = PREFIX + "pod-group-pod-index"
POD_GROUP_INDEX_LABEL = PREFIX + "pod-group-pod-index-label"
RETRIABLE = PREFIX + "retriable-in-group"
ROLE_HASH = PREFIX + "role-hash"
SUSPENDING_PARENT = PREFIX + "pod-suspending-parent"
GROUP_WORKLOAD = PREFIX + "is-group-workload"
OWNER_KIND = PREFIX + "job-owner-gvk"
OWNER_NAME = PREFIX + "job-owner-name"
COMPONENT_INDEX = PREFIX + "component-workload-index"
MIN_PARALLELISM = PREFIX + "job-min-parallelism"
POD_SET_GROUP = PREFIX + "podset-group-name"
POD_INDEX_OFFSET = PREFIX + "pod-index-offset"
WAITING_FOR_REPLACEMENT = "WaitingForReplacementPods"
TERMINATION_TARGET = "TerminationTarget"
ON_HOLD = "OnHold"

#: What a job said of its pods before it was started, to put it back when it is stopped.
BEFORE_START = "glebe.dev/before-start"
#: On admission policies: of a kind of job that somebody declared.
DECLARED_KIND = "glebe.dev/declared-kind"

# The words of other queues, understood on jobs and pods.
KAI_QUEUE = "kai.scheduler/queue"
KAI_SCHEDULER = "kai-scheduler"
KAI_GPU_FRACTION = "gpu-fraction"
KAI_GPU_MEMORY = "gpu-memory"
KAI_GPU_DEVICES = "gpu-fraction-num-devices"
VOLCANO_QUEUE = "scheduling.volcano.sh/queue-name"
VOLCANO_GROUP = "scheduling.k8s.io/group-name"
VOLCANO_SCHEDULER = "volcano"
#: Thousandths of one GPU, as quota counts what is asked for by fraction.
GPU_SHARE = "glebe.dev/gpu-milli"

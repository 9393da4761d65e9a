"""The words that users write and read: labels, annotations, reasons. Tables, and the pages made of them.

The tests check both ways: every name in the code stands here, and nothing stands here that the code does not know.
"""

from __future__ import annotations

from docs_page import NOTE, cell, code, table
from glebe.gpu import catalogue
from glebe.kube import storage
from glebe.platform.views import State
from glebe.queueing import labels, notactedon
from glebe.scheduling.model import Reason

Row = tuple[str, ...]

# --- docs/reference/labels.md

#: (what, name, on, meaning)
JOB_LABELS: tuple[Row, ...] = (
    ("label", labels.QUEUE_NAME, "job", "The LocalQueue of the job's namespace. Fixed while the job runs."),
    ("label", labels.PRIORITY_CLASS, "job", "A WorkloadPriorityClass. Wins over the class's priority."),
    ("label", labels.CLASS, "job", "A WorkloadClass: priority and usual run time."),
    (
        "label",
        labels.MAX_EXEC_TIME,
        "job",
        "Seconds after which a running job is stopped. Bounds forecasts, too.",
    ),
    ("annotation", labels.EXPECTED_RUN_TIME, "job", "`20m` (the median) or `20m..35m` (median..90th percentile)."),
    ("annotation", labels.REQUIRED_TOPOLOGY, "pod template", "A node label: all pods in one domain of this level."),
    (
        "annotation",
        labels.PREFERRED_TOPOLOGY,
        "pod template",
        "A node label: in one domain of this level if possible, else of the next wider one, else anywhere.",
    ),
    ("annotation", labels.UNCONSTRAINED_TOPOLOGY, "pod template", "`true`: any nodes of the flavor."),
    (
        "annotation",
        "glebe.dev/user",
        "pod",
        "Whom the ledger names as user, where `glebe.dev/submitted-by` is missing.",
    ),
)

SIMULATION: tuple[Row, ...] = (
    (
        "annotation",
        "sim.glebe.dev/run-time",
        "pod template",
        "How long containers run: `90s`, `1h30m`, `lognormal(60s, 0.5)`, `uniform(10s, 1m)`, `exponential(5m)`.",
    ),
    ("annotation", "sim.glebe.dev/exit-code", "pod template", "The exit code at the end of the run; default 0."),
    ("annotation", "sim.glebe.dev/exit-reason", "pod template", "The reason of that end, such as `OOMKilled`."),
    ("annotation", "sim.glebe.dev/fail-after", "pod template", "End earlier than that, with `exit-code` or 1."),
    ("annotation", "sim.glebe.dev/fail-times", "pod template", "How many runs of a container fail; default all."),
    ("annotation", "sim.glebe.dev/start-delay", "pod template", "From the binding to the start."),
    ("annotation", "sim.glebe.dev/image-pull", "pod template", "How long pulling the images takes; default 0."),
    (
        "annotation",
        "sim.glebe.dev/image-pull-error",
        "pod template",
        "For how long the images cannot be pulled, or `forever`.",
    ),
    ("annotation", "sim.glebe.dev/ready-after", "pod template", "From the start to being ready."),
    (
        "annotation",
        "sim.glebe.dev/init-time",
        "pod template",
        "How long each init container takes, written as `run-time`; default 0.",
    ),
    ("annotation", "sim.glebe.dev/init-exit-code", "pod template", "The exit code of each init container; default 0."),
    (
        "annotation",
        "sim.glebe.dev/cpu-usage",
        "pod template",
        "What `kubectl top` says of containers: a quantity, a percentage of the request, or `CONTAINER=AMOUNT,...`.",
    ),
    ("annotation", "sim.glebe.dev/memory-usage", "pod template", "The same for memory; default the request."),
    (
        "annotation",
        "sim.glebe.dev/stop-time",
        "pod template",
        "How long containers need after SIGTERM, at most the grace period; default 0.",
    ),
)

WRITTEN: tuple[Row, ...] = (
    ("finalizer", labels.IN_USE, "ClusterQueue", "Keeps a deleted queue until nothing holds its quota any more."),
    ("scheduling gate", labels.GATE, "pod", "Keeps a queued pod from being bound until its gang is released."),
    ("label", labels.POD_SET, "pod", "The pod set of the Workload that the pod belongs to."),
    ("label", labels.LOCAL_QUEUE, "pod", "The LocalQueue, for the ledger."),
    ("label", labels.CLUSTER_QUEUE, "pod", "The ClusterQueue whose quota it uses; set when the gang is released."),
    ("annotation", labels.WORKLOAD, "pod", "The Workload; set when the gang is released."),
    ("label", labels.JOB_UID, "Workload", "The uid of the job that it stands for."),
    ("annotation", labels.SUBMITTED_AT, "Workload", "When it came into the queue, to the microsecond."),
    ("annotation", labels.SUBMITTED_BY, "job, pod, Workload", "The user who created the job."),
    ("annotation", labels.MISSING_CLASS, "Workload", "The class that its job names and that does not exist."),
    (
        "annotation",
        "glebe.dev/content-hash",
        "CustomResourceDefinition",
        "What Glebe installed, so that it updates only what changed.",
    ),
    ("label", labels.MANAGED, "-", "Reserved; neither read nor written yet."),
    ("label", "app.kubernetes.io/managed-by", "Job, Service", "`glebe`, on what `glebe run` made."),
    ("label", "app.kubernetes.io/name", "pod", "The job's name, on pods of `glebe run`."),
)

NODES: tuple[Row, ...] = (
    ("label", "glebe.dev/node-kind", "node", "`simulated` or `process`."),
    ("label", "glebe.dev/pool", "node", "The pool of the fleet file."),
    ("label", "topology.glebe.dev/block", "node", "The block that the node stands in."),
    ("label", "topology.glebe.dev/rack", "node", "The rack that the node stands in."),
    ("label", "kubernetes.io/hostname", "node", "The node's name: the narrowest level of a topology."),
    ("label", "kubernetes.io/arch", "node", "`amd64` or `arm64`."),
    ("label", "kubernetes.io/os", "node", "`linux`."),
    ("label", "nvidia.com/gpu.present", "node", "`true` on nodes with GPUs."),
    ("label", "nvidia.com/gpu.product", "node", "The GPU model; default flavors are made from it."),
    ("label", "nvidia.com/gpu.count", "node", "GPUs of the node."),
    ("label", "nvidia.com/gpu.memory", "node", "Memory of one GPU in MiB."),
    ("label", "nvidia.com/gpu.family", "node", "The architecture, e.g. `hopper`."),
    ("label", "nvidia.com/gpu.compute.major", "node", "CUDA compute capability, before the dot."),
    ("label", "nvidia.com/gpu.compute.minor", "node", "CUDA compute capability, after the dot."),
    ("label", "nvidia.com/gpu.replicas", "node", "`1`: no time slicing."),
    ("label", "nvidia.com/mig.capable", "node", "Whether a GPU of the node can be partitioned."),
    ("label", "nvidia.com/gpu.mode", "node", "`compute` or `graphics`; `unknown` where boards differ."),
    ("label", "nvidia.com/gpu.clique", "node", "The NVLink fabric over several nodes, and the clique in it."),
    ("label", "nvidia.com/gpu.sharing-strategy", "node", "`none`."),
    ("label", "nvidia.com/mps.capable", "node", "`false`."),
    ("label", "nvidia.com/mig.strategy", "node", "How MIG devices are offered: `mixed` or `single`."),
    ("label", "nvidia.com/cuda.driver-version.full", "node", "The driver's version."),
    ("label", "nvidia.com/cuda.driver-version.major", "node", "Its first number."),
    ("label", "nvidia.com/cuda.driver-version.minor", "node", "Its second number."),
    ("label", "nvidia.com/cuda.driver-version.revision", "node", "Its third number."),
    ("label", "nvidia.com/cuda.runtime-version.full", "node", "The CUDA version that the driver supports at most."),
    ("label", "nvidia.com/cuda.runtime-version.major", "node", "Its first number."),
    ("label", "nvidia.com/cuda.runtime-version.minor", "node", "Its second number."),
    ("label", "nvidia.com/cuda.driver.major", "node", "As `cuda.driver-version.major`, under its older name."),
    ("label", "nvidia.com/cuda.driver.minor", "node", "As `cuda.driver-version.minor`, under its older name."),
    ("label", "nvidia.com/cuda.driver.rev", "node", "As `cuda.driver-version.revision`, under its older name."),
    ("label", "nvidia.com/cuda.runtime.major", "node", "As `cuda.runtime-version.major`, under its older name."),
    ("label", "nvidia.com/cuda.runtime.minor", "node", "As `cuda.runtime-version.minor`, under its older name."),
    ("attribute", "nvlink.glebe.dev/island", "device", "Equal for GPUs that reach each other over NVLink."),
    ("attribute", "nvlink.glebe.dev/links", "device", "How many NVLinks of the GPU are active."),
    ("taint", "glebe.dev/given", "device", "A pod has it as an extended resource: no claim can have it meanwhile."),
    ("resource", "nvidia.com/gpu", "node, container", "Whole GPUs."),
    ("taint", "node.kubernetes.io/not-ready", "node", "The node says that it is not ready."),
    ("taint", "node.kubernetes.io/unreachable", "node", "No heartbeat for 40 s."),
    ("taint", "node.kubernetes.io/unschedulable", "node", "Cordoned."),
    ("taint", "node.kubernetes.io/memory-pressure", "node", "DaemonSets tolerate it; Glebe's own nodes never have it."),
    ("taint", "node.kubernetes.io/disk-pressure", "node", "As above."),
    ("taint", "node.kubernetes.io/pid-pressure", "node", "As above."),
    ("taint", "node.kubernetes.io/network-unavailable", "node", "As above, for pods on the node's own network."),
    (
        "taint",
        "node.kubernetes.io/out-of-service",
        "node",
        "Written by people: it is down for good, its ending pods are gone.",
    ),
)

JOBS: tuple[Row, ...] = (
    ("label", "batch.kubernetes.io/job-name", "pod", "The job."),
    ("label", "batch.kubernetes.io/controller-uid", "pod", "The job's uid."),
    ("annotation, label", "batch.kubernetes.io/job-completion-index", "pod", "The pod's index, which is its rank."),
    ("annotation", "batch.kubernetes.io/job-index-failure-count", "pod", "Failures of the index before this pod."),
    ("finalizer", "batch.kubernetes.io/job-tracking", "pod", "Held until the Job has counted the pod."),
    ("provisioner", storage.LOCAL_PATH, "StorageClass", "Makes volumes on Glebe's own nodes; class `local-path`."),
    ("annotation", storage.SIMULATED, "PersistentVolume", "A simulated node's: there is nothing behind it."),
    ("finalizer", storage.FINALIZER, "PersistentVolume", "Held by a process node until the data is removed."),
    ("annotation", storage.SELECTED_NODE, "PersistentVolumeClaim", "The node where its volume is to be made."),
    ("annotation", "batch.kubernetes.io/cronjob-scheduled-timestamp", "job", "When its CronJob's schedule had it due."),
)

UNUSED: tuple[Row, ...] = (
    *(("label", name, "job", f"{text}.") for name, text in notactedon.JOB_LABELS.items()),
    *(("annotation", name, "job", f"{text}.") for name, text in notactedon.JOB_ANNOTATIONS.items()),
    *(("annotation", name, "pod template", f"{text}.") for name, text in notactedon.POD_ANNOTATIONS.items()),
)

LABEL_TABLES: tuple[tuple[str, str, tuple[Row, ...]], ...] = (
    ("What users write", "On a job that shall queue.", JOB_LABELS),
    ("What simulated nodes read", "Other nodes ignore it. See [Nodes](../nodes.md).", SIMULATION),
    ("What Glebe writes", "Do not write these yourself.", WRITTEN),
    (
        "Nodes",
        "Written by Glebe's own nodes. On a real cluster the `nvidia.com` labels come from GPU feature discovery, and "
        "flavors and topologies may name any label.",
        NODES,
    ),
    ("Pods of Jobs", "As in any Kubernetes.", JOBS),
    (
        "Kueue's, not acted on yet",
        "A queued job may carry them, and they have no effect; the embedded server warns. What they do with Kueue:",
        UNUSED,
    ),
)


def labels_page() -> dict[str, str]:
    parts = [NOTE + "# Labels, annotations and other names\n"]
    for title, text, rows in LABEL_TABLES:
        body = table(("what", "name", "on", "meaning"), ((w, code(n), on, cell(m)) for w, n, on, m in rows))
        parts.append(f"## {title}\n\n{text}\n\n{body}")
    return {"docs/reference/labels.md": "\n".join(parts)}


# --- docs/reference/reasons.md

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
    ("QuotaReserved", "False", "Pending", "It was evicted and waits again."),
    ("QuotaReserved", "False", "Deactivated", "`spec.active` is false: it has no place in the queue."),
    ("QuotaReserved", "False", "one of the reasons above", "It waits, or never starts."),
    ("Admitted", "True", "Admitted", "Its job may run."),
    ("Admitted", "False", "NoReservation", "It lost its quota."),
    ("PodsReady", "True", "Started", "All pods are ready or have succeeded."),
    ("PodsReady", "False", "WaitForStart", "Not all pods are ready, or it waits to be admitted again."),
    ("Evicted", "True", "Deactivated", "Somebody set `spec.active` to false."),
    (
        "Evicted",
        "True",
        "DeactivatedDueToMaximumExecutionTimeExceeded",
        "It ran for its maximum execution time. It does not start again.",
    ),
    ("Evicted", "True", "LocalQueueStopped", "Its LocalQueue was set to `HoldAndDrain`."),
    ("Evicted", "True", "ClusterQueueStopped", "Its ClusterQueue was set to `HoldAndDrain`."),
    (
        "Evicted",
        "True",
        "NodeFailures",
        "A node of it is gone, not ready for long or shut to one of its pods; it starts anew.",
    ),
    ("Evicted", "False", "QuotaReserved", "It was evicted once and has been admitted again."),
    ("DeactivationTarget", "True", "MaximumExecutionTimeExceeded", "Its time is over: `spec.active` becomes false."),
    ("DeactivationTarget", "False", "Deactivated", "That has been done."),
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

#: (about, type, reason, meaning)
EVENTS: tuple[Row, ...] = (
    ("job, Workload", "Normal", "Pending", "It waits; the message is the sentence and the remedy."),
    ("job, Workload", "Warning", "a reason with *never*", "It never starts as things are."),
    ("job, Workload", "Normal", "QuotaReserved", "It was given quota."),
    ("job, Workload", "Normal", "Admitted", "It may run."),
    ("job, Workload", "Warning", "Evicted", "It must stop."),
    ("job, Workload", "Warning", "MaximumExecutionTimeExceeded", "It ran for its maximum execution time."),
    ("job, Workload", "Normal", "Finished", "It ended."),
    ("Job", "Normal", "Suspended", "`spec.suspend` became true."),
    ("Job", "Normal", "Resumed", "`spec.suspend` became false."),
    ("Job", "Normal", "SuccessfulCreate", "A pod was made."),
    ("Job", "Warning", "FailedCreate", "A pod could not be made."),
    ("Job", "Normal", "SuccessfulDelete", "A pod was deleted."),
    ("Job", "Normal", "Completed", "It completed."),
    ("pod", "Normal", "Scheduled", "It was bound to a node."),
    ("pod", "Warning", "FailedScheduling", "No node has room for it."),
    ("pod", "Normal", "Started", "A container's process started."),
    ("pod", "Warning", "Failed", "A container could not be prepared or started."),
    ("pod", "Warning", "BackOff", "A container that failed is restarted later."),
    ("pod", "Normal or Warning", "TaintManagerEviction", "A taint of its node deletes it, or does not any more."),
    ("Service, Endpoints", "Warning", "FailedToUpdateEndpointSlices", "Slices could not be written; tried again."),
    ("Service", "Warning", "FailedToCreateEndpoint", "Its Endpoints could not be made; tried again."),
    ("Service", "Warning", "FailedToUpdateEndpoint", "Its Endpoints could not be changed; tried again."),
    ("Endpoints", "Warning", "InvalidIPAddress", "Some addresses are none and are not mirrored."),
    ("Endpoints", "Warning", "TooManyAddressesToMirror", "More than 1,000 addresses in a subset."),
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

#: (condition, reason, meaning)
JOB: tuple[Row, ...] = (
    ("Suspended", "JobSuspended", "It waits, or was stopped."),
    ("Suspended", "JobResumed", "It may run."),
    ("SuccessCriteriaMet, Complete", "CompletionsReached", "All completions succeeded."),
    ("SuccessCriteriaMet, Complete", "SuccessPolicy", "Its success policy is met."),
    ("FailureTarget, Failed", "BackoffLimitExceeded", "More pods failed than `backoffLimit` allows."),
    ("FailureTarget, Failed", "DeadlineExceeded", "`activeDeadlineSeconds` passed."),
    ("FailureTarget, Failed", "FailedIndexes", "Some indexes failed for good."),
    ("FailureTarget, Failed", "MaxFailedIndexesExceeded", "More indexes failed than allowed."),
    ("FailureTarget, Failed", "PodFailurePolicy", "A rule of its pod failure policy says so."),
)

#: (kind, condition or event, reason, meaning)
VOLUMES: tuple[Row, ...] = (
    ("claim", "WaitForFirstConsumer", "No pod uses it yet; it is bound for its first one."),
    ("claim", "WaitForPodScheduled", "The pod that uses it has no node yet."),
    ("claim", "ExternalProvisioning", "Another provisioner than Glebe's is to make its volume."),
    ("claim", "ProvisioningSucceeded", "A volume was made for it."),
    ("claim", "ProvisioningFailed", "None was; the message says why."),
    ("claim", "FailedBinding", "No volume suits and none can be made, or its volume is another claim's."),
    ("claim, volume", "VolumeMismatch", "The volume that the claim names does not suit it."),
    ("claim", "ClaimLost", "Its volume is gone, and with it the data."),
    ("claim", "ClaimMisbound", "It names a volume that is another claim's."),
    ("claim", "VolumeResizeSuccessful", "Its volume is larger now."),
    ("claim", "ExternalExpanding", "Its volume's maker is to make it larger."),
    ("volume", "VolumeFailedDelete", "Nobody knows how to delete it."),
    ("volume", "VolumeFailedRecycle", "Nothing is recycled."),
    ("volume", "VolumeUnknownReclaimPolicy", "Its reclaim policy is none."),
    ("pod", "FailedMount", "A volume cannot be made yet; the message names it and says why."),
)

APPS: tuple[Row, ...] = (
    ("Deployment", "Available", "MinimumReplicasAvailable", "As many pods are available as the strategy wants."),
    ("Deployment", "Available", "MinimumReplicasUnavailable", "They are not."),
    ("Deployment", "Progressing", "NewReplicaSetCreated", "The first ReplicaSet of a version was made."),
    ("Deployment", "Progressing", "FoundNewReplicaSet", "There was one of that version already."),
    ("Deployment", "Progressing", "ReplicaSetUpdated", "Pods are being replaced."),
    ("Deployment", "Progressing", "NewReplicaSetAvailable", "It is done."),
    ("Deployment", "Progressing", "ProgressDeadlineExceeded", "Nothing happened for `progressDeadlineSeconds`."),
    ("Deployment", "Progressing", "ReplicaSetCreateError", "The ReplicaSet was refused; the message says why."),
    ("Deployment", "Progressing", "DeploymentPaused", "`spec.paused`."),
    ("Deployment", "Progressing", "DeploymentResumed", "It is not paused any more."),
    ("Deployment", "event", "ScalingReplicaSet", "A ReplicaSet was made larger or smaller."),
    ("Deployment", "event", "DeploymentRollback", "An annotation asked for an older revision, and it is back."),
    ("Deployment", "event", "DeploymentRollbackRevisionNotFound", "There is no such revision."),
    ("Deployment", "event", "DeploymentRollbackTemplateUnchanged", "It is what there is already."),
    ("ReplicaSet, ReplicationController", "ReplicaFailure", "FailedCreate", "A pod was refused."),
    ("ReplicaSet, ReplicationController", "ReplicaFailure", "FailedDelete", "A pod could not be deleted."),
    ("StatefulSet", "event", "SuccessfulUpdate", "A pod or claim was changed."),
    ("StatefulSet", "event", "FailedUpdate", "It was refused."),
    ("StatefulSet", "event", "ConflictingController", "Somebody else controls a claim: its retention is not ours."),
    ("DaemonSet", "event", "SelectingAll", "An empty selector: it does nothing."),
    ("DaemonSet", "event", "FailedDaemonPod", "A failed pod is replaced, later each time."),
    ("DaemonSet", "event", "SucceededDaemonPod", "A pod that ended is replaced."),
    ("CronJob", "event", "SawCompletedJob", "A Job has finished."),
    ("CronJob", "event", "UnexpectedJob", "A Job of its own that it had not written down."),
    ("CronJob", "event", "MissingJob", "A Job vanished before it had finished."),
    ("CronJob", "event", "JobAlreadyActive", "`concurrencyPolicy: Forbid`, and the last Job still runs."),
    ("CronJob", "event", "MissSchedule", "It is too late for `startingDeadlineSeconds`."),
    ("CronJob", "event", "TooManyMissedTimes", "More than 100 times passed; only the last is made up for."),
    ("CronJob", "event", "UnknownTimeZone", "There is no such time zone on this machine."),
    ("CronJob", "event", "UnparseableSchedule", "The message says what is wrong with it."),
    ("CronJob", "event", "InvalidSchedule", "Its time never comes, like the 31st of February."),
    ("CronJob", "event", "UnsupportedSchedule", "A time zone in the schedule: it works, but use `timeZone`."),
    ("PodDisruptionBudget", "DisruptionAllowed", "SufficientPods", "A pod may be evicted."),
    ("PodDisruptionBudget", "DisruptionAllowed", "InsufficientPods", "None may."),
    ("PodDisruptionBudget", "DisruptionAllowed", "SyncFailed", "It cannot be counted; the message says why."),
    ("PodDisruptionBudget", "event", "CalculateExpectedPodCountFailed", "As above."),
    ("PodDisruptionBudget", "event", "NoPods", "It selects none."),
    ("PodDisruptionBudget", "event", "UnmanagedPods", "Some pods belong to nobody with a scale."),
    ("HorizontalPodAutoscaler", "AbleToScale", "SucceededGetScale", "It knows how large its target is."),
    ("HorizontalPodAutoscaler", "AbleToScale", "ReadyForNewScale", "Nothing holds it up."),
    ("HorizontalPodAutoscaler", "AbleToScale", "SucceededRescale", "It has just resized its target."),
    ("HorizontalPodAutoscaler", "AbleToScale", "ScaleDownStabilized", "It wanted more a short while ago, and waits."),
    ("HorizontalPodAutoscaler", "AbleToScale", "ScaleUpStabilized", "It wanted less a short while ago, and waits."),
    ("HorizontalPodAutoscaler", "AbleToScale", "FailedGetScale", "There is no such target, or it has no scale."),
    ("HorizontalPodAutoscaler", "AbleToScale", "FailedUpdateScale", "The new size was refused."),
    ("HorizontalPodAutoscaler", "ScalingActive", "ValidMetricFound", "A metric says how many are needed."),
    ("HorizontalPodAutoscaler", "ScalingActive", "ScalingDisabled", "Somebody scaled the target to zero."),
    ("HorizontalPodAutoscaler", "ScalingActive", "FailedGetResourceMetric", "Nothing is known of what its pods use."),
    ("HorizontalPodAutoscaler", "ScalingActive", "FailedGetContainerResourceMetric", "The same of its containers."),
    ("HorizontalPodAutoscaler", "ScalingActive", "FailedGetPodsMetric", "The metrics' server does not answer."),
    ("HorizontalPodAutoscaler", "ScalingActive", "FailedGetObjectMetric", "The same."),
    ("HorizontalPodAutoscaler", "ScalingActive", "FailedGetExternalMetric", "The same."),
    ("HorizontalPodAutoscaler", "ScalingActive", "InvalidMetricSourceType", "There is no such type of metric."),
    ("HorizontalPodAutoscaler", "ScalingActive", "InvalidSelector", "Its target does not say which pods are its own."),
    ("HorizontalPodAutoscaler", "ScalingActive", "AmbiguousSelector", "Another one scales the same pods."),
    ("HorizontalPodAutoscaler", "ScalingLimited", "DesiredWithinRange", "It may have what it wants."),
    ("HorizontalPodAutoscaler", "ScalingLimited", "TooFewReplicas", "It wants fewer than `minReplicas`."),
    ("HorizontalPodAutoscaler", "ScalingLimited", "TooManyReplicas", "It wants more than `maxReplicas`."),
    ("HorizontalPodAutoscaler", "ScalingLimited", "ScaleUpLimit", "It wants more than may come at once."),
    ("HorizontalPodAutoscaler", "ScalingLimited", "ScaleDownLimit", "It wants fewer than may go at once."),
    ("HorizontalPodAutoscaler", "event", "SuccessfulRescale", "It resized its target; the message says why."),
    ("HorizontalPodAutoscaler", "event", "FailedRescale", "It could not."),
    ("HorizontalPodAutoscaler", "event", "FailedComputeMetricsReplicas", "No metric says how many are needed."),
    ("HorizontalPodAutoscaler", "event", "FailedUpdateStatus", "Its status could not be written."),
    ("HorizontalPodAutoscaler", "event", "SelectorRequired", "Its target does not say which pods are its own."),
    ("PodGroup", "PodGroupScheduled", "Scheduled", "Enough of its pods are on nodes."),
    ("PodGroup", "PodGroupScheduled", "Unschedulable", "They find none; the message says why."),
    ("CertificateSigningRequest", "Approved", "AutoApproved", "A node asked for its own certificate."),
    (
        "CertificateSigningRequest",
        "Failed",
        "SignerValidationFailure",
        "What is asked for is not the signer's to give.",
    ),
    ("Pod", "DisruptionTarget", "PreemptionByScheduler", "It makes room for a pod of a higher priority."),
    ("Pod", "event", "Preempted", "As above."),
)

#: (where, reason, meaning)
PODS: tuple[Row, ...] = (
    ("PodScheduled", "SchedulingGated", "Its gang is not released yet."),
    ("PodScheduled", "Unschedulable", "No node has room for it; the message counts why."),
    ("Initialized, Ready, ContainersReady", "PodCompleted", "All containers succeeded."),
    ("Ready, ContainersReady", "PodFailed", "It failed."),
    ("Ready, ContainersReady", "ContainersNotReady", "Some containers do not run."),
    ("Ready", "ReadinessGatesNotReady", "A readiness gate is shut; the message says which."),
    ("Initialized", "ContainersNotInitialized", "Init containers have not succeeded yet."),
    ("AllContainersRestarting", "RestartAllContainersStarted", "A container ended so that all are started again."),
    ("PodResizePending", "Deferred", "The node has no room for the resources that it wants; it is tried again."),
    ("PodResizePending", "Infeasible", "The node never has room for them."),
    ("PodResizeInProgress", "Error", "A container could not be given its new resources; it is tried again."),
    ("DisruptionTarget", "TerminationByKubelet", "The platform was away too long, or the node was short of something."),
    ("DisruptionTarget", "DeletionByTaintManager", "It is deleted because of a taint of its node."),
    ("DisruptionTarget", "DeletionByPodGC", "Its node does not exist any more."),
    ("container waits", "ContainerCreating", "It is being prepared."),
    ("container waits", "PodInitializing", "Init containers run first."),
    ("container waits", "CrashLoopBackOff", "It failed and is restarted later."),
    ("container waits", "CreateContainerConfigError", "A ConfigMap, Secret or field that it needs is not there."),
    ("container waits", "InvalidImageName", "Its image's name is none. See [Containers](../containers.md#images)."),
    ("container waits", "ErrImageNeverPull", "Its image is not on the node, and `imagePullPolicy` is `Never`."),
    ("container waits", "ErrImagePull", "Its image could not be had; the message says why."),
    ("container waits", "ImagePullBackOff", "The same; it is tried again later."),
    ("container waits", "CreateContainerError", "It cannot be made; the message says why: a full disk, say."),
    ("container waits", "RunContainerError", "Its command could not be started."),
    ("container waits", "PostStartHookError", "The hook after its start failed."),
    ("container waits", "ImageInspectError", "Its image could not be looked at."),
    ("container waits", "RestartingAllContainers", "All containers of the pod are started again."),
    ("event", "Created", "A container was made."),
    ("event", "Started", "It runs."),
    ("event", "Killing", "It is told to end; the message says why."),
    ("event", "BackOff", "It waits for its next start, or for the next attempt at its image."),
    ("event", "Failed", "It could not be made or started."),
    ("event", "InspectFailed", "Its image could not be looked at, or its name is none."),
    ("event", "FailedToRetrieveImagePullSecret", "A Secret of `imagePullSecrets` is not there."),
    ("event", "Unhealthy", "A probe failed; the message says which and how."),
    ("event", "ProbeWarning", "A probe was sent to another host, and not followed."),
    ("event", "FailedPostStartHook", "The hook after its start failed: it is ended."),
    ("event", "FailedPreStopHook", "The hook before its end failed: it is ended all the same."),
    ("event", "LifecycleHTTPFallback", "An HTTPS hook met a server that speaks HTTP, and was repeated so."),
    ("event", "FailedCreatePodSandBox", "Address, devices or runtime of the pod cannot be had yet."),
    ("event", "ResizeStarted", "The pod gets other resources; `ResizeCompleted`: it has them."),
    ("event", "ResizeCompleted", "Its containers have them."),
    ("event", "ResizeError", "One could not be given them."),
    ("event", "Pulling", "Its image is fetched."),
    ("event", "Pulled", "Its image is on the node."),
    ("container ended", "OOMKilled", "Code 137: it had more memory than its limit."),
    ("container ended", "Completed", "Exit code 0."),
    ("container ended", "Error", "Another exit code, or a signal."),
    ("container ended", "StartError", "Code 127: no such command; 126: not executable; 128: no working directory."),
    ("container ended", "ContainerStatusUnknown", "Nobody saw how it ended."),
    ("container ended", "PlatformGone", "The platform stopped and did not come back within 60 s."),
    ("pod", "`OutOfcpu` and the like", "The node has no room for it, as far as that resource goes."),
    ("pod", "NodeAffinity", "It was sent to a node that its selector or affinity does not allow."),
    ("pod", "NodePorts", "A host port that it wants is taken."),
    ("pod", "TaintToleration", "It does not tolerate a NoExecute taint of the node."),
    ("pod", "PodOSNotSupported", "It wants another operating system."),
    ("pod, event", "Evicted", "The disk is nearly full, or it used more than it may."),
    ("pod", "DeadlineExceeded", "`activeDeadlineSeconds` of the pod passed."),
    ("pod", "NodeLost", "Its node is lost."),
)

NODE_REASONS: tuple[Row, ...] = (
    ("Ready", "KubeletReady", "The node's agent works."),
    ("Ready", "KubeletNotReady", "The agent says that the node is not ready."),
    ("all", "NodeStatusUnknown", "No heartbeat for 40 s."),
    ("all", "NodeStatusNeverUpdated", "It registered and never said how it is."),
    ("MemoryPressure", "KubeletHasSufficientMemory", "Always, on Glebe's own nodes."),
    ("DiskPressure", "KubeletHasNoDiskPressure", "There is room."),
    ("DiskPressure", "KubeletHasDiskPressure", "The disk of a process node is nearly full."),
    ("PIDPressure", "KubeletHasSufficientPID", "Always, on Glebe's own nodes."),
)

DEVICES: tuple[Row, ...] = (
    ("pod, event", "FailedResourceClaimCreation", "A claim could not be made from its template; the message says why."),
    ("pod, event", "DeviceTaintManagerEviction", "It leaves a device that got a taint with effect NoExecute."),
    ("pod, `DisruptionTarget`", "DeletionByDeviceTaintManager", "It was removed for that."),
    ("pod", "UnexpectedAdmissionError", "It was sent to a node that has fewer free devices than it asks for."),
    ("node, `GPUProblem`", "GPUsHealthy", "All GPUs answer, and have reported no error."),
    ("node, `GPUProblem`, event", "XidCriticalError", "A GPU reported an XID that is not a program's fault."),
    ("node, `GPUProblem`, event", "DoubleBitEccError", "Memory of a GPU failed in a way that cannot be corrected."),
    ("node, `GPUProblem`, event", "RowRemapFailure", "Memory of a GPU failed and could not be replaced by spare rows."),
    ("node, `GPUProblem`, event", "GpuLost", "A GPU does not answer any more."),
)

NAMESPACES: tuple[Row, ...] = (
    ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "It is known which kinds of objects there are."),
    ("NamespaceDeletionDiscoveryFailure", "DiscoveryFailed", "It is not: another server does not say what it has."),
    ("NamespaceDeletionGroupVersionParsingFailure", "ParsedGroupVersions", "Always: kinds are read as they are."),
    ("NamespaceDeletionContentFailure", "ContentDeleted", "All deletions were accepted."),
    ("NamespaceDeletionContentFailure", "ContentDeletionFailed", "Some were refused; the message says which."),
    ("NamespaceContentRemaining", "SomeResourcesRemain", "Objects are still being deleted."),
    ("NamespaceContentRemaining", "ContentRemoved", "All objects are gone."),
    ("NamespaceFinalizersRemaining", "SomeFinalizersRemain", "Objects wait for their finalizers."),
    ("NamespaceFinalizersRemaining", "ContentHasNoFinalizers", "No object waits for a finalizer."),
)

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


def reasons_page() -> dict[str, str]:
    verdicts = ((code(reason), *map(cell, texts)) for reason, texts in DECISIONS.items())
    parts = [
        NOTE + "# Reasons\n",
        "Every decision carries a machine-readable reason, a sentence, and a remedy where there is one.\n",
        "## Why a job waits, or never starts\n\nThe same words stand in the condition `QuotaReserved`, in "
        "`status.forecast`, in events and in the command line.\n\n"
        "*Waits*: it starts when something that is in use becomes free. *Never*: as it is written, on this fleet and "
        "with these quotas, it cannot start.\n",
        table(("reason", "", "meaning", "what helps"), verdicts),
        "## When a job is submitted\n\nWarnings reach the user through `kubectl` and `glebe run`.\n",
        table(("answer", "says", "when"), ((a, code(t), cell(m)) for a, t, m in AT_SUBMISSION)),
        "A cluster that is not embedded checks less at submission; see [On a real cluster](../production.md).\n",
        "## States in `glebe jobs`\n",
        table(("state", "meaning"), ((code(state), cell(text)) for state, text in STATES.items())),
        "## Conditions of a Workload\n",
        _four(("condition", "status", "reason", "meaning"), WORKLOAD),
        "## Conditions of queues\n\nThe condition is `Active`, where nothing else is said.\n",
        _three(("of", "reason", "meaning"), QUEUES),
        "## Events\n",
        _four(("about", "type", "reason", "meaning"), EVENTS),
        "## Conditions of a Job\n",
        _three(("condition", "reason", "meaning"), JOB),
        "## Deployments, sets, budgets\n\nEvents about a single pod are those of a Job.\n",
        _four(("of", "condition", "reason", "meaning"), APPS),
        "## Claims and volumes\n\nAll are events. See [Volumes](../volumes.md).\n",
        _three(("of", "reason", "meaning"), VOLUMES),
        "## Pods and containers\n\nPods of Glebe's own nodes; on a real cluster the kubelet writes them.\n",
        _three(("where", "reason", "meaning"), PODS),
        "## Nodes\n",
        _three(("condition", "reason", "meaning"), NODE_REASONS),
        "## Devices\n\nSee [GPUs](../gpus.md).\n",
        _three(("of", "reason", "meaning"), DEVICES),
        "## Namespaces that are being deleted\n",
        _three(("condition", "reason", "meaning"), NAMESPACES),
    ]
    return {"docs/reference/reasons.md": "\n".join(parts)}


def _word(text: str) -> str:
    """Words of the API as code; descriptions as they are."""
    return code(text) if " " not in text else text


def _four(head: Row, rows: tuple[Row, ...]) -> str:
    return table(head, ((one, two, _word(reason), cell(text)) for one, two, reason, text in rows))


def _three(head: Row, rows: tuple[Row, ...]) -> str:
    return table(head, ((one, _word(reason), cell(text)) for one, reason, text in rows))


# --- docs/reference/gpu-models.md


def models_page() -> dict[str, str]:
    rows = (
        (
            code(board.model),
            code(board.product),
            str(board.memory_mib),
            board.family,
            f"{board.compute[0]}.{board.compute[1]}",
            str(board.mig_slices or "-"),
        )
        for board in catalogue.BOARDS.values()
    )
    head = ("model", "`nvidia.com/gpu.product`", "memory, MiB", "family", "compute", "MIG slices")
    text = (
        "The models that a [fleet file](../fleet-file.md) may name. A prefix that fits only one is enough (`h200`). "
        "A simulated node carries the labels that GPU feature discovery writes for such a board.\n\n"
        "On a real cluster any GPU will do: flavors are told by node labels, not by this table.\n"
    )
    return {"docs/reference/gpu-models.md": "\n".join([NOTE + "# GPU models\n", text, table(head, rows)])}


# --- docs/reference/README.md


def index_page() -> dict[str, str]:
    from docs_kinds import kinds, path_of, schema_of

    rows = []
    for kind in kinds():
        file = path_of(kind).removeprefix("docs/reference/")
        text = cell(schema_of(kind).get("description", ""))
        rows.append((f"[{kind.resource.kind}]({file})", code(kind.resource.api_version), text))
    text = (
        "- [Command line](../cli.md)\n"
        "- [Labels, annotations and other names](labels.md)\n"
        "- [Reasons](reasons.md): why a job waits; conditions, events, warnings\n"
        "- [GPU models](gpu-models.md)\n"
    )
    parts = [NOTE + "# Reference\n", text, "## Kinds\n", table(("kind", "API version", "what it is"), rows)]
    return {"docs/reference/README.md": "\n".join(parts)}

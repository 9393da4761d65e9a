"""docs/reference/labels.md: labels, annotations, finalizers, taints."""

from __future__ import annotations

from docs_page import NOTE, cell, code, table
from docs_words import jobkinds, life
from docs_words.rows import Row
from glebe.kube import storage
from glebe.queueing import labels, notactedon
from glebe.queueing.tenants import tenancy

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
        labels.SLICE_TOPOLOGY,
        "pod template",
        "A node label: each slice of the pods, in rank order, in one domain of this level.",
    ),
    ("annotation", labels.SLICE_SIZE, "pod template", "Pods per slice."),
    (
        "annotation",
        labels.SLICE_CONSTRAINTS,
        "pod template",
        "Nested slices in place of these two: a JSON list of `topology` and `size`, the widest first.",
    ),
    (
        "annotation",
        labels.POD_SET_GROUP,
        "pod template",
        "Of two pod sets with one name here, one is a single pod, the leader: they get the same flavors and domain.",
    ),
    (
        "annotation",
        "glebe.dev/user",
        "pod",
        "Whom the ledger names as user, where `glebe.dev/submitted-by` is missing.",
    ),
)


QUEUES: tuple[Row, ...] = (
    (
        "annotation",
        labels.BACKFILL,
        "ClusterQueue",
        "What may start behind its blocked head: `Greedy` (default), `Reserve`, `ReservePredicted`.",
    ),
    (
        "annotation",
        labels.CLUSTERS,
        "ClusterQueue, classes",
        "Other logical clusters that may use it: names or patterns with `*`, separated by commas; without it none.",
    ),
    (
        "annotation",
        labels.MINIMUM_RUN_TIME,
        "ClusterQueue",
        "How long a job of the queue runs before it may be preempted: `15m`.",
    ),
    (
        "annotation",
        labels.BACKFILL,
        "ClusterQueue",
        "What may start behind its blocked head: `Greedy` (anything), `Reserve`, `ReservePredicted`.",
    ),
    (
        "annotation",
        labels.FAIR_SHARING,
        "root Cohort",
        "`Enabled` or `Disabled`: whether its tree shares fairly, whatever the configuration says.",
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
    (
        "annotation",
        labels.FIELDS_OF_V1BETA1,
        "objects of kueue.x-k8s.io/v1beta2",
        "What v1beta1 says of the object and v1beta2 has no field for; a reader of v1beta1 sees it in its place.",
    ),
    (
        "annotation",
        labels.FIELDS_OF_V1BETA2,
        "objects of kueue.x-k8s.io/v1beta1",
        "What v1beta2 says of the object and v1beta1 has no field for; clients of v1beta1 keep it by not touching it.",
    ),
    (
        "annotation",
        labels.FORECAST,
        "Workload",
        "In advisory mode: what `status.forecast` says elsewhere, as JSON. The last one stays.",
    ),
    (
        "taint",
        tenancy.ELSEWHERE.key,
        "(no object)",
        "In the queue's own picture of the nodes: one that the host's cluster does not have.",
    ),
    (
        "value",
        "kueue.x-k8s.io/workloadpriorityclass",
        "`spec.priorityClassSource` of v1beta1 Workloads",
        "The priority comes from a WorkloadPriorityClass.",
    ),
    ("annotation", labels.MISSING_CLASS, "Workload", "The class that its job names and that does not exist."),
    (
        "annotation",
        "glebe.dev/content-hash",
        "CustomResourceDefinition",
        "What Glebe installed, so that it updates only what changed.",
    ),
    (
        "annotation, claim",
        "glebe.dev/cluster",
        "audit event, token",
        "The logical cluster that was asked; the one in which a token is good.",
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
    ("label", "nvidia.com/gpu.replicas", "node", "`1`: no time slicing; `0` where the GPU is partitioned."),
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
    (
        "label",
        "nvidia.com/mig-*",
        "node",
        "Of each MIG profile: `nvidia.com/mig-1g.10gb.count`, `.product`, `.memory`, `.slices.gi`, `.slices.ci`, "
        "`.multiprocessors`, `.engines.*`, `.replicas`.",
    ),
    ("attribute", "nvlink.glebe.dev/island", "device", "Equal for GPUs that reach each other over NVLink."),
    ("attribute", "nvlink.glebe.dev/links", "device", "How many NVLinks of the GPU are active."),
    ("taint", "gpu.nvidia.com/xid", "device", "It reported an XID that is not a program's fault."),
    ("taint", "gpu.nvidia.com/gpu-lost", "device", "It does not answer any more."),
    ("taint", "gpu.nvidia.com/ecc", "device", "Its memory failed in a way that cannot be corrected."),
    ("taint", "gpu.nvidia.com/row-remap-failure", "device", "Its memory failed and could not be replaced."),
    ("taint", "glebe.dev/given", "device", "A pod has it as an extended resource: no claim can have it meanwhile."),
    ("label", "node.kubernetes.io/instance-type", "node", "The model of machine; kubelets from elsewhere may set it."),
    ("resource", "nvidia.com/gpu", "node, container", "Whole GPUs."),
    ("resource", "nvidia.com/mig-*", "node, container", "MIG devices of a profile, e.g. `nvidia.com/mig-1g.10gb`."),
    ("taint", "node.kubernetes.io/not-ready", "node", "The node says that it is not ready."),
    ("taint", "node.kubernetes.io/unreachable", "node", "No heartbeat for 40 s."),
    ("taint", "node.kubernetes.io/unschedulable", "node", "Cordoned."),
    (
        "taint",
        "node.kubernetes.io/memory-pressure",
        "node",
        "Its condition `MemoryPressure` is true. DaemonSets tolerate it.",
    ),
    (
        "taint",
        "node.kubernetes.io/disk-pressure",
        "node",
        "`DiskPressure` is: the disk is nearly full. DaemonSets tolerate it.",
    ),
    ("taint", "node.kubernetes.io/pid-pressure", "node", "`PIDPressure` is. DaemonSets tolerate it."),
    (
        "taint",
        "node.kubernetes.io/network-unavailable",
        "node",
        "`NetworkUnavailable` is. DaemonSets on the node's own network tolerate it.",
    ),
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
    ("The life of a job", "See [When a job is stopped](../stopping.md).", life.ASKED),
    ("Pods, groups, other queues' words", "See [Kinds of jobs](../job-kinds.md).", jobkinds.PODS_AND_GROUPS),
    ("What administrators write", "On queues; see [Sharing quota](../sharing.md).", QUEUES),
    ("What simulated nodes read", "Other nodes ignore it. See [Simulated nodes](../simulated-nodes.md).", SIMULATION),
    ("What Glebe writes", "Do not write these yourself.", (*WRITTEN, *jobkinds.WRITTEN, *life.WRITTEN)),
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

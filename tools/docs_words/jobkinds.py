"""Words of docs/reference about kinds of jobs, pods and groups of pods."""

from __future__ import annotations

from docs_words.rows import Row
from glebe.queueing import labels
from glebe.queueing.jobkinds import trainjob
from glebe.queueing.jobs import foreign
from glebe.queueing.pods import gathering

#: (what, name, on, meaning)
PODS_AND_GROUPS: tuple[Row, ...] = (
    ("label, annotation", labels.POD_GROUP, "pod", "The group whose pods are admitted together."),
    ("annotation", labels.POD_GROUP_TOTAL, "pod", "How many pods the group has."),
    ("annotation", labels.POD_GROUP_FAST, "pod", "`true`: the group's first pod stands for all."),
    ("annotation", labels.POD_GROUP_SERVING, "pod", "`true`: the group never ends by itself."),
    ("annotation", labels.RETRIABLE, "pod", "`false`: pods of the group that fail are not replaced."),
    ("annotation", labels.POD_GROUP_INDEX_LABEL, "pod", "The label that has the pod's rank in its group."),
    ("annotation", labels.MIN_PARALLELISM, "job", "The fewest pods with which a Job may start."),
    ("label", labels.KAI_QUEUE, "job, pod", "KAI's word for the queue."),
    ("annotation", labels.VOLCANO_QUEUE, "job, pod", "Volcano's word for the queue."),
    ("annotation", labels.VOLCANO_GROUP, "pod", "Volcano's word for the group."),
    ("annotation", foreign.MIN_MEMBER, "pod", "How many pods a group of Volcano has that has no PodGroup."),
    ("annotation", labels.KAI_GPU_FRACTION, "pod, pod template", "A part of a GPU, `0.5`: counted, not enforced."),
    ("annotation", labels.KAI_GPU_DEVICES, "pod, pod template", "Of how many GPUs."),
    ("annotation", labels.KAI_GPU_MEMORY, "pod, pod template", "MiB of a GPU's memory: counted as a whole GPU."),
)
WRITTEN: tuple[Row, ...] = (
    ("gate", labels.ADMISSION_GATE, "pod", "The pod waits for its admission."),
    ("annotation", labels.SUSPENDING_PARENT, "pod, pod template", "The kind of object that has its pods queued."),
    ("label", labels.POD_GROUP_INDEX, "pod", "Its rank in its group."),
    ("annotation", labels.ROLE_HASH, "pod", "Pods of a group that ask for the same have the same."),
    ("annotation", labels.POD_INDEX_OFFSET, "pod", "What is taken off the index of a pod for its rank."),
    ("annotation", labels.GROUP_WORKLOAD, "Workload", "It stands for a group of pods."),
    ("annotation", labels.OWNER_KIND, "Workload", "The kind of the set whose pods it stands for."),
    ("annotation", labels.OWNER_NAME, "Workload", "The name of that set."),
    ("annotation", labels.COMPONENT_INDEX, "Workload", "Which group of a LeaderWorkerSet it stands for."),
    ("annotation", labels.BEFORE_START, "job", "What its pod templates said before it was started."),
    ("label", labels.DECLARED_KIND, "admission policy", "It is of a kind of jobs that the ConfigMap declares."),
    ("resource", labels.GPU_SHARE, "Workload, quota", "Thousandths of GPUs, for pods that ask for fractions."),
    ("manager", trainjob.MANAGER, "TrainJob", "Of the runtime patch with what its admission adds."),
    ("label", gathering.LWS_NAME, "pod", "Its LeaderWorkerSet."),
)
#: (condition, status, reason, meaning)
CONDITIONS: tuple[Row, ...] = (
    ("QuotaReserved", "False", "OnHold", "Its StatefulSet is scaled to zero: it asks for nothing."),
    ("Finished", "True", "FailedToStart", "What was assigned contradicts the job's pod templates."),
    ("WaitingForReplacementPods", "True", "PodsFailed", "Pods of its group failed, and others must come."),
    ("WaitingForReplacementPods", "True", "the reason of the eviction", "Its pods were deleted; others must come."),
    ("TerminationTarget (of a pod)", "True", "WorkloadEvicted", "It is deleted because its workload was evicted."),
    ("TerminationTarget (of a pod)", "True", "WorkloadDeleted", "The same, because its Workload was deleted."),
    ("TerminationTarget (of a pod)", "True", "NotAdmitted", "The same, because its workload is not admitted."),
)
#: (about, type, reason, meaning)
EVENTS: tuple[Row, ...] = (
    ("job", "Warning", "PodsUnknown", "What describes its pods is not there, such as a TrainJob's runtime."),
    ("pod", "Warning", "ErrWorkloadCompose", "Nothing can be asked for its group yet, and why."),
    ("pod", "Normal", "ExcessPodDeleted", "Its group has all of its pods."),
    ("ConfigMap", "Normal", "JobKindDeclared", "A kind of your own is known now."),
    ("ConfigMap", "Warning", "InvalidJobKind", "What is wrong with a declaration."),
)

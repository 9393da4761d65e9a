"""Reasons of nodes and of what is on them: pods, containers, devices, volumes."""

from __future__ import annotations

from docs_words.rows import Row

#: (where, reason, meaning)
PODS: tuple[Row, ...] = (
    ("PodScheduled", "SchedulingGated", "Its gang is not released yet."),
    (
        "TerminatedByKueue",
        "UnschedulableOnAssignedNode",
        "A plain pod whose node failed and was replaced in its workload: it is Failed, another may take over.",
    ),
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
    ("pod", "SysctlForbidden", "It sets a kernel parameter that is not safe, or that is not the pod's own."),
    ("pod", "UnexpectedAdmissionError", "It was sent to a node that has fewer free devices than it asks for."),
    ("node, `GPUProblem`", "GPUsHealthy", "All GPUs answer, and have reported no error."),
    ("node, `GPUProblem`, event", "XidCriticalError", "A GPU reported an XID that is not a program's fault."),
    ("node, `GPUProblem`, event", "DoubleBitEccError", "Memory of a GPU failed in a way that cannot be corrected."),
    ("node, `GPUProblem`, event", "RowRemapFailure", "Memory of a GPU failed and could not be replaced by spare rows."),
    ("node, `GPUProblem`, event", "GpuLost", "A GPU does not answer any more."),
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

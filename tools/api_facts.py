"""Facts about the built-in API that no published package carries: short names, categories, missing subresources.

``tools/gen_types.py`` joins this table with the resources that ``lightkube-models`` lists. The facts were checked
against the discovery documents of a kube-apiserver 1.36.
"""

from __future__ import annotations

#: Group -> served versions, preferred first, in the order in which discovery lists the groups.
GROUPS: dict[str, tuple[str, ...]] = {
    "": ("v1",),
    "apiregistration.k8s.io": ("v1",),
    "apps": ("v1",),
    "events.k8s.io": ("v1",),
    "authentication.k8s.io": ("v1",),
    "authorization.k8s.io": ("v1",),
    "autoscaling": ("v2", "v1"),
    "batch": ("v1",),
    "certificates.k8s.io": ("v1",),
    "networking.k8s.io": ("v1",),
    "policy": ("v1",),
    "rbac.authorization.k8s.io": ("v1",),
    "storage.k8s.io": ("v1",),
    "admissionregistration.k8s.io": ("v1",),
    "apiextensions.k8s.io": ("v1",),
    "scheduling.k8s.io": ("v1", "v1alpha2"),
    "coordination.k8s.io": ("v1",),
    "node.k8s.io": ("v1",),
    "discovery.k8s.io": ("v1",),
    "resource.k8s.io": ("v1",),
    "flowcontrol.apiserver.k8s.io": ("v1",),
}

#: Kinds, or subresources of kinds, that the release does not serve or that nothing here could answer.
OMITTED: set[tuple[str, ...]] = {("storage.k8s.io", "CSINode", "status")}

_OBJECT_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")

#: Resources of versions that the release has and the list of resources has not. Upstream does not serve them unless it
#: is told to (their rows say ``optional``): (group, version, kind) -> (plural,
#: namespaced, verbs, subresources that hold the same kind).
EXTRA: dict[tuple[str, str, str], tuple[str, bool, tuple[str, ...], tuple[str, ...]]] = {
    ("scheduling.k8s.io", "v1alpha2", "Workload"): ("workloads", True, _OBJECT_VERBS, ()),
    ("scheduling.k8s.io", "v1alpha2", "PodGroup"): ("podgroups", True, _OBJECT_VERBS, ("status",)),
}

#: Resources whose verbs the list of resources gets wrong.
VERBS: dict[tuple[str, str], tuple[str, ...]] = {("", "ComponentStatus"): ("get", "list")}

_STREAM_VERBS = ("create", "get")
_PROXY_VERBS = ("create", "delete", "get", "patch", "update")

#: Subresources that are a connection: (group, kind, name) -> (kind of the options that its query holds, verbs).
CONNECTIONS: dict[tuple[str, str, str], tuple[str, tuple[str, ...]]] = {
    ("", "Node", "proxy"): ("NodeProxyOptions", _PROXY_VERBS),
    ("", "Pod", "attach"): ("PodAttachOptions", _STREAM_VERBS),
    ("", "Pod", "exec"): ("PodExecOptions", _STREAM_VERBS),
    ("", "Pod", "portforward"): ("PodPortForwardOptions", _STREAM_VERBS),
    ("", "Pod", "proxy"): ("PodProxyOptions", _PROXY_VERBS),
    ("", "Service", "proxy"): ("ServiceProxyOptions", _PROXY_VERBS),
}
CONNECTION_NAMES = {name for _, _, name in CONNECTIONS}

#: (group, kind) -> short names.
SHORT_NAMES: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "ComponentStatus"): ("cs",),
    ("", "ConfigMap"): ("cm",),
    ("", "Endpoints"): ("ep",),
    ("", "Event"): ("ev",),
    ("", "LimitRange"): ("limits",),
    ("", "Namespace"): ("ns",),
    ("", "Node"): ("no",),
    ("", "PersistentVolume"): ("pv",),
    ("", "PersistentVolumeClaim"): ("pvc",),
    ("", "Pod"): ("po",),
    ("", "ReplicationController"): ("rc",),
    ("", "ResourceQuota"): ("quota",),
    ("", "Service"): ("svc",),
    ("", "ServiceAccount"): ("sa",),
    ("apiextensions.k8s.io", "CustomResourceDefinition"): ("crd", "crds"),
    ("apps", "DaemonSet"): ("ds",),
    ("apps", "Deployment"): ("deploy",),
    ("apps", "ReplicaSet"): ("rs",),
    ("apps", "StatefulSet"): ("sts",),
    ("autoscaling", "HorizontalPodAutoscaler"): ("hpa",),
    ("batch", "CronJob"): ("cj",),
    ("certificates.k8s.io", "CertificateSigningRequest"): ("csr",),
    ("events.k8s.io", "Event"): ("ev",),
    ("networking.k8s.io", "IPAddress"): ("ip",),
    ("networking.k8s.io", "Ingress"): ("ing",),
    ("networking.k8s.io", "NetworkPolicy"): ("netpol",),
    ("policy", "PodDisruptionBudget"): ("pdb",),
    ("scheduling.k8s.io", "PriorityClass"): ("pc",),
    ("storage.k8s.io", "StorageClass"): ("sc",),
    ("storage.k8s.io", "VolumeAttributesClass"): ("vac",),
}

#: Category -> the (group, kind)s in it.
CATEGORIES: dict[str, frozenset[tuple[str, str]]] = {
    "all": frozenset(
        {
            ("", "Pod"),
            ("", "ReplicationController"),
            ("", "Service"),
            ("apps", "DaemonSet"),
            ("apps", "Deployment"),
            ("apps", "ReplicaSet"),
            ("apps", "StatefulSet"),
            ("autoscaling", "HorizontalPodAutoscaler"),
            ("batch", "CronJob"),
            ("batch", "Job"),
        }
    ),
    "api-extensions": frozenset(
        {
            ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"),
            ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"),
            ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
            ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"),
            ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"),
            ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
            ("apiextensions.k8s.io", "CustomResourceDefinition"),
            ("apiregistration.k8s.io", "APIService"),
        }
    ),
}

#: Field selectors that a kind answers besides metadata.name and metadata.namespace: (group, kind) -> dotted paths.
SELECTABLE_FIELDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "Event"): (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
    ("events.k8s.io", "Event"): (
        "regarding.kind",
        "regarding.namespace",
        "regarding.name",
        "regarding.uid",
        "regarding.apiVersion",
        "regarding.resourceVersion",
        "regarding.fieldPath",
        "reason",
        "reportingController",
        "type",
    ),
    ("", "Namespace"): ("status.phase",),
    ("", "Node"): ("spec.unschedulable",),
    ("", "Pod"): (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.podIPs",
        "status.nominatedNodeName",
    ),
    ("", "ReplicationController"): ("status.replicas",),
    ("", "Secret"): ("type",),
    ("", "Service"): ("spec.clusterIP", "spec.type"),
    ("batch", "Job"): ("status.successful",),
    ("certificates.k8s.io", "CertificateSigningRequest"): ("spec.signerName",),
    ("resource.k8s.io", "ResourceSlice"): ("spec.nodeName", "spec.driver"),
}

#: Allowed values -> the fields (GROUP.VERSION.KIND.FIELD) that take them; of a list, its items.
ENUMS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("Equivalent", "Exact"): (
        "admissionregistration.v1.MatchResources.matchPolicy",
        "admissionregistration.v1.MutatingWebhook.matchPolicy",
        "admissionregistration.v1.ValidatingWebhook.matchPolicy",
    ),
    ("Fail", "Ignore"): (
        "admissionregistration.v1.MutatingAdmissionPolicySpec.failurePolicy",
        "admissionregistration.v1.MutatingWebhook.failurePolicy",
        "admissionregistration.v1.ValidatingAdmissionPolicySpec.failurePolicy",
        "admissionregistration.v1.ValidatingWebhook.failurePolicy",
    ),
    ("IfNeeded", "Never"): (
        "admissionregistration.v1.MutatingAdmissionPolicySpec.reinvocationPolicy",
        "admissionregistration.v1.MutatingWebhook.reinvocationPolicy",
    ),
    ("None", "NoneOnDryRun", "Some", "Unknown"): (
        "admissionregistration.v1.MutatingWebhook.sideEffects",
        "admissionregistration.v1.ValidatingWebhook.sideEffects",
    ),
    ("ApplyConfiguration", "JSONPatch"): ("admissionregistration.v1.Mutation.patchType",),
    ("*", "CONNECT", "CREATE", "DELETE", "UPDATE"): (
        "admissionregistration.v1.NamedRuleWithOperations.operations",
        "admissionregistration.v1.RuleWithOperations.operations",
    ),
    ("*", "Cluster", "Namespaced"): (
        "admissionregistration.v1.NamedRuleWithOperations.scope",
        "admissionregistration.v1.RuleWithOperations.scope",
    ),
    ("Audit", "Deny", "Warn"): ("admissionregistration.v1.ValidatingAdmissionPolicyBindingSpec.validationActions",),
    ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"): (
        "apiextensions.v1.ValidationRule.reason",
    ),
    ("OnDelete", "RollingUpdate"): ("apps.v1.DaemonSetUpdateStrategy.type", "apps.v1.StatefulSetUpdateStrategy.type"),
    ("Recreate", "RollingUpdate"): ("apps.v1.DeploymentStrategy.type",),
    ("OrderedReady", "Parallel"): ("apps.v1.StatefulSetSpec.podManagementPolicy",),
    ("Allow", "Forbid", "Replace"): ("batch.v1.CronJobSpec.concurrencyPolicy",),
    ("Indexed", "NonIndexed"): ("batch.v1.JobSpec.completionMode",),
    ("Failed", "TerminatingOrFailed"): ("batch.v1.JobSpec.podReplacementPolicy",),
    ("In", "NotIn"): ("batch.v1.PodFailurePolicyOnExitCodesRequirement.operator",),
    ("Count", "FailIndex", "FailJob", "Ignore"): ("batch.v1.PodFailurePolicyRule.action",),
    (
        "any",
        "cert sign",
        "client auth",
        "code signing",
        "content commitment",
        "crl sign",
        "data encipherment",
        "decipher only",
        "digital signature",
        "email protection",
        "encipher only",
        "ipsec end system",
        "ipsec tunnel",
        "ipsec user",
        "key agreement",
        "key encipherment",
        "microsoft sgc",
        "netscape sgc",
        "ocsp signing",
        "s/mime",
        "server auth",
        "signing",
        "timestamping",
    ): ("certificates.v1.CertificateSigningRequestSpec.usages",),
    ("Localhost", "RuntimeDefault", "Unconfined"): ("core.v1.AppArmorProfile.type", "core.v1.SeccompProfile.type"),
    ("None", "ReadOnly", "ReadWrite"): ("core.v1.AzureDiskVolumeSource.cachingMode",),
    ("Dedicated", "Managed", "Shared"): ("core.v1.AzureDiskVolumeSource.kind",),
    ("Always", "IfNotPresent", "Never"): (
        "core.v1.Container.imagePullPolicy",
        "core.v1.EphemeralContainer.imagePullPolicy",
        "core.v1.ImageVolumeSource.pullPolicy",
    ),
    ("FallbackToLogsOnError", "File"): (
        "core.v1.Container.terminationMessagePolicy",
        "core.v1.EphemeralContainer.terminationMessagePolicy",
    ),
    ("SCTP", "TCP", "UDP"): (
        "core.v1.ContainerPort.protocol",
        "core.v1.EndpointPort.protocol",
        "core.v1.PortStatus.protocol",
        "core.v1.ServicePort.protocol",
        "discovery.v1.EndpointPort.protocol",
        "networking.v1.IngressPortStatus.protocol",
        "networking.v1.NetworkPolicyPort.protocol",
    ),
    ("HTTP", "HTTPS"): ("core.v1.HTTPGetAction.scheme",),
    ("", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"): (
        "core.v1.HostPathVolumeSource.type",
    ),
    ("InProgress", "Infeasible", "Pending"): ("core.v1.ModifyVolumeStatus.status",),
    ("Active", "Terminating"): ("core.v1.NamespaceStatus.phase",),
    ("DoesNotExist", "Exists", "Gt", "In", "Lt", "NotIn"): ("core.v1.NodeSelectorRequirement.operator",),
    ("Pending", "Running", "Terminated"): ("core.v1.NodeStatus.phase",),
    ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"): (
        "core.v1.PersistentVolumeClaimSpec.accessModes",
        "core.v1.PersistentVolumeClaimStatus.accessModes",
        "core.v1.PersistentVolumeSpec.accessModes",
    ),
    ("Block", "Filesystem"): (
        "core.v1.PersistentVolumeClaimSpec.volumeMode",
        "core.v1.PersistentVolumeSpec.volumeMode",
    ),
    ("Bound", "Lost", "Pending"): ("core.v1.PersistentVolumeClaimStatus.phase",),
    ("Delete", "Recycle", "Retain"): (
        "core.v1.PersistentVolumeSpec.persistentVolumeReclaimPolicy",
        "storage.v1.StorageClass.reclaimPolicy",
    ),
    ("Available", "Bound", "Failed", "Pending", "Released"): ("core.v1.PersistentVolumeStatus.phase",),
    ("Always", "OnRootMismatch"): ("core.v1.PodSecurityContext.fsGroupChangePolicy",),
    ("Merge", "Strict"): ("core.v1.PodSecurityContext.supplementalGroupsPolicy",),
    ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"): ("core.v1.PodSpec.dnsPolicy",),
    ("Never", "PreemptLowerPriority"): (
        "core.v1.PodSpec.preemptionPolicy",
        "scheduling.v1.PriorityClass.preemptionPolicy",
    ),
    ("Always", "Never", "OnFailure"): ("core.v1.PodSpec.restartPolicy",),
    ("Failed", "Pending", "Running", "Succeeded", "Unknown"): ("core.v1.PodStatus.phase",),
    ("BestEffort", "Burstable", "Guaranteed"): ("core.v1.PodStatus.qosClass",),
    (
        "BestEffort",
        "CrossNamespacePodAffinity",
        "NotBestEffort",
        "NotTerminating",
        "PriorityClass",
        "Terminating",
        "VolumeAttributesClass",
    ): ("core.v1.ResourceQuotaSpec.scopes", "core.v1.ScopedResourceSelectorRequirement.scopeName"),
    ("DoesNotExist", "Exists", "In", "NotIn"): ("core.v1.ScopedResourceSelectorRequirement.operator",),
    ("Default", "Unmasked"): ("core.v1.SecurityContext.procMount",),
    ("Cluster", "Local"): ("core.v1.ServiceSpec.externalTrafficPolicy", "core.v1.ServiceSpec.internalTrafficPolicy"),
    ("", "IPv4", "IPv6"): ("core.v1.ServiceSpec.ipFamilies",),
    ("PreferDualStack", "RequireDualStack", "SingleStack"): ("core.v1.ServiceSpec.ipFamilyPolicy",),
    ("ClientIP", "None"): ("core.v1.ServiceSpec.sessionAffinity",),
    ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort"): ("core.v1.ServiceSpec.type",),
    ("NoExecute", "NoSchedule", "PreferNoSchedule"): ("core.v1.Taint.effect", "core.v1.Toleration.effect"),
    ("Equal", "Exists", "Gt", "Lt"): ("core.v1.Toleration.operator",),
    ("Honor", "Ignore"): (
        "core.v1.TopologySpreadConstraint.nodeAffinityPolicy",
        "core.v1.TopologySpreadConstraint.nodeTaintsPolicy",
    ),
    ("DoNotSchedule", "ScheduleAnyway"): ("core.v1.TopologySpreadConstraint.whenUnsatisfiable",),
    ("Bidirectional", "HostToContainer", "None"): ("core.v1.VolumeMount.mountPropagation",),
    ("FQDN", "IPv4", "IPv6"): ("discovery.v1.EndpointSlice.addressType",),
    ("Exact", "ImplementationSpecific", "Prefix"): ("networking.v1.HTTPIngressPath.pathType",),
    ("Egress", "Ingress"): ("networking.v1.NetworkPolicySpec.policyTypes",),
    ("AlwaysAllow", "IfHealthyBudget"): ("policy.v1.PodDisruptionBudgetSpec.unhealthyPodEvictionPolicy",),
    ("FromClaim", "FromClass"): ("resource.v1.DeviceAllocationConfiguration.source",),
    ("All", "ExactCount"): (
        "resource.v1.DeviceSubRequest.allocationMode",
        "resource.v1.ExactDeviceRequest.allocationMode",
    ),
    ("NoExecute", "NoSchedule", "None"): ("resource.v1.DeviceTaint.effect", "resource.v1.DeviceToleration.effect"),
    ("Equal", "Exists"): ("resource.v1.DeviceToleration.operator",),
    ("Immediate", "WaitForFirstConsumer"): ("storage.v1.StorageClass.volumeBindingMode",),
}

_SIGNALS = (
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
)
_REALTIME = ("SIGRTMIN", "SIGRTMAX", *(f"SIGRTMIN+{i}" for i in range(1, 16)), *(f"SIGRTMAX-{i}" for i in range(1, 15)))
ENUMS[tuple(sorted(_SIGNALS + _REALTIME))] = ("core.v1.ContainerStatus.stopSignal", "core.v1.Lifecycle.stopSignal")

"""Which resources there are: the address of a kind in the API.

A :class:`Resource` names one REST collection (group, version, plural) and the kind it serves. The constants below are
the ones that Glebe's own code uses; a client may make any other.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resource:
    """One REST collection, e.g. ``Resource("batch", "v1", "jobs", "Job")``; group ``""`` is the core group."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """``v1`` or ``batch/v1``, as it stands in an object."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def group_resource(self) -> str:
        """``pods`` or ``jobs.batch``: the name under which objects are stored and rights are given."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path below the API server's (or logical cluster's) root."""
        parts = ["/api", self.version] if not self.group else ["/apis", self.group, self.version]
        if namespace and self.namespaced:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
PODS = Resource("", "v1", "pods", "Pod")
SERVICES = Resource("", "v1", "services", "Service")
CONFIGMAPS = Resource("", "v1", "configmaps", "ConfigMap")
SECRETS = Resource("", "v1", "secrets", "Secret")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
EVENTS = Resource("", "v1", "events", "Event")
PERSISTENT_VOLUME_CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
STATEFUL_SETS = Resource("apps", "v1", "statefulsets", "StatefulSet")
DAEMON_SETS = Resource("apps", "v1", "daemonsets", "DaemonSet")
CONTROLLER_REVISIONS = Resource("apps", "v1", "controllerrevisions", "ControllerRevision")
CRON_JOBS = Resource("batch", "v1", "cronjobs", "CronJob")
REPLICATION_CONTROLLERS = Resource("", "v1", "replicationcontrollers", "ReplicationController")
REPLICA_SETS = Resource("apps", "v1", "replicasets", "ReplicaSet")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
JOBS = Resource("batch", "v1", "jobs", "Job")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
LIMIT_RANGES = Resource("", "v1", "limitranges", "LimitRange")
RUNTIME_CLASSES = Resource("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", namespaced=False)
PRIORITY_CLASSES = Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False)
CUSTOM_RESOURCE_DEFINITIONS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
ROLES = Resource("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
CLUSTER_ROLES = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)
CLUSTER_ROLE_BINDINGS = Resource(
    "rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False
)

_KUEUE = "kueue.x-k8s.io"
CLUSTER_QUEUES = Resource(_KUEUE, "v1beta2", "clusterqueues", "ClusterQueue", namespaced=False)
LOCAL_QUEUES = Resource(_KUEUE, "v1beta2", "localqueues", "LocalQueue")
COHORTS = Resource(_KUEUE, "v1beta2", "cohorts", "Cohort", namespaced=False)
ADMISSION_CHECKS = Resource(_KUEUE, "v1beta2", "admissionchecks", "AdmissionCheck", namespaced=False)
PROVISIONING_REQUEST_CONFIGS = Resource(
    _KUEUE, "v1beta2", "provisioningrequestconfigs", "ProvisioningRequestConfig", namespaced=False
)
MULTIKUEUE_CLUSTERS = Resource(_KUEUE, "v1beta2", "multikueueclusters", "MultiKueueCluster", namespaced=False)
MULTIKUEUE_CONFIGS = Resource(_KUEUE, "v1beta2", "multikueueconfigs", "MultiKueueConfig", namespaced=False)
RESOURCE_FLAVORS = Resource(_KUEUE, "v1beta2", "resourceflavors", "ResourceFlavor", namespaced=False)
TOPOLOGIES = Resource(_KUEUE, "v1beta2", "topologies", "Topology", namespaced=False)
WORKLOADS = Resource(_KUEUE, "v1beta2", "workloads", "Workload")
WORKLOAD_PRIORITY_CLASSES = Resource(
    _KUEUE, "v1beta2", "workloadpriorityclasses", "WorkloadPriorityClass", namespaced=False
)

_GLEBE = "glebe.dev"
WORKLOAD_CLASSES = Resource(_GLEBE, "v1alpha1", "workloadclasses", "WorkloadClass", namespaced=False)
USAGE_REPORTS = Resource(_GLEBE, "v1alpha1", "usagereports", "UsageReport", namespaced=False)

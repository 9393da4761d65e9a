"""What upstream fills in when a client leaves it out (``SetDefaults_*``), for the built-in kinds that have any.

Each function changes its object in place, adds only what is missing, and so may run any number of times. Custom
resources take their defaults from their schema (:mod:`glebe.apiserver.types.structural`).
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from glebe.apiserver.types import smalldefaults, structuraldefaults
from glebe.apiserver.types.filling import fill
from glebe.apiserver.types.poddefaults import pod_spec, volume_source
from glebe.apiserver.types.registry import ResourceInfo
from glebe.kube.objects import Object

Defaulter = Callable[[Object], None]


def apply_defaults(info: ResourceInfo, obj: Object) -> None:
    """Fill in the defaults of ``obj``'s kind, in place. Types must be right (:func:`prune.prune` sees to it)."""
    if info.is_custom:
        if info.schema is not None:
            structuraldefaults.apply_defaults(info.schema, obj)
        return
    defaulter = DEFAULTERS.get((info.group, info.kind))
    if defaulter is not None:
        defaulter(obj)


def _spec(obj: Object) -> dict[str, Any]:
    spec: dict[str, Any] = fill(obj, "spec", {})
    return spec


def _template(spec: dict[str, Any], *, optional: bool = False) -> None:
    """A template is a struct, which is there even when nobody wrote it; a ReplicationController's is optional."""
    if not optional or "template" in spec:
        pod_spec(spec.setdefault("template", {}).setdefault("spec", {}), template=True)


def _pod(obj: Object) -> None:
    pod_spec(_spec(obj))


def _job_spec(spec: dict[str, Any]) -> None:
    # completions and parallelism default to 1 together; with completions set alone it is parallelism's default only
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = spec["parallelism"] = 1
    fill(spec, "parallelism", 1)
    indexed_limit = "backoffLimitPerIndex" in spec
    fill(spec, "backoffLimit", 2**31 - 1 if indexed_limit else 6)
    fill(spec, "completionMode", "NonIndexed")
    fill(spec, "suspend", False)
    fill(spec, "manualSelector", False)
    policy = "podFailurePolicy" in spec
    fill(spec, "podReplacementPolicy", "Failed" if policy else "TerminatingOrFailed")
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            fill(pattern, "status", "True")
    _template(spec)


_UID_LABEL, _NAME_LABEL = "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"


def _job_selector(obj: Object) -> None:
    """The labels and the selector by which a job knows its pods, once it has a uid; ``manualSelector`` opts out."""
    meta, spec = obj["metadata"], obj["spec"]
    uid, name = meta.get("uid"), meta.get("name")
    if not uid or not name or spec.get("manualSelector"):
        return
    labels = fill(spec, "template", {}).setdefault("metadata", {}).setdefault("labels", {})
    # a job made from another one's YAML keeps the other's selector, and validation says so
    for key, value in (("controller-uid", uid), (_UID_LABEL, uid), ("job-name", name), (_NAME_LABEL, name)):
        labels.setdefault(key, value)
    selected = fill(spec, "selector", {}).setdefault("matchLabels", {})
    fill(selected, _UID_LABEL, uid)


def _job(obj: Object) -> None:
    if "spec" in obj:
        _job_spec(obj["spec"])
        _job_selector(obj)
        labels = (obj["spec"].get("template") or {}).get("metadata", {}).get("labels")
        if labels and "labels" not in obj.get("metadata", {}):
            fill(obj, "metadata", {})["labels"] = dict(labels)


def _cron_job(obj: Object) -> None:
    spec = _spec(obj)
    fill(spec, "concurrencyPolicy", "Allow")
    fill(spec, "suspend", False)
    fill(spec, "successfulJobsHistoryLimit", 3)
    fill(spec, "failedJobsHistoryLimit", 1)
    job = (spec.get("jobTemplate") or {}).get("spec")
    if job is not None:
        _template(job)


def _rolling(strategy: dict[str, Any], **amounts: Any) -> None:
    fill(strategy, "type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = fill(strategy, "rollingUpdate", {})
        for key, value in amounts.items():
            fill(rolling, key, value)


def _deployment(obj: Object) -> None:
    spec = _spec(obj)
    fill(spec, "replicas", 1)
    _rolling(fill(spec, "strategy", {}), maxUnavailable="25%", maxSurge="25%")
    fill(spec, "revisionHistoryLimit", 10)
    fill(spec, "progressDeadlineSeconds", 600)
    _template(spec)


def _stateful_set(obj: Object) -> None:
    spec = _spec(obj)
    fill(spec, "replicas", 1)
    fill(spec, "podManagementPolicy", "OrderedReady")
    _rolling(fill(spec, "updateStrategy", {}), partition=0)
    fill(spec, "revisionHistoryLimit", 10)
    retention = fill(spec, "persistentVolumeClaimRetentionPolicy", {})
    fill(retention, "whenDeleted", "Retain")
    fill(retention, "whenScaled", "Retain")
    for claim in spec.get("volumeClaimTemplates") or ():
        fill(claim, "apiVersion", "v1")
        fill(claim, "kind", "PersistentVolumeClaim")
        _claim(claim)
    _template(spec)


def _daemon_set(obj: Object) -> None:
    spec = _spec(obj)
    _rolling(fill(spec, "updateStrategy", {}), maxUnavailable=1, maxSurge=0)
    fill(spec, "revisionHistoryLimit", 10)
    _template(spec)


def _replica_set(obj: Object) -> None:
    spec = _spec(obj)
    fill(spec, "replicas", 1)
    _template(spec)


def _replication_controller(obj: Object) -> None:
    spec = _spec(obj)
    fill(spec, "replicas", 1)
    labels = (spec.get("template") or {}).get("metadata", {}).get("labels")
    if labels:
        fill(spec, "selector", dict(labels))
        if not obj["metadata"].get("labels"):
            obj["metadata"]["labels"] = dict(labels)
    _template(spec, optional=True)


def _pod_template(obj: Object) -> None:
    _template(obj)


def _service(obj: Object) -> None:
    spec = _spec(obj)
    fill(spec, "sessionAffinity", "None")
    if spec["sessionAffinity"] == "ClientIP":
        client = fill(spec, "sessionAffinityConfig", {}).setdefault("clientIP", {})
        fill(client, "timeoutSeconds", 10800)
    kind = fill(spec, "type", "ClusterIP")
    for port in spec.get("ports") or ():
        fill(port, "protocol", "TCP")
        if port.get("targetPort") in (None, 0, "") and "port" in port:
            port["targetPort"] = port["port"]
    if kind in ("NodePort", "LoadBalancer"):
        fill(spec, "externalTrafficPolicy", "Cluster")
    if kind == "LoadBalancer":
        fill(spec, "allocateLoadBalancerNodePorts", True)
    if kind != "ExternalName":
        fill(spec, "internalTrafficPolicy", "Cluster")


def _secret(obj: Object) -> None:
    for key, text in (obj.pop("stringData", None) or {}).items():
        fill(obj, "data", {})[key] = base64.b64encode(text.encode()).decode()
    fill(obj, "type", "Opaque")


def _node(obj: Object) -> None:
    status = obj.get("status")
    if status and "capacity" in status:
        fill(status, "allocatable", dict(status["capacity"]))


def _namespace(obj: Object) -> None:
    meta = fill(obj, "metadata", {})
    if name := meta.get("name"):
        fill(meta, "labels", {})["kubernetes.io/metadata.name"] = name


def _claim(obj: Object) -> None:
    fill(obj, "status", {}).setdefault("phase", "Pending")
    spec = fill(obj, "spec", {})
    fill(spec, "volumeMode", "Filesystem")


def _volume(obj: Object) -> None:
    fill(obj, "status", {}).setdefault("phase", "Pending")
    spec = _spec(obj)
    fill(spec, "persistentVolumeReclaimPolicy", "Retain")
    volume_source(spec)
    fill(spec, "volumeMode", "Filesystem")


def _limit_range(obj: Object) -> None:
    for item in (obj.get("spec") or {}).get("limits") or ():
        if item.get("type") != "Container":
            continue
        limits, requests = dict(item.get("default") or {}), dict(item.get("defaultRequest") or {})
        for key, value in (item.get("max") or {}).items():
            fill(limits, key, value)
        for key, value in limits.items():
            fill(requests, key, value)
        for key, value in (item.get("min") or {}).items():
            fill(requests, key, value)
        if limits:
            item["default"] = limits
        if requests:
            item["defaultRequest"] = requests


def _endpoints(obj: Object) -> None:
    for subset in obj.get("subsets") or ():
        for port in subset.get("ports") or ():
            fill(port, "protocol", "TCP")


def _endpoint_slice(obj: Object) -> None:
    for port in obj.get("ports") or ():
        fill(port, "name", "")
        fill(port, "protocol", "TCP")


def _binding(obj: Object) -> None:
    ref = fill(obj, "roleRef", {})
    fill(ref, "apiGroup", "rbac.authorization.k8s.io")
    for subject in obj.get("subjects") or ():
        if subject.get("kind") in ("User", "Group"):
            fill(subject, "apiGroup", "rbac.authorization.k8s.io")


def _priority_class(obj: Object) -> None:
    fill(obj, "value", 0)
    fill(obj, "preemptionPolicy", "PreemptLowerPriority")


def _storage_class(obj: Object) -> None:
    fill(obj, "reclaimPolicy", "Delete")
    fill(obj, "volumeBindingMode", "Immediate")


def _csi_driver(obj: Object) -> None:
    spec = _spec(obj)
    for key, value in (
        ("attachRequired", True),
        ("podInfoOnMount", False),
        ("storageCapacity", False),
        ("fsGroupPolicy", "ReadWriteOnceWithFSType"),
        ("requiresRepublish", False),
        ("seLinuxMount", False),
    ):
        fill(spec, key, value)
    fill(spec, "volumeLifecycleModes", ["Persistent"])


def _network_policy(obj: Object) -> None:
    spec = _spec(obj)
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    for rule in (*(spec.get("ingress") or ()), *(spec.get("egress") or ())):
        for port in rule.get("ports") or ():
            fill(port, "protocol", "TCP")


def _webhooks(obj: Object) -> None:
    mutating = obj.get("kind") == "MutatingWebhookConfiguration"
    for hook in obj.get("webhooks") or ():
        fill(hook, "failurePolicy", "Fail")
        fill(hook, "matchPolicy", "Equivalent")
        fill(hook, "namespaceSelector", {})
        fill(hook, "objectSelector", {})
        fill(hook, "timeoutSeconds", 10)
        if mutating:
            fill(hook, "reinvocationPolicy", "Never")
        service = (hook.get("clientConfig") or {}).get("service")
        if service is not None:
            fill(service, "port", 443)
        for rule in hook.get("rules") or ():
            fill(rule, "scope", "*")


def _admission_policy(obj: Object) -> None:
    spec = _spec(obj)
    fill(spec, "failurePolicy", "Fail")
    _match_resources(spec.get("matchConstraints"))


def _admission_binding(obj: Object) -> None:
    _match_resources(_spec(obj).get("matchResources"))


def _match_resources(match: dict[str, Any] | None) -> None:
    if match is None:
        return
    fill(match, "matchPolicy", "Equivalent")
    fill(match, "namespaceSelector", {})
    fill(match, "objectSelector", {})
    for rule in (*(match.get("resourceRules") or ()), *(match.get("excludeResourceRules") or ())):
        fill(rule, "scope", "*")


def _crd(obj: Object) -> None:
    spec = _spec(obj)
    names = fill(spec, "names", {})
    if kind := names.get("kind"):
        fill(names, "singular", kind.lower())
        fill(names, "listKind", f"{kind}List")
    conversion = fill(spec, "conversion", {})
    fill(conversion, "strategy", "None")
    service = ((conversion.get("webhook") or {}).get("clientConfig") or {}).get("service")
    if service is not None:
        fill(service, "port", 443)


_RBAC = "rbac.authorization.k8s.io"
_ADMISSION = "admissionregistration.k8s.io"

DEFAULTERS: dict[tuple[str, str], Defaulter] = {
    **smalldefaults.DEFAULTERS,
    ("", "Pod"): _pod,
    ("", "PodTemplate"): _pod_template,
    ("", "ReplicationController"): _replication_controller,
    ("", "Service"): _service,
    ("", "Secret"): _secret,
    ("", "Node"): _node,
    ("", "Namespace"): _namespace,
    ("", "PersistentVolumeClaim"): _claim,
    ("", "PersistentVolume"): _volume,
    ("", "LimitRange"): _limit_range,
    ("", "Endpoints"): _endpoints,
    ("discovery.k8s.io", "EndpointSlice"): _endpoint_slice,
    ("batch", "Job"): _job,
    ("batch", "CronJob"): _cron_job,
    ("apps", "Deployment"): _deployment,
    ("apps", "StatefulSet"): _stateful_set,
    ("apps", "DaemonSet"): _daemon_set,
    ("apps", "ReplicaSet"): _replica_set,
    ("networking.k8s.io", "NetworkPolicy"): _network_policy,
    ("scheduling.k8s.io", "PriorityClass"): _priority_class,
    ("storage.k8s.io", "StorageClass"): _storage_class,
    ("storage.k8s.io", "CSIDriver"): _csi_driver,
    (_RBAC, "RoleBinding"): _binding,
    (_RBAC, "ClusterRoleBinding"): _binding,
    (_ADMISSION, "MutatingWebhookConfiguration"): _webhooks,
    (_ADMISSION, "ValidatingWebhookConfiguration"): _webhooks,
    (_ADMISSION, "ValidatingAdmissionPolicy"): _admission_policy,
    (_ADMISSION, "MutatingAdmissionPolicy"): _admission_policy,
    (_ADMISSION, "ValidatingAdmissionPolicyBinding"): _admission_binding,
    (_ADMISSION, "MutatingAdmissionPolicyBinding"): _admission_binding,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _crd,
}

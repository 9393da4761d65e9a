"""Is an object allowed? The schema's rules, metadata's rules, and those of its kind.

Each rule gives a :class:`Cause` worded as upstream words it, so that clients and users meet what they know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from glebe.apiserver.types import (
    apiservicevalidation,
    celrules,
    crdvalidation,
    jobvalidation,
    kindvalidation,
    podvalidation,
    registrationvalidation,
    smallkinds,
    structural,
)
from glebe.apiserver.types.registry import ResourceInfo
from glebe.apiserver.types.schema import Schema
from glebe.kube import names as n
from glebe.kube.errors import Cause
from glebe.kube.objects import Object

Rule = Callable[[Object, Object | None], list[Cause]]

_ANNOTATIONS_LIMIT = 256 * 1024
#: kinds that are asked, not stored: their required fields are the answerer's to check
_VIRTUAL = frozenset({"authorization.k8s.io", "authentication.k8s.io"})


def validate(info: ResourceInfo, obj: Object, old: Object | None = None, subresource: str = "") -> list[Cause]:
    """Every fault of ``obj``. It must be pruned and defaulted; ``old`` is what an update replaces.

    A status write is held to the custom resource's schema, and otherwise only to metadata's rules.
    """
    if info.group in _VIRTUAL:
        return []
    causes = validate_metadata(info, obj, old)
    if info.is_custom:
        if info.schema is not None:
            causes += structural.validate(info.schema, obj, old=old)
            if not causes:  # rules may rely on what the schema guarantees
                causes.extend(celrules.rule_faults(info.schema, obj, old))
        return causes
    if subresource not in ("", "finalize", "resize"):
        return causes
    if info.group_resource == "pods" and podvalidation.is_known(obj, old):
        return causes  # nothing was wrong with such a spec
    before = len(causes)
    schema = info.schema
    if schema is not None:
        for name, field in schema.fields.items():
            if name not in ("status", "metadata", "apiVersion", "kind") and name in obj:
                _enums(field, obj[name], name, causes)
    rule = RULES.get((info.group, info.kind))
    if subresource == "resize":  # what may change is the strategy's to say
        causes += podvalidation.pod_spec(obj.get("spec") or {}, "spec")
    elif rule is not None:
        causes += rule(obj, old)
        if info.group_resource == "pods" and len(causes) == before:
            podvalidation.remember(obj, old)
    return causes


# ---------------------------------------------------------------------------------------------------------- metadata


def _name_faults(info: ResourceInfo) -> Callable[[str], tuple[str, ...]]:
    if info.group == "rbac.authorization.k8s.io":
        return n.path_segment_faults
    return _NAME_RULES.get((info.group, info.kind), n.subdomain_faults)


_NAME_RULES: dict[tuple[str, str], Callable[[str], tuple[str, ...]]] = {
    ("", "Namespace"): n.label_faults,
    ("apiregistration.k8s.io", "APIService"): n.path_segment_faults,
    ("networking.k8s.io", "IPAddress"): smallkinds.ip_name_faults,
    ("", "Service"): n.label_1035_faults,
    ("apps", "StatefulSet"): n.label_faults,
}


def validate_metadata(info: ResourceInfo, obj: Object, old: Object | None) -> list[Cause]:
    """Names, labels, annotations, owners and finalizers."""
    meta = obj["metadata"]
    causes: list[Cause] = []
    faults = _name_faults(info)
    prefix = meta.get("generateName")
    if prefix and old is None:
        probe = prefix[:-1] + "a" if prefix.endswith("-") else prefix
        causes.extend(n.invalid("metadata.generateName", prefix, fault) for fault in faults(probe))
    name = meta.get("name", "")
    if not name:
        causes.append(n.required("metadata.name", "name or generateName is required"))
    elif old is None:
        causes.extend(n.invalid("metadata.name", name, fault) for fault in faults(name))
    if labels := meta.get("labels"):
        causes.extend(n.labels("metadata.labels", labels))
    if annotations := meta.get("annotations"):
        causes.extend(_annotations("metadata.annotations", annotations))
    for owner in meta.get("ownerReferences") or ():
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                why = "version must not be empty" if field == "apiVersion" else "must not be empty"
                causes.append(n.invalid(f"metadata.ownerReferences.{field}", owner.get(field, ""), why))
    if sum(1 for o in meta.get("ownerReferences") or () if o.get("controller")) > 1:
        why = "Only one reference can have Controller set to true."
        causes.append(n.invalid("metadata.ownerReferences", meta["ownerReferences"], why))
    for finalizer in meta.get("finalizers") or ():
        causes.extend(n.invalid("metadata.finalizers", finalizer, fault) for fault in n.key_faults(finalizer))
    return causes


def _annotations(path: str, values: dict[str, str]) -> list[Cause]:
    causes: list[Cause] = []
    size = 0
    for key, value in values.items():
        size += len(key) + len(value)
        causes.extend(n.invalid(path, key, fault) for fault in n.key_faults(key.lower()))
    if size > _ANNOTATIONS_LIMIT:
        causes.append(n.too_long(path, _ANNOTATIONS_LIMIT))
    return causes


# ------------------------------------------------------------------------------------------------------------- enums


def _enums(schema: Schema, value: Any, path: str, causes: list[Cause]) -> None:
    """Values of fields that take only some. ``enum_fields`` skips whole subtrees that have none."""
    for name, field in enum_fields(schema):
        item = value.get(name) if type(value) is dict else None
        if item is None:
            continue
        where = f"{path}.{name}"
        if type(item) is list:
            child = field.items
            if child is None:
                continue
            for index, element in enumerate(item):
                if child.enum is not None:
                    if element not in child.enum:
                        shown = where if name == "accessModes" else f"{where}[{index}]"
                        causes.append(n.not_supported(shown, element, _listed(child.enum)))
                elif type(element) is dict:
                    _enums(child, element, f"{where}[{index}]", causes)
        elif field.enum is not None:
            if item not in field.enum and (item != "" or "" in field.enum):
                causes.append(n.not_supported(where, item, _listed(field.enum)))
        elif type(item) is dict:
            _enums(field, item, where, causes)


#: Lists of allowed values that upstream does not sort: the order in which it names them.
_UNSORTED = (
    ("Always", "OnFailure", "Never"),
    ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"),
    ("File", "FallbackToLogsOnError"),
    ("NonIndexed", "Indexed"),
    ("NoSchedule", "PreferNoSchedule", "NoExecute"),
)
_ORDER = {tuple(sorted(values)): values for values in _UNSORTED}


def _listed(values: tuple[Any, ...]) -> tuple[str, ...]:
    return _ORDER.get(values, values)


_ENUM_FIELDS: dict[int, tuple[Schema, list[tuple[str, Schema]]]] = {}


def enum_fields(schema: Schema) -> list[tuple[str, Schema]]:
    """The fields of an object at or below which an enumeration stands."""
    held = _ENUM_FIELDS.get(id(schema))
    if held is None:
        found: list[tuple[str, Schema]] = []
        _ENUM_FIELDS[id(schema)] = held = (schema, found)  # before the descent: schemas may be recursive
        for name, field in schema.fields.items():
            inner = field.items if field.kind == "array" and field.items is not None else field
            if inner.enum is not None or (inner.kind == "object" and enum_fields(inner)):
                found.append((name, field))
    return held[1]


# ------------------------------------------------------------------------------------------------------- kinds' rules

_BATCH, _APPS, _RBAC = "batch", "apps", "rbac.authorization.k8s.io"
_ADMISSION = "admissionregistration.k8s.io"

RULES: dict[tuple[str, str], Rule] = {
    **smallkinds.RULES,
    ("", "Pod"): podvalidation.validate_pod,
    ("", "PodTemplate"): lambda obj, old: podvalidation.template(obj.get("template") or {}, "template"),
    (_BATCH, "Job"): jobvalidation.validate_job,
    (_BATCH, "CronJob"): jobvalidation.validate_cron_job,
    (_APPS, "Deployment"): kindvalidation.workload,
    (_APPS, "ReplicaSet"): kindvalidation.workload,
    (_APPS, "StatefulSet"): kindvalidation.workload,
    (_APPS, "DaemonSet"): kindvalidation.workload,
    ("", "ReplicationController"): kindvalidation.replication_controller,
    ("", "Service"): kindvalidation.service,
    ("", "ConfigMap"): kindvalidation.config_map,
    ("", "Secret"): kindvalidation.secret,
    ("", "Node"): kindvalidation.node,
    ("", "ResourceQuota"): kindvalidation.resource_quota,
    ("", "PersistentVolumeClaim"): kindvalidation.claim,
    ("coordination.k8s.io", "Lease"): kindvalidation.lease,
    ("scheduling.k8s.io", "PriorityClass"): kindvalidation.priority_class,
    **{(_ADMISSION, kind): check for kind, check in registrationvalidation.RULES.items()},
    (_RBAC, "Role"): kindvalidation.role,
    (_RBAC, "ClusterRole"): kindvalidation.role,
    (_RBAC, "RoleBinding"): kindvalidation.role_binding,
    (_RBAC, "ClusterRoleBinding"): kindvalidation.role_binding,
    ("policy", "PodDisruptionBudget"): kindvalidation.disruption_budget,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): crdvalidation.validate_crd,
    ("apiregistration.k8s.io", "APIService"): apiservicevalidation.validate_api_service,
}

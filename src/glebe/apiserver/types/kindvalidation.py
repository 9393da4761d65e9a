"""Rules of the smaller built-in kinds."""

from __future__ import annotations

import re
from typing import Any

from glebe.apiserver.types.containervalidation import non_negative_quantities, port_name_faults, port_number
from glebe.apiserver.types.placementvalidation import label_selector
from glebe.apiserver.types.podvalidation import template
from glebe.apiserver.types.rolloutvalidation import PERCENT_ERROR, rollout
from glebe.kube import names as n
from glebe.kube.errors import Cause
from glebe.kube.objects import Object
from glebe.kube.selectors import LabelSelector

_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_DATA_KEY_ERROR = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  "
    "or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
_DATA_LIMIT = 1024 * 1024


def workload(obj: Object, old: Object | None) -> list[Cause]:
    """Deployment, ReplicaSet, StatefulSet, DaemonSet."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    for field in ("replicas", "minReadySeconds", "revisionHistoryLimit"):
        causes += n.non_negative(f"spec.{field}", spec.get(field))
    causes += _selected_template(spec, "spec", obj.get("kind", ""))
    policy = ((spec.get("template") or {}).get("spec") or {}).get("restartPolicy")
    if policy and policy != "Always":
        causes.append(n.not_supported("spec.template.spec.restartPolicy", policy, ["Always"]))
    causes += rollout(obj, old)
    if obj.get("kind") == "StatefulSet":
        return causes  # its selector is among what no update may change
    if old is not None and spec.get("selector") != (old.get("spec") or {}).get("selector"):
        causes.append(n.invalid("spec.selector", spec.get("selector"), "field is immutable"))
    return causes


def _selected_template(spec: dict[str, Any], path: str, kind: str) -> list[Cause]:
    causes: list[Cause] = []
    selector = spec.get("selector")
    pod = spec.get("template") or {}
    labels = (pod.get("metadata") or {}).get("labels")
    mismatch = n.invalid(f"{path}.template.metadata.labels", labels, "`selector` does not match template `labels`")
    if selector is None:
        causes += [n.required(f"{path}.selector"), mismatch]
    else:
        label_selector(selector, f"{path}.selector", causes)
        if not (selector.get("matchLabels") or selector.get("matchExpressions")):
            what = kind.lower() if kind in ("StatefulSet", "DaemonSet") else "deployment"
            causes.append(n.invalid(f"{path}.selector", selector, f"empty selector is invalid for {what}"))
        elif causes:
            causes.append(n.invalid(f"{path}.selector", selector, "invalid label selector"))
        elif not LabelSelector.from_object(selector).matches(labels or {}):
            causes.append(mismatch)
    if kind == "StatefulSet":
        pod = _as_its_pods(spec, pod)
    return causes + template(pod, f"{path}.template")


def _as_its_pods(spec: dict[str, Any], pod: dict[str, Any]) -> dict[str, Any]:
    """A StatefulSet's pods have volumes for its claim templates, and names and subdomains that its template has not."""
    claims = [t.get("metadata", {}).get("name", "") for t in spec.get("volumeClaimTemplates") or ()]
    own = pod.get("spec") or {}
    if not claims and "hostname" not in own and "subdomain" not in own:
        return pod
    others = [volume for volume in own.get("volumes") or () if volume.get("name") not in claims]
    made = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in dict.fromkeys(claims)]
    kept = {field: value for field, value in own.items() if field not in ("hostname", "subdomain")}
    return {**pod, "spec": {**kept, "volumes": [*made, *others]}}


def replication_controller(obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes = n.non_negative("spec.replicas", spec.get("replicas"))
    if not spec.get("selector"):
        causes.append(n.required("spec.selector"))
    return causes + template(spec.get("template") or {}, "spec.template")


def service(obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    ports = spec.get("ports") or ()
    headless = spec.get("clusterIP") == "None"
    kind = spec.get("type")
    if not ports and not headless and kind != "ExternalName":
        causes.append(n.required("spec.ports"))
    if kind == "ExternalName" and not spec.get("externalName"):
        causes.append(n.required("spec.externalName"))
    names: set[str] = set()
    for index, port in enumerate(ports):
        where = f"spec.ports[{index}]"
        name = port.get("name", "")
        if not name and len(ports) > 1:
            causes.append(n.required(f"{where}.name"))
        elif name:
            causes.extend(n.invalid(f"{where}.name", name, fault) for fault in n.label_faults(name))
            if name in names:
                causes.append(n.duplicate(f"{where}.name", name))
            names.add(name)
        port_number(port.get("port", 0), f"{where}.port", causes)
        target = port.get("targetPort")
        if isinstance(target, int):
            port_number(target, f"{where}.targetPort", causes)
        elif target:
            causes.extend(n.invalid(f"{where}.targetPort", target, fault) for fault in port_name_faults(target))
    causes += n.labels("spec.selector", spec.get("selector"))
    before = (old or {}).get("spec") or {}
    if before and kind != "ExternalName" and before.get("type") != "ExternalName":
        held, wanted = before.get("clusterIPs") or [], spec.get("clusterIPs") or []
        if held and not wanted:
            causes.append(n.invalid("spec.clusterIPs[0]", wanted, "primary clusterIP can not be unset"))
        elif held and held[0] != wanted[0]:
            causes.append(n.invalid("spec.clusterIPs[0]", wanted, "may not change once set"))
    return causes


def _data(obj: Object, fields: tuple[str, ...]) -> list[Cause]:
    causes: list[Cause] = []
    size = 0
    seen: set[str] = set()
    for field in fields:
        for key, value in (obj.get(field) or {}).items():
            size += len(value) if field == "data" and fields[-1] != "data" else len(value) * 3 // 4
            where = f"{field}[{key}]"
            if len(key) > 253:
                causes.append(n.invalid(where, key, "must be no more than 253 characters"))
            if _DATA_KEY.fullmatch(key) is None:
                causes.append(n.invalid(where, key, _DATA_KEY_ERROR))
            elif key in (".", "..") or key.startswith(".."):
                causes.append(
                    n.invalid(where, key, f"must not be '{key}'" if key != "..." else "must not start with '..'")
                )
            if key in seen:
                causes.append(n.invalid(where, key, "duplicate of key present in data"))
            seen.add(key)
    if size > _DATA_LIMIT:
        causes.append(n.too_long("" if len(fields) > 1 else "data", _DATA_LIMIT))
    return causes


def config_map(obj: Object, old: Object | None) -> list[Cause]:
    return _data(obj, ("data", "binaryData"))


#: type of secret -> the keys that it must hold
_SECRET_KEYS = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}


def secret(obj: Object, old: Object | None) -> list[Cause]:
    causes = _data(obj, ("data",))
    held = obj.get("data") or {}
    kind = obj.get("type", "")
    causes.extend(n.required(f"data[{key}]") for key in _SECRET_KEYS.get(kind, ()) if key not in held)
    if kind == "kubernetes.io/service-account-token":
        annotation = "kubernetes.io/service-account.name"
        if not (obj["metadata"].get("annotations") or {}).get(annotation):
            causes.append(n.required(f"metadata.annotations[{annotation}]"))
    if kind == "kubernetes.io/basic-auth" and not ("username" in held or "password" in held):
        causes += [n.required("data[username]"), n.required("data[password]")]
    return causes


def node(obj: Object, old: Object | None) -> list[Cause]:
    causes: list[Cause] = []
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate((obj.get("spec") or {}).get("taints") or ()):
        where = f"spec.taints[{index}]"
        key, value = taint.get("key", ""), taint.get("value", "")
        causes.extend(n.invalid(f"{where}.key", key, fault) for fault in n.key_faults(key))
        causes.extend(n.invalid(f"{where}.value", value, fault) for fault in n.value_faults(value))
        if not taint.get("effect"):
            causes.append(n.required(f"{where}.effect"))
        if (key, taint.get("effect", "")) in seen:
            causes.append(n.duplicate(where, taint))
        seen.add((key, taint.get("effect", "")))
    status = obj.get("status") or {}
    for field in ("capacity", "allocatable"):
        non_negative_quantities(status.get(field) or {}, f"status.{field}", causes)
    return causes


def resource_quota(obj: Object, old: Object | None) -> list[Cause]:
    causes: list[Cause] = []
    non_negative_quantities((obj.get("spec") or {}).get("hard") or {}, "spec.hard", causes)
    return causes


def claim(obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    if not spec.get("accessModes"):
        causes.append(n.required("spec.accessModes", "at least 1 access mode is required"))
    requests = (spec.get("resources") or {}).get("requests") or {}
    if "storage" not in requests:
        causes.append(n.required("spec.resources[storage]"))
    non_negative_quantities(requests, "spec.resources", causes)
    return causes


def lease(obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    duration = spec.get("leaseDurationSeconds")
    if duration is not None and duration <= 0:
        causes.append(n.invalid("spec.leaseDurationSeconds", duration, "must be greater than 0"))
    return causes + n.non_negative("spec.leaseTransitions", spec.get("leaseTransitions"))


_HIGHEST_PRIORITY = 1_000_000_000


def priority_class(obj: Object, old: Object | None) -> list[Cause]:
    causes: list[Cause] = []
    name, value = obj["metadata"].get("name", ""), obj.get("value", 0)
    if name.startswith("system-"):
        known = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}
        if known.get(name) != value:
            why = "priority class names with 'system-' prefix are reserved for system use only. "
            causes.append(n.forbidden("metadata.name", f"{why}error: {name} is not a known system priority class"))
    elif value > _HIGHEST_PRIORITY:
        why = f"maximum allowed value of a user defined priority is {_HIGHEST_PRIORITY}"
        causes.append(n.forbidden("value", why))
    if old is not None:
        causes.extend(
            n.forbidden(field, "may not be changed in an update.")
            for field in ("value", "preemptionPolicy")
            if obj.get(field) != old.get(field)
        )
    return causes


def role(obj: Object, old: Object | None) -> list[Cause]:
    causes: list[Cause] = []
    for index, rule in enumerate(obj.get("rules") or ()):
        where = f"rules[{index}]"
        if not rule.get("verbs"):
            causes.append(n.required(f"{where}.verbs", "verbs must contain at least one value"))
        if rule.get("nonResourceURLs"):
            if obj["kind"] == "Role":
                why = "namespaced rules cannot apply to non-resource URLs"
                causes.append(n.invalid(f"{where}.nonResourceURLs", rule["nonResourceURLs"], why))
            elif rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
                why = "rules cannot apply to both regular resources and non-resource URLs"
                causes.append(n.invalid(f"{where}.nonResourceURLs", rule["nonResourceURLs"], why))
            continue
        if not rule.get("apiGroups"):
            causes.append(n.required(f"{where}.apiGroups", "resource rules must supply at least one api group"))
        if not rule.get("resources"):
            causes.append(n.required(f"{where}.resources", "resource rules must supply at least one resource"))
    return causes


_RBAC = "rbac.authorization.k8s.io"


def role_binding(obj: Object, old: Object | None) -> list[Cause]:
    causes: list[Cause] = []
    ref = obj.get("roleRef") or {}
    kinds = ["Role", "ClusterRole"] if obj["kind"] == "RoleBinding" else ["ClusterRole"]
    if ref.get("apiGroup") != _RBAC:
        causes.append(n.not_supported("roleRef.apiGroup", ref.get("apiGroup", ""), [_RBAC]))
    if ref.get("kind") not in kinds:
        causes.append(n.not_supported("roleRef.kind", ref.get("kind", ""), kinds))
    if not ref.get("name"):
        causes.append(n.required("roleRef.name"))
    for index, subject in enumerate(obj.get("subjects") or ()):
        where = f"subjects[{index}]"
        kind = subject.get("kind", "")
        if not subject.get("name"):
            causes.append(n.required(f"{where}.name"))
        if kind not in ("ServiceAccount", "User", "Group"):
            causes.append(n.not_supported(f"{where}.kind", kind, ["ServiceAccount", "User", "Group"]))
        elif kind == "ServiceAccount":
            name = subject.get("name") or ""
            causes += [n.invalid(f"{where}.name", name, f) for f in n.subdomain_faults(name)] if name else []
            if not subject.get("namespace") and obj["kind"] == "ClusterRoleBinding":
                causes.append(n.required(f"{where}.namespace"))
    if old is not None and ref != (old.get("roleRef") or {}):
        causes.append(n.invalid("roleRef", ref, "cannot change roleRef"))
    return causes


def disruption_budget(obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    if "minAvailable" in spec and "maxUnavailable" in spec:
        causes.append(n.invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set"))
    for field in ("minAvailable", "maxUnavailable"):
        value = spec.get(field)
        if isinstance(value, int):
            causes += n.non_negative(f"spec.{field}", value)
        elif value is not None and re.fullmatch(r"[0-9]+%", value) is None:
            causes.append(n.invalid(f"spec.{field}", value, PERCENT_ERROR))
    label_selector(spec.get("selector"), "spec.selector", causes)
    return causes

"""Rules of pods and pod templates that their schema cannot say."""

from __future__ import annotations

import re
from typing import Any

from glebe.apiserver.types.containervalidation import container, downward_item, non_negative_quantities
from glebe.apiserver.types.placementvalidation import affinity, spread_constraints, tolerations
from glebe.apiserver.types.remembered import VARYING, Memory, digest_of_spec
from glebe.kube import names as n
from glebe.kube.errors import Cause
from glebe.kube.objects import Object

Spec = dict[str, Any]

RESTART_POLICIES = ("Always", "OnFailure", "Never")
DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_SYSCTL = re.compile(r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$")
#: What an update of a pod may change in its spec.
_MUTABLE = frozenset({"containers", "initContainers", "activeDeadlineSeconds", "tolerations", "schedulingGates"})
_UPDATE_MESSAGE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


_RIGHT: Memory[bool] = Memory()
"""Digests of specs in which nothing is wrong."""


def is_known(obj: Object, old: Object | None) -> bool:
    """Has a new pod, or one whose spec stays as it is, a spec with which nothing was wrong before?"""
    spec = obj.get("spec") or {}
    if old is not None and spec != old.get("spec"):
        return False
    if any(spec.get(name) for name in VARYING) and _varying_faults(spec):
        return False
    if old is None and (spec.get("ephemeralContainers") or spec.get("schedulingGates")):
        return False  # what is allowed on an update only, or not together with the name of a node
    return _RIGHT.look() and _RIGHT.get(digest_of_spec(spec)) is True


def remember(obj: Object, old: Object | None) -> None:
    """All rules were asked, and nothing is wrong (an update that leaves the spec as it is asks few)."""
    spec = obj.get("spec") or {}
    if (old is None or spec != old.get("spec")) and _RIGHT.is_worth_it():
        _RIGHT.put(digest_of_spec(spec), True)


def _varying_faults(spec: Spec) -> bool:
    return any(
        bool(faults(spec.get(name) or "x"))
        for name, faults in (("hostname", n.label_faults), ("nodeName", n.subdomain_faults))
    )


def validate_pod(obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    if old is not None and spec == old.get("spec"):
        return []
    causes = pod_spec(spec, "spec")
    if old is None:
        if spec.get("ephemeralContainers"):
            causes.append(n.forbidden("spec.ephemeralContainers", "cannot be set on create"))
        if spec.get("schedulingGates") and spec.get("nodeName"):
            causes.append(n.forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared"))
        return causes
    return causes + _update(spec, old.get("spec") or {})


def _update(spec: Spec, old: Spec) -> list[Cause]:
    causes: list[Cause] = []
    gates = {g.get("name") for g in old.get("schedulingGates") or ()}
    for i, gate in enumerate(spec.get("schedulingGates") or ()):
        if gate.get("name") not in gates:
            why = f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'"
            causes.append(n.forbidden(f"spec.schedulingGates[{i}].name", why))
    mutable = set(_MUTABLE)
    if gates:  # a gated pod's placement may still be narrowed
        mutable |= {"nodeSelector", "affinity"}
        causes.extend(_narrowed(spec, old))
    kept = {k: v for k, v in spec.items() if k not in mutable}
    before = {k: v for k, v in old.items() if k not in mutable}
    if old.get("terminationGracePeriodSeconds", 0) < 0 and spec.get("terminationGracePeriodSeconds") == 1:
        kept["terminationGracePeriodSeconds"] = old["terminationGracePeriodSeconds"]
    for name in ("containers", "initContainers"):
        kept[name] = [{**c, "image": ""} for c in spec.get(name) or ()]
        before[name] = [{**c, "image": ""} for c in old.get(name) or ()]
    if kept != before:
        causes.append(n.forbidden("spec", _UPDATE_MESSAGE))
    if any(t not in (spec.get("tolerations") or ()) for t in old.get("tolerations") or ()):
        causes.append(
            n.forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")
        )
    new_deadline, deadline = spec.get("activeDeadlineSeconds"), old.get("activeDeadlineSeconds")
    if deadline is not None and (new_deadline is None or new_deadline > deadline):
        why = "must not update from a positive integer to nil value"
        if new_deadline is not None:
            why = f"must be less than or equal to previous value {deadline}"
        causes.append(n.invalid("spec.activeDeadlineSeconds", new_deadline, why))
    return causes


def _narrowed(spec: Spec, old: Spec) -> list[Cause]:
    before, after = old.get("nodeSelector") or {}, spec.get("nodeSelector") or {}
    if any(after.get(key) != value for key, value in before.items()):
        return [
            n.invalid(
                "spec.nodeSelector",
                after,
                "only additions to spec.nodeSelector are allowed (no mutations or deletions)",
            )
        ]
    return []


def template(value: Spec, path: str) -> list[Cause]:
    """A pod template: labels, annotations and spec."""
    causes: list[Cause] = []
    meta = value.get("metadata") or {}
    # upstream names these paths without "metadata"
    causes += n.labels(f"{path}.labels", meta.get("labels"))
    for key in meta.get("annotations") or ():
        causes.extend(n.invalid(f"{path}.annotations", key, fault) for fault in n.key_faults(key.lower()))
    spec = value.get("spec") or {}
    causes += pod_spec(spec, f"{path}.spec")
    if spec.get("ephemeralContainers"):
        causes.append(
            n.forbidden(f"{path}.spec.ephemeralContainers", "ephemeral containers not allowed in pod template")
        )
    return causes


def pod_spec(spec: Spec, path: str) -> list[Cause]:
    """A pod's spec, wherever it stands."""
    causes: list[Cause] = []
    volumes = _volumes(spec.get("volumes") or (), f"{path}.volumes", causes)
    containers = spec.get("containers")
    if not containers:
        causes.append(n.required(f"{path}.containers"))
    seen: set[str] = set()
    host_network = bool(spec.get("hostNetwork"))
    for field in ("containers", "initContainers", "ephemeralContainers"):
        for index, item in enumerate(spec.get(field) or ()):
            where = f"{path}.{field}[{index}]"
            container(item, where, volumes, host_network, causes)
            name = item.get("name", "")
            if name in seen:
                causes.append(n.duplicate(f"{where}.name", name))
            elif name:
                seen.add(name)
    _scalars(spec, path, causes)
    causes += n.labels(f"{path}.nodeSelector", spec.get("nodeSelector"))
    if spec.get("tolerations"):
        tolerations(spec["tolerations"], f"{path}.tolerations", causes)
    if spec.get("affinity"):
        affinity(spec["affinity"], f"{path}.affinity", causes)
    if spec.get("topologySpreadConstraints"):
        spread_constraints(spec["topologySpreadConstraints"], f"{path}.topologySpreadConstraints", causes)
    _gates(spec.get("schedulingGates") or (), f"{path}.schedulingGates", causes)
    if spec.get("securityContext"):
        _security(spec["securityContext"], f"{path}.securityContext", causes)
    if spec.get("overhead"):
        non_negative_quantities(spec["overhead"], f"{path}.overhead", causes)
    return causes


def _scalars(spec: Spec, path: str, causes: list[Cause]) -> None:
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= 2**31 - 1:
        why = "must be between 1 and 2147483647, inclusive"
        causes.append(n.invalid(f"{path}.activeDeadlineSeconds", deadline, why))
    for field, faults in (
        ("nodeName", n.subdomain_faults),
        ("serviceAccountName", n.subdomain_faults),
        ("priorityClassName", n.subdomain_faults),
        ("schedulerName", n.subdomain_faults),
        ("hostname", n.label_faults),
        ("subdomain", n.label_faults),
    ):
        value = spec.get(field)
        if value:
            causes.extend(n.invalid(f"{path}.{field}", value, fault) for fault in faults(value))
    restart = spec.get("restartPolicy")
    if not restart:
        causes.append(n.required(f"{path}.restartPolicy"))
    policy = spec.get("dnsPolicy")
    if policy == "None" and not (spec.get("dnsConfig") or {}).get("nameservers"):
        why = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        causes.append(n.required(f"{path}.dnsConfig", why))


def _gates(gates: Any, path: str, causes: list[Cause]) -> None:
    seen = set()
    for index, gate in enumerate(gates):
        name = gate.get("name", "")
        causes.extend(n.invalid(f"{path}[{index}]", name, fault) for fault in n.key_faults(name))
        if name in seen:
            causes.append(n.duplicate(f"{path}[{index}]", name))
        seen.add(name)


def _security(context: Spec, path: str, causes: list[Cause]) -> None:
    for field in ("runAsUser", "runAsGroup", "fsGroup"):
        value = context.get(field)
        if value is not None and not 0 <= value <= 2**31 - 1:
            causes.append(n.invalid(f"{path}.{field}", value, "must be between 0 and 2147483647, inclusive"))
    for index, sysctl in enumerate(context.get("sysctls") or ()):
        name = sysctl.get("name", "")
        if not name:
            causes.append(n.required(f"{path}.sysctls[{index}].name"))
        elif len(name) > 253 or _SYSCTL.match(name) is None:
            why = f"must have at most 253 characters and match regex {_SYSCTL.pattern}"
            causes.append(n.invalid(f"{path}.sysctls[{index}].name", name, why))


# ----------------------------------------------------------------------------------------------------------- volumes

#: source -> its field that must be given
_NEEDED = {"configMap": "name", "secret": "secretName", "persistentVolumeClaim": "claimName", "hostPath": "path"}


def _volumes(volumes: Any, path: str, causes: list[Cause]) -> set[str]:
    """Check volumes; their names."""
    found: set[str] = set()
    for index, volume in enumerate(volumes):
        where = f"{path}[{index}]"
        name = volume.get("name", "")
        if not name:
            causes.append(n.required(f"{where}.name"))
        else:
            causes.extend(n.invalid(f"{where}.name", name, fault) for fault in n.label_faults(name))
            if name in found:
                causes.append(n.duplicate(f"{where}.name", name))
            found.add(name)
        sources = [key for key in volume if key != "name"]
        causes.extend(n.forbidden(f"{where}.{key}", "may not specify more than 1 volume type") for key in sources[1:])
        for key in sources[:1]:
            source = volume[key]
            needed = _NEEDED.get(key)
            if needed and not source.get(needed):
                causes.append(n.required(f"{where}.{key}.{needed}"))
            if key == "hostPath" and ".." in source.get("path", "").split("/"):
                causes.append(n.invalid(f"{where}.hostPath.path", source["path"], "must not contain '..'"))
            _files(source, key, f"{where}.{key}", causes)
            mode = source.get("defaultMode") if isinstance(source, dict) else None
            if mode is not None and not 0 <= mode <= 0o777:
                why = "must be a number between 0 and 0777 (octal), both inclusive"
                causes.append(n.invalid(f"{where}.{key}.defaultMode", mode, why))
    return found


def _files(source: Spec, key: str, path: str, causes: list[Cause]) -> None:
    """What stands inside the sources that are made of parts."""
    if key == "downwardAPI":
        for item in source.get("items") or ():
            downward_item(item, path, causes)
    elif key == "projected":
        for index, part in enumerate(source.get("sources") or ()):
            for item in (part.get("downwardAPI") or {}).get("items") or ():
                downward_item(item, f"{path}.sources[{index}].downwardAPI", causes)
            token = part.get("serviceAccountToken")
            if token is not None and not token.get("path"):
                causes.append(n.required(f"{path}.sources[{index}].path"))
    elif key == "ephemeral":
        template = source.get("volumeClaimTemplate")
        where = f"{path}.volumeClaimTemplate"
        if not template:
            causes.append(n.required(where))
            return
        spec = template.get("spec") or {}
        if not spec.get("accessModes"):
            causes.append(n.required(f"{where}.spec.accessModes", "at least 1 access mode is required"))
        if "storage" not in ((spec.get("resources") or {}).get("requests") or {}):
            causes.append(n.required(f"{where}.spec.resources[storage]"))

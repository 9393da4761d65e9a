"""The checks of level ``restricted``: what a hardened pod states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glebe.apiserver.admission.podsecurity import baseline
from glebe.apiserver.admission.podsecurity.words import (
    Check,
    Spec,
    Violation,
    bad_containers,
    containers,
    context,
    has_user_namespace,
    is_windows,
    named,
    plural,
    quoted,
    setters,
)

_Meta = Mapping[str, Any]
_VOLUMES = frozenset(
    [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ]
)
_OTHER_VOLUMES = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
]


def _but_on_windows(check: Check) -> Check:
    """Where what the check wants does not exist on Windows."""
    return lambda meta, spec: None if is_windows(spec) else check(meta, spec)


def _but_in_user_namespace(check: Check) -> Check:
    """Root in a user namespace is nobody outside."""
    return lambda meta, spec: None if has_user_namespace(spec) else check(meta, spec)


def privilege_escalation(meta: _Meta, spec: Spec) -> Violation | None:
    names = bad_containers(spec, lambda holder: holder.get("allowPrivilegeEscalation") is not False)
    detail = f"{named(names)} must set securityContext.allowPrivilegeEscalation=false"
    return Violation("allowPrivilegeEscalation != false", detail) if names else None


def capabilities(meta: _Meta, spec: Spec) -> Violation | None:
    keeping, adding, added = [], [], set()
    for container in containers(spec):
        wanted = context(container).get("capabilities") or {}
        if "ALL" not in (wanted.get("drop") or ()):
            keeping.append(container["name"])
        bad = [c for c in wanted.get("add") or () if c != "NET_BIND_SERVICE"]
        added.update(bad)
        if bad:
            adding.append(container["name"])
    details = []
    if keeping:
        details.append(f'{named(keeping)} must set securityContext.capabilities.drop=["ALL"]')
    if adding:
        what = quoted(sorted(added))
        details.append(f"{named(adding)} must not include {what} in securityContext.capabilities.add")
    return Violation("unrestricted capabilities", "; ".join(details)) if details else None


def volumes(meta: _Meta, spec: Spec) -> Violation | None:
    names, kinds = [], set()
    for volume in spec.get("volumes") or ():
        if any(volume.get(kind) is not None for kind in _VOLUMES):
            continue
        names.append(volume["name"])
        kinds.add(next((kind for kind in _OTHER_VOLUMES if volume.get(kind) is not None), "unknown"))
    if not names:
        return None
    uses = f"{'uses' if len(names) == 1 else 'use'} {plural('restricted volume type', len(kinds))}"
    detail = f"{plural('volume', len(names))} {quoted(names)} {uses} {quoted(sorted(kinds))}"
    return Violation("restricted volume types", detail)


def run_as_non_root(meta: _Meta, spec: Spec) -> Violation | None:
    pod = context(spec).get("runAsNonRoot")
    who = setters(pod is False, bad_containers(spec, lambda holder: holder.get("runAsNonRoot") is False))
    if who:
        return Violation("runAsNonRoot != true", f"{who} must not set securityContext.runAsNonRoot=false")
    silent = [] if pod else bad_containers(spec, lambda holder: holder.get("runAsNonRoot") is None)
    detail = f"pod or {named(silent)} must set securityContext.runAsNonRoot=true"
    return Violation("runAsNonRoot != true", detail) if silent else None


def run_as_user(meta: _Meta, spec: Spec) -> Violation | None:
    def is_root(holder: Mapping[str, Any]) -> bool:
        return holder.get("runAsUser") == 0 and holder.get("runAsUser") is not None

    who = setters(is_root(context(spec)), bad_containers(spec, is_root))
    return Violation("runAsUser=0", f"{who} must not set runAsUser=0") if who else None


def seccomp(meta: _Meta, spec: Spec) -> Violation | None:
    explicit = baseline.seccomp(meta, spec)
    if explicit is not None:
        return explicit
    if context(spec).get("seccompProfile") is not None:
        return None
    silent = bad_containers(spec, lambda holder: holder.get("seccompProfile") is None)
    wanted = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    return Violation("seccompProfile", f"pod or {named(silent)} {wanted}") if silent else None


privilege_escalation_25 = _but_on_windows(privilege_escalation)
capabilities_25 = _but_on_windows(capabilities)
seccomp_25 = _but_on_windows(seccomp)
run_as_non_root_35 = _but_in_user_namespace(run_as_non_root)
run_as_user_35 = _but_in_user_namespace(run_as_user)

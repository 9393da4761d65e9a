"""Defaults of a pod's spec, alone or inside a template."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import orjson

from glebe.apiserver.types.completion import complete, complete_all_but
from glebe.apiserver.types.filling import fill
from glebe.apiserver.types.registry import ResourceInfo
from glebe.apiserver.types.remembered import Memory

_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


_COMPLETED: Memory[bytes] = Memory(512)
"""By the digest of a spec: itself with everything filled in; empty when nothing is missing."""
_LARGE = 16 * 1024


def complete_pod(info: ResourceInfo, obj: dict[str, Any]) -> None:
    """Fill in, in place, what a pod's spec has by default, and what all of it has as a struct."""
    spec = fill(obj, "spec", {})
    if not _COMPLETED.look():
        pod_spec(spec)
        complete(info, obj)
        return
    text = orjson.dumps(spec)
    key = sha256(text).digest()
    completed = _COMPLETED.get(key)
    if completed is None:
        pod_spec(spec)
        complete(info, obj)
        after = orjson.dumps(spec)
        if len(after) <= _LARGE:
            _COMPLETED.put(key, b"" if after == text else after)
        return
    if completed:
        obj["spec"] = orjson.loads(completed)
    complete_all_but(info, obj, "spec")


def pod_spec(spec: dict[str, Any], *, template: bool = False) -> None:
    """Fill in what upstream fills in for a pod (``template=True``: for a pod template, which gets a little less)."""
    for container in spec.get("initContainers") or ():
        _container(container, template)
    for container in spec.get("containers") or ():
        _container(container, template)
    for container in spec.get("ephemeralContainers") or ():
        _container(container, template)
    fill(spec, "restartPolicy", "Always")
    fill(spec, "terminationGracePeriodSeconds", 30)
    fill(spec, "dnsPolicy", "ClusterFirst")
    if "serviceAccountName" in spec:
        fill(spec, "serviceAccount", spec["serviceAccountName"])
    elif "serviceAccount" in spec:
        spec["serviceAccountName"] = spec["serviceAccount"]
    fill(spec, "securityContext", {})
    fill(spec, "schedulerName", "default-scheduler")
    if not template:
        fill(spec, "enableServiceLinks", True)
    if spec.get("hostNetwork"):
        _host_ports(spec)
    for volume in spec.get("volumes") or ():
        _volume(volume)


def _container(container: dict[str, Any], template: bool) -> None:
    for port in container.get("ports") or ():
        fill(port, "protocol", "TCP")
    for variable in container.get("env") or ():
        field = (variable.get("valueFrom") or {}).get("fieldRef")
        if field is not None:
            fill(field, "apiVersion", "v1")
    for probe in _PROBES:
        if probe in container:
            _probe(container[probe])
    for hook in (container.get("lifecycle") or {}).values():
        if isinstance(hook, dict) and "httpGet" in hook:
            _http(hook["httpGet"])
    resources = fill(container, "resources", {})
    if not template and (limits := resources.get("limits")):
        # what is limited is requested, unless something else is
        requests = fill(resources, "requests", {})
        for key, value in limits.items():
            fill(requests, key, value)
    fill(container, "terminationMessagePath", "/dev/termination-log")
    fill(container, "terminationMessagePolicy", "File")
    if "imagePullPolicy" not in container:
        container["imagePullPolicy"] = "Always" if _is_latest(container.get("image", "")) else "IfNotPresent"


def _is_latest(image: str) -> bool:
    """An image without tag and digest, or with the tag ``latest``."""
    if "@" in image:
        return False
    _, colon, tag = image.rpartition("/")[2].partition(":")
    return not colon or tag == "latest"


def _probe(probe: dict[str, Any]) -> None:
    fill(probe, "timeoutSeconds", 1)
    fill(probe, "periodSeconds", 10)
    fill(probe, "successThreshold", 1)
    fill(probe, "failureThreshold", 3)
    if "httpGet" in probe:
        _http(probe["httpGet"])
    if "grpc" in probe:
        fill(probe["grpc"], "service", "")


def _http(action: dict[str, Any]) -> None:
    fill(action, "path", "/")
    fill(action, "scheme", "HTTP")


def _host_ports(spec: dict[str, Any]) -> None:
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        for port in container.get("ports") or ():
            if not port.get("hostPort") and "containerPort" in port:
                port["hostPort"] = port["containerPort"]


#: volume source -> its default mode's field
_MODES = ("secret", "configMap", "downwardAPI", "projected")


#: volume source -> what its fields are when left out
_SOURCES: dict[str, dict[str, Any]] = {
    "azureDisk": {"cachingMode": "ReadWrite", "fsType": "ext4", "readOnly": False, "kind": "Shared"},
    "hostPath": {"type": ""},
    "iscsi": {"iscsiInterface": "default"},
    "rbd": {"pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"},
    "scaleIO": {"storageMode": "ThinProvisioned", "fsType": "xfs"},
}


def volume_source(volume: dict[str, Any]) -> None:
    """What pods' volumes and PersistentVolumes have in common."""
    for source in volume.keys() & _SOURCES.keys():
        for field, value in _SOURCES[source].items():
            fill(volume[source], field, value)


def _volume(volume: dict[str, Any]) -> None:
    volume_source(volume)
    if not any(key != "name" for key in volume):
        volume["emptyDir"] = {}
    for source in _MODES:
        if source in volume:
            fill(volume[source], "defaultMode", 420)
    for item in (volume.get("downwardAPI") or {}).get("items") or ():
        _field_ref(item)
    for source in (volume.get("projected") or {}).get("sources") or ():
        for item in (source.get("downwardAPI") or {}).get("items") or ():
            _field_ref(item)
        if "serviceAccountToken" in source:
            fill(source["serviceAccountToken"], "expirationSeconds", 3600)
    claim = (volume.get("ephemeral") or {}).get("volumeClaimTemplate")
    if claim is not None:
        fill(claim, "spec", {}).setdefault("volumeMode", "Filesystem")


def _field_ref(item: dict[str, Any]) -> None:
    if "fieldRef" in item:
        fill(item["fieldRef"], "apiVersion", "v1")

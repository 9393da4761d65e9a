"""Rules of the kinds that are little more than their fields: networking, devices, storage, flow control, events."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from glebe.apiserver.types import devicerules
from glebe.apiserver.types.ruletables import (
    Table,
    address,
    at_least,
    check,
    more_than_zero,
    named,
    network,
    one_of,
    optional_port,
    port,
    qualified,
    required,
)
from glebe.kube import names as n
from glebe.kube.errors import Cause
from glebe.kube.objects import Object

Rule = Callable[[Object, "Object | None"], list[Cause]]

_SUBDOMAIN, _LABEL = n.subdomain_faults, n.label_faults
_DOMAIN_PATH = re.compile(r"([a-z0-9]([-a-z0-9]*[a-z0-9])?)(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/[^/\s]+")


def ip_name_faults(name: str) -> tuple[str, ...]:
    """An IPAddress is named by its address, written in the one canonical way."""
    try:
        parsed = ip_address(name)
    except ValueError:
        return ("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",)
    return () if str(parsed) == name else (f'must be in canonical form ("{parsed}")',)


def _controller(value: Any, path: str) -> list[Cause]:
    if not value:
        return [n.required(path)]
    if _DOMAIN_PATH.fullmatch(value) is None:
        return [n.invalid(path, value, 'must be a domain-prefixed path (such as "acme.io/foo")')]
    return []


_TARGET = "spec.scaleTargetRef"

TABLES: dict[tuple[str, str], Table] = {
    ("", "Endpoints"): (
        ("subsets[].addresses[].ip", address),
        ("subsets[].notReadyAddresses[].ip", address),
        ("subsets[].ports[].port", port),
    ),
    ("", "LimitRange"): (("spec.limits[].type", qualified),),
    ("apps", "ControllerRevision"): (
        ("revision", at_least(0)),
        ("data", lambda value, path: [n.required(path, "data is mandatory")] if value is None else []),
    ),
    ("autoscaling", "HorizontalPodAutoscaler"): (
        (f"{_TARGET}.kind", required()),
        (f"{_TARGET}.name", required()),
        ("spec.behavior.scaleUp.stabilizationWindowSeconds", at_least(0, "must be greater than or equal to zero")),
        ("spec.behavior.scaleDown.stabilizationWindowSeconds", at_least(0, "must be greater than or equal to zero")),
        ("spec.behavior.scaleUp.policies[].value", more_than_zero),
        ("spec.behavior.scaleUp.policies[].periodSeconds", more_than_zero),
        ("spec.behavior.scaleDown.policies[].value", more_than_zero),
        ("spec.behavior.scaleDown.policies[].periodSeconds", more_than_zero),
    ),
    ("discovery.k8s.io", "EndpointSlice"): (
        ("addressType", lambda v, p: [] if v in ("IPv4", "IPv6", "FQDN") else _address_type(v, p)),
        ("endpoints[].addresses", required("must contain at least 1 address")),
    ),
    ("networking.k8s.io", "IngressClass"): (
        ("spec.controller", _controller),
        ("spec.parameters?.kind", required()),
        ("spec.parameters?.name", required()),
    ),
    ("networking.k8s.io", "IPAddress"): (
        ("spec.parentRef", lambda v, p: [n.required(p)] if v is None else []),
        ("spec.parentRef?.resource", required()),
        ("spec.parentRef?.name", required()),
    ),
    ("networking.k8s.io", "ServiceCIDR"): (
        ("spec.cidrs", required("at least one CIDR required")),
        ("spec.cidrs[]", network),
    ),
    ("networking.k8s.io", "NetworkPolicy"): (
        ("spec.ingress[].ports[].port", optional_port),
        ("spec.egress[].ports[].port", optional_port),
    ),
    ("node.k8s.io", "RuntimeClass"): (("handler", named(_LABEL, why="")),),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema"): (
        (
            "spec.priorityLevelConfiguration.name",
            named(_SUBDOMAIN, why="must reference a priority level"),
        ),
    ),
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"): (("spec.type", one_of("Exempt", "Limited")),),
    ("resource.k8s.io", "ResourceSlice"): (
        ("spec.driver", named(_SUBDOMAIN, why="")),
        ("spec.nodeName", named(_SUBDOMAIN, optional=True)),
        ("spec.pool.name", named(lambda t: tuple(f for p in t.split("/") for f in _SUBDOMAIN(p)), why="")),
        ("spec.pool.resourceSliceCount", more_than_zero),
        ("spec.pool.generation", at_least(0, "must be greater than or equal to zero")),
        ("spec.devices[].name", named(_LABEL)),
    ),
    ("storage.k8s.io", "CSINode"): (
        ("spec.drivers[].name", required()),
        ("spec.drivers[].nodeID", required()),
    ),
    ("storage.k8s.io", "CSIStorageCapacity"): (("storageClassName", named(_SUBDOMAIN)),),
    ("storage.k8s.io", "StorageClass"): (("provisioner", required()),),
    ("storage.k8s.io", "VolumeAttributesClass"): (("driverName", required()),),
    ("storage.k8s.io", "VolumeAttachment"): (
        ("spec.attacher", required()),
        ("spec.nodeName", named(_SUBDOMAIN, why="")),
    ),
}


def _address_type(value: Any, path: str) -> list[Cause]:
    return [n.not_supported(path, value, ["FQDN", "IPv4", "IPv6"])] if value else [n.required(path)]


def _endpoints(obj: Object, old: Object | None) -> list[Cause]:
    why = "must specify `addresses` or `notReadyAddresses`"
    return [
        n.required(f"subsets[{i}]", why)
        for i, subset in enumerate(obj.get("subsets") or ())
        if not (subset.get("addresses") or subset.get("notReadyAddresses"))
    ]


def _slice(obj: Object, old: Object | None) -> list[Cause]:
    causes: list[Cause] = []
    kind = obj.get("addressType")
    if kind not in ("FQDN", "IPv4", "IPv6"):
        return causes
    for i, endpoint in enumerate(obj.get("endpoints") or ()):
        for j, text in enumerate(endpoint.get("addresses") or ()):
            path = f"endpoints[{i}].addresses[{j}]"
            if kind == "FQDN":
                causes += [n.invalid(path, text, fault) for fault in n.subdomain_faults(text)]
            elif faults := address(text, path):
                causes += faults
            elif f"IPv{ip_address(text).version}" != kind:
                causes.append(n.invalid(path, text, f"must be an {kind} address"))
    if old is not None and old.get("addressType") != kind:
        causes.append(n.invalid("addressType", kind, "field is immutable"))
    return causes


def _event(obj: Object, old: Object | None) -> list[Cause]:
    """Core events may leave out what events.k8s.io asks for."""
    new_form = obj.get("apiVersion") == "events.k8s.io/v1"
    involved = obj.get("regarding" if new_form else "involvedObject") or {}
    path = "regarding.namespace" if new_form else "involvedObject.namespace"
    namespace = obj["metadata"].get("namespace", "")
    causes: list[Cause] = []
    if involved.get("namespace") and involved["namespace"] != namespace:
        causes.append(n.invalid(path, involved["namespace"], "does not match event.namespace"))
    elif not involved.get("namespace") and namespace not in ("default", "kube-system"):
        causes.append(n.invalid(path, "", "does not match event.namespace"))
    if not new_form or old is not None:
        return causes
    if not obj.get("eventTime"):
        causes.append(n.required("eventTime"))
    if obj.get("type") not in ("Normal", "Warning"):
        causes.append(n.invalid("type", "", f"has invalid value: {obj.get('type', '')}"))
    causes += qualified(obj.get("reportingController"), "reportingController")
    causes += [n.required(field) for field in ("reportingInstance", "action", "reason") if not obj.get(field)]
    return causes


def _autoscaler(obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    most, least = spec.get("maxReplicas", 0), spec.get("minReplicas", 1)
    causes: list[Cause] = []
    if not most:
        causes.append(n.required("spec.maxReplicas", "must be set and greater than 0"))
    elif most < 1:
        causes.append(n.invalid("spec.maxReplicas", most, "must be greater than or equal to 1"))
    if least < 1:
        causes.append(n.invalid("spec.minReplicas", least, "must be greater than or equal to 1"))
    if most < least:
        causes.append(n.invalid("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`"))
    version = (spec.get("scaleTargetRef") or {}).get("apiVersion", "")
    if "/" not in version and (spec.get("scaleTargetRef") or {}).get("kind") != "ReplicationController":
        causes.append(n.invalid("spec.scaleTargetRef.apiVersion", version, "apiVersion must specify API group"))
    return causes


def _backend(backend: Any, path: str) -> list[Cause]:
    service, resource = backend.get("service"), backend.get("resource")
    if service is not None and resource is not None:
        return [n.invalid(path, "", "cannot set both resource and service backends")]
    if service is None and resource is None:
        return [n.invalid(path, "", "resource or service backend is required")]
    if service is None:
        return [n.required(f"{path}.resource.{f}") for f in ("kind", "name") if not resource.get(f)]
    causes = named(_LABEL, why="")(service.get("name"), f"{path}.service.name")
    wanted = service.get("port") or {}
    if wanted.get("name") and wanted.get("number"):
        causes.append(n.invalid(path, "", "cannot set both port name & port number"))
    elif wanted.get("number"):
        causes += port(wanted["number"], f"{path}.service.port.number")
    elif not wanted.get("name"):
        causes.append(n.required(path, "port name or number is required"))
    return causes


def _ingress(obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    if not spec.get("rules") and spec.get("defaultBackend") is None:
        shown = spec.get("rules")
        causes.append(n.invalid("spec", shown, "either `defaultBackend` or `rules` must be specified"))
    if spec.get("defaultBackend") is not None:
        causes += _backend(spec["defaultBackend"], "spec.defaultBackend")
    for i, rule in enumerate(spec.get("rules") or ()):
        where = f"spec.rules[{i}]"
        host = rule.get("host", "")
        if host:
            plain = host.removeprefix("*.")
            causes += [n.invalid(f"{where}.host", host, fault) for fault in n.subdomain_faults(plain)]
        http = rule.get("http")
        if http is not None and not http.get("paths"):
            causes.append(n.required(f"{where}.http.paths"))
        for j, item in enumerate((http or {}).get("paths") or ()):
            causes += _http_path(item, f"{where}.http.paths[{j}]")
    return causes


_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")


def _http_path(item: Any, where: str) -> list[Cause]:
    causes: list[Cause] = []
    kind, path = item.get("pathType"), item.get("path", "")
    if kind is None:
        causes.append(n.required(f"{where}.pathType", "pathType must be specified"))
    elif kind in ("Exact", "Prefix"):
        if not path.startswith("/"):
            causes.append(n.invalid(f"{where}.path", path, "must be an absolute path"))
        causes += [
            n.invalid(f"{where}.path", path, f"must not contain '{bad}'")
            for bad in ("//", "/./", "/../", "%2f", "%2F")
            if bad in path
        ]
    elif kind in _PATH_TYPES and path and not path.startswith("/"):
        causes.append(n.invalid(f"{where}.path", path, "must be an absolute path"))
    return causes + _backend(item.get("backend") or {}, f"{where}.backend")


#: What a PersistentVolume's spec has besides the volume itself.
_VOLUME_FIELDS = frozenset(
    {
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    }
)


def _volume(obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    capacity = spec.get("capacity")
    if not spec.get("accessModes"):
        causes.append(n.required("spec.accessModes"))
    if not capacity:
        causes.append(n.required("spec.capacity"))
    if not capacity or "storage" not in capacity or len(capacity) > 1:
        causes.append(n.not_supported("spec.capacity", capacity, ["storage"]))
    sources = [field for field in spec if field not in _VOLUME_FIELDS]
    if not sources:
        causes.append(n.required("spec", "must specify a volume type"))
    causes += [n.forbidden(f"spec.{field}", "may not specify more than 1 volume type") for field in sources[1:]]
    needed = {"hostPath": ("path",), "nfs": ("server", "path"), "csi": ("driver", "volumeHandle"), "local": ("path",)}
    for field in sources[:1]:
        source = spec[field] or {}
        causes += [n.required(f"spec.{field}.{f}") for f in needed.get(field, ()) if not source.get(f)]
        before = ((old or {}).get("spec") or {}).get(field)
        if old is not None and before != source:
            why = "spec.persistentvolumesource is immutable after creation"
            causes.append(n.forbidden("spec.persistentvolumesource", why))
    return causes


def _level(obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    kind, limited = spec.get("type"), spec.get("limited")
    if kind == "Exempt" and limited is not None:
        return [n.forbidden("spec.limited", "must be nil if the type is not Limited")]
    if kind != "Limited":
        return []
    if limited is None:
        return [n.required("spec.limited", "must not be empty when type is Limited")]
    response = limited.get("limitResponse") or {}
    where = "spec.limited.limitResponse"
    causes = one_of("Queue", "Reject")(response.get("type"), f"{where}.type")
    if response.get("type") == "Queue" and response.get("queuing") is None:
        why = "must not be empty if limited.limitResponse.type is Limited"
        causes.append(n.required(f"{where}.queuing", why))
    if response.get("type") == "Reject" and response.get("queuing") is not None:
        causes.append(n.forbidden(f"{where}.queuing", "must be nil if limited.limitResponse.type is not Limited"))
    return causes


def _cidr(obj: Object, old: Object | None) -> list[Cause]:
    before = ((old or {}).get("spec") or {}).get("cidrs")
    if before and (obj.get("spec") or {}).get("cidrs") != before:
        return [n.invalid("spec.cidrs[0]", ((obj.get("spec") or {}).get("cidrs") or [""])[0], "field is immutable")]
    return []


def _ip(obj: Object, old: Object | None) -> list[Cause]:
    ref = (obj.get("spec") or {}).get("parentRef")
    if old is not None and ref != (old.get("spec") or {}).get("parentRef"):
        return [n.invalid("spec.parentRef", ref, "field is immutable")]
    return []


def _revision(obj: Object, old: Object | None) -> list[Cause]:
    if old is not None and obj.get("data") != old.get("data"):
        return [n.invalid("data", obj.get("data"), "field is immutable")]
    return []


_MORE: dict[tuple[str, str], Rule] = {
    ("", "Endpoints"): _endpoints,
    ("", "Event"): _event,
    ("", "PersistentVolume"): _volume,
    ("apps", "ControllerRevision"): _revision,
    ("autoscaling", "HorizontalPodAutoscaler"): _autoscaler,
    ("discovery.k8s.io", "EndpointSlice"): _slice,
    ("events.k8s.io", "Event"): _event,
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"): _level,
    ("networking.k8s.io", "Ingress"): _ingress,
    ("networking.k8s.io", "IPAddress"): _ip,
    ("networking.k8s.io", "ServiceCIDR"): _cidr,
    ("node.k8s.io", "RuntimeClass"): devicerules.fixed("handler"),
    ("resource.k8s.io", "DeviceClass"): devicerules.device_class,
    ("resource.k8s.io", "ResourceClaim"): devicerules.claim,
    ("resource.k8s.io", "ResourceClaimTemplate"): devicerules.claim_template,
    ("resource.k8s.io", "ResourceSlice"): devicerules.device_slice,
    ("storage.k8s.io", "CSIStorageCapacity"): devicerules.fixed("storageClassName", "nodeTopology"),
    ("storage.k8s.io", "StorageClass"): devicerules.forbidden_updates(
        "parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"
    ),
    ("storage.k8s.io", "VolumeAttributesClass"): devicerules.forbidden_updates("parameters", "driverName"),
    ("storage.k8s.io", "VolumeAttachment"): devicerules.attachment,
}


def _both(key: tuple[str, str]) -> Rule:
    table, more = TABLES.get(key, ()), _MORE.get(key)

    def rule(obj: Object, old: Object | None) -> list[Cause]:
        causes = check(table, obj)
        return causes + more(obj, old) if more is not None else causes

    return rule


RULES: dict[tuple[str, str], Rule] = {key: _both(key) for key in sorted({*TABLES, *_MORE})}

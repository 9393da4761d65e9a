"""Rules of the small kinds, held against what a kube-apiserver 1.36 answered."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from glebe.apiserver.types.defaults import apply_defaults
from glebe.apiserver.types.prune import prune
from glebe.apiserver.types.registry import builtins
from glebe.apiserver.types.validation import validate

KINDS = {(i.group, i.kind): i for i in builtins()}
KINDS["autoscaling", "HorizontalPodAutoscaler"] = next(i for i in builtins() if i.version == "v2")
PORT = "must be between 1 and 65535, inclusive"
TARGET = {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}
BACKEND = {"service": {"name": "s", "port": {"number": 80}}}
POOL = {"name": "p", "generation": 1, "resourceSliceCount": 1}
NEW_EVENT = {
    "regarding": {"namespace": "default", "kind": "Pod", "name": "x"},
    "reason": "r",
    "eventTime": "2026-01-01T00:00:00.000001Z",
    "type": "Normal",
    "reportingController": "a/b",
    "reportingInstance": "x",
    "action": "a",
}

VALID: dict[tuple[str, str], dict[str, Any]] = {
    ("", "Endpoints"): {"subsets": [{"addresses": [{"ip": "10.1.1.1"}], "ports": [{"port": 80}]}]},
    ("", "PersistentVolume"): {
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}
    },
    ("apps", "ControllerRevision"): {"revision": 1, "data": {"a": 1}},
    ("autoscaling", "HorizontalPodAutoscaler"): {"spec": {"maxReplicas": 3, "scaleTargetRef": TARGET}},
    ("discovery.k8s.io", "EndpointSlice"): {"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.1.1"]}]},
    ("events.k8s.io", "Event"): NEW_EVENT,
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"): {
        "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {}}}}
    },
    ("networking.k8s.io", "Ingress"): {"spec": {"defaultBackend": BACKEND}},
    ("networking.k8s.io", "IngressClass"): {"spec": {"controller": "a.b/c", "parameters": {"kind": "X", "name": "y"}}},
    ("networking.k8s.io", "IPAddress"): {"spec": {"parentRef": {"resource": "services", "name": "s"}}},
    ("networking.k8s.io", "ServiceCIDR"): {"spec": {"cidrs": ["10.5.0.0/24"]}},
    ("node.k8s.io", "RuntimeClass"): {"handler": "h"},
    ("resource.k8s.io", "ResourceClaim"): {
        "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}}
    },
    ("resource.k8s.io", "ResourceSlice"): {"spec": {"driver": "d.x", "nodeName": "n", "pool": POOL}},
    ("storage.k8s.io", "VolumeAttachment"): {
        "spec": {"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "p"}}
    },
    ("storage.k8s.io", "StorageClass"): {"provisioner": "p"},
}


def new(group: str, kind: str) -> dict[str, Any]:
    info = KINDS[group, kind]
    name = "10.0.0.9" if kind == "IPAddress" else "x"
    meta = {"name": name, **({"namespace": "default"} if info.namespaced else {})}
    return {"apiVersion": info.api_version, "kind": kind, "metadata": meta, **copy.deepcopy(VALID[group, kind])}


def faults(obj: dict[str, Any], group: str, old: dict[str, Any] | None = None) -> list[str]:
    info = KINDS[group, obj["kind"]]
    prune(info, obj)
    apply_defaults(info, obj)
    return [f"{c.field}: {c.message}" for c in validate(info, obj, old)]


def put(obj: dict[str, Any], path: str, value: Any) -> None:
    *above, last = path.split(".")
    for part in above:
        obj = obj[int(part)] if isinstance(obj, list) else obj[part]
    if value is None:
        del obj[last]
    else:
        obj[int(last) if isinstance(obj, list) else last] = value


@pytest.mark.parametrize(("group", "kind"), sorted(VALID))
def test_these_are_right(group: str, kind: str) -> None:
    assert faults(new(group, kind), group) == []


@pytest.mark.parametrize(
    ("group", "kind", "path", "value", "wanted"),
    [
        (
            "",
            "Endpoints",
            "subsets.0.addresses",
            None,
            ["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"],
        ),
        (
            "",
            "Endpoints",
            "subsets.0.ports.0.port",
            -7,
            [f"subsets[0].ports[0].port: Invalid value: -7: {PORT}"],
        ),
        ("", "PersistentVolume", "spec.hostPath", None, ["spec: Required value: must specify a volume type"]),
        ("", "PersistentVolume", "spec.hostPath", {}, ["spec.hostPath.path: Required value"]),
        ("apps", "ControllerRevision", "data", None, ["data: Required value: data is mandatory"]),
        (
            "autoscaling",
            "HorizontalPodAutoscaler",
            "spec.maxReplicas",
            None,
            [
                "spec.maxReplicas: Required value: must be set and greater than 0",
                "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
            ],
        ),
        (
            "autoscaling",
            "HorizontalPodAutoscaler",
            "spec.scaleTargetRef.apiVersion",
            None,
            ['spec.scaleTargetRef.apiVersion: Invalid value: "": apiVersion must specify API group'],
        ),
        ("discovery.k8s.io", "EndpointSlice", "addressType", None, ["addressType: Required value"]),
        (
            "discovery.k8s.io",
            "EndpointSlice",
            "endpoints.0.addresses",
            [],
            ["endpoints[0].addresses: Required value: must contain at least 1 address"],
        ),
        ("events.k8s.io", "Event", "eventTime", None, ["eventTime: Required value"]),
        ("events.k8s.io", "Event", "type", "X", ['type: Invalid value: "": has invalid value: X']),
        (
            "events.k8s.io",
            "Event",
            "regarding.namespace",
            "other",
            ['regarding.namespace: Invalid value: "other": does not match event.namespace'],
        ),
        (
            "flowcontrol.apiserver.k8s.io",
            "PriorityLevelConfiguration",
            "spec.limited",
            None,
            ["spec.limited: Required value: must not be empty when type is Limited"],
        ),
        (
            "networking.k8s.io",
            "Ingress",
            "spec.defaultBackend.service.port",
            {},
            ["spec.defaultBackend: Required value: port name or number is required"],
        ),
        (
            "networking.k8s.io",
            "IngressClass",
            "spec.controller",
            "x",
            ['spec.controller: Invalid value: "x": must be a domain-prefixed path (such as "acme.io/foo")'],
        ),
        ("networking.k8s.io", "IPAddress", "spec.parentRef", None, ["spec.parentRef: Required value"]),
        (
            "networking.k8s.io",
            "ServiceCIDR",
            "spec.cidrs.0",
            "x",
            ['spec.cidrs[0]: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)'],
        ),
        ("node.k8s.io", "RuntimeClass", "handler", None, ["handler: Required value"]),
        (
            "resource.k8s.io",
            "ResourceClaim",
            "spec.devices.requests.0.exactly",
            None,
            ["spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required"],
        ),
        (
            "resource.k8s.io",
            "ResourceSlice",
            "spec.pool.resourceSliceCount",
            0,
            ["spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero"],
        ),
        ("storage.k8s.io", "StorageClass", "provisioner", None, ["provisioner: Required value"]),
        ("storage.k8s.io", "VolumeAttachment", "spec.attacher", None, ["spec.attacher: Required value"]),
    ],
)
def test_these_are_wrong(group: str, kind: str, path: str, value: Any, wanted: list[str]) -> None:
    obj = new(group, kind)
    put(obj, path, value)
    assert sorted(faults(obj, group)) == sorted(wanted)


@pytest.mark.parametrize(
    ("group", "kind", "path", "value", "wanted"),
    [
        (
            "storage.k8s.io",
            "StorageClass",
            "provisioner",
            "q",
            "provisioner: Forbidden: updates to provisioner are forbidden.",
        ),
        ("node.k8s.io", "RuntimeClass", "handler", "other", 'handler: Invalid value: "other": field is immutable'),
        ("discovery.k8s.io", "EndpointSlice", "addressType", "FQDN", "field is immutable"),
        ("resource.k8s.io", "ResourceClaim", "spec.devices.requests.0.name", "other", "field is immutable"),
        ("networking.k8s.io", "IPAddress", "spec.parentRef.name", "other", "field is immutable"),
        ("storage.k8s.io", "VolumeAttachment", "spec.attacher", "other", "field is immutable"),
        ("apps", "ControllerRevision", "data", {"b": 2}, "field is immutable"),
    ],
)
def test_these_never_change(group: str, kind: str, path: str, value: Any, wanted: str) -> None:
    old = new(group, kind)
    assert faults(old, group) == []
    obj = copy.deepcopy(old)
    put(obj, path, value)
    assert any(wanted in fault for fault in faults(obj, group, old))


@pytest.mark.parametrize(
    ("name", "right"), [("10.0.0.1", True), ("fe80::1", True), ("FE80::1", False), ("010.0.0.1", False), ("a", False)]
)
def test_an_ip_address_is_named_by_its_canonical_form(name: str, right: bool) -> None:
    obj = new("networking.k8s.io", "IPAddress")
    obj["metadata"]["name"] = name
    assert (faults(obj, "networking.k8s.io") == []) is right

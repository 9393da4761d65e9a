"""What upstream puts into every cluster at its first start, besides namespaces and RBAC.

The service ``kubernetes`` with its endpoints, the range of cluster IPs, flow schemas with their priority levels, and
the two priority classes of the system. Pure data, without uid, time and revision: whoever gives it to a cluster fills
these in. Sources: ``pkg/controlplane``, ``pkg/apis/flowcontrol/bootstrap``, ``pkg/apis/scheduling``.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

from glebe.kube.objects import Object

#: Where cluster IPs come from; the first address is the API server's.
SERVICE_RANGE = "10.96.0.0/16"
#: Under this address pods know the API server; its certificate must be good for it.
SERVICE_ADDRESS = str(ip_network(SERVICE_RANGE)[1])
#: Conditions of objects that were never in another state began at no particular time.
_ALWAYS = "2026-01-01T00:00:00Z"
_FLOW = "flowcontrol.apiserver.k8s.io"
_EVERYBODY = ("Group:system:unauthenticated", "Group:system:authenticated")
_ANYTHING: dict[str, Any] = {
    "resourceRules": [
        {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": True, "namespaces": ["*"]}
    ],
    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
}
_LEASES = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "namespaces": ["*"]}
_NODES = {"apiGroups": [""], "resources": ["nodes", "nodes/status"], "clusterScope": True, "namespaces": ["*"]}

#: name -> (priority level, matching precedence, distinguisher, subjects, rules)
_SCHEMAS: dict[str, tuple[str, int, str, tuple[str, ...], dict[str, Any]]] = {
    "exempt": ("exempt", 1, "", ("Group:system:masters",), _ANYTHING),
    "probes": (
        "exempt",
        2,
        "",
        _EVERYBODY,
        {"nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]},
    ),
    "system-leader-election": (
        "leader-election",
        100,
        "ByUser",
        ("User:system:kube-controller-manager", "User:system:kube-scheduler", "ServiceAccount:kube-system/*"),
        {"resourceRules": [{"verbs": ["get", "create", "update"], **_LEASES}]},
    ),
    "system-node-high": (
        "node-high",
        400,
        "ByUser",
        ("Group:system:nodes",),
        {"resourceRules": [{"verbs": ["*"], **_NODES}, {"verbs": ["*"], **_LEASES}]},
    ),
    "system-nodes": ("system", 500, "ByUser", ("Group:system:nodes",), _ANYTHING),
    "kube-controller-manager": (
        "workload-high",
        800,
        "ByNamespace",
        ("User:system:kube-controller-manager",),
        _ANYTHING,
    ),
    "kube-scheduler": ("workload-high", 800, "ByNamespace", ("User:system:kube-scheduler",), _ANYTHING),
    "kube-system-service-accounts": (
        "workload-high",
        900,
        "ByNamespace",
        ("ServiceAccount:kube-system/*",),
        _ANYTHING,
    ),
    "service-accounts": ("workload-low", 9000, "ByUser", ("Group:system:serviceaccounts",), _ANYTHING),
    "global-default": ("global-default", 9900, "ByUser", _EVERYBODY, _ANYTHING),
    "catch-all": ("catch-all", 10000, "ByUser", _EVERYBODY, _ANYTHING),
}
#: name -> (shares, lendable percent, queues, hand size); 0 queues: what does not fit is refused
_LEVELS: dict[str, tuple[int, int, int, int]] = {
    "system": (30, 33, 64, 6),
    "node-high": (40, 25, 64, 6),
    "leader-election": (10, 0, 16, 4),
    "workload-high": (40, 50, 128, 6),
    "workload-low": (100, 90, 128, 6),
    "global-default": (20, 50, 128, 6),
    "catch-all": (5, 0, 0, 0),
}
_QUEUE_LENGTH = 50
#: What every cluster has from its beginning.
SCHEMA_NAMES = frozenset(_SCHEMAS)
LEVEL_NAMES = frozenset({*_LEVELS, "exempt"})
#: name -> (value, description)
_CLASSES = {
    "system-node-critical": (
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    "system-cluster-critical": (
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
}


def first_objects(address: str, port: int, service_range: str = SERVICE_RANGE) -> list[tuple[str, Object]]:
    """(group resource, object) of everything that a new cluster has.

    :param address: the IP address at which the API server is reached; ``port`` is its port there.
    """
    return [
        *_master_service(address, port, service_range),
        *((f"flowschemas.{_FLOW}", _flow_schema(name)) for name in _SCHEMAS),
        (f"prioritylevelconfigurations.{_FLOW}", _exempt_level()),
        *((f"prioritylevelconfigurations.{_FLOW}", _level(name)) for name in _LEVELS),
        *(("priorityclasses.scheduling.k8s.io", _priority_class(name)) for name in _CLASSES),
    ]


def _master_service(address: str, port: int, service_range: str) -> list[tuple[str, Object]]:
    cluster_ip = str(ip_network(service_range)[1])
    where = {"name": "kubernetes", "namespace": "default"}
    family = f"IPv{ip_address(address).version}"
    return [
        (
            "services",
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {**where, "labels": {"component": "apiserver", "provider": "kubernetes"}},
                "spec": {
                    "clusterIP": cluster_ip,
                    "clusterIPs": [cluster_ip],
                    "internalTrafficPolicy": "Cluster",
                    "ipFamilies": [f"IPv{ip_address(cluster_ip).version}"],
                    "ipFamilyPolicy": "SingleStack",
                    "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
                    "sessionAffinity": "None",
                    "type": "ClusterIP",
                },
                "status": {"loadBalancer": {}},
            },
        ),
        (
            "endpoints",
            {
                "apiVersion": "v1",
                "kind": "Endpoints",
                "metadata": {**where, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
                "subsets": [
                    {
                        "addresses": [{"ip": address}],
                        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
                    }
                ],
            },
        ),
        (
            "endpointslices.discovery.k8s.io",
            {
                "addressType": family,
                "apiVersion": "discovery.k8s.io/v1",
                "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
                "kind": "EndpointSlice",
                "metadata": {**where, "labels": {"kubernetes.io/service-name": "kubernetes"}, "generation": 1},
                "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
            },
        ),
        ("servicecidrs.networking.k8s.io", _service_range(service_range)),
        ("ipaddresses.networking.k8s.io", ip_address_object(cluster_ip, "default", "kubernetes")),
    ]


def _service_range(cidr: str) -> Object:
    """The addresses from which services have theirs."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": [cidr]},
        "status": {
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "",
                    "message": "Kubernetes default Service CIDR is ready",
                    "lastTransitionTime": _ALWAYS,
                }
            ]
        },
    }


def ip_address_object(address: str, namespace: str, service: str) -> Object:
    """The IPAddress by which a service holds ``address``."""
    family = f"IPv{ip_address(address).version}"
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": address,
            "labels": {
                "ipaddress.kubernetes.io/ip-family": family,
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": {"parentRef": {"name": service, "namespace": namespace, "resource": "services"}},
    }


def _flow_object(kind: str, name: str) -> Object:
    note = {"apf.kubernetes.io/autoupdate-spec": "true"}
    return {
        "apiVersion": f"{_FLOW}/v1",
        "kind": kind,
        "metadata": {"name": name, "annotations": note, "generation": 1},
    }


def _flow_schema(name: str) -> Object:
    level, precedence, method, subjects, rules = _SCHEMAS[name]
    spec: dict[str, Any] = {"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence}
    if method:
        spec["distinguisherMethod"] = {"type": method}
    spec["rules"] = [{"subjects": [_subject(s) for s in subjects], **rules}]
    condition = {
        "type": "Dangling",
        "status": "False",
        "lastTransitionTime": _ALWAYS,
        "reason": "Found",
        "message": f'This FlowSchema references the PriorityLevelConfiguration object named "{level}" and it exists',
    }
    return {**_flow_object("FlowSchema", name), "spec": spec, "status": {"conditions": [condition]}}


def _subject(text: str) -> dict[str, Any]:
    kind, _, name = text.partition(":")
    if kind == "ServiceAccount":
        namespace, _, account = name.partition("/")
        return {"kind": kind, "serviceAccount": {"namespace": namespace, "name": account}}
    return {"kind": kind, kind.lower(): {"name": name}}


def _exempt_level() -> Object:
    spec = {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}
    return {**_flow_object("PriorityLevelConfiguration", "exempt"), "spec": spec, "status": {}}


def _level(name: str) -> Object:
    shares, lendable, queues, hand = _LEVELS[name]
    response: dict[str, Any] = {"type": "Reject"}
    if queues:
        queuing = {"queues": queues, "handSize": hand, "queueLengthLimit": _QUEUE_LENGTH}
        response = {"type": "Queue", "queuing": queuing}
    limited = {"nominalConcurrencyShares": shares, "limitResponse": response, "lendablePercent": lendable}
    spec = {"type": "Limited", "limited": limited}
    return {**_flow_object("PriorityLevelConfiguration", name), "spec": spec, "status": {}}


def _priority_class(name: str) -> Object:
    value, description = _CLASSES[name]
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "description": description,
        "kind": "PriorityClass",
        "metadata": {"name": name, "generation": 1},
        "preemptionPolicy": "PreemptLowerPriority",
        "value": value,
    }

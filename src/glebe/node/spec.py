"""What a node is: its specification, and the Node and Lease objects made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from glebe.kube.clock import format_micro_time, format_time
from glebe.kube.objects import EVERY, Object, set_condition

LEASE_NAMESPACE = "kube-node-lease"
KIND_LABEL = "glebe.dev/node-kind"  # "simulated" or "process"
POOL_LABEL = "glebe.dev/pool"
BLOCK_LABEL = "topology.glebe.dev/block"
RACK_LABEL = "topology.glebe.dev/rack"
HOSTNAME_LABEL = "kubernetes.io/hostname"
GPU_RESOURCE = "nvidia.com/gpu"
ROOT = "root"
"""The logical cluster of bare paths."""


def _no_text() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One node to register. ``capacity`` holds Kubernetes quantities; ``taints`` hold core/v1 Taint objects.

    ``start_delay`` (seconds) passes between binding and running; ``run_time`` is how long a pod without the annotation
    ``sim.glebe.dev/run-time`` runs, in the annotation's own syntax. Both concern simulated nodes only. Below
    ``host_paths`` pods of a process node may have hostPath volumes; ``None``: anywhere. ``gpus`` of a process node:
    that many, without looking; ``None``: those that NVML finds, MIG devices offered by ``mig_strategy``.
    ``runtime`` is the handler for pods of a process node that name no RuntimeClass.
    ``resource_slices``: a simulated node publishes its GPUs for ResourceClaims, too.
    """

    name: str
    capacity: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=_no_text)
    taints: tuple[Mapping[str, str], ...] = ()
    start_delay: str = "1s"
    run_time: str = "60s"
    address: str = ""
    info: Mapping[str, str] = field(default_factory=_no_text)  # status.nodeInfo
    host_paths: tuple[str, ...] | None = None
    gpus: int | None = None
    mig_strategy: str = "mixed"
    runtime: str = "process"
    resource_slices: bool = False
    clusters: tuple[str, ...] = (ROOT,)

    def serves(self, cluster: str) -> bool:
        """Whether there is such a node in that logical cluster."""
        return cluster in self.clusters or EVERY in self.clusters


def standard_labels(name: str, kind: str, arch: str = "amd64") -> dict[str, str]:
    """The labels that every node of Glebe carries."""
    return {
        HOSTNAME_LABEL: name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": arch,
        KIND_LABEL: kind,
    }


def node_object(spec: NodeSpec, now: float) -> Object:
    """A Node ready to be created; its status needs a second write in a cluster that strips status on creation."""
    body: Object = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": spec.name, "labels": dict(spec.labels)},
        "spec": {},
        "status": node_status(spec, [], now, ready=True),
    }
    if spec.taints:
        body["spec"]["taints"] = [dict(taint) for taint in spec.taints]
    return body


def node_status(spec: NodeSpec, conditions: list[dict[str, Any]], now: float, *, ready: bool) -> dict[str, Any]:
    """The whole status of the node, keeping transition times of ``conditions`` that do not change."""
    return {
        "capacity": dict(spec.capacity),
        "allocatable": dict(spec.capacity),
        "addresses": [
            {"type": "InternalIP", "address": spec.address or "127.0.0.1"},
            {"type": "Hostname", "address": spec.name},
        ],
        "conditions": node_conditions(conditions, now, ready=ready),
        "nodeInfo": node_info(spec),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
    }


_PRESSURES = (
    ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
)


def node_conditions(old: list[dict[str, Any]], now: float, *, ready: bool) -> list[dict[str, Any]]:
    """The four standard conditions; anything else in ``old`` is kept."""
    stamp = format_time(now)
    out = old
    for kind, reason, message in _PRESSURES:
        out = set_condition(out, kind, "False", reason, message, stamp)
    if ready:
        out = set_condition(out, "Ready", "True", "KubeletReady", "the node agent is posting ready status", stamp)
    else:
        out = set_condition(out, "Ready", "False", "KubeletNotReady", "the node agent says it is not ready", stamp)
    owned = {kind for kind, _, _ in _PRESSURES} | {"Ready"}
    return [{**c, "lastHeartbeatTime": stamp} if c["type"] in owned else c for c in out]


def node_info(spec: NodeSpec) -> dict[str, str]:
    """``status.nodeInfo`` with every required field."""
    info = {
        "architecture": spec.labels.get("kubernetes.io/arch", "amd64"),
        "bootID": "",
        "containerRuntimeVersion": f"{spec.labels.get(KIND_LABEL, 'simulated')}://1",
        "kernelVersion": "",
        "kubeProxyVersion": "",
        "kubeletVersion": "v1.36.0-glebe",
        "machineID": "",
        "operatingSystem": "linux",
        "osImage": "simulated",
        "systemUUID": "",
    }
    info.update(spec.info)
    return info


def lease_object(spec_name: str, node_uid: str, now: float, duration: int) -> Object:
    """The node's heartbeat; it is garbage-collected with the node."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": spec_name,
            "namespace": LEASE_NAMESPACE,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": spec_name, "uid": node_uid}],
        },
        "spec": {
            "holderIdentity": spec_name,
            "leaseDurationSeconds": duration,
            "renewTime": format_micro_time(now),
        },
    }

"""Nodes, flavors and topologies as what the scheduling core sees: pure, one object at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glebe.kube.objects import Object, condition_is_true, labels_of
from glebe.kube.quantity import to_int
from glebe.queueing import labels
from glebe.queueing.jobs.integrations import read
from glebe.scheduling import model as m

_GPU = "nvidia.com/gpu"


def amounts(resources: Mapping[str, Any] | None) -> dict[str, int]:
    return {name: to_int(value, name) for name, value in (resources or {}).items()}


def node_facts(obj: Object) -> tuple[Any, ...]:
    """What of a Node decides anything; heartbeats leave it as it is."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    ready = condition_is_true(obj, "Ready"), spec.get("unschedulable"), "deletionTimestamp" in obj["metadata"]
    return obj["metadata"]["uid"], labels_of(obj), status.get("allocatable"), spec.get("taints"), ready


def taints(items: list[dict[str, Any]] | None) -> tuple[m.Taint, ...]:
    return tuple(m.Taint(t["key"], t.get("value", ""), t["effect"]) for t in items or ())


def tolerations(items: list[dict[str, Any]] | None) -> tuple[m.Toleration, ...]:
    return tuple(
        m.Toleration(t.get("key", ""), t.get("operator") or "Equal", t.get("value", ""), t.get("effect") or "")
        for t in items or ()
    )


def host_of(node: Object) -> str:
    """What assignments and node selectors call a node: its label, which may differ from its name."""
    return labels_of(node).get(labels.HOSTNAME) or str(node["metadata"]["name"])


def node(obj: Object, other_use: Mapping[str, int]) -> m.Node:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    return m.Node(
        name=host_of(obj),
        labels=labels_of(obj),
        allocatable=with_gpu_shares(amounts(status.get("allocatable"))),
        taints=taints(spec.get("taints")),
        ready=condition_is_true(obj, "Ready")
        and not spec.get("unschedulable")
        and "deletionTimestamp" not in obj["metadata"],
        other_use={k: v for k, v in sorted(other_use.items()) if v},
    )


def with_gpu_shares(allocatable: dict[str, int]) -> dict[str, int]:
    """GPUs also in thousandths, for pods that ask for fractions: counted, not enforced (see docs/job-kinds.md)."""
    if gpus := allocatable.get(_GPU):
        allocatable.setdefault(labels.GPU_SHARE, 1000 * gpus)
    return allocatable


def topology_levels(obj: Object) -> m.Topology:
    levels = read(obj, ("spec", "levels"), ())
    return m.Topology(obj["metadata"]["name"], tuple(level["nodeLabel"] for level in levels))


def flavor(obj: Object) -> m.Flavor:
    spec = obj.get("spec") or {}
    return m.Flavor(
        name=obj["metadata"]["name"],
        node_labels=spec.get("nodeLabels") or {},
        node_taints=taints(spec.get("nodeTaints")),
        tolerations=tolerations(spec.get("tolerations")),
        topology=spec.get("topologyName"),
    )

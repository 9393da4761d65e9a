"""What people ask about nodes and their GPUs: one flat record per node (see :mod:`glebe.platform.views`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from glebe.kube.objects import Object, get_condition, labels_of
from glebe.kube.pods import has_ended
from glebe.kube.quantity import to_int
from glebe.platform.jobspec import GPU_RESOURCE, LEVELS
from glebe.platform.views import pod_gpus

KIND_LABEL = "glebe.dev/node-kind"
PRODUCT_LABEL = "nvidia.com/gpu.product"


@dataclass(frozen=True, slots=True)
class NodeView:
    """``state`` is Ready, NotReady or Cordoned (ready, but closed for new pods)."""

    name: str
    state: str
    kind: str  # simulated, process; "" on other clusters
    gpu_model: str
    gpus: int
    gpus_used: int
    pods: int
    block: str
    rack: str
    message: str  # why it is not ready


def node_views(nodes: Iterable[Object], pods: Iterable[Object]) -> list[NodeView]:
    """Nodes by name, with what the unfinished pods bound to them hold."""
    count: Counter[str] = Counter()
    gpus: Counter[str] = Counter()
    for pod in pods:
        node = (pod.get("spec") or {}).get("nodeName")
        if node and not has_ended(pod):
            count[node] += 1
            gpus[node] += pod_gpus(pod["spec"])
    return [_view(node, count, gpus) for node in sorted(nodes, key=lambda node: node["metadata"]["name"])]


def _view(node: Object, count: Counter[str], gpus: Counter[str]) -> NodeView:
    name, labels = node["metadata"]["name"], labels_of(node)
    ready = get_condition(node, "Ready") or {}
    state = "Ready" if ready.get("status") == "True" else "NotReady"
    if state == "Ready" and (node.get("spec") or {}).get("unschedulable"):
        state = "Cordoned"
    capacity = (node.get("status") or {}).get("capacity") or {}
    return NodeView(
        name=name,
        state=state,
        kind=labels.get(KIND_LABEL, ""),
        gpu_model=labels.get(PRODUCT_LABEL, ""),
        gpus=to_int(capacity.get(GPU_RESOURCE, 0), GPU_RESOURCE),
        gpus_used=gpus[name],
        pods=count[name],
        block=labels.get(LEVELS["block"], ""),
        rack=labels.get(LEVELS["rack"], ""),
        message="" if state != "NotReady" else str(ready.get("message") or "no heartbeat yet"),
    )

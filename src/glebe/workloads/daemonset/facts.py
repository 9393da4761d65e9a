"""What is known about a DaemonSet at one moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from glebe.kube.objects import Object, is_deleting, labels_of
from glebe.kube.pods import has_ended
from glebe.workloads.availability import is_available
from glebe.workloads.daemonset.placing import Placing, target_of
from glebe.workloads.daemonset.template import GENERATION, HASH, generation_of
from glebe.workloads.intorpercent import scaled


@dataclass
class Facts:
    """A set, the nodes, its pods and the time.

    ``revision`` is the hash of the present template; ``wait`` says for how many seconds a failed pod of a node is not
    replaced yet.
    """

    owner: Object
    nodes: list[Object]
    pods: list[Object]
    revision: str
    now: float
    wait: Callable[[str], float] = lambda _: 0.0
    collisions: int = 0
    spec: Mapping[str, Any] = field(init=False)
    status: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.spec = self.owner["spec"]
        self.status = self.owner.get("status") or {}
        self.nodes = sorted(self.nodes, key=lambda n: str(n["metadata"]["name"]))

    @property
    def min_ready_seconds(self) -> int:
        return int(self.spec.get("minReadySeconds") or 0)

    @property
    def rolling(self) -> bool:
        return bool((self.spec.get("updateStrategy") or {}).get("type", "RollingUpdate") == "RollingUpdate")

    @cached_property
    def verdicts(self) -> dict[str, tuple[bool, bool]]:
        """By node: should a pod start there, should one that is there stay."""
        placing = Placing(self.spec["template"])
        return {n["metadata"]["name"]: placing.judge(n) for n in self.nodes}

    @cached_property
    def desired(self) -> int:
        return sum(1 for start, _ in self.verdicts.values() if start)

    @cached_property
    def by_node(self) -> dict[str, list[Object]]:
        """Pods by the node that they are on or made for, without those that have ended and only wait for removal."""
        out: dict[str, list[Object]] = {}
        for pod in sorted(self.pods, key=_rank):
            node = target_of(pod)
            if node and not (has_ended(pod) and is_deleting(pod)):
                out.setdefault(node, []).append(pod)
        return out

    def _amount(self, field_name: str) -> int:
        value = ((self.spec.get("updateStrategy") or {}).get("rollingUpdate") or {}).get(field_name)
        if not self.rolling or value is None:
            return 0
        return scaled(value, self.desired, up=True)

    @cached_property
    def surge(self) -> int:
        """How many nodes may have two pods during an update."""
        return self._amount("maxSurge")

    @property
    def surges(self) -> bool:
        value = ((self.spec.get("updateStrategy") or {}).get("rollingUpdate") or {}).get("maxSurge")
        return self.rolling and value is not None and scaled(value, 1, up=True) > 0

    @cached_property
    def unavailable(self) -> int:
        """How many nodes may be without an available pod during an update."""
        amount = self._amount("maxUnavailable")
        return 1 if self.desired and not amount and not self.surge else amount

    def is_updated(self, pod: Object) -> bool:
        labels, generation = labels_of(pod), generation_of(self.owner)
        return labels.get(HASH) == self.revision or bool(generation and labels.get(GENERATION) == generation)

    def is_available(self, pod: Object) -> bool:
        return is_available(pod, self.min_ready_seconds, self.now)


def _rank(pod: Object) -> tuple[bool, str, str]:
    """Bound pods first, then the oldest."""
    meta = pod["metadata"]
    return not (pod.get("spec") or {}).get("nodeName"), str(meta.get("creationTimestamp", "")), str(meta["name"])

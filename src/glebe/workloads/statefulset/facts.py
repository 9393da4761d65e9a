"""What is known about a StatefulSet at one moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from glebe.kube.objects import Object, is_deleting
from glebe.workloads.availability import is_available
from glebe.workloads.intorpercent import scaled
from glebe.workloads.revisions import template_of
from glebe.workloads.statefulset.pods import ordinal_of
from glebe.workloads.statefulset.template import build_pod


@dataclass
class Facts:
    """A set, its pods and revisions, and the time.

    ``claim`` finds a PersistentVolumeClaim of the set's namespace by name. ``current`` and ``update`` are the revisions
    that the set comes from and goes to; ``collisions`` goes to the status.
    """

    owner: Object
    pods: list[Object]
    current: Object
    update: Object
    now: float
    claim: Callable[[str], Object | None] = lambda _: None
    collisions: int = 0
    spec: Mapping[str, Any] = field(init=False)
    status: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.spec = self.owner["spec"]
        self.status = self.owner.get("status") or {}

    @property
    def name(self) -> str:
        return str(self.owner["metadata"]["name"])

    @property
    def deleting(self) -> bool:
        return is_deleting(self.owner)

    @property
    def replicas(self) -> int:
        return int(self.spec.get("replicas", 1))

    @property
    def start(self) -> int:
        return int((self.spec.get("ordinals") or {}).get("start") or 0)

    @property
    def ordinals(self) -> range:
        return range(self.start, self.start + self.replicas)

    @property
    def in_order(self) -> bool:
        """One pod at a time, each only when all before it are available."""
        return str(self.spec.get("podManagementPolicy")) != "Parallel"

    @property
    def min_ready_seconds(self) -> int:
        return int(self.spec.get("minReadySeconds") or 0)

    @property
    def rolling(self) -> bool:
        return bool((self.spec.get("updateStrategy") or {}).get("type", "RollingUpdate") == "RollingUpdate")

    @property
    def _rolling_update(self) -> Mapping[str, Any] | None:
        value = (self.spec.get("updateStrategy") or {}).get("rollingUpdate")
        return value if isinstance(value, Mapping) else None

    @property
    def partition(self) -> int:
        """How many pods at the beginning keep the old revision."""
        return int((self._rolling_update or {}).get("partition") or 0)

    @property
    def max_unavailable(self) -> int | None:
        """How many pods an update may make unavailable at once; ``None``: the strict order of one after the other."""
        value = (self._rolling_update or {}).get("maxUnavailable")
        return None if value is None else max(1, scaled(value, self.replicas, up=False))

    @property
    def current_name(self) -> str:
        return str(self.current["metadata"]["name"])

    @property
    def update_name(self) -> str:
        return str(self.update["metadata"]["name"])

    @cached_property
    def members(self) -> dict[int, Object]:
        """Pods within the range, by ordinal."""
        return {o: p for p in self.pods if (o := ordinal_of(p)) in self.ordinals}

    @cached_property
    def condemned(self) -> list[Object]:
        """Pods beyond the range, the highest ordinal first."""
        beyond = [p for p in self.pods if ordinal_of(p) >= 0 and ordinal_of(p) not in self.ordinals]
        return sorted(beyond, key=ordinal_of, reverse=True)

    def available(self, pod: Object) -> bool:
        return is_available(pod, self.min_ready_seconds, self.now)

    def unavailable(self, pod: Object | None) -> bool:
        """Not there, not available, or about to go."""
        return pod is None or not self.available(pod) or is_deleting(pod)

    @cached_property
    def first_unavailable(self) -> Object | None:
        """The first pod that is not available; a pod that is not there yet is ``{}``; ``None``: all are."""
        for ordinal in self.ordinals:
            if self.unavailable(self.members.get(ordinal)):
                return self.members.get(ordinal, {})
        return next((p for p in reversed(self.condemned) if self.unavailable(p)), None)

    def new_pod(self, ordinal: int) -> Object:
        """Pod ``ordinal``, of the revision that its place calls for."""
        if self._rolling_update is not None:
            old = ordinal < self.start + self.partition
        else:
            old = self.rolling and ordinal < self.start + int(self.status.get("currentReplicas") or 0)
        revision = self.current if old else self.update
        return build_pod(self.owner, template_of(revision), revision["metadata"]["name"], ordinal)

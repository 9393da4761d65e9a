"""What a pod was given: whole GPUs, MIG devices, and what claims brought. Pure.

A pod's devices are one pool per resource; its containers draw from it as the kubelet's device manager lets them:
sidecars and main containers have devices of their own, an init container uses those that main containers get later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from glebe.kube.quantity import to_int
from glebe.node.contracts import Mount
from glebe.node.spec import GPU_RESOURCE

VISIBLE = "CUDA_VISIBLE_DEVICES"
NVIDIA_VISIBLE = "NVIDIA_VISIBLE_DEVICES"
NOTHING = "void"
"""What ``NVIDIA_VISIBLE_DEVICES`` says for "none, whatever the image asks for"."""
Names = Mapping[str, tuple[str, ...]]


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Access:
    """What a container with an image needs to use its devices: device nodes of this machine, and libraries."""

    nodes: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, str] = field(default_factory=_nothing)


@dataclass(frozen=True, slots=True)
class Grant:
    """Devices of one pod. ``resources`` holds the ids of all by resource name, ``containers`` those that each container
    sees (UUIDs as NVML says them; indexes where nobody knows UUIDs), ``claims`` the ids that came by ResourceClaims,
    by the claim's uid."""

    resources: Names = field(default_factory=_nothing)
    containers: Names = field(default_factory=_nothing)
    claims: Names = field(default_factory=_nothing)
    access: Mapping[str, Access] = field(default_factory=_nothing)

    def env(self, container: Mapping[str, Any]) -> dict[str, str]:
        """The variables that say what the container may use; without devices they say so, too."""
        seen = self.containers.get(container["name"], ())
        return {**self._access(container).env, VISIBLE: ",".join(seen), NVIDIA_VISIBLE: ",".join(seen) or NOTHING}

    def mounts(self, container: Mapping[str, Any]) -> tuple[Mount, ...]:
        """Files of the driver that a container with a root of its own needs."""
        return self._access(container).mounts

    def nodes(self, container: Mapping[str, Any]) -> tuple[str, ...]:
        """Device nodes (``/dev/nvidia0``, ...) that a container with a root of its own needs."""
        return self._access(container).nodes

    def _access(self, container: Mapping[str, Any]) -> Access:
        return self.access.get(container["name"]) or Access()

    @property
    def ids(self) -> frozenset[str]:
        """Everything that nobody else may have meanwhile."""
        return frozenset(i for names in self.resources.values() for i in names)

    @property
    def record(self) -> dict[str, Any]:
        """As it is written down before it is used."""
        return {
            "resources": {name: list(ids) for name, ids in self.resources.items()},
            "containers": {name: list(ids) for name, ids in self.containers.items()},
            "claims": {uid: list(ids) for uid, ids in self.claims.items()},
        }

    @classmethod
    def of_record(cls, record: Any) -> Grant:
        """From :attr:`record`; anything else is a grant of nothing."""
        if not isinstance(record, dict):
            return cls()
        if isinstance(record.get("gpus"), list):  # written by an earlier release
            return cls(resources={GPU_RESOURCE: tuple(map(str, record["gpus"]))})
        return cls(_names(record.get("resources")), _names(record.get("containers")), _names(record.get("claims")))


def _names(value: Any) -> Names:
    if not isinstance(value, dict):
        return {}
    return {str(name): tuple(map(str, ids)) for name, ids in value.items() if isinstance(ids, list)}


def asked(container: Mapping[str, Any], resource: str) -> int:
    """How many of ``resource`` the container asks for."""
    resources = container.get("resources") or {}
    for kind in ("limits", "requests"):
        amount = (resources.get(kind) or {}).get(resource)
        if amount is not None:
            return to_int(amount, resource)
    return 0


def share(spec: Mapping[str, Any], resource: str, pool: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Who of the pod's containers sees what of ``pool``; containers that ask for none are left out."""
    seen: dict[str, tuple[str, ...]] = {}
    taken = 0
    for container in spec.get("initContainers") or ():
        wanted = asked(container, resource)
        if wanted:
            seen[container["name"]] = tuple(pool[taken : taken + wanted])
        if container.get("restartPolicy") == "Always":
            taken += wanted
    for container in spec.get("containers") or ():
        wanted = asked(container, resource)
        if wanted:
            seen[container["name"]] = tuple(pool[taken : taken + wanted])
            taken += wanted
    return seen

"""What a node's GPUs are used for at the moment: what is offered, what is broken, who has what. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from glebe.kube.pods import requests_of
from glebe.node.devices.grants import Grant, share
from glebe.node.devices.health import Fault
from glebe.node.devices.inventory import Gpu, Inventory, resources
from glebe.node.devices.topology import choose

GIVEN = {"key": "glebe.dev/given", "value": "extended-resource", "effect": "NoSchedule"}
"""The taint of a device that a pod has as ``nvidia.com/gpu``: no claim can have it meanwhile."""


class NotEnough(Exception):
    """There are fewer devices than asked for; in the kubelet's words."""


class Pools:
    """The devices of one node and their holders, by the holders' uid."""

    def __init__(self, offered: Mapping[str, Sequence[str]], inventory: Inventory | None = None) -> None:
        self.inventory = inventory or Inventory()
        self.offered = {name: tuple(ids) for name, ids in offered.items()}
        self.grants: dict[str, Grant] = {}
        self.faults: dict[str, list[Fault]] = {}
        self._boards = {m.uuid: gpu.uuid for gpu in self.inventory.gpus for m in gpu.instances}
        self._gpus = {gpu.uuid: gpu for gpu in self.inventory.gpus}

    @classmethod
    def of(cls, inventory: Inventory, strategy: str) -> Pools:
        return cls(resources(inventory, strategy), inventory)

    # --- what is left

    def is_bad(self, device: str) -> bool:
        """Whether it, or the board that it is on, has a fault."""
        return device in self.faults or self._boards.get(device, device) in self.faults

    def clashes(self, device: str, taken: Iterable[str]) -> bool:
        """Whether it is taken, or a part of it, or what it is a part of."""
        board = self._boards.get(device)
        return any(t in (device, board) or self._boards.get(t) == device for t in taken)

    def extended(self) -> set[str]:
        """Given as extended resources."""
        return {i for grant in self.grants.values() for i in grant.ids}

    def claimed(self) -> set[str]:
        """Given through claims."""
        return {i for grant in self.grants.values() for ids in grant.claims.values() for i in ids}

    def amounts(self) -> dict[str, tuple[int, int]]:
        """For each resource how many there are, and how many pods can have: whole ones that no claim holds."""
        claimed = self.claimed()
        return {
            name: (len(ids), sum(1 for i in ids if not self.is_bad(i) and not self.clashes(i, claimed)))
            for name, ids in self.offered.items()
        }

    def taints(self) -> dict[str, list[Mapping[str, str]]]:
        """Of devices by UUID: faults, and that a pod has them without a claim."""
        made: dict[str, list[Mapping[str, str]]] = {}
        for uuid, faults in self.faults.items():
            made[uuid] = [{"key": f.key, "value": f.value, "effect": "NoSchedule"} for f in faults]
        for uuid in sorted(self.extended()):
            made.setdefault(uuid, []).append(GIVEN)
        return made

    # --- giving

    def give(self, spec: Mapping[str, object]) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
        """Devices for a pod's extended resources: by resource, and by container.

        :raises NotEnough: a resource has too few that are free and whole.
        """
        taken = self.extended() | self.claimed()
        chosen: dict[str, tuple[str, ...]] = {}
        seen: dict[str, tuple[str, ...]] = {}
        for resource, pool in self.offered.items():
            wanted = requests_of(spec, resource).get(resource, 0)
            if not wanted:
                continue
            free = [i for i in pool if not self.is_bad(i) and not self.clashes(i, taken)]
            if len(free) < wanted:
                raise NotEnough(
                    f"Allocate failed due to requested number of devices unavailable for {resource}. "
                    f"Requested: {wanted}, Available: {len(free)}, which is unexpected"
                )
            chosen[resource] = self._choose(free, wanted)
            taken |= set(chosen[resource])
            for name, ids in share(spec, resource, chosen[resource]).items():
                seen[name] = (*seen.get(name, ()), *ids)
        return chosen, seen

    def _choose(self, free: Sequence[str], wanted: int) -> tuple[str, ...]:
        gpus: list[Gpu] = [self._gpus[i] for i in free if i in self._gpus]
        if len(gpus) < len(free):
            return tuple(free[:wanted])  # MIG devices, which have no links, or indexes
        return tuple(gpu.uuid for gpu in choose(gpus, wanted))

"""What GPUs a machine has, as they were found. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

SWITCH = "switch"
"""In :attr:`Gpu.links`: links to NVSwitches, which connect every GPU with every other."""
_VENDOR = "nvidia.com"
STRATEGIES = ("mixed", "single", "none")


def _no_links() -> Mapping[str, int]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class MigDevice:
    """A GPU instance with a compute instance. Memory in bytes; ``start`` and ``size`` in memory slices; engines by
    their names in NVIDIA's DRA driver."""

    uuid: str
    parent: str
    profile: str
    profile_id: int = 0
    gpu_instance: int = 0
    compute_instance: int = 0
    start: int = 0
    size: int = 0
    memory: int = 0
    slices: tuple[int, int] = (0, 0)  # of the GPU instance, of the compute instance
    engines: Mapping[str, int] = field(default_factory=_no_links)

    @property
    def resource(self) -> str:
        """Its extended resource under the strategy ``mixed``."""
        return f"{_VENDOR}/mig-{self.profile.replace('+', '.')}"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One board. ``memory`` in bytes, ``bus`` its PCI address in lower case (``0000:3b:00.0``), ``root`` the PCIe root
    complex that it hangs on, ``links`` how many active NVLinks lead to which bus address (or :data:`SWITCH`)."""

    uuid: str
    index: int
    minor: int
    product: str
    memory: int
    compute: tuple[int, int] = (0, 0)
    brand: str = ""
    architecture: str = ""
    bus: str = ""
    root: str = ""
    numa: int | None = None
    links: Mapping[str, int] = field(default_factory=_no_links)
    mig_capable: bool = False
    mig: bool = False
    instances: tuple[MigDevice, ...] = ()
    clique: str = ""
    addressing: str = ""
    display: bool = False
    serial: str = ""


@dataclass(frozen=True, slots=True)
class Inventory:
    """All of them, in the driver's order. ``lost``: what was there and does not answer. ``cuda``: the CUDA version that
    the driver supports at most."""

    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    cuda: tuple[int, int] = (0, 0)
    lost: tuple[str, ...] = ()

    def by_id(self) -> dict[str, Gpu | MigDevice]:
        """Boards and MIG devices by UUID."""
        found: dict[str, Gpu | MigDevice] = {gpu.uuid: gpu for gpu in self.gpus}
        return found | {m.uuid: m for gpu in self.gpus for m in gpu.instances}


WHOLE = "nvidia.com/gpu"


def resources(inventory: Inventory, strategy: str) -> dict[str, tuple[str, ...]]:
    """What is offered as extended resources: names and UUIDs, by NVIDIA's strategies for MIG.

    ``none``: boards, whatever their mode; ``mixed``: MIG devices by profile, boards where MIG is off; ``single``: MIG
    devices as if they were boards, when all are alike on all boards, else nothing.
    """
    boards = tuple(gpu.uuid for gpu in inventory.gpus)
    plain = tuple(gpu.uuid for gpu in inventory.gpus if not gpu.mig)
    if strategy == "none" or len(plain) == len(boards):
        return {WHOLE: boards} if boards else {}
    if strategy == "single":
        return {} if single_fault(inventory) else {WHOLE: _instances(inventory)}
    offered: dict[str, tuple[str, ...]] = {WHOLE: plain} if plain else {}
    for gpu in inventory.gpus:
        for instance in gpu.instances if gpu.mig else ():
            offered[instance.resource] = (*offered.get(instance.resource, ()), instance.uuid)
    return offered


def single_fault(inventory: Inventory) -> str:
    """Why the strategy ``single`` cannot be used; ``""``: it can."""
    enabled = [gpu for gpu in inventory.gpus if gpu.mig]
    if not enabled:
        return ""
    if any(not gpu.instances for gpu in enabled):
        return "at least one MIG device is enabled but empty"
    if len(enabled) < len(inventory.gpus):
        return "devices with MIG enabled and disable detected"
    if len({m.profile for gpu in enabled for m in gpu.instances}) > 1:
        return "more than one MIG device type present on node"
    return ""


def _instances(inventory: Inventory) -> tuple[str, ...]:
    return tuple(m.uuid for gpu in inventory.gpus for m in gpu.instances)

"""Reads a machine's GPUs through NVML (``nvidia-ml-py``, loaded only when there is a driver) and sysfs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from glebe.node.devices.inventory import SWITCH, Gpu, Inventory, MigDevice

_ROOT = re.compile(r"pci[0-9a-f]{4}:[0-9a-f]{2}")
#: By NVML's numbers.
_BRANDS = (
    "Unknown,Quadro,Tesla,NVS,Grid,GeForce,Titan,NvidiaVApps,NvidiaVPC,NvidiaVCS,NvidiaVWS,NvidiaCloudGaming,QuadroRTX,"
    "NvidiaRTX,Nvidia,GeForceRTX,TitanRTX"
)
_ARCHITECTURES = ",,Kepler,Maxwell,Pascal,Volta,Turing,Ampere,Ada Lovelace,Hopper,Blackwell,,,Rubin"
_ADDRESSING = {1: "HMM", 2: "ATS"}
_DRIVER_SIGNS = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")
_COMPLETED = 3  # NVML_GPU_FABRIC_STATE_COMPLETED


class NoNvml(Exception):
    """NVML cannot be used; says why."""


def has_driver(root: str = "") -> bool:
    """Whether the machine looks as if it had NVIDIA's driver. Costs nothing."""
    return any(Path(root + sign).exists() for sign in _DRIVER_SIGNS)


def load() -> Any:
    """The module ``pynvml``, initialised. Can take seconds when the driver sleeps: call it in a thread.

    :raises NoNvml: it is not installed, or there is no driver.
    """
    try:
        import pynvml
    except ImportError:
        raise NoNvml("the Python package nvidia-ml-py is not installed") from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NoNvml(str(error)) from None
    return pynvml


def discover(nvml: Any, sysfs: str = "/sys") -> Inventory:
    """All GPUs that answer. ``nvml``: the module, initialised.

    :raises NoNvml: the driver answers nothing at all.
    """
    return _Reader(nvml, sysfs).read()


def _named(names: str, number: Any) -> str:
    """The name with that number in a list with commas."""
    found = dict(enumerate(names.split(","))).get(int(number))
    return found or _BRANDS.partition(",")[0]


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


class _Reader:
    def __init__(self, nvml: Any, sysfs: str) -> None:
        self._nvml = nvml
        self._sysfs = Path(sysfs)

    def _ask(self, name: str, *args: Any, default: Any = None) -> Any:
        """A call that older drivers and boards may not know."""
        call: Callable[..., Any] | None = getattr(self._nvml, name, None)
        if call is None:
            return default
        try:
            return call(*args)
        except self._nvml.NVMLError:
            return default

    def read(self) -> Inventory:
        try:
            count = int(self._nvml.nvmlDeviceGetCount())
        except self._nvml.NVMLError as error:
            raise NoNvml(str(error)) from None
        gpus: list[Gpu] = []
        lost: list[str] = []
        for index in range(count):
            try:
                gpus.append(self._gpu(index, self._nvml.nvmlDeviceGetHandleByIndex(index)))
            except self._nvml.NVMLError as error:
                lost.append(f"GPU {index}: {error}")
        cuda = int(self._ask("nvmlSystemGetCudaDriverVersion", default=0))
        driver = _text(self._ask("nvmlSystemGetDriverVersion", default=""))
        return Inventory(tuple(gpus), driver, (cuda // 1000, cuda % 1000 // 10), tuple(lost))

    def _gpu(self, index: int, handle: Any) -> Gpu:
        nvml = self._nvml
        uuid, product = _text(nvml.nvmlDeviceGetUUID(handle)), _text(nvml.nvmlDeviceGetName(handle))
        memory = self._ask("nvmlDeviceGetMemoryInfo", handle)
        bus = _bus(self._ask("nvmlDeviceGetPciInfo", handle))
        mode = self._ask("nvmlDeviceGetMigMode", handle)  # [current, pending]; boards without MIG fail
        enabled = mode is not None and int(mode[0]) == 1
        root, numa = self._place(bus)
        return Gpu(
            uuid=uuid,
            index=index,
            minor=int(self._ask("nvmlDeviceGetMinorNumber", handle, default=index)),
            product=product,
            memory=int(memory.total) if memory is not None else 0,
            compute=tuple(self._ask("nvmlDeviceGetCudaComputeCapability", handle, default=(0, 0))),
            brand=_named(_BRANDS, self._ask("nvmlDeviceGetBrand", handle, default=0)),
            architecture=_named(_ARCHITECTURES, self._ask("nvmlDeviceGetArchitecture", handle, default=0)),
            bus=bus,
            root=root,
            numa=numa,
            links=self._links(handle),
            mig_capable=mode is not None,
            mig=enabled,
            instances=self._instances(handle, uuid) if enabled else (),
            clique=self._clique(handle),
            addressing=_ADDRESSING.get(int(self._ask("nvmlDeviceGetAddressingMode", handle, default=0) or 0), ""),
            display=self._class(bus).startswith("0x0300"),
            serial=_text(self._ask("nvmlDeviceGetSerial", handle, default="")),
        )

    # --- where it is

    def _device(self, bus: str) -> Path:
        return self._sysfs / "bus/pci/devices" / bus

    def _place(self, bus: str) -> tuple[str, int | None]:
        """The PCIe root complex and the NUMA node; nothing where sysfs does not say."""
        if not bus or not self._device(bus).exists():
            return "", None
        parts = self._device(bus).resolve().parts
        root = next((part for part in parts if _ROOT.fullmatch(part)), "")
        try:
            numa = int((self._device(bus) / "numa_node").read_text())
        except (OSError, ValueError):
            numa = -1
        return root, numa if numa >= 0 else None

    def _class(self, bus: str) -> str:
        try:
            return (self._device(bus) / "class").read_text().strip()
        except OSError:
            return ""

    def _links(self, handle: Any) -> dict[str, int]:
        """Active NVLinks by what is at their other end."""
        found: dict[str, int] = {}
        for link in range(int(getattr(self._nvml, "NVML_NVLINK_MAX_LINKS", 18))):
            if self._ask("nvmlDeviceGetNvLinkState", handle, link, default=0) != 1:
                continue
            if self._ask("nvmlDeviceGetNvLinkRemoteDeviceType", handle, link, default=0) == 2:
                other = SWITCH
            else:
                other = _bus(self._ask("nvmlDeviceGetNvLinkRemotePciInfo", handle, link))
            if other:
                found[other] = found.get(other, 0) + 1
        return found

    def _clique(self, handle: Any) -> str:
        """``CLUSTER.CLIQUE`` of a GPU that is part of a multi-node NVLink fabric."""
        make = getattr(self._nvml, "c_nvmlGpuFabricInfo_v2_t", None)
        if make is None:
            return ""
        info = make()
        if self._ask("nvmlDeviceGetGpuFabricInfoV", handle, info, default=-1) != 0:
            return ""
        cluster = bytes(info.clusterUuid)
        if int(info.state) != _COMPLETED or int(info.status) != 0 or not any(cluster):
            return ""
        text = cluster.hex()
        parts = (text[:8], text[8:12], text[12:16], text[16:20], text[20:32])
        return f"{'-'.join(parts)}.{int(info.cliqueId)}"

    # --- MIG

    def _instances(self, handle: Any, parent: str) -> tuple[MigDevice, ...]:
        found: list[MigDevice] = []
        for index in range(int(self._ask("nvmlDeviceGetMaxMigDeviceCount", handle, default=0))):
            mig = self._ask("nvmlDeviceGetMigDeviceHandleByIndex", handle, index)
            if mig is not None and (made := self._instance(handle, mig, parent)) is not None:
                found.append(made)
        return tuple(found)

    def _instance(self, handle: Any, mig: Any, parent: str) -> MigDevice | None:
        uuid, name = self._ask("nvmlDeviceGetUUID", mig), self._ask("nvmlDeviceGetName", mig)
        if uuid is None or name is None:
            return None  # it went away meanwhile
        own = self._ask("nvmlDeviceGetAttributes", mig)
        group = int(self._ask("nvmlDeviceGetGpuInstanceId", mig, default=0))
        instance = self._ask("nvmlDeviceGetGpuInstanceById", handle, group)
        info = self._ask("nvmlGpuInstanceGetInfo", instance) if instance is not None else None
        engines = {ours: int(getattr(own, theirs, 0)) for ours, theirs in _ENGINES.items()} if own is not None else {}
        return MigDevice(
            uuid=_text(uuid),
            parent=parent,
            profile=_text(name).rpartition(" MIG ")[2],
            profile_id=int(info.profileId) if info is not None else 0,
            gpu_instance=group,
            compute_instance=int(self._ask("nvmlDeviceGetComputeInstanceId", mig, default=0)),
            start=int(info.placement.start) if info is not None else 0,
            size=int(info.placement.size) if info is not None else 0,
            memory=int(getattr(own, "memorySizeMB", 0)) << 20,
            slices=(int(getattr(own, "gpuInstanceSliceCount", 0)), int(getattr(own, "computeInstanceSliceCount", 0))),
            engines=engines,
        )


_ENGINES = {
    "multiprocessors": "multiprocessorCount",
    "copyEngines": "sharedCopyEngineCount",
    "decoders": "sharedDecoderCount",
    "encoders": "sharedEncoderCount",
    "jpegEngines": "sharedJpegCount",
    "ofaEngines": "sharedOfaCount",
}


def _bus(info: Any) -> str:
    """``0000:3b:00.0`` from NVML's ``00000000:3B:00.0``."""
    if info is None:
        return ""
    text = _text(info.busId).strip("\0").lower()
    domain, _, rest = text.partition(":")
    return f"{domain[-4:]}:{rest}" if rest else ""

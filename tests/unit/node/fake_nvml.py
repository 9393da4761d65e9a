"""A stand-in for the module ``pynvml``: machines of recorded shapes, without a driver.

MIG geometry is that of the boards (a slice of memory is an eighth, 3g and 4g take four, 7g takes eight), which public
mocks of NVML get wrong.
"""

from __future__ import annotations

import queue
from types import SimpleNamespace as Box
from typing import Any

#: profile -> (GI profile id, compute slices, memory slices, MiB, multiprocessors) of an 80 GB board
H100_MIG = {
    "1g.10gb": (19, 1, 1, 9984, 16),
    "2g.20gb": (14, 2, 2, 20096, 32),
    "3g.40gb": (9, 3, 4, 40448, 60),
    "4g.40gb": (5, 4, 4, 40448, 64),
    "7g.80gb": (0, 7, 8, 81152, 132),
}


class NVMLError(Exception):
    """As pynvml's: the number decides."""

    def __init__(self, value: int) -> None:
        super().__init__(_TEXTS.get(value, "Unknown Error"))
        self.value = value


_TEXTS = {
    3: "Not Supported",
    10: "Timeout",
    12: "NVML Shared Library Not Found",
    15: "GPU is lost",
    9: "Driver Not Loaded",
}


class Board:
    """One GPU. ``links``: index of another board, or ``"switch"``, per link."""

    def __init__(self, index: int, name: str, **facts: Any) -> None:
        self.index, self.name = index, name
        self.uuid = f"GPU-{index:08d}-0000-4000-8000-000000000000"
        self.bus = f"00000000:{0x18 + 0x11 * index:02X}:00.0"
        self.memory = facts.pop("memory", 81559) << 20
        self.compute = facts.pop("compute", (9, 0))
        self.brand, self.architecture = facts.pop("brand", 14), facts.pop("architecture", 9)
        self.links: list[Any] = facts.pop("links", [])
        self.mig: int | None = facts.pop("mig", 0)  # None: the board knows no MIG
        self.instances: list[Any] = []
        self.lost = facts.pop("lost", False)
        self.fabric = facts.pop("fabric", None)
        self.rows_failed = False
        assert not facts

    def partition(self, *profiles: str) -> Board:
        """MIG on, with these instances in their order from the first memory slice on."""
        self.mig, start = 1, 0
        for number, profile in enumerate(profiles):
            ident, slices, size, mib, processors = H100_MIG[profile]
            start = -(-start // size) * size
            uuid = f"MIG-{self.index:08d}-0000-4000-8000-{number:012d}"
            self.instances.append(
                Box(
                    uuid=uuid, name=f"{self.name} MIG {profile}", gi=number + 7, ci=0, profile=ident,
                    start=start, size=size, slices=slices, mib=mib, processors=processors, parent=self,
                )
            )  # fmt: skip
            start += size
        return self


class FakeNvml:
    """Quacks like the module."""

    NVMLError = NVMLError
    NVML_NVLINK_MAX_LINKS = 18
    NVML_ERROR_TIMEOUT = 10
    nvmlEventTypeXidCriticalError, nvmlEventTypeDoubleBitEccError = 8, 2  # noqa: N815 - the module's names

    def __init__(self, *boards: Board, driver: str = "570.172.08", cuda: int = 12080) -> None:
        self.boards, self.driver, self.cuda = list(boards), driver, cuda
        self.events: queue.Queue[Any] = queue.Queue()

    # --- the system

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return self.driver

    def nvmlSystemGetCudaDriverVersion(self) -> int:  # noqa: N802
        return self.cuda

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.boards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Board:  # noqa: N802
        return _answering(self.boards[index])

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Board:  # noqa: N802
        return _answering(next(b for b in self.boards if b.uuid == uuid))

    # --- boards

    def nvmlDeviceGetUUID(self, handle: Any) -> str:  # noqa: N802
        return str(handle.uuid)

    def nvmlDeviceGetName(self, handle: Any) -> str:  # noqa: N802
        return str(handle.name)

    def nvmlDeviceGetMinorNumber(self, board: Board) -> int:  # noqa: N802
        return board.index

    def nvmlDeviceGetMemoryInfo(self, board: Board) -> Any:  # noqa: N802
        return Box(total=_answering(board).memory)

    def nvmlDeviceGetPciInfo(self, board: Board) -> Any:  # noqa: N802
        return Box(busId=board.bus)

    def nvmlDeviceGetCudaComputeCapability(self, board: Board) -> tuple[int, int]:  # noqa: N802
        return board.compute

    def nvmlDeviceGetBrand(self, board: Board) -> int:  # noqa: N802
        return board.brand

    def nvmlDeviceGetArchitecture(self, board: Board) -> int:  # noqa: N802
        return board.architecture

    def nvmlDeviceGetSerial(self, board: Board) -> str:  # noqa: N802
        raise NVMLError(3)

    def nvmlDeviceGetRemappedRows(self, board: Board) -> tuple[int, int, int, int]:  # noqa: N802
        return 0, 0, 0, int(board.rows_failed)

    def nvmlDeviceGetNvLinkState(self, board: Board, link: int) -> int:  # noqa: N802
        if not board.links:
            raise NVMLError(3)
        return int(link < len(board.links))

    def nvmlDeviceGetNvLinkRemoteDeviceType(self, board: Board, link: int) -> int:  # noqa: N802
        return 2 if board.links[link] == "switch" else 0

    def nvmlDeviceGetNvLinkRemotePciInfo(self, board: Board, link: int) -> Any:  # noqa: N802
        return Box(busId=self.boards[board.links[link]].bus)

    def c_nvmlGpuFabricInfo_v2_t(self) -> Any:  # noqa: N802
        return Box(clusterUuid=bytes(16), cliqueId=0, state=0, status=0)

    def nvmlDeviceGetGpuFabricInfoV(self, board: Board, info: Any) -> int:  # noqa: N802
        if board.fabric is None:
            raise NVMLError(3)
        info.clusterUuid, info.cliqueId = board.fabric
        info.state = 3
        return 0

    # --- MIG

    def nvmlDeviceGetMigMode(self, board: Board) -> list[int]:  # noqa: N802
        if board.mig is None:
            raise NVMLError(3)
        return [board.mig, board.mig]

    def nvmlDeviceGetMaxMigDeviceCount(self, board: Board) -> int:  # noqa: N802
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, board: Board, index: int) -> Any:  # noqa: N802
        if index >= len(board.instances):
            raise NVMLError(6)
        return board.instances[index]

    def nvmlDeviceGetAttributes(self, mig: Any) -> Any:  # noqa: N802
        return Box(
            multiprocessorCount=mig.processors, sharedCopyEngineCount=mig.slices, sharedDecoderCount=mig.slices,
            sharedEncoderCount=0, sharedJpegCount=mig.slices, sharedOfaCount=int(mig.slices == 7),
            gpuInstanceSliceCount=mig.slices, computeInstanceSliceCount=mig.slices, memorySizeMB=mig.mib,
        )  # fmt: skip

    def nvmlDeviceGetGpuInstanceId(self, mig: Any) -> int:  # noqa: N802
        return int(mig.gi)

    def nvmlDeviceGetComputeInstanceId(self, mig: Any) -> int:  # noqa: N802
        return int(mig.ci)

    def nvmlDeviceGetGpuInstanceById(self, board: Board, ident: int) -> Any:  # noqa: N802
        return next(m for m in board.instances if m.gi == ident)

    def nvmlGpuInstanceGetInfo(self, mig: Any) -> Any:  # noqa: N802
        return Box(profileId=mig.profile, placement=Box(start=mig.start, size=mig.size))

    # --- events

    def nvmlEventSetCreate(self) -> Any:  # noqa: N802
        return self.events

    def nvmlEventSetFree(self, events: Any) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetSupportedEventTypes(self, board: Board) -> int:  # noqa: N802
        return 0xFF

    def nvmlDeviceRegisterEvents(self, board: Board, types: int, events: Any) -> None:  # noqa: N802
        pass

    def nvmlEventSetWait_v2(self, events: Any, milliseconds: int) -> Any:  # noqa: N802
        try:
            return self.events.get(timeout=min(milliseconds, 20) / 1000)
        except queue.Empty:
            raise NVMLError(10) from None

    def xid(self, board: Board, number: int, instance: int = 0xFFFFFFFF) -> None:
        """The driver reports an XID."""
        self.events.put(Box(device=board, eventType=8, eventData=number, gpuInstanceId=instance, computeInstanceId=0))


def _answering(board: Board) -> Board:
    if board.lost:
        raise NVMLError(15)
    return board


def hgx(count: int = 8, **facts: Any) -> FakeNvml:
    """An HGX H100: eight boards on NVSwitches."""
    return FakeNvml(*(Board(i, "NVIDIA H100 80GB HBM3", links=["switch"] * 18, **facts) for i in range(count)))


def a100_pairs() -> FakeNvml:
    """Four A100 PCIe with NVLink bridges between 0-1 and 2-3, on an old driver without MIG calls turned on."""
    facts = {"memory": 81920, "compute": (8, 0), "architecture": 7}
    return FakeNvml(
        *(Board(i, "NVIDIA A100 80GB PCIe", links=[i ^ 1] * 12, **facts) for i in range(4)),
        driver="535.183.01",
        cuda=12020,
    )


def l4(count: int = 2) -> FakeNvml:
    """L4: no NVLink, no MIG."""
    facts = {"memory": 23034, "compute": (8, 9), "architecture": 8, "mig": None}
    return FakeNvml(*(Board(i, "NVIDIA L4", **facts) for i in range(count)))

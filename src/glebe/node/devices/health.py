"""Watches over GPUs in a thread: XID errors and double-bit ECC errors as events, lost boards by asking."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from glebe.node.devices.inventory import Inventory

log = logging.getLogger("glebe.node")

HARMLESS = frozenset({13, 31, 43, 45, 68, 109})
"""XIDs that a program causes and the GPU survives, as NVIDIA's device plugin has it."""
XID, LOST, ECC, ROWS = (f"gpu.nvidia.com/{what}" for what in ("xid", "gpu-lost", "ecc", "row-remap-failure"))
_WAIT_MS = 1000
_ASK_EVERY = 30  # waits between two rounds of asking every board


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a board, or (by its own UUID) with a MIG device. ``key`` and ``value`` are its taint's."""

    uuid: str
    key: str
    value: str
    text: str

    @property
    def reason(self) -> str:
        """One word for events and conditions."""
        return {XID: "XidCriticalError", LOST: "GpuLost", ECC: "DoubleBitEccError"}.get(self.key, "RowRemapFailure")


class Watch:
    """One thread over all GPUs of ``inventory``.

    :param report: called from the thread with each fault, once per device and key.
    """

    def __init__(self, nvml: Any, inventory: Inventory, report: Callable[[Fault], None]) -> None:
        self._nvml = nvml
        self._inventory = inventory
        self._report = report
        self._said: set[tuple[str, str]] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="glebe gpu health", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends within about a second."""
        self._stop.set()

    def _say(self, fault: Fault) -> None:
        if (fault.uuid, fault.key) not in self._said:
            self._said.add((fault.uuid, fault.key))
            self._report(fault)

    def _run(self) -> None:
        events = self._register()
        rounds = 0
        while not self._stop.is_set():
            if rounds % _ASK_EVERY == 0:
                self.ask()
            rounds += 1
            if events is None:
                self._stop.wait(_WAIT_MS / 1000)
            else:
                self.wait(events)
        if events is not None:
            self._nvml.nvmlEventSetFree(events)

    def _register(self) -> Any:
        """An event set with every board that knows events; ``None``: no board does."""
        nvml, any_ = self._nvml, False
        try:
            events = nvml.nvmlEventSetCreate()
        except nvml.NVMLError as error:
            log.warning("GPU errors cannot be watched: %s", error)
            return None
        wanted = nvml.nvmlEventTypeXidCriticalError | nvml.nvmlEventTypeDoubleBitEccError
        for gpu in self._inventory.gpus:
            try:
                handle = nvml.nvmlDeviceGetHandleByUUID(gpu.uuid)
                known = nvml.nvmlDeviceGetSupportedEventTypes(handle) & wanted
                if known:
                    nvml.nvmlDeviceRegisterEvents(handle, known, events)
                    any_ = True
            except nvml.NVMLError as error:
                log.info("errors of GPU %s cannot be watched: %s", gpu.uuid, error)
        if any_:
            return events
        nvml.nvmlEventSetFree(events)
        return None

    def wait(self, events: Any) -> None:
        """One wait for one event."""
        nvml = self._nvml
        try:
            event = nvml.nvmlEventSetWait_v2(events, _WAIT_MS)
        except nvml.NVMLError as error:
            if getattr(error, "value", None) == nvml.NVML_ERROR_TIMEOUT:
                return
            self.ask()  # some board is in trouble: which?
            self._stop.wait(_WAIT_MS / 1000)
            return
        try:
            uuid = str(nvml.nvmlDeviceGetUUID(event.device))
        except nvml.NVMLError:
            self.ask()
            return
        if event.eventType == nvml.nvmlEventTypeXidCriticalError:
            self._xid(uuid, int(event.eventData), int(event.gpuInstanceId))
        elif event.eventType == nvml.nvmlEventTypeDoubleBitEccError:
            self._say(Fault(uuid, ECC, "double-bit", f"GPU {uuid}: double-bit ECC error"))

    def _xid(self, uuid: str, xid: int, instance: int) -> None:
        if xid in HARMLESS:
            log.info("GPU %s: XID %d, caused by a program", uuid, xid)
            return
        gpu = next((g for g in self._inventory.gpus if g.uuid == uuid), None)
        if gpu is None:
            return
        hit = [m.uuid for m in gpu.instances if m.gpu_instance == instance] or [uuid]
        for each in hit:
            self._say(Fault(each, XID, str(xid), f"GPU {each}: XID {xid}"))

    def ask(self) -> None:
        """Whether every board answers, and whether its memory could be repaired."""
        nvml = self._nvml
        for gpu in self._inventory.gpus:
            try:
                handle = nvml.nvmlDeviceGetHandleByUUID(gpu.uuid)
                nvml.nvmlDeviceGetMemoryInfo(handle)
            except nvml.NVMLError as error:
                self._say(Fault(gpu.uuid, LOST, "true", f"GPU {gpu.uuid} does not answer: {error}"))
                continue
            try:
                failed = nvml.nvmlDeviceGetRemappedRows(handle)[3]
            except (nvml.NVMLError, AttributeError):
                continue
            if failed:
                self._say(Fault(gpu.uuid, ROWS, "true", f"GPU {gpu.uuid}: its memory could not be repaired"))

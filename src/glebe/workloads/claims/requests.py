"""What a claim asks for on one node: for each request its alternatives, with the devices that may serve them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glebe.kube.nodes import tolerates
from glebe.kube.objects import Object
from glebe.workloads.claims import capacity
from glebe.workloads.claims.pools import BadSelector, Device, Pool, reaches

MOST_RESULTS = 32
"""Devices of one allocation (``AllocationResultsMaxSize``)."""
_HARD = ("NoSchedule", "NoExecute")
Classes = Callable[[str], Object | None]


class AllocationError(Exception):
    """The claims cannot even be tried on this node; upstream's words."""


@dataclass(slots=True, eq=False)
class Alternative:
    """One way to serve a request. ``rank``: its place in ``firstAvailable``, 0 is wanted most; -1: there is no choice.

    ``devices`` are those that its selectors take and whose taints it tolerates, used or not.
    """

    request: str
    choice: str
    spec: Mapping[str, Any]
    klass: Object
    rank: int
    devices: tuple[Device, ...]
    count: int
    every: bool

    @property
    def name(self) -> str:
        return f"{self.request}/{self.choice}" if self.choice else self.request

    @property
    def admin(self) -> bool:
        return bool(self.spec.get("adminAccess")) and not self.choice


def read(claim: Object, node: Object, pools: Sequence[Pool], classes: Classes) -> list[list[Alternative]]:
    """The requests of a claim on a node.

    :raises AllocationError: something about the claim, its classes or the pools is wrong.
    """
    path = f"{claim['metadata']['namespace']}/{claim['metadata']['name']}"
    reader = _Reader(path, node, pools, classes)
    found: list[list[Alternative]] = []
    for request in (claim["spec"].get("devices") or {}).get("requests") or ():
        name, options = request["name"], request.get("firstAvailable") or ()
        if options:
            found.append([reader.read(name, o["name"], o, rank) for rank, o in enumerate(options)])
        else:
            found.append([reader.read(name, "", request.get("exactly") or {}, -1)])
    least = sum(min(a.count for a in alternatives) for alternatives in found)
    if least > MOST_RESULTS:
        raise AllocationError(
            f"claim {path}: number of requested devices {least} exceeds the claim limit of {MOST_RESULTS}"
        )
    return found


@dataclass(frozen=True, slots=True)
class _Reader:
    path: str
    node: Object
    pools: Sequence[Pool]
    classes: Classes

    def read(self, request: str, choice: str, spec: Mapping[str, Any], rank: int) -> Alternative:
        where = f"claim {self.path}, request {choice or request}"
        name = spec.get("deviceClassName") or ""
        if not name:
            raise AllocationError(f"{where}: missing device class name (unsupported request type?)")
        klass = self.classes(name)
        if klass is None:
            raise AllocationError(f'{where}: could not retrieve device class {name}: deviceclass "{name}" not found')
        every = spec.get("allocationMode") == "All"
        taking = _Taking(self.path, spec, klass)
        devices: list[Device] = []
        for pool in self.pools:
            if pool.usable:
                devices.extend(d for d in pool.devices if taking.takes(d, self.node) and (every or _tolerated(d, spec)))
            elif every:
                what = "being updated" if pool.incomplete else "invalid"
                raise AllocationError(f"{where}: asks for all devices, but resource pool {pool} is currently {what}")
        count = len(devices) if every else int(spec.get("count") or 1)
        return Alternative(request, choice, spec, klass, rank, tuple(devices), count, every)


@dataclass(frozen=True, slots=True)
class _Taking:
    path: str
    spec: Mapping[str, Any]
    klass: Object

    def takes(self, device: Device, node: Object) -> bool:
        """Whether class and request select the device, it is for this node, and it has what is asked for."""
        of_class = (self.klass.get("spec") or {}).get("selectors") or ()
        if not self._select(f"class {self.klass['metadata']['name']}", of_class, device):
            return False
        if not self._select(f"claim {self.path}", self.spec.get("selectors") or (), device):
            return False
        if device.slice.get("perDeviceNodeSelection") and not reaches(device.body, node):
            return False
        return capacity.consumed(self.spec, device.body.get("capacity") or {}) is not None

    def _select(self, whose: str, selectors: Sequence[Mapping[str, Any]], device: Device) -> bool:
        for i, selector in enumerate(selectors):
            try:
                if not device.matches((selector.get("cel") or {}).get("expression") or ""):
                    return False
            except BadSelector as error:
                raise AllocationError(f"{whose}: selector #{i}: {error}") from None
        return True


def _tolerated(device: Device, spec: Mapping[str, Any]) -> bool:
    tolerations = spec.get("tolerations") or ()
    return all(
        taint.get("effect") not in _HARD or any(tolerates(t, taint) for t in tolerations)
        for taint in device.body.get("taints") or ()
    )


def tolerated(device: Device, alternative: Alternative) -> bool:
    """Whether no taint of the device keeps the request away."""
    return _tolerated(device, alternative.spec)

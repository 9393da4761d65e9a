"""Slices, classes and claims for tests of device allocation."""

from __future__ import annotations

from itertools import count
from typing import Any

from glebe.workloads.claims.allocator import Found, allocate
from glebe.workloads.claims.pools import Shelf
from glebe.workloads.claims.taken import Taken

NODE = {"metadata": {"name": "n1", "labels": {"zone": "a"}}}
DRIVER = "gpu.example.com"


def device(
    name: str, *, taints: Any = (), counters: Any = None, capacity: Any = None, **attributes: Any
) -> dict[str, Any]:
    kinds = {str: "string", bool: "bool", int: "int"}
    body: dict[str, Any] = {"name": name, "attributes": {k: {kinds[type(v)]: v} for k, v in attributes.items()}}
    if taints:
        body["taints"] = list(taints)
    if counters:
        body["consumesCounters"] = [
            {"counterSet": s, "counters": {k: {"value": str(v)} for k, v in c.items()}} for s, c in counters.items()
        ]
    if capacity:
        body["capacity"] = {k: {"value": v} for k, v in capacity.items()}
    return body


def piece(
    name: str, devices: Any = (), *, pool: str = "p", generation: int = 1, of: int = 1, **spec: Any
) -> dict[str, Any]:
    where = (
        spec
        if {"nodeName", "allNodes", "nodeSelector", "perDeviceNodeSelection"} & set(spec)
        else {**spec, "nodeName": "n1"}
    )
    return {
        "metadata": {"name": name},
        "spec": {
            "driver": DRIVER,
            "pool": {"name": pool, "generation": generation, "resourceSliceCount": of},
            "devices": list(devices),
            **where,
        },
    }


def klass(name: str = "gpu", *expressions: str, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {"selectors": [{"cel": {"expression": e}} for e in expressions], **spec},
    }


def wanted(name: str = "r", *expressions: str, count: int = 1, klass: str = "gpu", **spec: Any) -> dict[str, Any]:
    selectors = [{"cel": {"expression": e}} for e in expressions]
    number = {} if spec.get("allocationMode") == "All" else {"count": count, "allocationMode": "ExactCount"}
    return {"name": name, "exactly": {"deviceClassName": klass, "selectors": selectors, **number, **spec}}


def claim(*requests: dict[str, Any], name: str = "c", constraints: Any = (), config: Any = ()) -> dict[str, Any]:
    devices = {"requests": list(requests), "constraints": list(constraints), "config": list(config)}
    return {"metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}"}, "spec": {"devices": devices}}


def attribute(name: str) -> str:
    return f'device.attributes["{DRIVER}"].{name}'


class World:
    """What there is; ``give`` allocates and remembers."""

    def __init__(self, *slices: dict[str, Any], classes: Any = None) -> None:
        self.shelf = Shelf()
        for each in slices:
            self.shelf.put(each)
        self.classes = {c["metadata"]["name"]: c for c in (classes or [klass()])}
        self.taken = Taken()
        self.ids = count()

    def try_(self, *claims: dict[str, Any], node: Any = NODE, **options: Any) -> Found | None:
        pools = self.shelf.pools(node)
        return allocate(claims, node, pools, self.taken, self.classes.get, lambda: f"id-{next(self.ids)}", **options)

    def give(self, *claims: dict[str, Any], node: Any = NODE) -> list[list[str]] | None:
        """Names of the devices of each claim."""
        found = self.try_(*claims, node=node)
        if found is None:
            return None
        for one, allocation in zip(claims, found.allocations, strict=True):
            self.taken.put(one["metadata"]["uid"], allocation)
        return [[r["device"] for r in a["devices"]["results"]] for a in found.allocations]

"""ResourceSlices and DeviceClasses for GPUs, in the names of NVIDIA's DRA driver (``gpu.nvidia.com``). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from glebe.kube.objects import Object
from glebe.kube.quantity import format_binary
from glebe.kube.resources import Resource
from glebe.node.devices.inventory import Gpu, Inventory, MigDevice
from glebe.node.devices.topology import domains

DRIVER = "gpu.nvidia.com"
SLICES = Resource("resource.k8s.io", "v1", "resourceslices", "ResourceSlice", namespaced=False)
DEVICE_CLASSES = Resource("resource.k8s.io", "v1", "deviceclasses", "DeviceClass", namespaced=False)
CLAIMS = Resource("resource.k8s.io", "v1", "resourceclaims", "ResourceClaim")
ISLAND = "nvlink.glebe.dev/island"
LINKS = "nvlink.glebe.dev/links"
_MOST = 64
"""Devices of one slice: as many as may have taints."""
_NOT_IN_NAMES = re.compile(r"[^a-z0-9-]")
Taint = Mapping[str, str]
Taints = Mapping[str, Sequence[Taint]]


def device_name(gpu: Gpu, instance: MigDevice | None = None) -> str:
    """The device's name in its pool."""
    if instance is None:
        return f"gpu-{gpu.minor}"
    profile = _NOT_IN_NAMES.sub("-", instance.profile.lower().replace(".", "")).strip("-")
    name = f"gpu-{gpu.minor}-mig-{profile}-{instance.profile_id}-{instance.start}"
    return name if instance.slices[0] == instance.slices[1] else f"{name}-{instance.compute_instance}"


def names(inventory: Inventory) -> dict[str, str]:
    """The UUIDs of everything that is published, by device name."""
    found: dict[str, str] = {}
    for gpu in inventory.gpus:
        if gpu.mig:
            found.update({device_name(gpu, m): m.uuid for m in gpu.instances})
        else:
            found[device_name(gpu)] = gpu.uuid
    return found


def devices(inventory: Inventory, taints: Taints) -> list[dict[str, Any]]:
    """``spec.devices``: boards without MIG, and the MIG devices of the others. ``taints`` are by UUID."""
    islands = domains(inventory.gpus)
    made: list[dict[str, Any]] = []
    for gpu in inventory.gpus:
        common = _common(inventory, gpu)
        if gpu.mig:
            made += [_instance(gpu, m, common) for m in gpu.instances]
        else:
            made.append(_board(gpu, common, islands.get(gpu.uuid, "")))
    for each in made:
        own = each["attributes"]["uuid"]["string"]
        parent = each["attributes"].get("parentUUID", {}).get("string", "")
        if found := [dict(t) for t in (*taints.get(own, ()), *taints.get(parent, ()))]:
            each["taints"] = found
    return made


def _common(inventory: Inventory, gpu: Gpu) -> dict[str, dict[str, Any]]:
    made: dict[str, dict[str, Any]] = {
        "productName": {"string": gpu.product[:64]},
        "brand": {"string": gpu.brand},
        "architecture": {"string": gpu.architecture},
        "cudaComputeCapability": {"version": _version(".".join(map(str, gpu.compute)))},
        "driverVersion": {"version": _version(inventory.driver)},
        "cudaDriverVersion": {"version": _version(".".join(map(str, inventory.cuda)))},
    }
    if gpu.bus:
        made["resource.kubernetes.io/pciBusID"] = {"string": gpu.bus}
    if gpu.root:
        made["resource.kubernetes.io/pcieRoot"] = {"string": gpu.root}
    if gpu.numa is not None:
        made["resource.kubernetes.io/numaNode"] = {"int": gpu.numa}
    if gpu.addressing:
        made["addressingMode"] = {"string": gpu.addressing}
    return made


def _board(gpu: Gpu, common: dict[str, dict[str, Any]], island: str) -> dict[str, Any]:
    attributes = {"type": {"string": "gpu"}, "uuid": {"string": gpu.uuid}, **common}
    if gpu.links:
        attributes[LINKS] = {"int": sum(gpu.links.values())}
    if island:
        attributes[ISLAND] = {"string": island}
    return {
        "name": device_name(gpu),
        "attributes": attributes,
        "capacity": {"memory": {"value": format_binary(gpu.memory)}},
    }


def _instance(gpu: Gpu, instance: MigDevice, common: dict[str, dict[str, Any]]) -> dict[str, Any]:
    capacity = {name: {"value": str(amount)} for name, amount in instance.engines.items()}
    capacity["memory"] = {"value": format_binary(instance.memory)}
    for place in range(instance.start, instance.start + instance.size):
        capacity[f"memorySlice{place}"] = {"value": "1"}
    return {
        "name": device_name(gpu, instance),
        "attributes": {
            "type": {"string": "mig"},
            "uuid": {"string": instance.uuid},
            "parentUUID": {"string": gpu.uuid},
            "profile": {"string": instance.profile},
            **common,
        },
        "capacity": capacity,
    }


def _version(text: str) -> str:
    """As a semantic version: three numbers without leading zeros."""
    parts = [str(int(part)) if part.isdigit() else "0" for part in text.split(".")[:3]]
    return ".".join([*parts, "0", "0", "0"][:3])


def slices(node: str, uid: str, made: Sequence[Mapping[str, Any]], generation: int) -> list[Object]:
    """The slices of the node's pool, owned by the Node with ``uid``."""
    parts = [made[start : start + _MOST] for start in range(0, len(made), _MOST)]
    owner = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid, "controller": True}
    return [
        {
            "apiVersion": SLICES.api_version,
            "kind": SLICES.kind,
            "metadata": {"name": f"{node}-{DRIVER}-{number}", "ownerReferences": [owner]},
            "spec": {
                "driver": DRIVER,
                "nodeName": node,
                "pool": {"name": node, "generation": generation, "resourceSliceCount": len(parts)},
                "devices": [dict(each) for each in part],
            },
        }
        for number, part in enumerate(parts)
    ]


def classes() -> list[Object]:
    """The DeviceClasses that NVIDIA's driver comes with."""
    made: list[Object] = []
    for name, kind in ((DRIVER, "gpu"), ("mig.nvidia.com", "mig")):
        text = f"device.driver == '{DRIVER}' && device.attributes['{DRIVER}'].type == '{kind}'"
        meta = {"apiVersion": DEVICE_CLASSES.api_version, "kind": DEVICE_CLASSES.kind, "metadata": {"name": name}}
        made.append({**meta, "spec": {"selectors": [{"cel": {"expression": text}}]}})
    return made

"""What a container with a root of its own needs for its GPUs: device nodes, and the driver's libraries and tools."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from glebe.node.contracts import Mount
from glebe.node.devices.grants import Access
from glebe.node.devices.inventory import Gpu, Inventory, MigDevice

log = logging.getLogger("glebe.node")

_CDI = ("/etc/cdi", "/var/run/cdi")
_KINDS = ("nvidia.com/gpu",)
_CONTROLS = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset")
_CAPABILITIES = "/dev/nvidia-caps/nvidia-cap{}"
_LIBRARIES = (
    *("libcuda.so", "libnvidia-ml.so", "libnvidia-ptxjitcompiler.so", "libnvidia-nvvm.so", "libcudadebugger.so"),
    *("libnvidia-gpucomp.so", "libnvidia-opencl.so", "libnvidia-cfg.so", "libnvidia-pkcs11.so"),
)
_PLACES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib/wsl/lib")
_TOOLS = ("/usr/bin/nvidia-smi", "/usr/bin/nvidia-debugdump", "/usr/bin/nvidia-cuda-mps-control")


def access(inventory: Inventory, ids: Sequence[str], root: str = "") -> Access:
    """For devices with these UUIDs: as the machine's CDI specification says, else what is found at the usual places.

    ``root``: where the machine's files are, for tests.
    """
    if not ids:
        return Access()
    found = _from_cdi(inventory, ids, root)
    return found if found is not None else _plain(inventory, ids, root)


# --- the Container Device Interface


def _from_cdi(inventory: Inventory, ids: Sequence[str], root: str) -> Access | None:
    """The edits of the specification for all of the devices; ``None``: there is none, or not for all."""
    for spec in _specs(root):
        devices = {str(d.get("name")): d.get("containerEdits") or {} for d in spec.get("devices") or ()}
        edits = [spec.get("containerEdits") or {}]
        for uuid in ids:
            chosen = next((devices[name] for name in _cdi_names(inventory, uuid) if name in devices), None)
            if chosen is None:
                break
            edits.append(chosen)
        else:
            return _join(edits)
    return None


def _specs(root: str) -> Iterator[dict[str, Any]]:
    for place in _CDI:
        for path in sorted(Path(root + place).glob("*")):
            if path.suffix not in (".json", ".yaml"):
                continue
            try:
                spec = _read(path)
            except (OSError, ValueError) as error:
                log.warning("the CDI specification %s cannot be read: %s", path, error)
                continue
            if isinstance(spec, dict) and spec.get("kind") in _KINDS:
                yield spec


def _read(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return json.loads(text)
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def _cdi_names(inventory: Inventory, uuid: str) -> tuple[str, ...]:
    """As ``nvidia-ctk cdi generate`` may have named it: by UUID or by index (``0``, ``0:1``)."""
    for gpu in inventory.gpus:
        if gpu.uuid == uuid:
            return uuid, str(gpu.index)
        for place, instance in enumerate(gpu.instances):
            if instance.uuid == uuid:
                return uuid, f"{gpu.index}:{place}"
    return (uuid,)


def _join(edits: Iterable[Mapping[str, Any]]) -> Access:
    """Hooks are left out: they would run as the agent, and what they do (links, the loader's cache) is done without
    them by mounting libraries under the names that programs look for."""
    nodes: list[str] = []
    mounts: list[Mount] = []
    env: dict[str, str] = {}
    for edit in edits:
        nodes += [str(n.get("hostPath") or n["path"]) for n in edit.get("deviceNodes") or ()]
        for mount in edit.get("mounts") or ():
            read_only = "ro" in (mount.get("options") or ())
            mounts.append(Mount(str(mount["hostPath"]), str(mount["containerPath"]), read_only))
        for text in edit.get("env") or ():
            name, _, value = str(text).partition("=")
            if not name.startswith("NVIDIA_VISIBLE"):
                env[name] = value
    return Access(tuple(dict.fromkeys(nodes)), tuple(dict.fromkeys(mounts)), env)


# --- without a specification


def _plain(inventory: Inventory, ids: Sequence[str], root: str) -> Access:
    by_id = inventory.by_id()
    nodes = [node for node in _CONTROLS if Path(root + node).exists()]
    for uuid in ids:
        found = by_id.get(uuid)
        gpu = found if isinstance(found, Gpu) else by_id.get(found.parent) if found is not None else None
        if isinstance(gpu, Gpu):
            nodes.append(f"/dev/nvidia{gpu.minor}")
        if isinstance(found, MigDevice) and isinstance(gpu, Gpu):
            nodes += _capabilities(gpu, found, root)
    return Access(tuple(dict.fromkeys(nodes)), tuple(_files(root)))


def _capabilities(gpu: Gpu, instance: MigDevice, root: str) -> list[str]:
    """The nodes that allow the use of a GPU instance and its compute instance."""
    base = Path(f"{root}/proc/driver/nvidia/capabilities/gpu{gpu.minor}/mig/gi{instance.gpu_instance}")
    found = []
    for path in (base / "access", base / f"ci{instance.compute_instance}" / "access"):
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        found += [_CAPABILITIES.format(line.split()[-1]) for line in lines if line.startswith("DeviceFileMinor")]
    return found


def _files(root: str) -> Iterator[Mount]:
    for place in _PLACES:
        for library in _LIBRARIES:
            for path in sorted(Path(root + place).glob(f"{library}*")):
                yield Mount(str(path), str(path).removeprefix(root), True)
    for tool in _TOOLS:
        if Path(root + tool).exists():
            yield Mount(root + tool, tool, True)

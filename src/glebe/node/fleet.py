"""The fleet file: which nodes there are.

``pools`` are simulated nodes, ``local`` is this machine as a real node (process runtime). See ``examples/`` and
``docs/`` for a commented file.
"""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from glebe.gpu import catalogue
from glebe.kube.objects import EVERY
from glebe.node.contracts import RUNTIMES
from glebe.node.devices.inventory import STRATEGIES
from glebe.node.simulated import runtimes
from glebe.node.spec import BLOCK_LABEL, GPU_RESOURCE, POOL_LABEL, RACK_LABEL, ROOT, NodeSpec, standard_labels
from glebe.node.values.fields import Fields, FleetError, unique

__all__ = ["DEFAULT_FLEET", "Fleet", "FleetError", "load_fleet", "local_spec", "parse_fleet"]

API_VERSION = "glebe.dev/v1alpha1"
MAX_PODS = "110"

#: The fleet of ``glebe up`` without ``--fleet``: 16 simulated 8-GPU H100 nodes in 4 racks, and this machine.
DEFAULT_FLEET = """\
apiVersion: glebe.dev/v1alpha1
kind: Fleet
pools:
- name: h100
  count: 16
  gpu: {model: h100-sxm5-80gb, count: 8}
  cpu: "192"
  memory: 2Ti
  topology: {nodesPerRack: 4, racksPerBlock: 4}
local: {enabled: true, name: local}
"""

_DISK = "1Ti"  # of a simulated node, for pods that ask for some ephemeral-storage


@dataclass(frozen=True, slots=True)
class Fleet:
    """The simulated nodes in the order of the file, and this machine's node if it takes part."""

    nodes: tuple[NodeSpec, ...]
    local: NodeSpec | None = None


def load_fleet(path: Path | str) -> Fleet:
    """Read a fleet file.

    :raises FleetError: when it cannot be read or used; the message names file, field and remedy.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise FleetError(
            str(path), "", f"cannot read the fleet file: {why}", "check the path given to --fleet"
        ) from None
    return parse_fleet(text, str(path))


def parse_fleet(text: str, file: str = "fleet") -> Fleet:
    """Parse the text of a fleet file; ``file`` is its name in errors.

    :raises FleetError: see :func:`load_fleet`.
    """
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise FleetError(file, where, f"not YAML: {getattr(error, 'problem', error)}", "correct the syntax") from None
    if document is None:
        raise FleetError(file, "", "the file is empty", f'start it with "apiVersion: {API_VERSION}", "kind: Fleet"')
    root = Fields(file, "", document)
    root.only("apiVersion", "kind", "metadata", "pools", "local")
    for key, wanted in (("apiVersion", API_VERSION), ("kind", "Fleet")):
        if root.text(key, "") != wanted:
            raise root.error(key, f'must be "{wanted}"', f'write "{key}: {wanted}"')
    pools = [Fields(file, f"pools[{i}]", value) for i, value in enumerate(root.items("pools"))]
    unique(file, [(pool.at("name"), pool.name("name")) for pool in pools])
    nodes = [node for pool in pools for node in _pool(pool)]
    local = _local(root.child("local"))
    if not nodes and local is None and "pools" not in document:
        remedy = "add a pool, or local: {enabled: true}; pools: [] when all nodes come from elsewhere"
        raise FleetError(file, "", "the fleet has no nodes", remedy)
    named = [(f"pools (node {node.name})", node.name) for node in nodes]
    unique(file, named + ([("local.name", local.name)] if local else []))
    return Fleet(tuple(nodes), local)


def _pool(pool: Fields) -> list[NodeSpec]:
    pool.only(
        "name", "count", "gpu", "cpu", "memory", "topology", "labels", "taints", "startDelay", "runTime", "clusters",
        "resourceSlices",
    )  # fmt: skip
    name, count = pool.name("name"), pool.integer("count", low=1)
    capacity = {"cpu": pool.quantity("cpu", "64"), "memory": pool.quantity("memory", "512Gi"), "pods": MAX_PODS}
    capacity["ephemeral-storage"] = _DISK
    labels = {POOL_LABEL: name}
    labels.update(_gpu(pool, capacity))
    labels.update(pool.string_map("labels"))
    topology = pool.child("topology")
    per_rack, per_block = 0, 0
    if topology is not None:
        topology.only("nodesPerRack", "racksPerBlock")
        per_rack = topology.integer("nodesPerRack", low=1)
        per_block = topology.integer("racksPerBlock", max(1, -(-count // per_rack)), low=1)
    base = NodeSpec(
        name=name,
        capacity=capacity,
        taints=tuple(_taint(pool, i, value) for i, value in enumerate(pool.items("taints"))),
        start_delay=_run_time(pool, "startDelay", "1s", runtimes.check),
        run_time=_run_time(pool, "runTime", "60s", runtimes.check),
        clusters=_clusters(pool),
        resource_slices=pool.boolean("resourceSlices", False),
    )
    width = max(2, len(str(count - 1)))
    nodes = []
    for index in range(count):
        node_name = f"{name}-{index:0{width}d}"
        place: dict[str, str] = {}
        if per_rack:
            rack = index // per_rack
            place = {BLOCK_LABEL: f"{name}-block-{rack // per_block:02d}", RACK_LABEL: f"{name}-rack-{rack:02d}"}
        own = {**standard_labels(node_name, "simulated"), **place, **labels}
        nodes.append(replace(base, name=node_name, labels=own, address=_address(index)))
    return nodes


def _clusters(pool: Fields) -> tuple[str, ...]:
    """The logical clusters in which the pool's nodes are."""
    value = pool.value.get("clusters")
    if value is None:
        return (ROOT,)
    if value == EVERY:
        return (EVERY,)
    names = pool.items("clusters")
    if not names:
        raise pool.error(
            "clusters", "is empty", f'name logical clusters, or write "{EVERY}" for all; leave it out for {ROOT}'
        )
    unique(pool.file, [(pool.at(f"clusters[{i}]"), str(name)) for i, name in enumerate(names)])
    return tuple(
        Fields(pool.file, pool.at(f"clusters[{i}]"), {"name": name}).name("name") for i, name in enumerate(names)
    )


def _address(index: int) -> str:
    """A made-up host address in 10.0.0.0/8; pods on it do not listen anywhere."""
    return f"10.{index >> 16 & 255}.{index >> 8 & 255}.{index & 255}"


def _gpu(pool: Fields, capacity: dict[str, str]) -> dict[str, str]:
    gpu = pool.child("gpu")
    if gpu is None:
        return {}
    gpu.only("model", "count")
    model, count = gpu.text("model"), gpu.integer("count", low=1, high=72)
    try:
        board = catalogue.find(model)
    except catalogue.UnknownBoard as error:
        known = f"known models are: {', '.join(catalogue.BOARDS)}"
        hint = f"did you mean {' or '.join(error.suggestions)}? {known}" if error.suggestions else known
        raise gpu.error("model", f'unknown GPU model "{model}"', hint) from None
    capacity[GPU_RESOURCE] = str(count)
    return catalogue.node_labels(board, count)


def _taint(pool: Fields, index: int, value: Any) -> dict[str, str]:
    taint = Fields(pool.file, pool.at(f"taints[{index}]"), value)
    taint.only("key", "value", "effect")
    out = {"key": taint.text("key"), "value": taint.text("value", ""), "effect": taint.text("effect", "NoSchedule")}
    effects = ("NoSchedule", "PreferNoSchedule", "NoExecute")
    if out["effect"] not in effects:
        raise taint.error("effect", f'"{out["effect"]}" is not an effect', f"use one of {', '.join(effects)}")
    return {key: text for key, text in out.items() if text}


def _run_time(pool: Fields, key: str, default: str, use: Any) -> str:
    value = pool.value.get(key, default)
    text = value if isinstance(value, str) else str(value)
    try:
        use(text)
    except ValueError as error:
        raise pool.error(key, str(error).partition(": ")[0], runtimes.HELP) from None
    return text


def _local(local: Fields | None) -> NodeSpec | None:
    if local is None:
        return None
    local.only("enabled", "name", "cpu", "memory", "labels", "taints", "gpus", "migStrategy", "hostPaths", "runtime")
    if not local.boolean("enabled", True):
        return None
    machine = local_spec(local.name("name", "local"))
    capacity = dict(machine.capacity)
    for key in ("cpu", "memory"):
        capacity[key] = local.quantity(key, capacity[key])
    taints = tuple(_taint(local, i, value) for i, value in enumerate(local.items("taints")))
    gpus, found = _local_gpus(local), dict(machine.labels)
    if gpus is not None:
        capacity[GPU_RESOURCE] = str(gpus)
    if gpus == 0:
        del capacity[GPU_RESOURCE]
        found = {key: value for key, value in found.items() if not key.startswith("nvidia.com/")}
    labels = {**found, **local.string_map("labels")}
    strategy = _mig_strategy(local)
    return replace(
        machine,
        capacity=capacity,
        labels=labels,
        taints=taints,
        gpus=gpus,
        mig_strategy=strategy,
        host_paths=_host_paths(local),
        runtime=_runtime(local),
    )


def _runtime(local: Fields) -> str:
    """What pods run in that name no RuntimeClass."""
    runtime = local.text("runtime", RUNTIMES[0])
    if runtime not in RUNTIMES:
        raise local.error("runtime", f'"{runtime}" is no runtime', f"use one of {', '.join(RUNTIMES)}")
    return runtime


def _host_paths(local: Fields) -> tuple[str, ...] | None:
    """Below which paths pods may have hostPath volumes; ``None``: anywhere."""
    if local.value.get("hostPaths") is None:
        return None
    paths = local.items("hostPaths")
    for number, path in enumerate(paths):
        if not isinstance(path, str) or not path.startswith("/"):
            remedy = "write an absolute path such as /data; [] allows none, and without the field all are allowed"
            raise local.error(f"hostPaths[{number}]", f"must be an absolute path, not {path!r}", remedy)
    return tuple(paths)


def _local_gpus(local: Fields) -> int | None:
    """How many GPUs the file says there are; ``None``: those that are found."""
    return None if local.value.get("gpus", "auto") == "auto" else local.integer("gpus", high=72)


def _mig_strategy(local: Fields) -> str:
    strategy = local.text("migStrategy", STRATEGIES[0])
    if strategy not in STRATEGIES:
        raise local.error("migStrategy", f'"{strategy}" is no strategy', f"use one of {', '.join(STRATEGIES)}")
    return strategy


def local_spec(name: str = "local") -> NodeSpec:
    """This machine as a node: its processors, memory and NVIDIA GPUs (as the driver lists them under /proc)."""
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    labels = standard_labels(name, "process", arch)
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    disk = shutil.disk_usage("/").total // 1024
    capacity = {"cpu": str(os.cpu_count() or 1), "memory": f"{pages * page // 1024}Ki", "pods": MAX_PODS}
    capacity["ephemeral-storage"] = f"{disk}Ki"
    gpus = local_gpus()
    if gpus:
        capacity[GPU_RESOURCE] = str(len(gpus))
        board = catalogue.by_product(gpus[0].replace(" ", "-"))
        if board is not None:
            labels.update(catalogue.node_labels(board, len(gpus)))
    info = {"architecture": arch, "kernelVersion": platform.release(), "osImage": _os_name()}
    return NodeSpec(name=name, capacity=capacity, labels=labels, start_delay="0", info=info)


def local_gpus(root: Path = Path("/proc/driver/nvidia/gpus")) -> list[str]:
    """The model names of this machine's NVIDIA GPUs, e.g. ``NVIDIA H200``, in the order of their bus addresses."""
    models = []
    for info in sorted(root.glob("*/information")):
        text = info.read_text(encoding="utf-8", errors="replace")
        models.append(next((x.split(":", 1)[1].strip() for x in text.splitlines() if x.startswith("Model:")), "GPU"))
    return models


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"

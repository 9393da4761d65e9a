"""Node labels under the names of NVIDIA's GPU feature discovery. Pure."""

from __future__ import annotations

from glebe.node.devices.inventory import WHOLE, Gpu, Inventory, MigDevice, single_fault

_FAMILIES = {
    1: "tesla", 2: "fermi", 3: "kepler", 5: "maxwell", 6: "pascal", 9: "hopper", 10: "blackwell", 12: "blackwell",
}  # fmt: skip
_ENGINES = {
    "engines.copy": "copyEngines",
    "engines.decoder": "decoders",
    "engines.encoder": "encoders",
    "engines.jpeg": "jpegEngines",
    "engines.ofa": "ofaEngines",
}


def family(compute: tuple[int, int]) -> str:
    """The architecture's name by CUDA compute capability."""
    if compute[0] == 7:
        return "volta" if compute[1] < 5 else "turing"
    if compute[0] == 8:
        return "ada-lovelace" if compute[1] >= 9 else "ampere"
    return _FAMILIES.get(compute[0], "undefined")


def node_labels(inventory: Inventory, strategy: str) -> dict[str, str]:
    """Labels of a node with these GPUs; none without."""
    if not inventory.gpus:
        return {}
    return {
        "nvidia.com/gpu.present": "true",
        **_versions(inventory),
        **_capabilities(inventory),
        **_boards(inventory.gpus),
        **({} if strategy == "none" else _mig(inventory, strategy)),
        **_clique(inventory.gpus),
    }


def _versions(inventory: Inventory) -> dict[str, str]:
    made: dict[str, str] = {}
    if inventory.driver:
        major, minor, revision = [*inventory.driver.split("."), "", ""][:3]
        made = {
            "nvidia.com/cuda.driver-version.full": inventory.driver,
            "nvidia.com/cuda.driver-version.major": major,
            "nvidia.com/cuda.driver-version.minor": minor,
            "nvidia.com/cuda.driver-version.revision": revision,
            "nvidia.com/cuda.driver.major": major,
            "nvidia.com/cuda.driver.minor": minor,
            "nvidia.com/cuda.driver.rev": revision,
        }
    if inventory.cuda[0]:
        major, minor = map(str, inventory.cuda)
        made |= {
            "nvidia.com/cuda.runtime-version.full": f"{major}.{minor}",
            "nvidia.com/cuda.runtime-version.major": major,
            "nvidia.com/cuda.runtime-version.minor": minor,
            "nvidia.com/cuda.runtime.major": major,
            "nvidia.com/cuda.runtime.minor": minor,
        }
    return made


def _capabilities(inventory: Inventory) -> dict[str, str]:
    modes = {"graphics" if gpu.display else "compute" for gpu in inventory.gpus}
    return {
        "nvidia.com/mig.capable": str(any(gpu.mig_capable for gpu in inventory.gpus)).lower(),
        "nvidia.com/mps.capable": "false",
        "nvidia.com/gpu.sharing-strategy": "none",
        "nvidia.com/gpu.mode": modes.pop() if len(modes) == 1 else "unknown",
    }


def _boards(gpus: tuple[Gpu, ...]) -> dict[str, str]:
    """Of the boards of one product: with several, that of the last one without MIG, as upstream has it."""
    shown = next((g for g in reversed(gpus) if not g.mig), gpus[-1])
    made = {
        "product": _word(shown.product),
        "count": str(sum(1 for g in gpus if g.product == shown.product)),
        "replicas": "0" if shown.mig else "1",
    }
    if shown.memory:
        made["memory"] = str(shown.memory >> 20)
    if shown.compute[0]:
        made |= {
            "family": family(shown.compute),
            "compute.major": str(shown.compute[0]),
            "compute.minor": str(shown.compute[1]),
        }
    return {f"{WHOLE}.{name}": value for name, value in made.items()}


def _mig(inventory: Inventory, strategy: str) -> dict[str, str]:
    made = {"nvidia.com/mig.strategy": strategy}
    enabled = [gpu for gpu in inventory.gpus if gpu.mig]
    if not enabled:
        return made
    if strategy == "single" and single_fault(inventory):
        product = f"{_word(enabled[0].product)}-MIG-INVALID"
        return made | {
            f"{WHOLE}.{name}": value
            for name, value in (("product", product), ("count", "0"), ("replicas", "0"), ("memory", "0"))
        }
    kinds: dict[str, list[tuple[Gpu, MigDevice]]] = {}
    for gpu in enabled:
        for instance in gpu.instances:
            kinds.setdefault(WHOLE if strategy == "single" else instance.resource, []).append((gpu, instance))
    for resource, found in kinds.items():
        made |= {f"{resource}.{name}": value for name, value in _instance(*found[0], len(found)).items()}
    return made


def _instance(gpu: Gpu, instance: MigDevice, count: int) -> dict[str, str]:
    made = {
        "product": f"{_word(gpu.product)}-MIG-{_word(instance.profile.replace('+', '.'))}",
        "count": str(count),
        "replicas": "1",
        "memory": str(instance.memory >> 20),
        "multiprocessors": str(instance.engines.get("multiprocessors", 0)),
        "slices.gi": str(instance.slices[0]),
        "slices.ci": str(instance.slices[1]),
    }
    return made | {name: str(instance.engines.get(engine, 0)) for name, engine in _ENGINES.items()}


def _clique(gpus: tuple[Gpu, ...]) -> dict[str, str]:
    found = {gpu.clique for gpu in gpus}
    (only,) = found if len(found) == 1 else ("",)
    return {"nvidia.com/gpu.clique": only} if only else {}


def _word(text: str) -> str:
    return text.replace(" ", "-")

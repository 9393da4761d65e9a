"""Which of the free GPUs a pod gets: those that are connected best, so that those that stay are, too. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from math import comb

from glebe.node.devices.inventory import SWITCH, Gpu

_MOST = 2_000  # sets that are compared; with more, sets are grown instead
_LINK, _ROOT, _NUMA = 100, 20, 10


def closeness(one: Gpu, other: Gpu) -> int:
    """How well two GPUs are connected: NVLinks count most, then the same PCIe root, then the same NUMA node."""
    direct = max(one.links.get(other.bus, 0), other.links.get(one.bus, 0))
    switched = min(one.links.get(SWITCH, 0), other.links.get(SWITCH, 0))
    score = _LINK * max(direct, switched)
    if one.root and one.root == other.root:
        score += _ROOT
    if one.numa is not None and one.numa == other.numa:
        score += _NUMA
    return score


def choose(free: Sequence[Gpu], wanted: int) -> list[Gpu]:
    """``wanted`` of ``free``, in the order of ``free``. Call with enough of them."""
    if wanted >= len(free) or wanted <= 0:
        return list(free[: max(wanted, 0)])
    pairs = {(a.uuid, b.uuid): closeness(a, b) for a, b in combinations(free, 2)}
    if comb(len(free), wanted) <= _MOST:
        sets: Iterable[tuple[Gpu, ...]] = combinations(free, wanted)
    else:
        sets = (_grow(seed, free, wanted, pairs) for seed in free)

    def worth(chosen: tuple[Gpu, ...]) -> tuple[int, int]:
        taken = {gpu.uuid for gpu in chosen}
        return _sum(chosen, pairs), _sum([g for g in free if g.uuid not in taken], pairs)

    best = max(sets, key=worth)  # the first of equals
    taken = {gpu.uuid for gpu in best}
    return [gpu for gpu in free if gpu.uuid in taken]


def _sum(gpus: Sequence[Gpu], pairs: dict[tuple[str, str], int]) -> int:
    return sum(pairs[a.uuid, b.uuid] for a, b in combinations(gpus, 2))


def _grow(seed: Gpu, free: Sequence[Gpu], wanted: int, pairs: dict[tuple[str, str], int]) -> tuple[Gpu, ...]:
    """From one GPU on, always the one that is closest to those that are there."""
    order = {gpu.uuid: place for place, gpu in enumerate(free)}
    chosen = [seed]

    def near(gpu: Gpu) -> int:
        pair = ((gpu, c) if order[gpu.uuid] < order[c.uuid] else (c, gpu) for c in chosen)
        return sum(pairs[a.uuid, b.uuid] for a, b in pair)

    while len(chosen) < wanted:
        chosen.append(max((g for g in free if g not in chosen), key=near))
    return tuple(sorted(chosen, key=lambda gpu: order[gpu.uuid]))


def domains(gpus: Sequence[Gpu]) -> dict[str, str]:
    """For each GPU with NVLinks the name of its island, all of which can reach each other over them."""
    found: dict[str, str] = {}
    for gpu in gpus:
        if gpu.uuid in found or not gpu.links:
            continue
        island, edge = [gpu], [gpu]
        while edge:
            here = edge.pop()
            for other in gpus:
                if other not in island and closeness(here, other) >= _LINK:
                    island.append(other)
                    edge.append(other)
        if len(island) > 1:
            name = f"island-{min(g.index for g in island)}"
            found.update({g.uuid: name for g in island})
    return found

"""The GPU boards that Glebe knows by name.

A fleet file says ``model: h100-sxm5-80gb``; nodes carry the labels that NVIDIA's GPU feature discovery would write for
that board. Facts follow public NVIDIA data sheets and the output of the tools (``nvidia-smi`` memory totals).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Board:
    """One kind of GPU.

    ``product`` is the value of the label ``nvidia.com/gpu.product``; ``memory_mib`` is what the driver reports as total
    memory; ``compute`` is the CUDA compute capability; ``mig_slices`` is the number of MIG compute slices (0: no MIG).
    """

    model: str
    product: str
    memory_mib: int
    family: str
    compute: tuple[int, int]
    mig_slices: int = 0
    form: str = "sxm"


class UnknownBoard(LookupError):
    """No board has that name; ``suggestions`` are the closest that exist."""

    def __init__(self, model: str, suggestions: tuple[str, ...]) -> None:
        super().__init__(f'unknown GPU model "{model}"')
        self.model = model
        self.suggestions = suggestions


_ALL = (
    Board("v100-sxm2-32gb", "Tesla-V100-SXM2-32GB", 32768, "volta", (7, 0)),
    Board("t4-16gb", "Tesla-T4", 15360, "turing", (7, 5), form="pcie"),
    Board("a10-24gb", "NVIDIA-A10", 23028, "ampere", (8, 6), form="pcie"),
    Board("a30-24gb", "NVIDIA-A30", 24576, "ampere", (8, 0), mig_slices=4, form="pcie"),
    Board("a100-pcie-40gb", "NVIDIA-A100-PCIE-40GB", 40960, "ampere", (8, 0), mig_slices=7, form="pcie"),
    Board("a100-pcie-80gb", "NVIDIA-A100-80GB-PCIe", 81920, "ampere", (8, 0), mig_slices=7, form="pcie"),
    Board("a100-sxm4-40gb", "NVIDIA-A100-SXM4-40GB", 40960, "ampere", (8, 0), mig_slices=7),
    Board("a100-sxm4-80gb", "NVIDIA-A100-SXM4-80GB", 81920, "ampere", (8, 0), mig_slices=7),
    Board("l4-24gb", "NVIDIA-L4", 23034, "ada-lovelace", (8, 9), form="pcie"),
    Board("l40s-48gb", "NVIDIA-L40S", 46068, "ada-lovelace", (8, 9), form="pcie"),
    Board("h100-pcie-80gb", "NVIDIA-H100-PCIe", 81559, "hopper", (9, 0), mig_slices=7, form="pcie"),
    Board("h100-nvl-94gb", "NVIDIA-H100-NVL", 95830, "hopper", (9, 0), mig_slices=7, form="pcie"),
    Board("h100-sxm5-80gb", "NVIDIA-H100-80GB-HBM3", 81559, "hopper", (9, 0), mig_slices=7),
    Board("h200-sxm5-141gb", "NVIDIA-H200", 143771, "hopper", (9, 0), mig_slices=7),
    Board("b200-sxm6-180gb", "NVIDIA-B200", 183359, "blackwell", (10, 0), mig_slices=7),
)

#: Every board by its model name, in the order of age.
BOARDS: Mapping[str, Board] = MappingProxyType({board.model: board for board in _ALL})


def find(model: str) -> Board:
    """The board called ``model``: its full name in any case, or a prefix that fits one board only (``h200``).

    :raises UnknownBoard: when no board, or more than one, fits; the suggestions name the candidates.
    """
    wanted = model.strip().lower()
    if wanted in BOARDS:
        return BOARDS[wanted]
    starting = [name for name in BOARDS if wanted and name.startswith(wanted + "-")]
    if len(starting) == 1:
        return BOARDS[starting[0]]
    close = starting or difflib.get_close_matches(wanted, BOARDS, n=3, cutoff=0.5)
    raise UnknownBoard(model, tuple(close))


def by_product(product: str) -> Board | None:
    """The board behind a value of ``nvidia.com/gpu.product``, with the suffixes of sharing and MIG stripped."""
    for board in _ALL:
        rest = product.removeprefix(board.product)
        if rest != product and (not rest or rest.startswith(("-SHARED", "-MIG-"))):
            return board
    return None


def node_labels(board: Board, count: int) -> dict[str, str]:
    """The node labels that GPU feature discovery writes for ``count`` whole boards."""
    return {
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": board.product,
        "nvidia.com/gpu.memory": str(board.memory_mib),
        "nvidia.com/gpu.count": str(count),
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/gpu.family": board.family,
        "nvidia.com/gpu.compute.major": str(board.compute[0]),
        "nvidia.com/gpu.compute.minor": str(board.compute[1]),
        "nvidia.com/mig.capable": "true" if board.mig_slices else "false",
    }

"""ResourceSlices of simulated nodes whose pool says ``resourceSlices: true``: claims can be tried without hardware."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable, Iterable

from glebe.gpu.catalogue import Board, by_product
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, is_deleting
from glebe.kube.resources import NODES
from glebe.node.devices.inventory import SWITCH, Gpu, Inventory
from glebe.node.devices.labels import node_labels
from glebe.node.devices.publisher import Publisher
from glebe.node.devices.slices import devices
from glebe.node.spec import GPU_RESOURCE, NodeSpec

_DRIVER, _CUDA = "570.172.08", (12, 8)
_LINKS = 18
_SPACES = re.compile(r"-(?!SXM\d|PCIE-|\d+GB$)")
_ARCHITECTURES = {"ada-lovelace": "Ada Lovelace"}
Lookup = Callable[[ObjectKey], NodeSpec | None]


def inventory_of(board: Board, node: str, count: int) -> Inventory:
    """``count`` boards as a server with NVSwitches (or, on PCIe, without links) has them; UUIDs follow the names."""
    return Inventory(tuple(_gpu(board, node, index, count) for index in range(count)), _DRIVER, _CUDA)


def _gpu(board: Board, node: str, index: int, count: int) -> Gpu:
    digest = hashlib.sha256(f"{node}/{index}".encode()).digest()
    slot = 0x10 + index
    return Gpu(
        uuid=f"GPU-{uuid.UUID(bytes=digest[:16], version=4)}",
        index=index,
        minor=index,
        product=_SPACES.sub(" ", board.product),
        memory=board.memory_mib << 20,
        compute=board.compute,
        brand="Nvidia" if board.product.startswith("NVIDIA") else "Tesla",
        architecture=_ARCHITECTURES.get(board.family, board.family.capitalize()),
        bus=f"0000:{slot:02x}:00.0",
        root=f"pci0000:{0x10 + index // 2 * 2:02x}",
        numa=index * 2 // max(count, 1),
        links={SWITCH: _LINKS} if board.form == "sxm" and count > 1 else {},
        mig_capable=board.mig_slices > 0,
    )


class SimulatedSlices:
    """One controller over the Node objects of all clusters: each node's slice is made when the node is there.

    :param lookup: the specification of a simulated node by its key; ``None``: it is not one.
    """

    def __init__(self, client: Client, env: Env, informers: Informers, lookup: Lookup) -> None:
        self._client = client
        self._lookup = lookup
        self._nodes = informers.get(NODES)
        self._done: dict[ObjectKey, str] = {}  # node -> its uid when its slice was written
        self.controller = Controller("simulated-slices", self.reconcile, env)
        self.controller.watch(self._nodes, when=self._is_new)

    @staticmethod
    def wanted(specs: Iterable[NodeSpec]) -> bool:
        """Whether any node publishes slices."""
        return any(spec.resource_slices for spec in specs)

    def _is_new(self, old: Object | None, new: Object | None) -> bool:
        return new is None or old is None or old["metadata"]["uid"] != new["metadata"]["uid"]

    async def reconcile(self, key: ObjectKey) -> Result | None:
        """Publish what the node has."""
        node, spec = self._nodes.store.get(key), self._lookup(key)
        if node is None or is_deleting(node) or spec is None or not spec.resource_slices:
            self._done.pop(key, None)
            return None
        uid = node["metadata"]["uid"]
        board = by_product(spec.labels.get("nvidia.com/gpu.product", ""))
        if board is None or self._done.get(key) == uid:
            return None
        inventory = inventory_of(board, spec.name, int(spec.capacity.get(GPU_RESOURCE, "0")))
        publisher = Publisher(self._client.at(key.cluster), spec.name)
        publisher.want(devices(inventory, {}), {**_theirs(spec), **node_labels(inventory, "none")})
        await publisher.publish()
        self._done[key] = uid
        return None


def _theirs(spec: NodeSpec) -> dict[str, str]:
    """Labels that the fleet file gives."""
    return {key: value for key, value in spec.labels.items() if key.startswith("nvidia.com/")}

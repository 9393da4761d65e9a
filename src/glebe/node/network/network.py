"""The network of one node's pods: an address for each, names, and Services."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glebe.kube.clock import Env
from glebe.kube.informer import Informers
from glebe.kube.objects import Object
from glebe.node.contracts import PodNetwork
from glebe.node.network.addresses import Addresses


class Network:
    """Where pods are in the network, and how they find each other.

    :param directory: where the node keeps what it remembers about its network; made when needed.
    """

    def __init__(self, informers: Informers, env: Env, node: str, directory: Path) -> None:
        self._informers = informers
        self._env = env
        self._node = node
        self._directory = directory
        self._addresses = Addresses()

    async def start(self) -> None:
        """Find out what this machine allows. Before anything else, once."""

    def restore(self, uid: str, record: Mapping[str, Any]) -> PodNetwork:
        """What the pod was given by an earlier agent (``record``: what :meth:`record` said then)."""
        self._addresses.restore(uid, record["ip"])
        return self._network(uid)

    async def attach(self, pod: Object) -> PodNetwork:
        """The pod's place in the network; the same again when it has one. May be repeated after a crash.

        :raises OSError: the machine refuses.
        """
        self._addresses.allocate(pod["metadata"]["uid"])
        return self._network(pod["metadata"]["uid"])

    def record(self, uid: str) -> dict[str, Any]:
        """What :meth:`restore` needs (kept in the pod's directory)."""
        return {"ip": self._addresses.get(uid) or ""}

    async def detach(self, uid: str) -> None:
        """Undo everything that was done for the pod, also by an earlier agent; unknown uids are fine."""
        self._addresses.release(uid)

    def address(self, uid: str) -> str | None:
        """The pod's address, if it is on this node and has one."""
        return self._addresses.get(uid)

    async def run(self) -> None:
        """Serve names and services until cancelled."""
        await asyncio.Event().wait()

    def _network(self, uid: str) -> PodNetwork:
        address = self._addresses.get(uid) or ""
        return PodNetwork(address, env={"POD_IP": address, "GLEBE_POD_IP": address})

"""The server of one process node, put together: certificate, address, rights, pods.

Nothing of it is imported or opened before the node starts, and what a request needs is imported when one comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.objects import Object
from glebe.node.contracts import PodNetwork
from glebe.node.kubelet import reaching
from glebe.node.kubelet.pods import Pods
from glebe.node.kubelet.statistics import MachineStatistics

if TYPE_CHECKING:
    from glebe.node.kubelet.http import Listener
    from glebe.node.kubelet.server import KubeletServer

log = logging.getLogger("glebe.node.kubelet")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a node's server listens, and the certificate (PEM) that it shows."""

    node: str
    host: str
    port: int
    certificate: bytes


@dataclass(frozen=True, slots=True)
class KubeletOptions:
    """How a node's server knows its clients.

    ``client_ca`` (PEM) signs client certificates; ``trusted`` are certificates (DER) that need no further question;
    ``announce`` is told where the server listens. ``port`` 0: the system chooses.
    """

    client_ca: bytes = b""
    trusted: frozenset[bytes] = frozenset()
    announce: Callable[[Endpoint], None] | None = None
    port: int = 0
    open: bool = field(default=True)
    """Whether to listen at all; without, only the platform in this process reads logs and statistics."""


class Kubelet:
    """
    :param directory: the node's own; keys lie there. :param network: a pod's place by its uid.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        client: Client,
        env: Env,
        pods: Pods,
        network: Callable[[str], PodNetwork | None],
        options: KubeletOptions,
    ) -> None:
        self._name = name
        self._directory = directory
        self._client = client
        self._env = env
        self._network = network
        self._options = options
        self.pods = pods
        self.statistics = MachineStatistics(name, pods, env.clock, directory)

    @contextlib.asynccontextmanager
    async def serving(self, address: str):  # type: ignore[no-untyped-def]
        """Listen on the node's address while the block runs; yields the port, 0 when there is none.

        A node whose address cannot be had runs its pods all the same.
        """
        if not self._options.open:
            yield 0
            return
        try:
            server = await self._start(address)
        except OSError as error:
            log.warning("node %s: nobody can talk to its pods, its server cannot listen: %s", self._name, error)
            yield 0
            return
        try:
            yield server.listener.port
        finally:
            await server.listener.close()

    async def _start(self, address: str) -> KubeletServer:
        """
        :raises OSError: the address cannot be had, or the keys not be written.
        """
        from glebe.node.kubelet.access import Access
        from glebe.node.kubelet.certificate import Certificate
        from glebe.node.kubelet.server import KubeletServer

        certificate = Certificate(self._directory, self._name, address)
        await asyncio.to_thread(certificate.ensure, self._env.clock.now())
        server = KubeletServer(
            self.pods,
            self._env.clock,
            reach=self._reach,
            statistics=self.statistics,
            access=Access(self._client, self._env.clock, self._name, self._options.trusted),
            tls=certificate.context(self._options.client_ca),
        )
        await self._listen(server.listener, address)
        if self._options.announce is not None:
            self._options.announce(Endpoint(self._name, address, server.listener.port, certificate.pem))
        return server

    async def _listen(self, listener: Listener, address: str) -> None:
        """On the port that was asked for, else on that of the last time if it is free."""
        remembered = self._directory / "kubelet.port"
        try:
            last = int(remembered.read_text()) if not self._options.port else 0
        except (OSError, ValueError):
            last = 0
        try:
            await listener.start(address, self._options.port or last)
        except OSError:
            if self._options.port or not last:
                raise
            await listener.start(address, 0)
        remembered.write_text(str(listener.port))

    async def _reach(self, pod: Object, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host = bool(pod["spec"].get("hostNetwork"))
        place = None if host else self._network(pod["metadata"]["uid"])
        address = str((pod.get("status") or {}).get("podIP") or "")
        return await reaching.connect(place or PodNetwork(address), port, of_machine=host)

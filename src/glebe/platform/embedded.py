"""The whole platform in one process: API server, controllers, nodes, ledger.

``async with Platform(config, env) as platform`` is everything that ``glebe up`` runs, without its sockets and files:
those are the caller's (:mod:`glebe.platform.up`). On a memory store and under virtual time the same assembly is the
simulation. Nothing here decides anything; it says which parts there are and what they are built from.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from glebe import workloads
from glebe.apiserver.auth.assembly import Identity
from glebe.apiserver.pods.operations import PodLogs
from glebe.apiserver.proxying.locations import OwnKubelet
from glebe.apiserver.request.routing import ROOT
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import Store
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import Object, ObjectKey, cluster_of
from glebe.kube.transport import Transport
from glebe.metering.controller import controllers as metering
from glebe.node.fleet import Fleet
from glebe.node.kubelet.kubelet import Endpoint, KubeletOptions
from glebe.node.metrics.service import MetricsService
from glebe.node.metrics.stations import Take
from glebe.node.network.options import NetworkOptions
from glebe.node.process.node import ProcessNode
from glebe.node.simulated.nodes import SimulatedNodes
from glebe.node.simulated.scenario import NO_SCENARIO, Scenario
from glebe.node.spec import NodeSpec
from glebe.platform import bootstrap
from glebe.platform.metricsapi import MetricsApi
from glebe.platform.parts import Part, Parts, Runnable, Wiring
from glebe.platform.tenantqueues import TenantQueues
from glebe.platform.visibilityapi import VisibilityApi
from glebe.queueing import versions
from glebe.queueing.assembly import Queueing
from glebe.queueing.configuration import DEFAULT, Configuration
from glebe.queueing.gatekeeping.admission import QueueAdmission
from glebe.queueing.gatekeeping.kindadmission import KindAdmission
from glebe.queueing.measures.assembly import Measures
from glebe.queueing.round.planner import InlinePlanner, Planner
from glebe.queueing.telling.visibility import Visibility
from glebe.queueing.tenants.tenantguard import TenantGuard
from glebe.workloads import identity

#: Puts something between a part and the server: ``(part, transport) -> transport``.
WrapTransport = Callable[[str, Transport], Transport]


@dataclass(frozen=True, slots=True)
class PlatformConfig:
    """What to assemble.

    ``nodes_dir`` is where the process node keeps its containers; without it the fleet's local node is left out (there
    are no real processes in simulated time). ``ledger`` is the ledger's file; without it the ledger is in memory.
    ``root_ca`` (PEM) is published in every namespace. ``network``: how the process node connects its
    pods; on this machine's loopback unless given.
    ``shared_cache`` lets all parts read from one cache: less memory, but a part is then no longer alone in a crash.
    ``queue``: the queue's configuration.
    """

    fleet: Fleet
    nodes_dir: Path | None = None
    ledger: Path | None = None
    shared_cache: bool = False
    root_ca: str = ""
    scenario: Scenario = NO_SCENARIO
    network: NetworkOptions | None = None
    queue: Configuration = DEFAULT


class Platform:
    """One assembled platform. ``client`` has all rights and no faults in its way.

    :param store: where objects live; the platform starts and closes it.
    :param wrap_transport: see :data:`WrapTransport`.
    :param secure: gives the server what it needs to serve others than the platform itself (:mod:`.frontend`).
    :param planner: computes decisions and forecasts; by default in this process.
    """

    def __init__(
        self,
        config: PlatformConfig,
        env: Env,
        store: Store,
        *,
        wrap_transport: WrapTransport | None = None,
        planner: Planner | None = None,
        secure: Callable[[ApiServer], Identity] | None = None,
    ) -> None:
        self.config = config
        self.env = env
        self.planner = planner or InlinePlanner()
        self._wrap = wrap_transport
        self._simulated: SimulatedNodes | None = None
        self._simulated_names = frozenset(spec.name for spec in config.fleet.nodes)
        self._process: ProcessNode | None = None
        self._admission = QueueAdmission()
        self._guard = TenantGuard()
        self.server = ApiServer(
            store,
            env,
            TypeRegistry(),
            admission=(self._admission, KindAdmission(), self._guard),
            pod_logs=NodeLogs(self._runtime_of, self._simulated_names),
        )
        self._admission.read = self.server.read
        self.server.converters[versions.SERVICE] = versions.convert
        self._metrics = MetricsApi()
        self._metrics.serve(self.server)
        metrics = self.server.metrics
        self._measures = Measures(metrics.families) if metrics is not None else None
        self._visibility = VisibilityApi()
        self._visibility.serve(self.server)
        self.server.own_address = self._address_of
        self.server.clusters.root_ca = config.root_ca
        self._identity = secure(self.server) if secure is not None else None
        self.client = Client(InProcessTransport(self.server.handle), field_manager="glebe")
        self.parts = Parts(self._parts(), self._transport, env, shared_cache=config.shared_cache)
        self.first_start = False

    async def __aenter__(self) -> Platform:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Open the store, put in what every platform holds, start all parts. The API answers when this returns."""
        await self.server.start()
        try:
            await bootstrap.install_crds(self.client)
            await bootstrap.ensure_namespaces(self.client)
            if self._identity is not None:
                await bootstrap.ensure_roles(self.client)
            self.first_start = await bootstrap.create_defaults(self.client, self._node_specs())
            await bootstrap.remove_departed_nodes(self.client, self._node_specs())
            for name in self.parts.names:
                self.parts.start(name)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the parts, then the server. Containers of the process node go on: the next start adopts them."""
        await self.parts.stop_all()
        await self.planner.close()
        await self.server.close()

    async def crash(self, part: str) -> None:
        """Stop one part at whatever it is doing."""
        await self.parts.stop(part)

    async def restart(self, part: str) -> None:
        """Start a crashed part anew."""
        self.parts.start(part)
        await asyncio.sleep(0)

    @property
    def simulated_nodes(self) -> SimulatedNodes:
        """The simulated nodes as they run now, to inject faults."""
        if self._simulated is None:
            raise RuntimeError("the nodes have not been started, or the fleet has none that are simulated")
        return self._simulated

    @property
    def process_node(self) -> ProcessNode | None:
        """This machine's node as it runs now, if it takes part."""
        return self._process

    # --- what it is made of

    def _node_specs(self) -> list[NodeSpec]:
        """The nodes of the root cluster."""
        fleet = self.config.fleet
        local = [fleet.local] if fleet.local is not None and self.config.nodes_dir is not None else []
        return [*(node for node in fleet.nodes if node.serves(ROOT)), *local]

    def _transport(self, part: str) -> Transport:
        transport: Transport = InProcessTransport(self.server.handle)
        return self._wrap(part, transport) if self._wrap is not None else transport

    def _parts(self) -> list[Part]:
        parts = [
            Part(
                "workloads",
                lambda w: [
                    *workloads.controllers(w.client, w.informers, w.env, root_ca=self.config.root_ca),
                    self._measuring(w),
                ],
                everywhere=True,
            ),
            *([Part("identity", self._identities, everywhere=True)] if self._identity is not None else ()),
            Part("queueing", self._queueing, everywhere=True),
            Part("metering", lambda w: metering(w.client, w.informers, w.env, self.config.ledger)),
        ]
        if self.config.fleet.nodes:
            parts.append(Part("nodes", self._simulated_nodes, everywhere=True))
        if self.config.fleet.local is not None and self.config.nodes_dir is not None:
            parts.append(Part("local", self._process_node))
        return parts

    def _measuring(self, wiring: Wiring) -> Runnable:
        """What answers ``metrics.k8s.io``; it shares the caches of the controllers, among them the autoscalers."""
        self._metrics.service = MetricsService(wiring.client, wiring.informers, wiring.env, self._sample_of)
        return self._metrics.service

    def _sample_of(self, node: ObjectKey) -> Take | None:
        local = self.config.fleet.local
        if self._process is None or local is None or (node.cluster, node.name) != (ROOT, local.name):
            return None
        return self._process.kubelet.statistics.sample

    def _identities(self, wiring: Wiring) -> Sequence[Runnable]:
        assert self._identity is not None
        return identity.controllers(
            wiring.client,
            wiring.informers,
            wiring.env,
            signer=self._identity.signer,
            issue_token=self._identity.tokens.issue_legacy,
            root_ca=self.config.root_ca,
        )

    def _queueing(self, wiring: Wiring) -> Sequence[Runnable]:
        made = Queueing(wiring.client, wiring.informers, wiring.env, self._planner(), self.config.queue)
        if self._measures is not None:
            self._measures.observe(wiring.informers, wiring.env, made.builder.cluster_queue, made.builder.past)
            made.publisher.compare = self._measures.indicators.compare
        self._admission.oracle = made.never_starts
        self._visibility.visibility = Visibility(made.builder)
        self._admission.serves = self._guard.serves = made.opened.serves
        return [*made.controllers, TenantQueues(wiring.client, wiring.env, made.opened).controller]

    def _planner(self) -> Planner:
        return self.planner if self._measures is None else self._measures.around(self.planner)

    def _simulated_nodes(self, wiring: Wiring) -> Sequence[Runnable]:
        self._simulated = SimulatedNodes(
            wiring.client,
            wiring.env,
            self.config.fleet.nodes,
            informers=wiring.informers,
            scenario=self.config.scenario,
        )
        return [self._simulated]

    def _process_node(self, wiring: Wiring) -> Sequence[Runnable]:
        assert self.config.fleet.local is not None
        assert self.config.nodes_dir is not None
        self._process = ProcessNode(
            wiring.client,
            wiring.env,
            self.config.fleet.local,
            self.config.nodes_dir,
            informers=wiring.informers,
            kubelet=self._kubelet_options(),
            network=self.config.network,
            hidden=[self.config.nodes_dir.parent],  # keys and database
        )
        return [self._process]

    def _kubelet_options(self) -> KubeletOptions | None:
        """The node's server trusts the API server's own certificate; one without keys has nobody to serve."""
        identity = self.server.kubelet_identity
        if identity is None:
            return None
        trusted = ssl.PEM_cert_to_DER_cert(identity[0].decode("ascii"))
        return KubeletOptions(self.config.root_ca.encode(), frozenset({trusted}), self._know_kubelet)

    def _address_of(self, cluster: str, uid: str) -> str:
        return self._process.address_of(uid) if self._process is not None and cluster == ROOT else ""

    def _know_kubelet(self, endpoint: Endpoint) -> None:
        own = OwnKubelet(endpoint.host, endpoint.port, endpoint.certificate)
        self.server.own_kubelets[(ROOT, endpoint.node)] = own

    def _runtime_of(self, pod: Object) -> PodLogs | None:
        node, local = pod["spec"].get("nodeName", ""), self.config.fleet.local
        if local is not None and node == local.name and cluster_of(pod) in ("", ROOT):
            return self._process
        return self._simulated if self._simulated is not None and self._simulated.runs(pod) else None


class NodeLogs:
    """Sends a request for a pod's log to the node that runs it, if that node is one of this process."""

    def __init__(self, runtime_of: Callable[[Object], PodLogs | None], simulated: frozenset[str]) -> None:
        self._runtime_of = runtime_of
        self._simulated = simulated

    def serves(self, pod: Object) -> bool:
        """Does a runtime of this process run the pod?"""
        return self._runtime_of(pod) is not None

    def refuses_streams(self, node: str) -> str:
        """Why nobody can talk to processes of that node; "" when one can."""
        if node not in self._simulated:
            return ""
        return f"node {node} is simulated: no program runs in its pods, there is nothing to talk to or connect to"

    async def logs(self, pod: Object, container: str, **options: object) -> AsyncIterator[bytes]:
        runtime = self._runtime_of(pod)
        if runtime is None:
            return
        async for chunk in runtime.logs(pod, container, **options):  # type: ignore[arg-type]
            yield chunk

"""``glebe agent``: simulated nodes of a fleet file, in a process of their own, on whatever cluster a kubeconfig names.

They speak nothing but the Kubernetes API. On a Glebe server their nodes may be in any logical clusters; on any other
Kubernetes they are in the cluster of the kubeconfig.
"""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass
from pathlib import Path

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.http import HttpTransport
from glebe.kube.kubeconfig import ClientConfig, KubeconfigError, load_kubeconfig
from glebe.kube.objects import EVERY
from glebe.kube.transport import ConnectionLost
from glebe.node.fleet import Fleet, FleetError, load_fleet
from glebe.node.simulated.nodes import SimulatedNodes
from glebe.node.simulated.scenario import NO_SCENARIO, Scenario, load_scenario
from glebe.node.spec import ROOT
from glebe.platform.collecting import few_full_collections
from glebe.platform.up import StartError, log_to_stderr, loop_factory


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """The options of ``glebe agent``."""

    fleet: Path
    scenario: Path | None = None
    kubeconfig: str = ""
    context: str = ""
    quiet: bool = False
    verbose: bool = False


def main(config: AgentConfig) -> int:
    """Run until SIGINT or SIGTERM; returns the exit code.

    :raises StartError: a file cannot be used, or the cluster not be reached.
    """
    log_to_stderr(config.verbose)
    fleet, scenario = _files(config)
    try:
        connection = load_kubeconfig(config.kubeconfig or None, context=config.context or None)
    except KubeconfigError as error:
        raise StartError(str(error), "name the cluster with --kubeconfig, or set KUBECONFIG") from error
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(_main(config, fleet, scenario, connection))
    except ConnectionLost as error:
        raise StartError(f"no answer from {connection.server}: {error}", "check --kubeconfig and --context") from error
    except ApiError as error:
        remedy = "the user of the kubeconfig must be allowed to write nodes, leases and the status of pods"
        raise StartError(f"{connection.server} refused: {error.message}", remedy) from error


def _files(config: AgentConfig) -> tuple[Fleet, Scenario]:
    try:
        fleet = load_fleet(config.fleet)
        scenario = load_scenario(config.scenario) if config.scenario is not None else NO_SCENARIO
    except FleetError as error:
        where = f"{error.file}: {error.field}" if error.field else error.file
        raise StartError(f"{where}: {error.problem}", error.remedy) from error
    if not fleet.nodes:
        raise StartError(f"{config.fleet}: there are no simulated nodes in it", "add a pool")
    return fleet, scenario


async def _main(config: AgentConfig, fleet: Fleet, scenario: Scenario, connection: ClientConfig) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    transport = HttpTransport.from_config(connection)
    everywhere = any(node.clusters != (ROOT,) for node in fleet.nodes)
    client = Client(transport, cluster=EVERY if everywhere else "", field_manager="glebe-agent")
    try:
        await _check(client, everywhere, connection.server)
        nodes = SimulatedNodes(client, Env.system(), fleet.nodes, scenario=scenario)
        async with few_full_collections():
            work = asyncio.create_task(nodes.run())
            registered = asyncio.create_task(nodes.wait_registered())
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({work, registered, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if registered.done() and not config.quiet:
                print(f"{len(fleet.nodes)} simulated nodes are registered on {connection.server}", flush=True)
            await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
            for task in (registered, stopping, work):
                task.cancel()
            await asyncio.gather(registered, stopping, work, return_exceptions=True)
            if not stop.is_set() and not work.cancelled() and (error := work.exception()) is not None:
                raise error
        return 0
    finally:
        await transport.close()


async def _check(client: Client, everywhere: bool, server: str) -> None:
    """Whether the server answers at all, and has logical clusters if they are asked for.

    :raises StartError: it has none.
    """
    await client.for_cluster("").raw("GET", "/version")
    if not everywhere:
        return
    try:
        await client.for_cluster("").raw("GET", "/clusters")
    except ApiError as error:
        if error.code != 404:
            raise
        remedy = "take clusters out of the fleet file, or name a Glebe server"
        raise StartError(f"{server} has no logical clusters", remedy) from error

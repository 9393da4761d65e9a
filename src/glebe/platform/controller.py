"""``glebe controller``: queueing and accounting on any conformant Kubernetes, 1.34 or later.

The cluster keeps its own control plane, scheduler and kubelets; Glebe brings its kinds, an admission policy that
suspends queued jobs, and one leader that runs the queue and the ledger. Where admission policies that mutate are not
served, the same rules are a webhook of this process.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from glebe.apiserver.auth.requestheader import FrontProxy
from glebe.apiserver.metrics.families import Families
from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError, is_already_exists, is_not_found
from glebe.kube.http import HttpTransport
from glebe.kube.informer import Informers
from glebe.kube.kubeconfig import ClientConfig, KubeconfigError, in_cluster_config, load_kubeconfig
from glebe.kube.lease import FencedTransport, LeaderElector, LeadershipLost
from glebe.kube.transport import ConnectionLost
from glebe.platform import bootstrap
from glebe.platform.door import Door, open_door, point_conversion
from glebe.platform.scraping import scraped
from glebe.platform.visibilityserver import BASE, SERVICE, VisibilityServer, front_proxy, register
from glebe.queueing.measures.assembly import Measures
from glebe.queueing.round.planner import Planner
from glebe.queueing.telling.visibility import Visibility

if TYPE_CHECKING:
    from glebe.queueing.configuration import Configuration

log = logging.getLogger("glebe.platform")

LEASE = "glebe-controller"
OLDEST = (1, 34)


class Named(Protocol):
    """Something that runs until it is cancelled."""

    @property
    def name(self) -> str: ...

    async def run(self) -> None: ...


class StartError(Exception):
    """The controller cannot start: what is wrong, and the remedy."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class ControllerConfig:
    """The options of ``glebe controller``."""

    kubeconfig: str = ""
    context: str = ""
    namespace: str = bootstrap.SYSTEM_NAMESPACE
    identity: str = ""
    webhook_listen: str = ""
    ledger: str = "glebe-ledger.db"
    queue_config: Path | None = None
    install_only: bool = False
    advisory: bool = False
    metrics_listen: str = ""
    verbose: bool = False


def main(config: ControllerConfig) -> int:
    """Run until SIGINT or SIGTERM; returns the exit code.

    :raises StartError: the cluster cannot be reached or is too old.
    """
    logging.basicConfig(
        level=logging.INFO if config.verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    _queue_config(config)  # a wrong file is told before the cluster is asked anything
    connection = _connection(config)
    try:
        return asyncio.run(_main(config, connection))
    except ConnectionLost as error:
        raise StartError(f"no answer from {connection.server}: {error}", "check --kubeconfig and --context") from error
    except ApiError as error:
        raise StartError(
            f"{connection.server} refused: {error.message}", "the user of the kubeconfig needs cluster-admin"
        ) from error


def _queue_config(config: ControllerConfig) -> Configuration:
    from glebe.queueing.configuration import DEFAULT, ConfigurationError, read

    try:
        return read(config.queue_config) if config.queue_config is not None else DEFAULT
    except ConfigurationError as error:
        remedy = "the fields are those of Kueue's Configuration, see docs/queue-configuration.md"
        raise StartError(str(error), remedy) from error


def _connection(config: ControllerConfig) -> ClientConfig:
    try:
        if not config.kubeconfig and not os.environ.get("KUBECONFIG") and os.environ.get("KUBERNETES_SERVICE_HOST"):
            return in_cluster_config()
        return load_kubeconfig(config.kubeconfig or None, context=config.context or None)
    except KubeconfigError as error:
        raise StartError(str(error), "name the cluster with --kubeconfig, or set KUBECONFIG") from error


async def _main(config: ControllerConfig, connection: ClientConfig) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    transport = HttpTransport.from_config(connection)
    try:
        client = Client(transport, field_manager="glebe-controller")
        how = ""
        if config.advisory:
            await _prepare_advice(client, config.namespace)
            print(f"Kueue on {connection.server} is advised: forecasts are written, nothing is decided", flush=True)
        else:
            how = await install(client, config.namespace)
            print(f"Glebe's kinds are installed on {connection.server}; queued jobs are suspended by {how}", flush=True)
        if config.install_only:
            return 0
        work = asyncio.create_task(run(transport, Env.system(), config, webhook=how == WEBHOOK))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        if not stop.is_set() and not work.cancelled() and (error := work.exception()) is not None:
            raise error
        return 0
    finally:
        await transport.close()


# --- installing

POLICY, WEBHOOK = "an admission policy", "a webhook of this process"


async def install(client: Client, namespace: str) -> str:
    """Bring CRDs, namespace and admission rules to the cluster; says how queued jobs are suspended.

    :raises StartError: the cluster is too old, or does not establish the CRDs.
    """
    await _check_version(client)
    await bootstrap.install_crds(client)
    try:
        await bootstrap.wait_established(client)
    except TimeoutError as error:
        raise StartError(
            str(error),
            "kubectl describe crd says why; another owner of these names (an installed Kueue?) must go first",
        ) from error
    await _ensure_namespace(client, namespace)
    from glebe.queueing.gatekeeping import kindpolicy, policy

    judging = {resource.kind: resource for resource in (policy.VALIDATING_POLICIES, policy.VALIDATING_BINDINGS)}
    for obj in kindpolicy.objects():
        await client.apply(judging[obj["kind"]], obj, field_manager="glebe", force=True)
    version = await _policy_version(client)
    if version is None:
        return WEBHOOK
    kinds = (
        policy.mutating_policies(version),
        policy.mutating_bindings(version),
        policy.VALIDATING_POLICIES,
        policy.VALIDATING_BINDINGS,
    )
    by_kind = {resource.kind: resource for resource in kinds}
    for obj in policy.objects(version):
        await client.apply(by_kind[obj["kind"]], obj, field_manager="glebe", force=True)
    return POLICY


async def _check_version(client: Client) -> None:
    found = json.loads((await client.raw("GET", "/version")).body)
    version = (int(found["major"]), int(found["minor"].rstrip("+")))
    if version < OLDEST:
        raise StartError(
            f"the cluster is Kubernetes {found['gitVersion']}", f"Glebe needs {OLDEST[0]}.{OLDEST[1]} or later"
        )


async def _prepare_advice(client: Client, namespace: str) -> None:
    """Is there a Kueue to advise?

    :raises StartError: there is none, an old one, or a Glebe that decides itself.
    """
    await _check_version(client)
    path = "/apis/kueue.x-k8s.io/v1beta2"
    try:
        await client.raw("GET", path)
        found = await client.get(r.CUSTOM_RESOURCE_DEFINITIONS, r.WORKLOADS.group_resource)
    except ApiError as error:
        if not is_not_found(error):
            raise
        raise StartError(f"the cluster does not serve {path}", "advisory mode needs Kueue 0.15 or later") from error
    if bootstrap.HASH_ANNOTATION in (found["metadata"].get("annotations") or {}):
        raise StartError("the queue of this cluster is Glebe's own", "run glebe controller without --advisory")
    await _ensure_namespace(client, namespace)


async def _ensure_namespace(client: Client, name: str) -> None:
    try:
        await client.create(r.NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    except ApiError as error:
        if not is_already_exists(error):
            raise


async def _policy_version(client: Client) -> str | None:
    """The newest served version of MutatingAdmissionPolicy, if any."""
    from glebe.queueing.gatekeeping.policy import GROUP, VERSIONS

    for version in VERSIONS:
        try:
            answer = await client.raw("GET", f"/apis/{GROUP}/{version}")
        except ApiError as error:
            if not is_not_found(error):
                raise
            continue
        if any(one["name"] == "mutatingadmissionpolicies" for one in json.loads(answer.body)["resources"]):
            return version
    return None


# --- running


async def run(transport: HttpTransport, env: Env, config: ControllerConfig, *, webhook: bool) -> None:
    """Stand for election and run the controllers whenever elected, until cancelled."""
    identity = config.identity or f"{socket.gethostname()}-{os.getpid()}"
    async with AsyncExitStack() as stack:
        measures = Measures(Families(), "leader")
        await stack.enter_async_context(scraped(measures.families, config.metrics_listen))
        door, proxy = None, None
        if not config.advisory:
            proxy = await front_proxy(Client(transport))
            name = f"{SERVICE}.{config.namespace}.svc"
            opening = open_door(env, config.webhook_listen, proxy.cas if proxy is not None else (), [name])
            door = await stack.enter_async_context(opening)
        if webhook and door is not None:
            from glebe.platform.webhook import serve

            await stack.enter_async_context(serve(Client(transport), env, config.namespace, door))
        while True:
            elector = LeaderElector(Client(transport), env, LEASE, config.namespace, identity)
            fenced = FencedTransport(transport, elector.fence)
            try:
                await elector.run(_leading(fenced, env, config, identity, door, proxy, measures))
            except LeadershipLost as error:
                log.warning("%s; standing for election again", error)


def _leading(
    fenced: FencedTransport,
    env: Env,
    config: ControllerConfig,
    identity: str,
    door: Door | None,
    proxy: FrontProxy | None,
    measures: Measures,
) -> Callable[[], Awaitable[None]]:
    async def work() -> None:
        from glebe.queueing.round.planner import ProcessPlanner

        print(f"{identity} leads: {'forecasts' if door is None else 'queue and ledger'} run", flush=True)
        client = Client(fenced, field_manager="glebe-controller")
        informers = Informers(client, env)
        planner = ProcessPlanner()
        if door is None:
            controllers = _advising(client, informers, env, planner, config, measures)
        else:
            await point_conversion(client, door)
            controllers, visibility = _queueing(client, informers, env, planner, config, measures)
            if proxy is not None:
                door.paths[BASE] = VisibilityServer(client, env, proxy, visibility).answer
                try:
                    await register(client, door, config.namespace)
                except ApiError as error:  # everything else goes on without it
                    log.warning("the visibility API is not served: %s", error)
        try:
            async with asyncio.TaskGroup() as group:
                informers.start(group)
                for controller in controllers:
                    group.create_task(controller.run(), name=f"controller {controller.name}")
        finally:
            await planner.close()

    return work


def _queueing(
    client: Client, informers: Informers, env: Env, planner: Planner, config: ControllerConfig, measures: Measures
) -> tuple[list[Named], Visibility]:
    from glebe.metering.controller import controllers as metering
    from glebe.queueing.assembly import Queueing
    from glebe.queueing.gatekeeping.declaredpolicies import bringing

    made = Queueing(client, informers, env, measures.around(planner), _queue_config(config))
    measures.observe(informers, env, made.builder.cluster_queue, made.builder.past)
    made.publisher.compare = measures.indicators.compare
    made.kind_host.announce = bringing(client, lambda: _policy_version(client))
    return [*made.controllers, *metering(client, informers, env, config.ledger)], Visibility(made.builder)


def _advising(
    client: Client, informers: Informers, env: Env, planner: Planner, config: ControllerConfig, measures: Measures
) -> list[Named]:
    from glebe.queueing.round.advisory import Advisory

    made = Advisory(client, informers, env, planner, _queue_config(config))
    measures.observe(informers, env, made.builder.cluster_queue, made.builder.past)
    return [*made.controllers]

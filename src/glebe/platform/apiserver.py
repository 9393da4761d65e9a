"""``glebe apiserver``: the control plane alone, without queue and nodes; any number of replicas on one etcd.

Every replica serves everything. The controllers that a control plane needs (namespaces, garbage, jobs, certificates)
run in the replica that holds a Lease. Replicas must share keys and certificates: ``--pki-dir`` names the same folder,
or a copy of it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from glebe.platform.paths import DataDir
from glebe.platform.storage import StorageOptions
from glebe.platform.up import explained, log_to_stderr, loop_factory, parse_listen, process_age, read_flags, taken

if TYPE_CHECKING:
    from glebe.apiserver.auth.assembly import Identity
    from glebe.apiserver.server import ApiServer
    from glebe.kube.clock import Env
    from glebe.kube.transport import Transport

log = logging.getLogger("glebe.platform")

LEASE = ("kube-system", "glebe-apiserver-controllers")


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The options of ``glebe apiserver``. ``listen`` is HOST:PORT; with port 0 the last one, or one that is free."""

    data_dir: Path
    listen: str = "127.0.0.1:0"
    pki_dir: Path | None = None
    controllers: bool = True
    storage: StorageOptions = field(default_factory=StorageOptions)
    quiet: bool = False
    verbose: bool = False
    flags: Mapping[str, object] = field(default_factory=dict)
    """What :mod:`.serverflags` reads: identity and audit."""


def main(config: ServerConfig) -> int:
    """Run until SIGINT or SIGTERM; returns the exit code.

    :raises glebe.platform.up.StartError: before anything was started.
    """
    log_to_stderr(config.verbose)
    data = DataDir(config.data_dir.expanduser().absolute())
    host, port = parse_listen(config.listen)
    with taken(data), explained(config.listen, data), asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_serve(config, data, host, port))


async def _serve(config: ServerConfig, data: DataDir, host: str, port: int) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with open_server(config, data, host, port) as url:
        if not config.quiet:
            print(f"Glebe's API server is up at {url} after {process_age():.1f} s", flush=True)
            print(f"  export KUBECONFIG={data.kubeconfig}", flush=True)
        await stop.wait()
    return 0


@asynccontextmanager
async def open_server(config: ServerConfig, data: DataDir, host: str, port: int) -> AsyncIterator[str]:
    """Run one replica; yields its URL when its API is ready and its kubeconfig written.

    :raises OSError: the address cannot be had, or a directory not written.
    :raises glebe.apiserver.store.StoreUnavailable: the storage cannot be used.
    """
    from glebe.apiserver.auth.pki import Pki
    from glebe.apiserver.clusters.firstobjects import SERVICE_ADDRESS
    from glebe.apiserver.server import ApiServer
    from glebe.apiserver.types.registry import TypeRegistry
    from glebe.kube.clock import Env
    from glebe.platform.collecting import few_full_collections
    from glebe.platform.frontend import admit_user, last_port, listen, reachable, secured

    flags = read_flags(config.flags)
    env = Env.system()
    pki = Pki(config.pki_dir.expanduser().absolute() if config.pki_dir is not None else data.pki)
    pki.ensure([host, SERVICE_ADDRESS], env.clock.now())
    server = ApiServer(config.storage.open(data), env, TypeRegistry())
    server.clusters.root_ca = pki.ca_pem.decode()
    identity = secured(server, pki, env, flags)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(few_full_collections())
        await server.start()
        stack.push_async_callback(server.close)
        tls = pki.server_context(flags.further_cas)
        front = await listen(server, tls, host, [port] if port else [last_port(data, host), 0])
        stack.push_async_callback(front.close)
        url = reachable(front.url)
        admit_user(data, pki, url)
        if config.controllers:
            task = asyncio.create_task(_control(server, env, identity, pki.ca_pem.decode()), name="controllers")
            stack.push_async_callback(_cancel, task)
        yield url


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _control(server: ApiServer, env: Env, identity: Identity, root_ca: str) -> None:
    """Stand for election and run the controllers whenever elected, until cancelled."""
    from glebe.kube.client import Client
    from glebe.kube.inprocess import InProcessTransport
    from glebe.kube.lease import FencedTransport, LeaderElector, LeadershipLost

    transport = InProcessTransport(server.handle)
    namespace, name = LEASE
    who = f"{socket.gethostname()}-{os.getpid()}-{env.new_uid()[:8]}"
    while True:
        elector = LeaderElector(Client(transport), env, name, namespace, who)
        fenced = FencedTransport(transport, elector.fence)
        try:
            await elector.run(lambda fenced=fenced: _lead(fenced, env, identity, root_ca))  # type: ignore[misc]
        except LeadershipLost as error:
            log.warning("%s; standing for election again", error)
        except Exception:
            log.exception("the controllers failed; standing for election again")
            await asyncio.sleep(1.0)


async def _lead(transport: Transport, env: Env, made: Identity, root_ca: str) -> None:
    """Run the controllers until cancelled."""
    from glebe import workloads
    from glebe.platform.parts import Part, Parts
    from glebe.workloads import identity

    parts = Parts(
        [
            Part(
                "workloads",
                lambda w: workloads.controllers(w.client, w.informers, w.env, root_ca=root_ca),
                everywhere=True,
            ),
            Part(
                "identity",
                lambda w: identity.controllers(
                    w.client,
                    w.informers,
                    w.env,
                    signer=made.signer,
                    issue_token=made.tokens.issue_legacy,
                    root_ca=root_ca,
                ),
                everywhere=True,
            ),
        ],
        lambda part: transport,
        env,
        shared_cache=True,
    )
    try:
        for name in parts.names:
            parts.start(name)
        await asyncio.Event().wait()
    finally:
        await parts.stop_all()

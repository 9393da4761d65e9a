"""The embedded platform with a door: keys and certificates, an HTTPS address, a kubeconfig."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from glebe.apiserver.assembly import ServerOptions, complete
from glebe.apiserver.auth.assembly import Identity, secure
from glebe.apiserver.auth.pki import MASTERS, Pki
from glebe.apiserver.clusters.firstobjects import SERVICE_ADDRESS
from glebe.apiserver.http import HttpServer
from glebe.apiserver.server import ApiServer
from glebe.apiserver.services.advertising import advertise
from glebe.kube.clock import Env
from glebe.kube.kubeconfig import KubeconfigError, load_kubeconfig, write_kubeconfig
from glebe.platform.collecting import few_full_collections
from glebe.platform.paths import DataDir
from glebe.platform.serverflags import ServerFlags
from glebe.platform.storage import StorageOptions

if TYPE_CHECKING:
    from glebe.node.fleet import Fleet
    from glebe.node.network.options import NetworkOptions
    from glebe.node.simulated.scenario import Scenario
    from glebe.platform.embedded import Platform
    from glebe.queueing.configuration import Configuration

log = logging.getLogger("glebe.platform")

KUBELET_CLIENT = "kube-apiserver-kubelet-client"
"""The name by which kubelets know the API server, as upstream's installers have it."""
_SWITCH_SECONDS = 0.0005
"""How long the store's thread waits for a busy loop (Python's own: 5 ms, several times for each commit)."""


@asynccontextmanager
async def open_platform(
    data: DataDir,
    fleet: Fleet,
    host: str,
    port: int,
    storage: StorageOptions | None = None,
    flags: ServerFlags | None = None,
    network: NetworkOptions | None = None,
    scenario: Scenario | None = None,
    queue: Configuration | None = None,
) -> AsyncIterator[tuple[str, Platform]]:
    """Run the platform of a data directory; yields its URL when its API is ready and its kubeconfig written.

    :raises OSError: the address cannot be had, or the directory not written.
    :raises glebe.apiserver.store.StoreUnavailable: the database cannot be used.
    """
    from glebe.node.simulated.scenario import NO_SCENARIO
    from glebe.platform.embedded import Platform, PlatformConfig  # late: a server alone has neither queue nor nodes
    from glebe.queueing.configuration import DEFAULT
    from glebe.queueing.round.planner import ProcessPlanner

    flags = flags or ServerFlags()
    env = Env.system()
    pki = Pki(data.pki)
    pki.ensure([host, SERVICE_ADDRESS], env.clock.now())
    config = PlatformConfig(
        fleet=fleet,
        nodes_dir=data.nodes,
        ledger=data.ledger,
        shared_cache=True,
        root_ca=pki.ca_pem.decode(),
        network=network,
        scenario=scenario or NO_SCENARIO,
        queue=queue or DEFAULT,
    )
    platform = Platform(
        config,
        env,
        (storage or StorageOptions()).open(data),
        planner=ProcessPlanner(),
        secure=lambda server: secured(server, pki, env, flags),
    )
    tls = pki.server_context(flags.further_cas)
    async with few_full_collections(), platform:
        front = await listen(platform.server, tls, host, [port] if port else [last_port(data, host), 0])
        try:
            url = reachable(front.url)
            admit_user(data, pki, url)
            yield url, platform
        finally:
            await front.close()


def admit_user(data: DataDir, pki: Pki, url: str) -> None:
    """Write the kubeconfig of the administrator."""
    write_kubeconfig(
        data.kubeconfig,
        url,
        ca=pki.ca_pem,
        certificate=pki.admin_file.read_bytes(),
        key=pki.admin_key_file.read_bytes(),
    )


def secured(server: ApiServer, pki: Pki, env: Env, flags: ServerFlags) -> Identity:
    """Give the server its plugins, filters and identities as the flags say."""
    if flags.server != ServerOptions():
        complete(server, flags.server)
    known = pki.issue_client(KUBELET_CLIENT, (MASTERS,), env.clock.now(), scope=None)
    server.kubelet_identity = (known.certificate, known.key)
    return secure(server, pki, env, flags.identity)


async def listen(server: ApiServer, tls: SSLContext, host: str, ports: list[int]) -> HttpServer:
    """Listen on the first of ``ports`` that can be had; 0 lets the system choose."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    for position, port in enumerate(ports, 1):
        front = HttpServer(server.handle, host=host, port=port, tls=tls)
        try:
            await front.start()
        except OSError:
            if position == len(ports):
                raise
        else:
            await advertise(server, host, urlsplit(front.url).port or 443)
            return front
    raise AssertionError("no port was given")


def reachable(url: str) -> str:
    """Where a client of this machine finds a server that listens everywhere."""
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//:::", "//[::1]:").replace("//[::]:", "//[::1]:")


def last_port(data: DataDir, host: str) -> int:
    """The port of the last start on this host, so that kubeconfigs and connections outlive a restart; else 0."""
    try:
        server = urlsplit(load_kubeconfig(data.kubeconfig).server)
    except (KubeconfigError, ValueError, OSError):
        return 0
    return server.port or 0 if reachable(f"//{host}:") == f"//{server.hostname}:" else 0

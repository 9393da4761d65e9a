"""The files of a pod that its network brings: ``/etc/hosts`` and ``/etc/resolv.conf``."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from glebe.kube.objects import Object
from glebe.node.contracts import Mount
from glebe.node.network.names import Resolver, hosts_for, parse_resolver, resolver_for

_HOSTS, _RESOLVER = Path("/etc/hosts"), Path("/etc/resolv.conf")
#: Where the machine's own resolver keeps the servers that it asks, when it listens on its loopback itself.
_BEHIND = Path("/run/systemd/resolve/resolv.conf")


def machine_resolver(*, seen_from_pods: bool = False) -> Resolver:
    """The machine's resolv.conf; for pods with a loopback of their own, servers that they can reach."""
    found = parse_resolver(_text(_RESOLVER))
    if seen_from_pods and any(server.startswith("127.") for server in found.servers):
        behind = parse_resolver(_text(_BEHIND))
        servers = behind.servers or tuple(s for s in found.servers if not s.startswith("127."))
        return Resolver(servers, found.searches, found.options)
    return found


def machine_servers() -> list[tuple[str, int]]:
    """The name servers that the machine itself asks."""
    return [(server, 53) for server in machine_resolver().servers]


class PodFiles:
    """Writes them below ``directory``, one directory per pod.

    :param own_loopback: whether pods have one that is not the machine's.
    """

    def __init__(self, directory: Path, *, own_loopback: bool) -> None:
        self._directory = directory
        self._own_loopback = own_loopback

    def write(self, pod: Object, address: str, server: str, more: Sequence[tuple[str, str]]) -> tuple[Mount, ...]:
        """Write a pod's files, in place: they may be mounted already.

        :param server: the cluster's name server, ``""``: there is none; :param more: names for the hosts file.
        """
        own = self._directory / pod["metadata"]["uid"]
        own.mkdir(parents=True, exist_ok=True)
        host_network = bool(pod["spec"].get("hostNetwork"))
        machine = machine_resolver(seen_from_pods=self._own_loopback and not host_network)
        if server and not machine.servers:
            machine = Resolver((server,), machine.searches, machine.options)
        hosts = hosts_for(pod, address, machine=_text(_HOSTS) if host_network else "", more=more)
        files = {"resolv.conf": resolver_for(pod, machine, server).text(), "hosts": hosts}
        for name, text in files.items():
            if _text(own / name) != text:
                (own / name).write_text(text)
        # A program in the container may change them, as with any container runtime; they are the pod's own.
        return tuple(Mount(str(own / name), f"/etc/{name}") for name in files)

    def remove(self, uid: str) -> None:
        shutil.rmtree(self._directory / uid, ignore_errors=True)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""

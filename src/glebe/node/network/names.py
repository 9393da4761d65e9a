"""``/etc/resolv.conf`` and ``/etc/hosts`` of a pod, as its spec wants them. Pure.

Sources: ``pkg/kubelet/network/dns``, ``pkg/kubelet/kubelet_pods.go`` (managed hosts files), resolv.conf(5).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from glebe.kube.objects import Object
from glebe.node.network.records import DOMAIN

_MAX_SERVERS, _MAX_SEARCHES, _MAX_SEARCH_SIZE = 3, 32, 2048


@dataclass(frozen=True, slots=True)
class Resolver:
    """The contents of a resolv.conf."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def text(self) -> str:
        lines = [f"search {' '.join(self.searches)}"] if self.searches else []
        lines += [f"nameserver {server}" for server in self.servers]
        lines += [f"options {' '.join(self.options)}"] if self.options else []
        return "".join(f"{line}\n" for line in lines)


def parse_resolver(text: str) -> Resolver:
    """What stands in a resolv.conf; of several lines ``search`` or ``options`` the last counts."""
    servers: list[str] = []
    searches: Sequence[str] = ()
    options: Sequence[str] = ()
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        match words:
            case ["nameserver", server, *_]:
                servers.append(server)
            case ["search" | "domain", *found]:
                searches = found
            case ["options", *found]:
                options = found
    return Resolver(tuple(servers), tuple(s for s in searches if s != "."), tuple(options))


def resolver_for(pod: Object, machine: Resolver, server: str) -> Resolver:
    """The pod's resolver by its ``dnsPolicy`` and ``dnsConfig``.

    :param machine: the machine's own; :param server: where the cluster's names are answered, ``""``: nowhere.
    """
    spec = pod["spec"]
    policy = spec.get("dnsPolicy", "ClusterFirst")
    by_cluster = policy == "ClusterFirstWithHostNet" or (policy == "ClusterFirst" and not spec.get("hostNetwork"))
    if policy == "None":
        base = Resolver()
    elif by_cluster and server:
        namespace = pod["metadata"]["namespace"]
        own = (f"{namespace}.svc.{DOMAIN}", f"svc.{DOMAIN}", DOMAIN)
        base = Resolver((server,), _distinct([*own, *machine.searches]), ("ndots:5",))
    else:
        base = machine
    return _limited(_with(base, spec.get("dnsConfig") or {}))


def _with(base: Resolver, config: Object) -> Resolver:
    """``spec.dnsConfig`` over what the policy says; an option replaces that of its name."""
    options = {option.partition(":")[0]: option for option in base.options}
    for option in config.get("options") or ():
        if option.get("name"):
            value = option.get("value")
            options[option["name"]] = f"{option['name']}:{value}" if value else option["name"]
    servers = _distinct([*base.servers, *(config.get("nameservers") or ())])
    searches = _distinct([*base.searches, *(config.get("searches") or ())])
    return Resolver(servers, searches, tuple(options.values()))


def _limited(resolver: Resolver) -> Resolver:
    searches: list[str] = []
    for search in resolver.searches[:_MAX_SEARCHES]:
        if len(" ".join([*searches, search])) <= _MAX_SEARCH_SIZE:
            searches.append(search)
    return Resolver(resolver.servers[:_MAX_SERVERS], tuple(searches), resolver.options)


def _distinct(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))


_MANAGED = (
    "# Kubernetes-managed hosts file.",
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::0\tip6-localnet",
    "fe00::0\tip6-mcastprefix",
    "fe00::1\tip6-allnodes",
    "fe00::2\tip6-allrouters",
)


def hostname_of(pod: Object) -> tuple[str, str]:
    """The pod's host name and its domain; ``""`` when it has none."""
    spec, meta = pod["spec"], pod["metadata"]
    host = spec.get("hostname") or meta["name"][:63].rstrip("-.")
    if spec.get("hostnameOverride"):
        return str(spec["hostnameOverride"]), ""
    if spec.get("subdomain"):
        return str(host), f"{spec['subdomain']}.{meta['namespace']}.svc.{DOMAIN}"
    return str(host), ""


def hosts_for(pod: Object, address: str, *, machine: str = "", more: Sequence[tuple[str, str]] = ()) -> str:
    """The pod's hosts file.

    :param machine: the machine's own file, for a pod that has the machine's network.
    :param more: addresses and names of the cluster, where no server answers for them.
    """
    spec = pod["spec"]
    if spec.get("hostNetwork"):
        lines = ["# Kubernetes-managed hosts file (host network).", *machine.splitlines()]
    else:
        host, domain = hostname_of(pod)
        lines = [*_MANAGED, "\t".join([address, *([f"{host}.{domain}"] if domain else []), host])]
    aliases = spec.get("hostAliases") or ()
    if aliases:
        lines += ["", "# Entries added by HostAliases."]
        lines += ["\t".join([alias["ip"], *(alias.get("hostnames") or ())]) for alias in aliases]
    if more:
        lines += ["", "# Names of the cluster.", *(f"{where}\t{names}" for where, names in more)]
    return "".join(f"{line}\n" for line in lines)

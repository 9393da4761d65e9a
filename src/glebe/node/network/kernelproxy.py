"""Services by the kernel: packets for a front are sent to one of its targets before they are routed.

One table of nftables with this in it: maps that lead to one chain per front (``services``: cluster IP, protocol and
port, for pods and the machine itself; ``addresses``: other addresses, for everybody; ``ports``: protocol and port at
any address of the machine), and what packets of pods need on their way (see :func:`base`). A change of one Service
touches its own chains and map entries only.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from glebe.node.network import conntrack
from glebe.node.network import nftables as nft
from glebe.node.network.nftables import Change
from glebe.node.network.services import PROTOCOLS, Balancer, Front, Target

_LOOPBACK = IPv4Network("127.0.0.0/8")
_BATCH = 200  # balancers in one transaction, so that it fits into a socket's buffer
_RAW, _DNAT, _FILTER, _SNAT = -300, -100, 0, 100


@dataclass(frozen=True, slots=True)
class Place:
    """Whose packets are meant.

    ``pods`` is the network of the node's pods, ``gateway`` the machine's own address in it, ``wires`` how the names of
    their interfaces on the machine begin, ``sink`` the interface to which what nobody answers is routed, ``services``
    the networks of cluster IPs. ``router`` is an interface that forwards only because we told it to.
    """

    table: str
    pods: IPv4Network
    gateway: str
    wires: str
    sink: str
    services: tuple[IPv4Network, ...] = ()
    router: str = ""


def base(place: Place, pods: Iterable[str]) -> Change:
    """The table without any Service, whatever was there before. ``pods``: the addresses of those that are there."""
    change = Change(place.table)
    change.new_table()
    change.verdict_map("services", 12)
    change.verdict_map("addresses", 12)
    change.verdict_map("ports", 8)
    change.set("itself", 8)
    change.base_chain("raw", "filter", nft.PREROUTING, _RAW)
    change.base_chain("arrive", "nat", nft.PREROUTING, _DNAT)
    change.base_chain("local", "nat", nft.OUTPUT, _DNAT)
    change.base_chain("pass", "filter", nft.FORWARD, _FILTER)
    change.base_chain("sent", "filter", nft.OUTPUT, _FILTER)
    change.base_chain("leave", "nat", nft.POSTROUTING, _SNAT)
    # Pods' wires carry answers to 127.0.0.1 (route_localnet); nothing else may get to the machine's loopback by them.
    change.rule("raw", nft.comes_in_by(place.wires), nft.destination(), nft.within(_LOOPBACK), nft.drop())
    change.rule("arrive", nft.comes_in_by(place.wires), *_at("services"))
    change.rule("local", *_at("services"))
    for chain in ("arrive", "local"):
        change.rule(chain, *_at("addresses"))
        change.rule(chain, *_port())
    if place.router:
        inward = nft.goes_out_by(place.wires, negated=True)
        change.rule("pass", nft.comes_in_by(place.router + "\0"), inward, nft.drop())
    change.rule("pass", nft.goes_out_by(place.sink + "\0"), nft.reject())
    # What this machine itself sends has been given its target by now, but the hook still names the old way out.
    for network in place.services:
        change.rule("sent", nft.goes_out_by(place.sink + "\0"), nft.destination(), nft.within(network), nft.reject())
    change.rule("leave", nft.source(), nft.destination(nft.WORD + 1), nft.look_up("itself", into=None), _as(place))
    to_pods = nft.goes_out_by(place.wires)
    change.rule("leave", to_pods, nft.source(), nft.within(_LOOPBACK), _as(place))
    ours, elsewhere = nft.within(place.pods), nft.within(place.pods, negated=True)
    change.rule("leave", nft.source(), ours, nft.destination(), elsewhere, nft.masquerade())
    for address in pods:
        change.add("itself", itself(address))
    return change


def itself(address: str) -> bytes:
    """The key of a pod that reaches itself by way of a Service: the answer must come back through the machine."""
    return IPv4Address(address).packed * 2


def _as(place: Place) -> bytes:
    return nft.leave_as(place.gateway)


def _at(name: str) -> tuple[bytes, ...]:
    word = nft.WORD
    return nft.destination(), nft.protocol(word + 1), nft.destination_port(word + 2), nft.look_up(name)


def _port() -> tuple[bytes, ...]:
    return nft.is_for_this_machine(), nft.protocol(), nft.destination_port(nft.WORD + 1), nft.look_up("ports")


class KernelProxy:
    """The fronts of Services in the kernel. Blocking.

    :param commit: makes a change; raises OSError when the kernel refuses it.
    """

    def __init__(self, place: Place, commit: Callable[[Change], None] = Change.commit) -> None:
        self._table = place.table
        self._services = place.services
        self._commit = commit
        self._made: dict[Front, Balancer] = {}
        self._fronts: dict[str, set[Front]] = {}
        """What each owner asked for and got."""
        self._owner: dict[Front, str] = {}

    def forget(self) -> None:
        """The table is empty (again)."""
        self._made, self._fronts, self._owner = {}, {}, {}

    def apply(self, wanted: Mapping[str, Sequence[Balancer]]) -> None:
        """Each owner in ``wanted`` has exactly these balancers from now on.

        A front that another owner has already stays the other's, until that one gives it up and this one asks again.

        :raises OSError: the kernel refuses; make the table anew, :meth:`forget`, and apply everything.
        """
        change, count = Change(self._table), 0
        before = {f: self._made[f] for o in wanted for f in self._fronts.get(o, ()) if f.protocol == "UDP"}
        for owner, listed in wanted.items():
            for front in sorted(self._fronts.get(owner, set()) - {b.front for b in listed}):
                self._fronts[owner].discard(front)
                del self._owner[front]
                self._remove(change, self._made.pop(front))
        for owner, listed in wanted.items():
            for balancer in listed:
                if self._owner.setdefault(balancer.front, owner) != owner:
                    continue
                self._fronts.setdefault(owner, set()).add(balancer.front)
                known = self._made.get(balancer.front)
                if known != balancer:
                    self._made[balancer.front] = balancer
                    self._set(change, balancer, known)
                    count += 1
                if count >= _BATCH:
                    self._commit(change)
                    change, count = Change(self._table), 0
            if not self._fronts.get(owner):
                self._fronts.pop(owner, None)
        if change.messages:
            self._commit(change)
        self._forget_datagrams(before)

    def _forget_datagrams(self, before: Mapping[Front, Balancer]) -> None:
        """Clients of UDP that were sent to targets which are no more are sent to others from now on."""
        lost: set[Target] = set()
        for front, balancer in before.items():
            now = self._made.get(front)
            lost |= set(balancer.targets) - set(now.targets if now is not None else ())
        conntrack.forget_udp(lost)

    def _set(self, change: Change, balancer: Balancer, before: Balancer | None) -> None:
        if before is not None and (before.affinity != balancer.affinity or not balancer.targets):
            self._remove(change, before)
            before = None
        if not balancer.targets:
            return
        chain = _chain(balancer.front)
        change.chain(chain)
        if balancer.affinity:
            self._sticky(change, chain, balancer, before.targets if before is not None else ())
        else:
            change.rule(chain, _transport(balancer.front), change.choose(balancer.targets))
        if before is None or not before.targets:
            change.goto(*self._entry(balancer.front), chain)

    def _sticky(self, change: Change, chain: str, balancer: Balancer, known: Sequence[Target]) -> None:
        """A client that a target remembers goes there again. ``known``: the targets that there were before."""
        for target in known:
            if target not in balancer.targets:
                self._forget(change, chain, target)
        names = {target: _backend(chain, target) for target in balancer.targets}
        for target, name in names.items():
            if target not in known:
                change.set(name, 4, seconds=balancer.affinity)
                change.chain(name)
                to = nft.send_to(*target)
                change.rule(name, nft.source(), nft.remember(name), _transport(balancer.front), to)
            change.rule(chain, nft.source(), nft.look_up(name, into=None), nft.go_to(name))
        change.rule(chain, change.choose_chain(list(names.values())))

    def _forget(self, change: Change, chain: str, target: tuple[str, int]) -> None:
        name = _backend(chain, target)
        change.flush(name)
        change.delete_chain(name)
        change.delete_set(name)

    def _remove(self, change: Change, balancer: Balancer) -> None:
        if not balancer.targets:
            return
        chain = _chain(balancer.front)
        change.discard(*self._entry(balancer.front))
        change.flush(chain)
        change.delete_chain(chain)
        if balancer.affinity:
            for target in balancer.targets:
                self._forget(change, chain, target)

    def _entry(self, front: Front) -> tuple[str, bytes]:
        """The map in which a front stands, and its key."""
        name = "ports"
        if front.address:
            name = "services" if any(IPv4Address(front.address) in n for n in self._services) else "addresses"
        return name, nft.key_bytes(PROTOCOLS[front.protocol], front.port, front.address)


def _chain(front: Front) -> str:
    return f"{front.protocol.lower()}-{front.address or 'any'}-{front.port}"


def _backend(chain: str, target: tuple[str, int]) -> str:
    return f"b{zlib.crc32(chain.encode()):08x}-{target[0]}-{target[1]}"


def _transport(front: Front) -> bytes:
    """The kernel wants to know that there are ports before it changes one."""
    return nft.protocol() + nft.equals(bytes([PROTOCOLS[front.protocol]]))

"""Pods with network namespaces, for real: wires, routes, Services in the kernel, and nothing left behind."""

from __future__ import annotations

import select
import shutil
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from netmachine import POD_CIDR, SERVICES, Pod, need_namespaces, peer, traces

from glebe.node.network import links, namespaces, undo
from glebe.node.network.kernelproxy import KernelProxy
from glebe.node.network.modes import why_not as why_not_here
from glebe.node.network.options import NetworkOptions
from glebe.node.network.probe import probe
from glebe.node.network.routed import Routed
from glebe.node.network.services import Balancer, Front, Target

pytestmark = pytest.mark.realtime

VIP = str(SERVICES[77])


class Machine:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.routed = Routed(directory, IPv4Network(POD_CIDR), [SERVICES])
        self.routed.set_up()
        self.routed.fill([])
        self.proxy = KernelProxy(self.routed.place)
        self._pods = 0

    def pod(self) -> Pod:
        self._pods += 1
        return Pod(self.routed, f"{self._pods:08d}-pod", str(self.routed.place.pods[9 + self._pods]))

    def serve(self, *targets: Target, front: Front = Front(VIP, "TCP", 80), affinity: int = 0) -> None:  # noqa: B008
        self.proxy.apply({"default/web": [Balancer(front, targets, affinity)]})


@pytest.fixture(autouse=True)
def _possible() -> None:
    need_namespaces()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "network")
    try:
        yield made
    finally:
        undo.undo(tmp_path / "network")
        assert traces(made.routed) == []
        assert undo.known_pods(tmp_path / "network") == []


def test_pods_reach_each_other_and_the_machine_reaches_them(machine: Machine) -> None:
    a, b = machine.pod(), machine.pod()
    with b.listen() as server, a.connect((b.address, 8080)):
        assert peer(server) == a.address
        with socket.create_connection((b.address, 8080), 3):
            assert peer(server) == machine.routed.place.gateway
    with socket.create_server((machine.routed.place.gateway, 0)) as here:
        here.settimeout(3)
        with a.connect(here.getsockname()):
            assert peer(here) == a.address


def test_the_same_port_in_every_pod(machine: Machine) -> None:
    with ExitStack() as stack:
        for server in [machine.pod().inside(lambda: socket.create_server(("", 80))) for _ in range(3)]:
            stack.enter_context(server)


def test_services_lead_to_all_targets_and_changes_count_at_once(machine: Machine) -> None:
    client, a, b = machine.pod(), machine.pod(), machine.pod()
    with a.listen() as at_a, b.listen(9090) as at_b:
        servers = {at_a: "a", at_b: "b"}

        def who(pod: Pod | None = None) -> str:
            with pod.connect((VIP, 80)) if pod else socket.create_connection((VIP, 80), 3):
                (server,) = select.select(list(servers), [], [], 3)[0]
                peer(server)
                return servers[server]

        machine.serve((a.address, 8080), (b.address, 9090))
        assert {who(client) for _ in range(40)} == {"a", "b"}
        assert {who() for _ in range(40)} == {"a", "b"}  # from the machine itself
        machine.serve((b.address, 9090))
        assert {who(client) for _ in range(10)} == {"b"}
        machine.serve()
        for ask in (lambda: who(client), who):
            with pytest.raises(ConnectionRefusedError):
                ask()
        machine.serve((a.address, 8080))
        assert who(client) == "a"


def test_a_pod_reaches_itself_by_its_service(machine: Machine) -> None:
    a = machine.pod()
    with a.listen() as server:
        machine.serve((a.address, 8080))
        with a.connect((VIP, 80)):
            assert peer(server) == machine.routed.place.gateway


def test_node_ports_on_every_address_of_the_machine(machine: Machine) -> None:
    client, a = machine.pod(), machine.pod()
    machine.serve((a.address, 8080), front=Front("", "TCP", 31999))
    with a.listen() as server:
        for address in ("127.0.0.1", machine.routed.place.gateway):
            with socket.create_connection((address, 31999), 3):
                assert peer(server) == machine.routed.place.gateway
        with client.connect((machine.routed.place.gateway, 31999)):
            assert peer(server) == client.address


def test_ports_of_one_address_of_the_machine(machine: Machine) -> None:
    """The same port leads to different pods at different addresses; the rest of the machine's are free."""
    client, a, b = machine.pod(), machine.pod(), machine.pod()
    gateway = machine.routed.place.gateway
    with a.listen() as at_a, b.listen() as at_b:
        machine.proxy.apply(
            {
                "pod:a": [Balancer(Front("127.0.0.1", "TCP", 31999), ((a.address, 8080),))],
                "pod:b": [Balancer(Front(gateway, "TCP", 31999), ((b.address, 8080),))],
            }
        )
        with socket.create_connection(("127.0.0.1", 31999), 3):
            assert peer(at_a)
        for connect in (client.connect, lambda to: socket.create_connection(to, 3)):
            with connect((gateway, 31999)):
                assert peer(at_b)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", 31999), 3)


def test_clients_stay_with_their_target(machine: Machine) -> None:
    clients = [machine.pod() for _ in range(3)]
    pods = [machine.pod() for _ in range(4)]
    with ExitStack() as stack:
        servers = [stack.enter_context(pod.listen()) for pod in pods]

        def where(client: Pod) -> int:
            with client.connect((VIP, 80)):
                (server,) = select.select(servers, [], [], 3)[0]
                peer(server)
                return servers.index(server)

        machine.serve(*((p.address, 8080) for p in pods), affinity=100)
        first = {n: where(client) for n, client in enumerate(clients)}
        assert {n: {where(c) for _ in range(8)} for n, c in enumerate(clients)} == {n: {w} for n, w in first.items()}
        gone = first[0]  # the target of the first client goes; the others' stay
        machine.serve(*((p.address, 8080) for n, p in enumerate(pods) if n != gone), affinity=100)
        assert where(clients[0]) != gone
        assert all(where(clients[n]) == w for n, w in first.items() if w != gone)
        machine.serve((pods[0].address, 8080))  # no longer sticky
        assert {where(client) for client in clients} == {0}


def test_datagrams(machine: Machine) -> None:
    client, a = machine.pod(), machine.pod()
    machine.serve((a.address, 5353), front=Front(VIP, "UDP", 53))
    with a.udp() as server, client.udp() as sender:
        a.inside(lambda: server.bind((a.address, 5353)))
        sender.sendto(b"hello", (VIP, 53))
        text, back = server.recvfrom(100)
        server.sendto(text + b" yourself", back)
        assert sender.recvfrom(100) == (b"hello yourself", (VIP, 53))


def test_datagrams_follow_when_their_target_goes(machine: Machine) -> None:
    """Also those of a client that goes on sending from the same port."""
    client, a, b = machine.pod(), machine.pod(), machine.pod()
    with a.udp() as at_a, b.udp() as at_b, client.udp() as sender:
        for pod, server in ((a, at_a), (b, at_b)):
            pod.inside(lambda server=server, pod=pod: server.bind((pod.address, 5353)))  # type: ignore[misc]
        machine.serve((a.address, 5353), front=Front(VIP, "UDP", 53))
        sender.sendto(b"1", (VIP, 53))
        assert at_a.recv(9) == b"1"
        machine.serve((b.address, 5353), front=Front(VIP, "UDP", 53))
        sender.sendto(b"2", (VIP, 53))
        assert at_b.recv(9) == b"2"


def test_the_machines_own_loopback_is_out_of_reach(machine: Machine) -> None:
    """Wires carry answers to 127.0.0.1; what a pod itself sends there arrives nowhere."""
    a = machine.pod()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here, a.udp() as sender:
        here.bind(("127.0.0.1", 0))
        here.settimeout(0.3)

        def attack() -> None:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")  # past the pod's own loopback
            sender.sendto(b"x", here.getsockname())

        a.inside(attack)
        with pytest.raises(TimeoutError):
            here.recv(1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(3)
        machine.serve(server.getsockname())  # as the Service kubernetes does
        with a.connect((VIP, 80)):
            assert peer(server) == a.address


def test_a_pod_that_is_there_stays_and_a_broken_one_is_made_anew(machine: Machine) -> None:
    a = machine.pod()
    with a.listen() as server:
        again = Pod(machine.routed, "00000001-pod", a.address)
        with again.connect((a.address, 8080)):
            assert peer(server) == a.address
    with links.Links() as here:
        here.remove(undo.wire_name(machine.routed.place.wires, "00000001-pod"))
    third = Pod(machine.routed, "00000001-pod", a.address)
    with third.listen(), socket.create_connection((a.address, 8080), 3):
        pass


def test_forwarding_is_turned_on_only_where_it_is_needed(tmp_path: Path) -> None:
    """A machine of its own (a namespace) that forwards nothing, with a way out."""
    machine, outside = tmp_path / "machine", tmp_path / "outside"
    for path in (machine, outside):
        namespaces.create(path)

    def act() -> None:
        links.set_option("ipv4/ip_forward", "0")
        with links.Links() as here, outside.open() as far:
            here.up("lo")
            here.add_pair("up0", "eth0", far.fileno())
            here.add_address("up0", "192.0.2.1", 24)
            here.up("up0")
            here.add_route(IPv4Network("0.0.0.0/0"), "up0", gateway="192.0.2.2")
        routed = Routed(tmp_path / "network", IPv4Network(POD_CIDR), [SERVICES])
        routed.set_up()
        routed.fill([])
        assert routed.place.router == "up0"
        assert (links.option("ipv4/conf/up0/forwarding"), links.option("ipv4/ip_forward")) == ("1", "0")
        probe(routed, [str(routed.place.pods[9]), str(routed.place.pods[10])], str(SERVICES[-2]))
        undo.undo(tmp_path / "network")
        assert links.option("ipv4/conf/up0/forwarding") == "0"
        assert links.names() == ["lo", "up0"]

    try:
        namespaces.inside(machine, act)
    finally:
        for path in (machine, outside):
            namespaces.remove(path)


def test_nodes_may_try_the_machine_at_the_same_time(tmp_path: Path) -> None:
    options = NetworkOptions("namespace", POD_CIDR)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: why_not_here(options, tmp_path / str(n) / "network"), range(4)))
    assert found == [""] * 4


def test_a_second_node_takes_other_addresses(machine: Machine, tmp_path: Path) -> None:
    other = Routed(tmp_path / "other", IPv4Network(POD_CIDR), [SERVICES])
    try:
        other.set_up()
        assert not other.place.pods.overlaps(machine.routed.place.pods)
        assert other.place.table != machine.routed.place.table
    finally:
        undo.undo(tmp_path / "other")
    again = Routed(machine.directory, IPv4Network(POD_CIDR), [SERVICES])
    again.set_up()
    assert again.place == machine.routed.place


def test_what_belongs_to_nobody_any_more_is_removed_by_the_next_node(machine: Machine, tmp_path: Path) -> None:
    lost = Machine(tmp_path / "lost")
    lost.pod()
    namespaces.remove(undo.namespace_path(lost.directory, "00000001-pod"))
    shutil.rmtree(tmp_path / "lost")
    machine.routed.set_up()
    assert traces(lost.routed) == []
    assert len(traces(machine.routed)) == 1


def test_a_thousand_services_are_cheap(machine: Machine) -> None:
    """All at once, and then one of them: a change touches its own rules only."""
    a = machine.pod()
    wanted = {
        f"default/s{n}": [Balancer(Front(str(SERVICES[256 + n]), "TCP", 80), ((a.address, 8080), (a.address, 8081)))]
        for n in range(1000)
    }
    began = time.perf_counter()
    machine.proxy.apply(wanted)
    all_of_them = time.perf_counter() - began
    machine.proxy.apply({"default/s500": [Balancer(Front(str(SERVICES[756]), "TCP", 80), ((a.address, 8080),))]})
    one = time.perf_counter() - began - all_of_them
    with a.listen() as server, a.connect((str(SERVICES[756]), 80)):
        peer(server)
    assert all_of_them < 5.0
    assert one < 0.5
    machine.proxy.apply({owner: [] for owner in wanted})
    with pytest.raises(ConnectionRefusedError):
        a.connect((str(SERVICES[756]), 80))

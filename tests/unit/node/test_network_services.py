from __future__ import annotations

from typing import Any

from network_view import endpoint, service, slices

from glebe.kube.objects import Object
from glebe.node.network.services import Balancer, Front, balancers, host_ports, is_local

NODE = "local"


def found(of: Object, *endpoints: Object, **options: Any) -> dict[Front, Balancer]:
    made = balancers(of, [slices(of, *endpoints)], NODE, lambda node: node.startswith("sim"), **options)
    return {b.front: b for b in made}


CLUSTER_IP = Front("10.96.0.10", "TCP", 80)


def targets(of: Object, *endpoints: Object, front: Front = CLUSTER_IP) -> list[str]:
    return [address for address, _ in found(of, *endpoints)[front].targets]


WEB = service("web", "10.96.0.10")
A, B, FAR = endpoint("10.1.0.2"), endpoint("10.1.0.3"), endpoint("10.2.0.2", node="elsewhere")


def test_a_cluster_ip_leads_to_what_is_ready() -> None:
    assert targets(WEB, A, B, endpoint("10.1.0.4", ready=False)) == ["10.1.0.2", "10.1.0.3"]
    assert targets(WEB) == []


def test_ports_are_found_by_name() -> None:
    two = service("two", "10.96.0.10", ports=[{"name": "a", "port": 1}, {"name": "b", "port": 2, "protocol": "UDP"}])
    ports = [{"name": "b", "port": 22, "protocol": "UDP"}, {"name": "a", "port": 11, "protocol": "TCP"}]
    made = balancers(two, [slices(two, A, ports=ports)], NODE, lambda node: False)
    assert {(b.front.protocol, b.front.port, b.targets) for b in made} == {
        ("TCP", 1, (("10.1.0.2", 11),)),
        ("UDP", 2, (("10.1.0.2", 22),)),
    }


def test_what_ends_serves_only_if_nothing_else_does() -> None:
    ending = endpoint("10.1.0.4", ready=False, serving=True, terminating=True)
    assert targets(WEB, ending) == ["10.1.0.4"]
    assert targets(WEB, ending, A) == ["10.1.0.2"]
    assert targets(WEB, endpoint("10.1.0.5", ready=False, serving=False, terminating=True)) == []


def test_nobody_is_sent_to_pods_that_are_not_there() -> None:
    assert targets(WEB, A, endpoint("10.0.0.9", node="sim-1")) == ["10.1.0.2"]


def test_internal_traffic_policy_local() -> None:
    local = service("web", "10.96.0.10", internalTrafficPolicy="Local")
    assert targets(local, A, FAR) == ["10.1.0.2"]
    assert targets(local, FAR) == []
    assert targets(WEB, A, FAR) == ["10.1.0.2", "10.2.0.2"]


def test_node_ports_follow_the_external_policy() -> None:
    ports = [{"name": "http", "port": 80, "nodePort": 30080}]
    node = service("web", "10.96.0.10", type="NodePort", ports=ports, externalTrafficPolicy="Local")
    door = Front("", "TCP", 30080)
    assert targets(node, A, FAR, front=door) == ["10.1.0.2"]
    assert targets(node, A, FAR) == ["10.1.0.2", "10.2.0.2"]


def test_external_addresses() -> None:
    balanced = service("web", "10.96.0.10", type="LoadBalancer", externalIPs=["192.0.2.7", "2001:db8::1"])
    balanced["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.8"}, {"ip": "192.0.2.9", "ipMode": "Proxy"}]}}
    assert sorted(f.address for f in found(balanced, A)) == ["10.96.0.10", "192.0.2.7", "192.0.2.8"]


def test_affinity() -> None:
    sticky = service("web", "10.96.0.10", sessionAffinity="ClientIP")
    assert {b.affinity for b in found(sticky, A).values()} == {10800}
    sticky["spec"]["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": 5}}
    assert {b.affinity for b in found(sticky, A).values()} == {5}
    assert {b.affinity for b in found(WEB, A).values()} == {0}


def test_services_without_an_address_of_their_own_open_nothing() -> None:
    assert found(service("headless"), A) == {}
    assert found(service("alias", "", type="ExternalName", externalName="example.com"), A) == {}


def test_elsewhere_than_at_the_cluster_ip() -> None:
    assert [f.address for f in found(WEB, A, addresses=["127.9.9.9"])] == ["127.9.9.9"]


def test_host_ports() -> None:
    ports = [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81, "hostPort": 81, "hostIP": "192.0.2.1"}]
    pod: Object = {"metadata": {}, "spec": {"containers": [{"name": "c", "ports": [*ports, {"containerPort": 5}]}]}}
    assert host_ports(pod, "10.1.0.2") == [
        Balancer(Front("", "TCP", 8080), (("10.1.0.2", 80),)),
        Balancer(Front("192.0.2.1", "TCP", 81), (("10.1.0.2", 81),)),
    ]
    assert host_ports({**pod, "status": {"phase": "Failed"}}, "10.1.0.2") == []
    pod["spec"]["hostNetwork"] = True
    assert host_ports(pod, "192.0.2.1") == []


def test_what_no_pod_is_sent_to() -> None:
    assert [a for a in ("127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "10.1.0.2") if not is_local(a)] == [
        "10.1.0.2"
    ]

from __future__ import annotations

from typing import Any

from glebe.kube.objects import Object
from glebe.node.network.names import Resolver, hosts_for, parse_resolver, resolver_for

MACHINE = Resolver(("9.9.9.9", "8.8.8.8"), ("example.com",), ("edns0",))


def pod(**spec: Any) -> Object:
    return {"metadata": {"name": "p", "namespace": "team", "uid": "u"}, "spec": {"containers": [], **spec}}


def lines(text: str) -> list[str]:
    return text.splitlines()


def test_pods_search_their_namespace_first() -> None:
    assert lines(resolver_for(pod(), MACHINE, "10.244.0.1").text()) == [
        "search team.svc.cluster.local svc.cluster.local cluster.local example.com",
        "nameserver 10.244.0.1",
        "options ndots:5",
    ]


def test_policies() -> None:
    assert resolver_for(pod(dnsPolicy="Default"), MACHINE, "10.244.0.1") == MACHINE
    assert resolver_for(pod(hostNetwork=True), MACHINE, "10.244.0.1") == MACHINE
    host = resolver_for(pod(hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet"), MACHINE, "10.244.0.1")
    assert host.servers == ("10.244.0.1",)
    assert resolver_for(pod(dnsPolicy="None"), MACHINE, "10.244.0.1") == Resolver()
    assert resolver_for(pod(), MACHINE, "") == MACHINE  # nobody answers for the cluster's names


def test_dns_config_adds_and_replaces() -> None:
    config = {
        "nameservers": ["1.1.1.1"],
        "searches": ["my.dns", "svc.cluster.local"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
    }
    made = resolver_for(pod(dnsConfig=config), MACHINE, "10.244.0.1")
    assert made.servers == ("10.244.0.1", "1.1.1.1")
    assert made.searches == ("team.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.com", "my.dns")
    assert made.options == ("ndots:2", "edns0")
    alone = resolver_for(pod(dnsPolicy="None", dnsConfig=config), MACHINE, "10.244.0.1")
    assert (alone.servers, alone.searches) == (("1.1.1.1",), ("my.dns", "svc.cluster.local"))


def test_no_more_servers_than_resolvers_read() -> None:
    config = {"nameservers": [f"1.1.1.{n}" for n in range(6)], "searches": [f"s{n}.example" for n in range(60)]}
    made = resolver_for(pod(dnsPolicy="None", dnsConfig=config), MACHINE, "")
    assert (len(made.servers), len(made.searches)) == (3, 32)


def test_the_machines_own_file_is_read_as_resolvers_do() -> None:
    text = (
        "# c\nnameserver 9.9.9.9 \ndomain old\nsearch a b . # x\noptions rotate timeout:1\nnameserver ::1\nsortlist x\n"
    )
    assert parse_resolver(text) == Resolver(("9.9.9.9", "::1"), ("a", "b"), ("rotate", "timeout:1"))


def test_hosts_of_a_pod() -> None:
    aliases = [{"ip": "1.2.3.4", "hostnames": ["one", "two"]}]
    made = lines(hosts_for(pod(hostname="web-0", subdomain="web", hostAliases=aliases), "10.1.0.2"))
    assert made[0] == "# Kubernetes-managed hosts file."
    assert "10.1.0.2\tweb-0.web.team.svc.cluster.local\tweb-0" in made
    assert made[-2:] == ["# Entries added by HostAliases.", "1.2.3.4\tone\ttwo"]
    assert "10.1.0.2\tp" in lines(hosts_for(pod(), "10.1.0.2"))


def test_hosts_of_a_pod_with_the_machines_network() -> None:
    made = hosts_for(pod(hostNetwork=True), "192.0.2.1", machine="127.0.0.1 here\n")
    assert lines(made) == ["# Kubernetes-managed hosts file (host network).", "127.0.0.1 here"]


def test_names_of_the_cluster_where_nobody_answers_for_them() -> None:
    made = hosts_for(pod(), "127.1.2.3", more=[("127.9.9.9", "web web.team")])
    assert lines(made)[-1] == "127.9.9.9\tweb web.team"

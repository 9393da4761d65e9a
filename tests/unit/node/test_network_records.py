from __future__ import annotations

from network_view import FixedView, endpoint, service, slices

from glebe.node.network.records import Answer, answer, concerns, reverse

WEB = service("web", "10.96.0.10", ports=[{"name": "http", "port": 80, "protocol": "TCP"}])
DB = service("db", ports=[{"name": "pg", "port": 5432, "protocol": "TCP"}])
EMPTY = service("empty")
ALIAS = service("alias", "", type="ExternalName", externalName="Example.Com.")
DB_SLICE = slices(
    DB,
    endpoint("10.1.0.2", host="db-0"),
    endpoint("10.1.0.3"),
    endpoint("10.1.0.4", host="db-2", ready=False),
    ports=[{"name": "pg", "port": 5432, "protocol": "TCP"}],
)
VIEW = FixedView([WEB, DB, EMPTY, ALIAS], [DB_SLICE, slices(WEB, endpoint("10.1.0.9"))])


def ask(name: str, kind: str = "A") -> list[str] | None:
    found = answer(VIEW, name, kind)
    return [f"{r.kind} {r.data}" for r in found.records] if found.exists else None


def test_a_service_is_at_its_cluster_ip() -> None:
    assert ask("web.default.svc.cluster.local") == ["A 10.96.0.10"]
    assert ask("web.default.svc.cluster.local", "AAAA") == []  # it exists, without such addresses
    assert ask("web.other.svc.cluster.local") is None
    assert ask("nobody.default.svc.cluster.local") is None


def test_a_headless_service_is_at_its_ready_endpoints() -> None:
    assert ask("db.default.svc.cluster.local") == ["A 10.1.0.2", "A 10.1.0.3"]
    assert ask("db-0.db.default.svc.cluster.local") == ["A 10.1.0.2"]
    assert ask("10-1-0-3.db.default.svc.cluster.local") == ["A 10.1.0.3"]
    assert ask("db-2.db.default.svc.cluster.local") is None
    assert ask("empty.default.svc.cluster.local") is None
    assert ask("db-0.web.default.svc.cluster.local") is None


def test_ports_have_names() -> None:
    assert ask("_http._tcp.web.default.svc.cluster.local", "SRV") == ["SRV 0 100 80 web.default.svc.cluster.local"]
    found = answer(VIEW, "_pg._tcp.db.default.svc.cluster.local", "SRV")
    assert [r.data for r in found.records] == [
        "0 50 5432 db-0.db.default.svc.cluster.local",
        "0 50 5432 10-1-0-3.db.default.svc.cluster.local",
    ]
    assert [(r.name.split(".")[0], r.data) for r in found.extra] == [("db-0", "10.1.0.2"), ("10-1-0-3", "10.1.0.3")]
    assert ask("_pg._udp.db.default.svc.cluster.local", "SRV") is None
    assert ask("_http._tcp.web.default.svc.cluster.local") == []


def test_an_external_name_is_an_alias() -> None:
    found = answer(VIEW, "alias.default.svc.cluster.local", "A")
    assert [r.data for r in found.records] == ["example.com"]
    assert found.alias == "example.com"
    assert answer(VIEW, "alias.default.svc.cluster.local", "CNAME").alias == ""


def test_pods_have_names_of_their_addresses() -> None:
    assert ask("10-1-0-9.default.pod.cluster.local") == ["A 10.1.0.9"]
    assert ask("10-1-0-9.nowhere.pod.cluster.local") is None
    assert ask("10-1-0-900.default.pod.cluster.local") is None


def test_what_is_above_services_exists_without_records() -> None:
    for name in ("cluster.local", "svc.cluster.local", "default.svc.cluster.local", "other.pod.cluster.local"):
        assert ask(name) == [], name
    assert ask("nowhere.svc.cluster.local") is None
    assert ask("something.cluster.local") is None
    assert ask("dns-version.cluster.local", "TXT") == ["TXT 1.1.0"]


def test_only_the_clusters_names_are_ours() -> None:
    assert concerns("a.b.svc.cluster.local")
    assert concerns("cluster.local")
    assert not concerns("mycluster.local")
    assert not concerns("cluster.local.example.com")


def test_addresses_have_names() -> None:
    def names(found: Answer | None) -> list[str] | None:
        return [r.data for r in found.records] if found is not None else None

    assert names(reverse(VIEW, "10.0.96.10.in-addr.arpa")) == ["web.default.svc.cluster.local"]
    assert names(reverse(VIEW, "2.0.1.10.in-addr.arpa")) == ["db-0.db.default.svc.cluster.local"]
    assert names(reverse(VIEW, "9.0.1.10.in-addr.arpa")) == ["10-1-0-9.web.default.svc.cluster.local"]
    assert reverse(VIEW, "8.8.8.8.in-addr.arpa") is None
    assert reverse(VIEW, "example.com") is None

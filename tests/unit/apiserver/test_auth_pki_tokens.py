"""Keys, certificates, tokens: who is believed to be whom."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from glebe.apiserver.auth import jwt
from glebe.apiserver.auth.authn import ANONYMOUS, Authenticator, read_static_tokens
from glebe.apiserver.auth.pki import LEAF_LIFE, Pki
from glebe.apiserver.auth.tokens import ServiceAccountTokens
from glebe.kube.clock import Env, FixedClock
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object
from glebe.kube.transport import Request

NOW = FixedClock().value


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    out = Pki(tmp_path_factory.mktemp("pki"))
    out.ensure(["glebe.example.org", "10.1.2.3"], NOW)
    return out


def contents(directory: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(directory.iterdir())}


def test_keys_are_private_and_a_restart_changes_nothing(pki: Pki) -> None:
    before = contents(pki.directory)
    for path in pki.directory.glob("*.key"):
        assert path.stat().st_mode & 0o777 == 0o600
    pki.ensure(["glebe.example.org"], NOW + 3600)
    assert contents(pki.directory) == before


def test_the_server_certificate_names_all_hosts(pki: Pki) -> None:
    names = x509.load_pem_x509_certificate(pki.server_file.read_bytes()).extensions
    san = {str(n.value) for n in names.get_extension_for_class(x509.SubjectAlternativeName).value}
    assert {"localhost", "127.0.0.1", "kubernetes.default.svc", "glebe.example.org", "10.1.2.3"} <= san


@pytest.mark.parametrize("damage", ["expiry", "host", "lost key", "garbage", "new CA"])
def test_what_is_not_good_is_made_anew(tmp_path: Path, damage: str) -> None:
    pki = Pki(tmp_path)
    pki.ensure([], NOW)
    before = contents(tmp_path)
    hosts, now = [], NOW
    if damage == "expiry":
        now += (LEAF_LIFE - timedelta(days=20)).total_seconds()
    elif damage == "host":
        hosts = ["new.example.org"]
    elif damage == "lost key":
        (tmp_path / "apiserver.key").unlink()
    elif damage == "garbage":
        (tmp_path / "apiserver.crt").write_text("not a certificate")
    else:
        (tmp_path / "ca.key").unlink()
    pki.ensure(hosts, now)
    after = contents(tmp_path)
    assert after["apiserver.crt"] != before["apiserver.crt"]
    assert (after["ca.crt"] == before["ca.crt"]) is (damage != "new CA")
    assert after["service-account.key"] == before["service-account.key"]
    certificate = x509.load_pem_x509_certificate(after["apiserver.crt"])
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(after["ca.crt"]))
    assert certificate.not_valid_after_utc > datetime.fromtimestamp(now, UTC)


def test_the_files_make_a_server_context(pki: Pki) -> None:
    context = pki.server_context()
    assert context.verify_mode is ssl.CERT_OPTIONAL


def test_a_token_is_worth_nothing_when_anything_in_it_changes() -> None:
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    token = jwt.sign({"sub": "x"}, key)
    assert jwt.verify(token, key.public_key()) == {"sub": "x"}
    assert jwt.verify(token, other.public_key()) is None
    head, body, tail = token.split(".")
    forged = jwt.sign({"sub": "root"}, other).split(".")[1]
    for text in (f"{head}.{forged}.{tail}", f"{head}.{body}.", f"{head}.{body}", "", "a.b.c", f"{token}x"):
        assert jwt.verify(text, key.public_key()) is None


class Objects:
    """A lookup over a dictionary."""

    def __init__(self, *objects: tuple[str, str, Object]) -> None:
        self.objects = {(c, r, o["metadata"].get("namespace", ""), o["metadata"]["name"]): o for c, r, o in objects}

    def read(self, cluster: str, group_resource: str, namespace: str, name: str) -> Object | None:
        return self.objects.get((cluster, group_resource, namespace, name))

    def read_all(self, cluster: str, group_resource: str, namespace: str | None = None) -> list[Object]:
        return [
            o
            for (c, r, n, _), o in self.objects.items()
            if (c, r) == (cluster, group_resource) and (not namespace or n == namespace)
        ]


def account(uid: str = "u1") -> Object:
    return {"metadata": {"name": "robot", "namespace": "team", "uid": uid}}


def tokens(*more: tuple[str, str, Object]) -> tuple[ServiceAccountTokens, FixedClock, Objects]:
    clock = FixedClock()
    lookup = Objects(("root", "serviceaccounts", account()), *more)
    key = ec.generate_private_key(ec.SECP256R1())
    return ServiceAccountTokens(key, Env.seeded(1, clock), lookup), clock, lookup


def ask(**spec: object) -> Object:
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}


def test_a_service_account_token_names_its_account_in_its_cluster() -> None:
    issuer, clock, lookup = tokens()
    answer = issuer.issue("root", account(), ask())
    assert answer["status"]["expirationTimestamp"] == "2026-01-01T01:00:00Z"
    token = answer["status"]["token"]
    found = issuer.check(token, "root")
    assert found
    assert found[0].name == "system:serviceaccount:team:robot"
    assert "system:serviceaccounts:team" in found[0].groups
    assert issuer.check(token, "other") is None
    assert issuer.check(token, "root", ("vault",)) is None
    clock.value += 3600
    assert issuer.check(token, "root") is None
    clock.value -= 3600
    lookup.objects["root", "serviceaccounts", "team", "robot"] = account("u2")  # deleted and created again
    assert issuer.check(token, "root") is None


def test_a_token_bound_to_a_pod_ends_with_the_pod() -> None:
    pod = {"metadata": {"name": "p", "namespace": "team", "uid": "pu"}, "spec": {"serviceAccountName": "robot"}}
    issuer, _, lookup = tokens(("root", "pods", pod))
    request = ask(boundObjectRef={"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "pu"})
    token = issuer.issue("root", account(), request)["status"]["token"]
    found = issuer.check(token, "root")
    assert found
    assert found[0].extra["authentication.kubernetes.io/pod-name"] == ("p",)
    del lookup.objects["root", "pods", "team", "p"]
    assert issuer.check(token, "root") is None
    with pytest.raises(ApiError, match="not found"):
        issuer.issue("root", account(), request)


@pytest.mark.parametrize("life", [599, 1 << 33, "1h"])
def test_a_lifetime_out_of_range_is_refused(life: object) -> None:
    issuer, _, _ = tokens()
    with pytest.raises(ApiError) as caught:
        issuer.issue("root", account(), ask(expirationSeconds=life))
    assert caught.value.code == 422
    assert "spec.expirationSeconds" in caught.value.message


def der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)


async def test_who_asks_is_known_by_certificate_token_or_not_at_all(pki: Pki, tmp_path: Path) -> None:
    file = tmp_path / "tokens.csv"
    file.write_text('# token,user,uid,groups\ns3cret,ann,7,"research,ops"\n')
    clock = FixedClock()
    issuer, _, _ = tokens()
    authenticator = Authenticator(
        clock, cas=[pki.ca_certificate], tokens=issuer, static_tokens=read_static_tokens(file)
    )

    async def who(**request: object) -> object:
        return await authenticator.authenticate(Request("GET", "/api", **request), "root")  # type: ignore[arg-type]

    admin = await who(peer_certificate=der(pki.admin_file.read_bytes()))
    assert admin
    assert (admin.name, "system:masters" in admin.groups) == ("glebe-admin", True)  # type: ignore[attr-defined]
    ann = await who(headers={"authorization": "Bearer s3cret"})
    assert ann
    assert ann.groups == ("research", "ops", "system:authenticated")  # type: ignore[attr-defined]
    assert await who(headers={"authorization": "Bearer wrong"}) is None
    assert await who() == ANONYMOUS

    assert await who(peer_certificate=der(pki.server_file.read_bytes())) is None  # not a client's certificate
    stranger = Pki(tmp_path / "other")
    stranger.ensure([], NOW)
    assert await who(peer_certificate=der(stranger.admin_file.read_bytes())) is None
    clock.value += LEAF_LIFE.total_seconds() + 1
    assert await who(peer_certificate=der(pki.admin_file.read_bytes())) is None


def test_a_broken_token_file_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "tokens.csv"
    file.write_text("a,b,c\nonly-a-token\n")
    with pytest.raises(ValueError, match="line 2"):
        read_static_tokens(file)

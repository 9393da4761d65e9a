"""What an attacker would try: tokens, certificates and headers that claim to be more than they are."""

from __future__ import annotations

import asyncio
import contextlib
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from glebe.apiserver.auth import jwt
from glebe.apiserver.auth.assembly import Identity, secure
from glebe.apiserver.auth.authconfig import AuthenticationConfiguration
from glebe.apiserver.auth.options import IdentityOptions
from glebe.apiserver.auth.pki import LeafRequest, Pki
from glebe.apiserver.auth.requestheader import FrontProxy
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env, LoopClock, format_time
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.resources import NAMESPACES, NODES, PODS, SECRETS, SERVICE_ACCOUNTS
from glebe.kube.transport import Request, User

WHOAMI = "apis/authentication.k8s.io/v1/selfsubjectreviews"


def _pki(folder: Path) -> Pki:
    made = Pki(folder)
    made.ensure([], LoopClock.EPOCH)
    return made


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return _pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def proxy_pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return _pki(tmp_path_factory.mktemp("proxy"))


class World:
    """A server with the clusters ``a`` and ``b``."""

    def __init__(self, pki: Pki, options: IdentityOptions | None = None) -> None:
        self.env = Env.seeded(1)
        self.pki = pki
        self.server = ApiServer(MemoryStore(), self.env, TypeRegistry())
        self.identity: Identity = secure(self.server, pki, self.env, options)
        self.admin = Client(InProcessTransport(self.server.handle))

    async def start(self) -> World:
        await self.server.start()
        for name in ("a", "b"):
            await self.server.clusters.create(name)
        return self

    async def who(self, prefix: str = "", *, der: bytes | None = None, **headers: str) -> str:
        """Who one is taken for; "" for nobody (401)."""
        given = {k.replace("_", "-"): v for k, v in headers.items()}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        request = Request(
            "POST",
            f"{prefix}/{WHOAMI}",
            headers={"content-type": "application/json", **given},
            body=orjson.dumps(body),
            peer_certificate=der,
        )
        answer = await self.server.handle(request)
        if answer.status == 201:
            return str(orjson.loads(answer.body)["status"]["userInfo"]["username"])
        if answer.status == 403:
            return str(orjson.loads(answer.body)["message"]).split('User "')[1].split('"')[0]
        assert answer.status == 401, answer.body
        return ""

    async def token_user(self, token: str, cluster: str = "") -> str:
        return await self.who(f"/clusters/{cluster}" if cluster else "", authorization=f"Bearer {token}")

    async def robot(self, cluster: str = "", namespace: str = "default", **spec: Any) -> str:
        """A token of a service account, which is made if need be."""
        client = self.admin.for_cluster(cluster)
        meta = {"name": "robot", "namespace": namespace}
        with contextlib.suppress(ApiError):
            await client.create(SERVICE_ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": spec}
        answer = await client.create(SERVICE_ACCOUNTS, request, namespace, name="robot", subresource="token")
        return str(answer["status"]["token"])


ROBOT = "system:serviceaccount:default:robot"


def der_of(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)


# --- service account tokens


async def test_a_token_of_one_cluster_is_worth_nothing_in_another(pki: Pki) -> None:
    w = await World(pki).start()
    in_a, in_root = await w.robot("a"), await w.robot()
    await w.robot("b")  # the same names are there, too
    assert await w.token_user(in_a, "a") == ROBOT
    assert await w.token_user(in_root) == ROBOT
    for cluster, token in (("b", in_a), ("", in_a), ("a", in_root), ("*", in_root), ("*", in_a), ("nowhere", in_a)):
        assert await w.token_user(token, cluster) == "", cluster


async def test_a_token_ends_with_its_cluster_also_when_the_name_comes_again(pki: Pki) -> None:
    w = await World(pki).start()
    token = await w.robot("a")
    await w.server.clusters.delete("a")
    assert await w.token_user(token, "a") == ""
    await w.server.clusters.create("a")
    await w.robot("a")
    assert await w.token_user(token, "a") == ""


async def test_a_token_ends_with_its_account_and_does_not_come_back(pki: Pki) -> None:
    w = await World(pki).start()
    await w.admin.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})
    token = await w.robot(namespace="team")
    assert await w.token_user(token) == "system:serviceaccount:team:robot"
    await w.admin.delete(SERVICE_ACCOUNTS, "robot", "team")
    assert await w.token_user(token) == ""
    fresh = await w.robot(namespace="team")
    assert await w.token_user(token) == ""
    assert await w.token_user(fresh) == "system:serviceaccount:team:robot"


async def test_a_token_of_a_node_or_secret_ends_with_it(pki: Pki) -> None:
    w = await World(pki).start()
    node = await w.admin.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}})
    secret = await w.admin.create(
        SECRETS, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"}}
    )
    of_node = await w.robot(boundObjectRef={"kind": "Node", "apiVersion": "v1", "name": "n"})
    of_secret = await w.robot(
        boundObjectRef={"kind": "Secret", "apiVersion": "v1", "name": "s", "uid": secret["metadata"]["uid"]}
    )
    found = w.identity.tokens.check(of_node, "root")
    assert found
    assert found[0].extra["authentication.kubernetes.io/node-uid"] == (node["metadata"]["uid"],)
    assert await w.token_user(of_secret) == ROBOT
    await w.admin.delete(NODES, "n")
    await w.admin.delete(SECRETS, "s", "default")
    assert await w.token_user(of_node) == ""
    assert await w.token_user(of_secret) == ""


async def test_nobody_binds_a_token_to_somebody_elses_pod(pki: Pki) -> None:
    w = await World(pki).start()
    spec = {"containers": [{"name": "c", "image": "i"}], "serviceAccountName": "default"}
    await w.admin.create(
        SERVICE_ACCOUNTS,
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}},
    )
    await w.admin.create(
        PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"}, "spec": spec}
    )
    with pytest.raises(ApiError, match="pod running with different serviceaccount name"):
        await w.robot(boundObjectRef={"kind": "Pod", "apiVersion": "v1", "name": "p"})
    with pytest.raises(ApiError, match="cannot bind token to object of type"):
        await w.robot(boundObjectRef={"kind": "ConfigMap", "apiVersion": "v1", "name": "p"})
    with pytest.raises(ApiError, match="does not match the UID in record"):
        await w.admin.create(
            SERVICE_ACCOUNTS,
            {
                "spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "else"}},
                "metadata": {},
            },
            "default",
            name="default",
            subresource="token",
        )


async def test_tampered_tokens(pki: Pki) -> None:
    w = await World(pki).start()
    good = await w.robot()
    head, body, tail = good.split(".")
    claims = orjson.loads(jwt.decode(body))
    own = jwt.key_id(w.identity.tokens.public_keys[0])
    mine = ec.generate_private_key(ec.SECP256R1())
    masters = jwt.encode(orjson.dumps({**claims, "sub": "system:serviceaccount:kube-system:admin"}))

    def headed(**header: Any) -> str:
        return jwt.encode(orjson.dumps(header))

    forged = jwt.sign(claims, mine)
    secret = w.identity.tokens.public_keys[0].public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    import hashlib
    import hmac

    confused = f"{headed(alg='HS256', kid=own)}.{body}"
    confused += "." + jwt.encode(hmac.new(secret, confused.encode(), hashlib.sha256).digest())
    for text in (
        f"{headed(alg='none')}.{body}.",
        f"{headed(alg='None', kid=own)}.{body}.",
        f"{headed(alg='none', kid=own)}.{body}.{tail}",
        f"{head}.{masters}.{tail}",
        confused,
        forged,
        f"{headed(alg='ES256', kid=own)}.{forged.split('.')[1]}.{forged.split('.')[2]}",
        f"{headed(alg='ES256', kid='../../etc/passwd')}.{body}.{tail}",
        f"{headed(alg='ES256', kid=['x'])}.{body}.{tail}",
        f"{headed(alg='ES256', kid=own, jwk=jwt.to_jwk(mine.public_key()))}.{forged.partition('.')[2]}",
        f"{headed(alg='ES256', kid=own, crit=['exp'])}.{body}.{tail}",
        f"{head}.{body}.{jwt.encode(bytes(64))}",
        f"{head}.{body}.{tail}.x",
        f" {good[:-1]}\n",
        "a" * 100_000,
    ):
        assert await w.token_user(text) == "", text[:80]
    assert await w.token_user(good) == ROBOT


async def test_a_token_is_good_for_its_audience_and_time_only(pki: Pki) -> None:
    w = await World(pki).start()
    vault = await w.robot(audiences=["vault"])
    assert await w.token_user(vault) == ""
    found = await w.server.authenticator.check_token(vault, "root", ("vault", "x"))  # type: ignore[union-attr]
    assert found
    assert found[1] == ["vault"]
    good = await w.robot(expirationSeconds=600)
    assert await w.token_user(good) == ROBOT
    await asyncio.sleep(600)
    assert await w.token_user(good) == ""


async def test_keys_rotate_without_a_break(pki: Pki) -> None:
    old = await World(pki).start()
    token = await old.robot()
    rsa_key = rsa.generate_private_key(65537, 2048)
    tokens = type(old.identity.tokens)(
        (rsa_key, pki.signing_key()), old.env, old.server, uid_of=old.server.clusters.uid
    )
    assert tokens.check(token, "root")
    account = await old.admin.get(SERVICE_ACCOUNTS, "robot", "default")
    fresh = tokens.issue("root", account, {"spec": {}})["status"]["token"]
    assert tokens.check(fresh, "root")
    assert old.identity.tokens.check(fresh, "root") is None
    dropped = type(tokens)(rsa_key, old.env, old.server, uid_of=old.server.clusters.uid)
    assert dropped.check(token, "root") is None


async def test_a_legacy_token_lives_in_its_secret(pki: Pki) -> None:
    w = await World(pki).start()
    await w.robot("a")
    client = w.admin.for_cluster("a")
    account = await client.get(SERVICE_ACCOUNTS, "robot", "default")
    token = w.identity.tokens.issue_legacy("a", account, "legacy")
    assert await w.token_user(token, "a") == ""  # signed, but in no secret
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/service-account-token",
        "metadata": {
            "name": "legacy",
            "namespace": "default",
            "annotations": {"kubernetes.io/service-account.name": "robot"},
        },
        "data": {"token": b64encode(token.encode()).decode()},
    }
    await client.create(SECRETS, secret)
    assert await w.token_user(token, "a") == ROBOT
    assert await w.token_user(token, "b") == ""
    assert await w.token_user(token) == ""
    await client.delete(SECRETS, "legacy", "default")
    assert await w.token_user(token, "a") == ""


# --- bootstrap tokens


async def test_bootstrap_tokens(pki: Pki) -> None:
    w = await World(pki).start()

    async def put(identity: str, **data: str) -> None:
        given = {
            "token-id": identity,
            "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:gpu",
            **data,
        }
        encoded = {k: b64encode(v.encode()).decode() for k, v in given.items() if v}
        meta = {"name": f"bootstrap-token-{identity}", "namespace": "kube-system"}
        kind = "bootstrap.kubernetes.io/token"
        await w.admin.create(
            SECRETS, {"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": meta, "data": encoded}
        )

    later = format_time(w.env.clock.now() + 60)
    await put("aaaaaa", expiration=later)
    await put("bbbbbb", **{"usage-bootstrap-authentication": ""})
    await put("cccccc", **{"auth-extra-groups": "system:masters"})
    await put("dddddd", expiration="yesterday")
    await put("eeeeee", **{"token-id": "ffffff"})
    assert await w.token_user("aaaaaa.0123456789abcdef") == "system:bootstrap:aaaaaa"
    for identity in ("bbbbbb", "cccccc", "dddddd", "eeeeee", "ffffff"):
        assert await w.token_user(f"{identity}.0123456789abcdef") == "", identity
    assert await w.token_user("aaaaaa.0123456789abcdeg") == ""
    assert await w.token_user("aaaaaa.0123456789abcdef", "a") == ""
    await asyncio.sleep(61)
    assert await w.token_user("aaaaaa.0123456789abcdef") == ""


# --- certificates and headers


async def test_platform_certificates_reach_other_clusters_as_masters_only(pki: Pki) -> None:
    w = await World(pki).start()
    ann = der_of(pki.issue_client("ann", ("dev",), LoopClock.EPOCH, scope=None).certificate)
    boss = der_of(pki.issue_client("boss", ("system:masters",), LoopClock.EPOCH, scope=None).certificate)
    assert await w.who(der=ann) == "ann"
    assert await w.who("/clusters/a", der=ann) == ""
    assert await w.who("/clusters/a", der=boss) == "boss"


async def test_certificates_that_name_clusters_oddly_are_nobodys(pki: Pki) -> None:
    w = await World(pki).start()
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    at, life = datetime.fromtimestamp(LoopClock.EPOCH, UTC), timedelta(days=1)
    uid = w.server.clusters.uid("a")

    def der(*uris: str) -> bytes:
        return der_of(pki.sign(key, LeafRequest("x", ("system:masters",), uris=uris), at, life))

    assert await w.who("/clusters/a", der=der(f"urn:glebe:cluster:a:{uid}")) == "x"
    for uris in (
        (f"urn:glebe:cluster:a:{uid}", f"urn:glebe:cluster:b:{w.server.clusters.uid('b')}"),
        (f"urn:glebe:cluster:a:{uid}:more",),
        (f"URN:glebe:cluster:a:{uid}",),
        ("urn:glebe:cluster:a:",),
        ("urn:glebe:cluster::",),
        ("urn:glebe:everything",),
    ):
        for prefix in ("", "/clusters/a", "/clusters/b", "/clusters/*"):
            assert await w.who(prefix, der=der(*uris)) == "", uris


async def test_a_certificate_that_expires_on_a_kept_connection(pki: Pki) -> None:
    w = await World(pki).start()
    pair = pki.issue_client("ann", (), w.env.clock.now(), scope=None, life=timedelta(minutes=10))
    assert await w.who(der=der_of(pair.certificate)) == "ann"
    await asyncio.sleep(601)
    assert await w.who(der=der_of(pair.certificate)) == ""


async def test_headers_of_a_proxy_are_believed_from_the_proxy_only(pki: Pki, proxy_pki: Pki) -> None:
    options = IdentityOptions(proxy=FrontProxy((proxy_pki.ca_certificate,), ("front",)))
    w = await World(pki, options).start()
    front = der_of(proxy_pki.issue_client("front", (), LoopClock.EPOCH, scope=None).certificate)
    other = der_of(proxy_pki.issue_client("other", (), LoopClock.EPOCH, scope=None).certificate)
    ann = der_of(pki.issue_client("ann", ("dev",), LoopClock.EPOCH, scope=None).certificate)
    assert await w.who(x_remote_user="boss", x_remote_group="system:masters") == "system:anonymous"
    assert await w.who(der=ann, x_remote_user="boss", x_remote_group="system:masters") == "ann"
    assert await w.who(der=other, x_remote_user="boss") == ""
    assert await w.who(der=front) == ""  # the proxy itself is nobody
    assert await w.who(der=front, x_remote_user="bob", x_remote_group="dev,ops") == "bob"
    assert await w.who("/clusters/a", der=front, x_remote_user="bob") == ""


async def test_impersonation_gives_no_more_than_the_right_to_it(pki: Pki) -> None:
    w = await World(pki, IdentityOptions(static_tokens={"t": User("ann", ("system:authenticated",))})).start()
    for header, value in (
        ("impersonate_user", "boss"),
        ("impersonate_user", "system:serviceaccount:kube-system:default"),
        ("impersonate_user", "system:node:n"),
    ):
        assert await w.who(authorization="Bearer t", **{header: value}) == "ann"
    answer = await w.server.handle(
        Request("GET", "/api/v1/pods", headers={"authorization": "Bearer t", "impersonate-group": "system:masters"})
    )
    assert answer.status == 400


async def test_a_tenants_masters_are_masters_there_only(pki: Pki) -> None:
    w = await World(pki).start()
    from glebe.apiserver.auth.scope import Scope

    scope = Scope("a", w.server.clusters.uid("a"))
    owner = der_of(pki.issue_client("owner", ("system:masters",), LoopClock.EPOCH, scope=scope).certificate)

    async def status(method: str, path: str, **headers: str) -> int:
        request = Request(method, path, headers=headers, peer_certificate=owner)
        return (await w.server.handle(request)).status

    assert await status("GET", "/clusters/a/api/v1/secrets") == 200
    for path in (
        "/api/v1/secrets",
        "/clusters/b/api/v1/secrets",
        "/clusters/*/api/v1/secrets",
        "/clusters",
        "/clusters/a",
    ):
        assert await status("GET", path) == 401, path
    assert await status("DELETE", "/clusters/b") == 401
    assert await status("GET", "/clusters/a/../b/api/v1/secrets") in (401, 404)
    assert await status("GET", "/clusters/a/clusters/b/api/v1/secrets") == 404


async def test_anonymous_can_be_turned_off(pki: Pki) -> None:
    w = await World(pki, IdentityOptions(anonymous=False)).start()
    assert await w.who() == ""


async def test_anonymous_may_be_kept_to_some_paths(pki: Pki) -> None:
    configured = AuthenticationConfiguration(anonymous=True, anonymous_paths=("/api",))
    w = await World(pki, IdentityOptions(authentication=configured)).start()
    assert await w.who() == ""
    # 403: known to be nobody in particular, who may not see it; 401: not even that
    for path, status in (
        ("/api", 403),
        ("/clusters/a/api", 403),
        ("/apis", 401),
        ("/api/", 401),
        ("/api/v1/pods", 401),
    ):
        assert (await w.server.handle(Request("GET", path))).status == status, path


async def test_static_tokens_of_other_audiences_are_refused_in_reviews(pki: Pki) -> None:
    w = await World(pki, IdentityOptions(static_tokens={"t": User("ann")})).start()
    check = w.server.authenticator.check_token  # type: ignore[union-attr]
    assert await check("t", "root", ("vault",)) is None
    found = await check("t", "root", ("vault", w.identity.tokens.issuer_of("root")))
    assert found
    assert found[1] == [w.identity.tokens.issuer_of("root")]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("api/v1/namespaces/default/serviceaccounts/robot/token", {"spec": "x"}),
        ("api/v1/namespaces/default/serviceaccounts/robot/token", {"spec": {"audiences": "x"}}),
        ("api/v1/namespaces/default/serviceaccounts/robot/token", {"spec": {"boundObjectRef": ["x"]}}),
        ("api/v1/namespaces/default/serviceaccounts/robot/token", {"spec": {"expirationSeconds": True}}),
        ("api/v1/namespaces/default/serviceaccounts/robot/token", {"metadata": ["x"]}),
        ("apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": 7}}),
        ("apis/authentication.k8s.io/v1/tokenreviews", {"spec": []}),
        ("apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {"spec": {"resourceAttributes": "x"}}),
        ("apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {"spec": {"nonResourceAttributes": {"path": 1}}}),
        ("apis/authorization.k8s.io/v1/subjectaccessreviews", {"spec": {"user": "a", "extra": {"k": 1}}}),
        ("apis/authorization.k8s.io/v1/subjectaccessreviews", {"spec": {"user": "a", "groups": "b"}}),
        ("apis/authorization.k8s.io/v1/selfsubjectrulesreviews", {"spec": {"namespace": {}}}),
    ],
)
async def test_questions_of_the_wrong_shape_are_the_clients_fault(pki: Pki, path: str, body: dict[str, Any]) -> None:
    w = await World(pki, IdentityOptions(static_tokens={"t": User("boss", ("system:masters",))})).start()
    await w.robot()
    headers = {"authorization": "Bearer t", "content-type": "application/json"}
    answer = await w.server.handle(Request("POST", f"/{path}", headers=headers, body=orjson.dumps(body)))
    assert answer.status in (400, 422), answer.body

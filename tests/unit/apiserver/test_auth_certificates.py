"""Certificate signing requests from creation to a client that is believed, in every logical cluster for itself."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from glebe.apiserver.auth.assembly import Identity, secure
from glebe.apiserver.auth.pki import Pki
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env, LoopClock
from glebe.kube.errors import ApiError
from glebe.kube.informer import Informers
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import Object
from glebe.kube.transport import Request, Response, User
from glebe.workloads import certificates
from glebe.workloads.certificates import REQUESTS

CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET = "kubernetes.io/kube-apiserver-client-kubelet"
SERVING = "kubernetes.io/kubelet-serving"
ANN = User("ann", ("dev", "system:authenticated"), "7", {"scopes": ("a", "b")})


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    out = Pki(tmp_path_factory.mktemp("pki"))
    out.ensure(["glebe.example.org"], LoopClock.EPOCH)
    return out


class As:
    def __init__(self, server: ApiServer, user: User) -> None:
        self._server, self._user = server, user

    async def send(self, request: Request) -> Response:
        request.user = self._user
        return await self._server.handle(request)

    async def close(self) -> None:
        return None


class World:
    """A server with two logical clusters and the controller over one of them."""

    def __init__(self, pki: Pki, cluster: str = "") -> None:
        self.env = Env.seeded(1)
        self.server = ApiServer(MemoryStore(), self.env, TypeRegistry())
        self.identity: Identity = secure(self.server, pki, self.env)
        self.admin = Client(InProcessTransport(self.server.handle), cluster=cluster)
        self.ann = Client(As(self.server, ANN), cluster=cluster)
        self._tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> World:
        await self.server.start()
        for name in ("a", "b"):
            await self.server.clusters.create(name)
        informers = Informers(self.admin, self.env)
        controller = certificates.build(self.admin, informers, self.env, self.identity.signer)
        self._tasks = [asyncio.create_task(informers.run()), asyncio.create_task(controller.run())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.server.close()

    async def approve(self, name: str, kind: str = "Approved") -> Object:
        found = await self.admin.get(REQUESTS, name)
        conditions = [{"type": kind, "status": "True", "reason": "Test", "message": "so be it"}]
        return await self.admin.update(
            REQUESTS, {**found, "status": {"conditions": conditions}}, subresource="approval"
        )

    async def settled(self, name: str) -> Object:
        await asyncio.sleep(5)
        return await self.admin.get(REQUESTS, name)


def asked(
    name: str = "req",
    *,
    cn: str = "ann",
    groups: tuple[str, ...] = ("dev",),
    san: tuple[x509.GeneralName, ...] = (),
    signer: str = CLIENT,
    usages: tuple[str, ...] = ("client auth", "digital signature"),
    **spec: Any,
) -> Object:
    subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, g) for g in groups]
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([*subject, x509.NameAttribute(NameOID.COMMON_NAME, cn)])
    )
    if san:
        builder = builder.add_extension(x509.SubjectAlternativeName(san), critical=False)
    pem = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(
        serialization.Encoding.PEM
    )
    request = {"request": b64encode(pem).decode(), "signerName": signer, "usages": list(usages), **spec}
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": request,
    }


def certificate_of(obj: Object) -> x509.Certificate:
    return x509.load_pem_x509_certificate(b64decode(obj["status"]["certificate"]))


async def status_of(server: ApiServer, path: str, certificate: x509.Certificate) -> int:
    der = certificate.public_bytes(serialization.Encoding.DER)
    return (await server.handle(Request("GET", path, peer_certificate=der))).status


async def test_who_asks_is_written_down_and_nothing_can_be_brought_along(pki: Pki) -> None:
    async with World(pki) as w:
        await w.admin.create(*_role_for("ann", ["create", "get"], ["certificatesigningrequests"]))
        await w.admin.create(*_binding_for("ann"))
        mine = asked()
        mine["spec"] |= {"username": "root", "uid": "0", "groups": ["system:masters"], "extra": {"x": ["y"]}}
        mine["status"] = {"conditions": [{"type": "Approved", "status": "True"}]}
        made = await w.ann.create(REQUESTS, mine)
        assert made["spec"]["username"] == "ann"
        assert made["spec"]["groups"] == ["dev", "system:authenticated"]
        assert made["spec"]["uid"] == "7"
        assert made["spec"]["extra"] == {"scopes": ["a", "b"]}
        assert not (made.get("status") or {}).get("conditions")
        changed = await w.admin.update(REQUESTS, {**made, "spec": {**made["spec"], "username": "eve"}})
        assert changed["spec"]["username"] == "ann"


def _role_for(name: str, verbs: list[str], resources: list[str], names: tuple[str, ...] = ()) -> tuple[Any, Object]:
    from glebe.kube.resources import CLUSTER_ROLES

    rule = {"apiGroups": ["certificates.k8s.io"], "resources": resources, "verbs": verbs}
    if names:
        rule["resourceNames"] = list(names)
    kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole"}
    return CLUSTER_ROLES, {**kind, "metadata": {"name": name}, "rules": [rule]}


def _binding_for(name: str, role: str = "") -> tuple[Any, Object]:
    from glebe.kube.resources import CLUSTER_ROLE_BINDINGS

    group = "rbac.authorization.k8s.io"
    obj = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": f"{name}-{role or name}"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role or name},
        "subjects": [{"kind": "User", "apiGroup": group, "name": name}],
    }
    return CLUSTER_ROLE_BINDINGS, obj


async def test_an_approved_request_becomes_a_client_of_the_root_cluster(pki: Pki) -> None:
    async with World(pki) as w:
        await w.admin.create(REQUESTS, asked(expirationSeconds=3600))
        pending = await w.settled("req")
        assert "certificate" not in (pending.get("status") or {})
        await w.approve("req")
        done = await w.settled("req")
        certificate = certificate_of(done)
        life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        assert life.total_seconds() == 3600 + 300
        assert await status_of(w.server, "/api/v1/pods", certificate) == 403  # known, without rights
        assert await status_of(w.server, "/clusters/a/api/v1/pods", certificate) == 401
        await asyncio.sleep(3600)
        assert await status_of(w.server, "/api/v1/pods", certificate) == 401  # expired on a kept connection


async def test_a_tenants_certificate_is_good_in_that_very_cluster_only(pki: Pki) -> None:
    async with World(pki, "a") as w:
        await w.admin.create(REQUESTS, asked())
        await w.approve("req")
        certificate = certificate_of(await w.settled("req"))
        for path, status in (
            ("/clusters/a/api/v1/pods", 403),
            ("/clusters/b/api/v1/pods", 401),
            ("/clusters/*/api/v1/pods", 401),
            ("/clusters", 401),
            ("/clusters/a", 401),
            ("/api/v1/pods", 401),
        ):
            assert await status_of(w.server, path, certificate) == status, path
        await w.server.clusters.delete("a")
        assert await status_of(w.server, "/clusters/a/api/v1/pods", certificate) == 401
        await w.server.clusters.create("a")  # of the same name, and not the same
        assert await status_of(w.server, "/clusters/a/api/v1/pods", certificate) == 401


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (asked(san=(x509.UniformResourceIdentifier("urn:glebe:cluster:b:some-uid"),)), "urn:glebe:"),
        (asked(san=(x509.UniformResourceIdentifier("URN:Glebe:cluster:b:some-uid"),)), "urn:glebe:"),
        (asked(usages=("server auth", "client auth")), "invalid usage for client certificate: server auth"),
        (asked(usages=("digital signature",)), "missing required usage"),
        (asked(signer=KUBELET), "subject organization is not system:nodes"),
        (asked(signer=SERVING, cn="system:node:n", groups=("system:nodes",)), "DNS or IP subjectAltName is required"),
    ],
)
async def test_what_the_signer_does_not_sign_fails(pki: Pki, request_: Object, why: str) -> None:
    async with World(pki, "a") as w:
        await w.admin.create(REQUESTS, request_)
        await w.approve("req")
        status = (await w.settled("req"))["status"]
        assert "certificate" not in status
        failed = next(c for c in status["conditions"] if c["type"] == "Failed")
        assert failed["reason"] == "SignerValidationFailure"
        assert why in failed["message"]


async def test_masters_cannot_be_asked_for(pki: Pki) -> None:
    async with World(pki) as w:
        with pytest.raises(ApiError, match="with system:masters group is not allowed"):
            await w.admin.create(REQUESTS, asked(groups=("system:masters",)))


async def test_a_nodes_serving_certificate_cannot_pose_as_the_api_server(pki: Pki) -> None:
    async with World(pki, "a") as w:
        san = (x509.DNSName("glebe.example.org"),)
        usages = ("digital signature", "server auth")
        names = {"cn": "system:node:n", "groups": ("system:nodes",)}
        await w.admin.create(REQUESTS, asked(san=san, signer=SERVING, usages=usages, **names))  # type: ignore[arg-type]
        await w.approve("req")
        certificate = certificate_of(await w.settled("req"))
        with pytest.raises((InvalidSignature, ValueError)):
            certificate.verify_directly_issued_by(pki.ca_certificate)
        certificate.verify_directly_issued_by(pki.kubelet_authority(LoopClock.EPOCH).ca_certificate)


async def test_a_kubelet_is_approved_by_itself(pki: Pki) -> None:
    async with World(pki) as w:
        node = User("system:node:n1", ("system:nodes", "system:authenticated"))
        kubelet = Client(As(w.server, node))
        names = {"cn": "system:node:n1", "groups": ("system:nodes",)}
        group = "rbac.authorization.k8s.io"
        role = "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient"
        resource, binding = _binding_for("nodes", role)
        binding["subjects"] = [{"kind": "Group", "apiGroup": group, "name": "system:nodes"}]
        await w.admin.create(resource, binding)
        await kubelet.create(REQUESTS, asked("own", signer=KUBELET, **names))  # type: ignore[arg-type]
        await w.admin.create(*_role_for("ann", ["create"], ["certificatesigningrequests"]))
        await w.admin.create(*_binding_for("ann"))
        await w.ann.create(REQUESTS, asked("other", signer=KUBELET, **names))  # type: ignore[arg-type]
        own, other = await w.settled("own"), await w.settled("other")
        assert own["status"]["conditions"][0]["reason"] == "AutoApproved"
        assert "certificate" in own["status"]
        assert not (other.get("status") or {}).get("conditions")


async def test_approval_and_signing_need_the_signer(pki: Pki) -> None:
    async with World(pki) as w:
        made = await w.admin.create(REQUESTS, asked(signer="example.org/mine"))
        subs = ["certificatesigningrequests/approval", "certificatesigningrequests/status"]
        await w.admin.create(*_role_for("ann", ["update"], subs))
        await w.admin.create(*_binding_for("ann"))
        approved = {**made, "status": {"conditions": [{"type": "Approved", "status": "True", "reason": "x"}]}}
        with pytest.raises(
            ApiError, match=r'user not permitted to approve requests with signerName "example\.org/mine"'
        ):
            await w.ann.update(REQUESTS, approved, subresource="approval")
        await w.admin.create(*_role_for("s", ["approve", "sign"], ["signers"], ("example.org/*",)))
        await w.admin.create(*_binding_for("ann", "s"))
        done = await w.ann.update(REQUESTS, approved, subresource="approval")
        assert done["status"]["conditions"][0]["lastTransitionTime"]
        chain = b64encode(pki.ca_pem).decode()
        with pytest.raises(ApiError, match="Approved"):
            await w.ann.update(REQUESTS, {**done, "status": {"certificate": chain}}, subresource="status")
        signed = await w.ann.update(
            REQUESTS, {**done, "status": {**done["status"], "certificate": chain}}, subresource="status"
        )
        assert signed["status"]["certificate"] == chain
        other = b64encode(pki.admin_file.read_bytes()).decode()
        forged = {**signed, "status": {**signed["status"], "certificate": other}}
        with pytest.raises(ApiError, match="updates may not modify existing certificate content"):
            await w.ann.update(REQUESTS, forged, subresource="status")
        assert "certificate" not in (await w.admin.get(REQUESTS, "req"))["spec"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"request": b64encode(b"hello").decode()}, "spec.request"),
        ({"usages": []}, "spec.usages"),
        ({"usages": ["client auth", "client auth"]}, "spec.usages[1]"),
        ({"usages": ["fishing"]}, "spec.usages[0]"),
        ({"signerName": "kubernetes.io/legacy-unknown"}, "spec.signerName"),
        ({"signerName": "nothing"}, "spec.signerName"),
        ({"expirationSeconds": 599}, "spec.expirationSeconds"),
    ],
)
async def test_requests_that_make_no_sense(pki: Pki, change: Object, field: str) -> None:
    async with World(pki) as w:
        request = asked()
        request["spec"] |= change
        with pytest.raises(ApiError) as caught:
            await w.admin.create(REQUESTS, request)
        assert caught.value.code == 422
        assert field in caught.value.message


async def test_old_requests_go(pki: Pki) -> None:
    async with World(pki) as w:
        for name in ("pending", "denied", "signed"):
            await w.admin.create(REQUESTS, asked(name))
        await w.approve("denied", "Denied")
        await w.approve("signed")

        async def left() -> list[str]:
            return sorted(o["metadata"]["name"] for o in (await w.admin.list(REQUESTS)).items)

        await asyncio.sleep(3000)
        assert await left() == ["denied", "pending", "signed"]
        await asyncio.sleep(700)
        assert await left() == ["pending"]
        await asyncio.sleep(24 * 3600)
        assert await left() == []


def test_a_certificate_for_one_cluster_can_be_issued_directly(tmp_path: Path) -> None:
    from glebe.apiserver.auth.certificates import read_bearer
    from glebe.apiserver.auth.scope import Scope

    pki = Pki(tmp_path)
    pki.ensure([], LoopClock.EPOCH)
    pair = pki.issue_client("owner", ("system:masters",), LoopClock.EPOCH, scope=Scope("a", "uid-1"))
    der = x509.load_pem_x509_certificate(pair.certificate).public_bytes(serialization.Encoding.DER)
    bearer = read_bearer(der, [pki.ca_certificate])
    assert bearer
    assert bearer.scope == Scope("a", "uid-1")

"""Two API servers on one etcd: what one acknowledged the other knows, whatever it is."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from etcd_peer import Etcd, shared_etcd

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import Key, StoreUnavailable
from glebe.apiserver.store.etcd import EtcdOptions, EtcdStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.clock import Env
from glebe.kube.transport import Request, Response, User
from glebe.kube.wire import read_whole

pytestmark = pytest.mark.realtime
MASTER = User("admin", ("system:masters",))
BASE = "/api/v1/namespaces/default/configmaps"


@asynccontextmanager
async def pair(prefix: str) -> AsyncIterator[tuple[ApiServer, ApiServer]]:
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(2):
            store = EtcdStore(EtcdOptions((shared_etcd().url,), prefix=f"/{prefix}/"))
            server = ApiServer(store, Env.system(), TypeRegistry())
            await server.start()
            stack.push_async_callback(server.close)
            made.append(server)
        yield made[0], made[1]


async def send(server: ApiServer, method: str, target: str, body: Any = None) -> Response:
    path, _, query = target.partition("?")
    pairs = [(k, v) for k, _, v in (p.partition("=") for p in query.split("&") if p)]
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    data = orjson.dumps(body) if body is not None else b""
    return await server.handle(Request(method, path, pairs, {"content-type": kind}, data, MASTER))


async def ask(server: ApiServer, method: str, target: str, body: Any = None) -> tuple[int, Any]:
    response = await send(server, method, target, body)
    return response.status, orjson.loads(await read_whole(response))


async def test_every_verb_sees_what_the_other_replica_just_did(tmp_path: Path) -> None:
    async with pair(tmp_path.name) as (a, b):
        for i in range(10):
            name = f"c{i}"
            assert (await ask(a, "POST", BASE, {"metadata": {"name": name}}))[0] == 201
            assert (await ask(b, "GET", f"{BASE}/{name}"))[0] == 200
            status, got = await ask(a, "PATCH", f"{BASE}/{name}", {"data": {"x": "1"}})
            assert status == 200
            assert len((await ask(b, "GET", f"{BASE}?resourceVersion={got['metadata']['resourceVersion']}"))[1]) > 0
            status, got = await ask(b, "PUT", f"{BASE}/{name}", {**got, "data": {"x": "2"}})
            assert status == 200, got
            assert (await ask(a, "DELETE", f"{BASE}/{name}"))[0] == 200
            assert (await ask(b, "GET", f"{BASE}/{name}"))[0] == 404
            assert (await ask(b, "POST", BASE, {"metadata": {"name": name}}))[0] == 201
            assert (await ask(a, "POST", BASE, {"metadata": {"name": name}}))[0] == 409
            assert (await ask(a, "PATCH", f"{BASE}/{name}", {"data": {"y": "2"}}))[0] == 200
            assert (await ask(b, "DELETE", f"{BASE}/{name}"))[0] == 200


async def test_namespaces_clusters_and_kinds_are_known_everywhere(tmp_path: Path) -> None:
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Cluster",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
            ],
        },
    }
    async with pair(tmp_path.name) as (a, b):
        assert (await ask(a, "POST", "/api/v1/namespaces", {"metadata": {"name": "fresh"}}))[0] == 201
        where = "/api/v1/namespaces/fresh/configmaps"
        assert (await ask(b, "POST", where, {"metadata": {"name": "c"}}))[0] == 201
        assert (await ask(a, "POST", "/clusters", {"metadata": {"name": "team"}}))[0] == 201
        assert (await ask(b, "GET", "/clusters/team/api/v1/namespaces"))[0] == 200
        assert (await ask(a, "POST", "/clusters/team" + BASE, {"metadata": {"name": "c"}}))[0] == 201
        assert (await ask(a, "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd))[0] == 201
        thing = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}}
        status, got = await ask(b, "POST", "/apis/example.com/v1/things", thing)
        assert status == 201, got
        assert (await ask(b, "DELETE", "/clusters/team"))[0] == 200
        assert (await ask(a, "GET", "/clusters/team/api/v1/namespaces"))[0] == 404


async def test_a_watch_on_one_replica_brings_the_writes_of_both(tmp_path: Path) -> None:
    async with pair(tmp_path.name) as (a, b):
        _, listed = await ask(b, "GET", BASE)
        watch = await send(b, "GET", f"{BASE}?watch=true&resourceVersion={listed['metadata']['resourceVersion']}")
        assert watch.stream is not None

        async def write(server: ApiServer, who: str) -> list[int]:
            out = []
            for i in range(25):
                _, got = await ask(server, "POST", BASE, {"metadata": {"name": f"{who}{i}"}})
                out.append(int(got["metadata"]["resourceVersion"]))
            return out

        both = await asyncio.gather(write(a, "a"), write(b, "b"))
        written = sorted([*both[0], *both[1]])
        seen: list[int] = []
        async with asyncio.timeout(20):
            async for chunk in watch.stream:
                seen += [
                    int(orjson.loads(line)["object"]["metadata"]["resourceVersion"]) for line in chunk.splitlines()
                ]
                if len(seen) >= len(written):
                    break
        await watch.close()
        assert seen == written


async def test_two_replicas_never_give_out_the_same_node_port(tmp_path: Path) -> None:
    def service(name: str, port: int) -> Any:
        ports = [{"port": 80, **({"nodePort": port} if port else {})}]
        return {"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": ports}}

    async with pair(tmp_path.name) as (a, b):
        path = "/api/v1/namespaces/default/services"
        asked = [
            ask(server, "POST", path, service(f"s{i}{j}", 30000 + i))
            for i in range(20)
            for j, server in enumerate((a, b))
        ]
        statuses = [status for status, _ in await asyncio.gather(*asked)]
        assert [sorted(pair) for pair in zip(statuses[::2], statuses[1::2], strict=True)] == [[201, 422]] * 20
        assert (await ask(b, "POST", path, service("late", 30000)))[0] == 422
        taken = [s["spec"]["ports"][0]["nodePort"] for s in (await ask(a, "GET", path))[1]["items"][1:]]
        assert sorted(taken) == list(range(30000, 30020))
        for name in (f"s{i}{j}" for i in range(20) for j in range(2)):
            await ask(a, "DELETE", f"{path}/{name}")
        assert (await ask(b, "POST", path, service("again", 30001)))[0] == 201
        async with asyncio.timeout(10):  # claims go soon after their services are written
            while any(server.store.range("nodeportclaims.glebe.dev", "root").entries for server in (a, b)):
                await asyncio.gather(a.store.fresh(), b.store.fresh())


async def test_an_object_larger_than_etcd_takes_is_413(tmp_path: Path) -> None:
    async with pair(tmp_path.name) as (a, _):
        spec = {"containers": [{"name": "c", "image": "i", "args": ["x" * 1_700_000]}]}
        body = {"metadata": {"name": "big"}, "template": {"spec": spec}}
        status, got = await ask(a, "POST", "/api/v1/namespaces/default/podtemplates", body)
        assert (status, got["reason"]) == (413, "RequestEntityTooLarge")


def _signed(subject: str, issuer: Any, key: Any, signer: Any, *, authority: bool) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer.subject if issuer else name)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    builder = builder.add_extension(x509.BasicConstraints(authority, None), True)
    if not authority:
        import ipaddress

        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        builder = builder.add_extension(names, False)
    return builder.sign(signer, hashes.SHA256())


async def test_etcd_with_client_certificates(tmp_path: Path) -> None:
    keys = {who: ec.generate_private_key(ec.SECP256R1()) for who in ("ca", "server", "client")}
    ca = _signed("ca", None, keys["ca"], keys["ca"], authority=True)
    certificates = {"ca": ca}
    for who in ("server", "client"):
        certificates[who] = _signed(who, ca, keys[who], keys["ca"], authority=False)
    for who, key in keys.items():
        (tmp_path / f"{who}.crt").write_bytes(certificates[who].public_bytes(serialization.Encoding.PEM))
        (tmp_path / f"{who}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    etcd = Etcd(
        tmp_path, "--cert-file", str(tmp_path / "server.crt"), "--key-file", str(tmp_path / "server.key"),
        "--client-cert-auth", "--trusted-ca-file", str(tmp_path / "ca.crt"), scheme="https",
    ).start()  # fmt: skip
    try:
        files = {"ca_file": tmp_path / "ca.crt"}
        with pytest.raises(StoreUnavailable):
            await EtcdStore(EtcdOptions((etcd.url,), **files)).start()  # type: ignore[arg-type]
        with pytest.raises(StoreUnavailable, match="certificates cannot be used"):
            await EtcdStore(EtcdOptions((etcd.url,), ca_file=tmp_path / "none")).start()
        files |= {"certificate_file": tmp_path / "client.crt", "key_file": tmp_path / "client.key"}
        store = EtcdStore(EtcdOptions((etcd.url,), **files))  # type: ignore[arg-type]
        for _ in range(50):
            try:
                await store.start()
                break
            except StoreUnavailable:
                await asyncio.sleep(0.1)  # it listens before it serves
        await store.put(Key("pods", "root", "ns", "a"), lambda r: b"%d" % r, 0)
        await store.fresh()
        await store.close()
    finally:
        etcd.close()


async def test_events_of_a_replica_that_is_gone_end_all_the_same(tmp_path: Path) -> None:
    event = {
        "metadata": {"name": "e"},
        "involvedObject": {"namespace": "default", "kind": "Pod", "name": "p"},
        "reason": "R",
        "message": "m",
        "type": "Normal",
    }
    async with pair(tmp_path.name) as (a, b):
        assert (await ask(a, "POST", "/api/v1/namespaces/default/events", event))[0] == 201
        await b.store.fresh()
        expiry = b.event_expiry
        ((due, key),) = expiry._queue
        assert key == Key("events", "root", "default", "e")
        expiry._queue[0] = (due - 4000, key)
        await expiry.sweep()
        await a.store.fresh()
        assert a.store.get(key) is None


async def test_health_says_that_etcd_is_gone(tmp_path: Path) -> None:
    etcd = Etcd(tmp_path, "--unsafe-no-fsync").start()
    server = ApiServer(EtcdStore(EtcdOptions((etcd.url,), timeout=0.5)), Env.system(), TypeRegistry())
    await server.start()
    try:
        assert (await send(server, "GET", "/livez/etcd")).status == 200
        etcd.kill()
        async with asyncio.timeout(10):
            while (await send(server, "GET", "/livez/etcd")).status == 200:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert (await ask(server, "GET", BASE))[0] == 503
        assert (await ask(server, "GET", BASE + "?resourceVersion=0"))[0] == 200
        status, got = await ask(server, "POST", BASE, {"metadata": {"name": "x"}})
        assert (status, got["reason"]) == (503, "ServiceUnavailable")
        await asyncio.to_thread(etcd.start)
        async with asyncio.timeout(20):
            while (await ask(server, "POST", BASE, {"metadata": {"name": "x"}}))[0] != 201:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert (await send(server, "GET", "/livez/etcd")).status == 200
    finally:
        await server.close()
        etcd.close()

"""The node's server besides its streams: requests, rights, logs, its certificate."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
from kubelet_world import FakePods, lab

from glebe.apiserver.auth.pki import Pki
from glebe.apiserver.auth.scope import Scope
from glebe.kube.client import Client
from glebe.kube.clock import Env, FixedClock
from glebe.kube.errors import ApiError
from glebe.kube.transport import Request
from glebe.node.kubelet.access import Access, Denied
from glebe.node.kubelet.certificate import Certificate
from glebe.node.kubelet.kubelet import Endpoint, Kubelet, KubeletOptions
from glebe.node.kubelet.pods import LogOptions, Pods
from glebe.node.kubelet.server import log_options

pytestmark = pytest.mark.realtime
NOW = FixedClock().now()


async def test_what_a_node_says_of_itself() -> None:
    async with lab() as it:
        async with it.session.get(f"{it.url}/healthz") as answer:
            assert await answer.text() == "ok"
        async with it.session.get(f"{it.url}/pods") as answer:
            listing = await answer.json()
            assert (listing["kind"], len(listing["items"])) == ("PodList", 1)
        async with it.session.get(f"{it.url}/runningpods/") as answer:
            (pod,) = (await answer.json())["items"]
            assert [c["name"] for c in pod["spec"]["containers"]] == ["c", "plain"]
        async with it.session.get(f"{it.url}/stats/summary") as answer:
            assert (await answer.json())["node"]["nodeName"] == "n"
        async with it.session.get(f"{it.url}/metrics/resource") as answer:
            assert "node_cpu_usage_seconds_total" in await answer.text()
        async with it.session.head(f"{it.url}/healthz") as answer:
            assert (answer.status, answer.headers["content-length"]) == (200, "2")
        assert it.server.listener.connections == 1  # it was kept open


@pytest.mark.parametrize(
    "head",
    [
        "nonsense\n\n",
        "GET / HTTP/1.1\nTransfer-Encoding: chunked\n\n",
        "GET / HTTP/1.1\nContent-Length: 99999999\n\n",
        "GET / HTTP/1.1\nContent-Length: -1\n\n",
        "GET / HTTP/1.1\nX: " + "a" * 70_000 + "\n\n",
    ],
)
async def test_requests_that_are_none(head: str) -> None:
    async with lab() as it:
        reader, writer = await it.open_raw(head)
        async with asyncio.timeout(5):
            answer = await reader.read()
        assert answer == b"" or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413"))
        writer.close()
        await it.idle()


# --- logs


async def test_a_follower_that_leaves_ends_the_reading() -> None:
    async with lab() as it:
        answer = await it.session.get(f"{it.url}/containerLogs/ns/p/c?follow=true")
        assert await answer.content.readline() == b"one\n"
        assert await answer.content.readline() == b"two\n"
        answer.close()
        async with asyncio.timeout(5):
            await it.pods.log_closed.wait()
        await it.idle()


async def test_logs_are_chunks_until_they_end() -> None:
    async with lab() as it:
        async with it.session.get(f"{it.url}/containerLogs/ns/p/c?tailLines=5&stream=Stderr") as answer:
            assert await answer.read() == b"one\ntwo\n"
        assert it.pods.asked == [LogOptions(tail_lines=5, stream="stderr")]
        for path, text in (("ns/p/x", 'container "x" not found in pod "p"'), ("ns/q/c", 'pod "q" does not exist')):
            async with it.session.get(f"{it.url}/containerLogs/{path}") as answer:
                assert (answer.status, await answer.text()) == (404, text)


def test_log_options() -> None:
    query = {"follow": "true", "sinceSeconds": "10", "timestamps": "1", "limitBytes": "7", "previous": "true"}
    request = Request("GET", "/", list(query.items()))
    assert log_options(request, 100.0) == LogOptions(True, True, True, None, 90.0, 7)
    at = log_options(Request("GET", "/", [("sinceTime", "1970-01-01T00:01:40Z")]), 0.0)
    assert at.since == 100.0
    for name, value in (("tailLines", "x"), ("sinceTime", "yesterday"), ("stream", "Both")):
        with pytest.raises(ApiError):
            log_options(Request("GET", "/", [(name, value)]), 0.0)


# --- rights


class Reviews:
    """An API that believes one token, and lets one user read statistics."""

    cluster = ""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    async def create(self, resource: Any, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(body["spec"])
        if body["kind"] == "TokenReview":
            good = body["spec"]["token"] == "good"
            return {"status": {"authenticated": good, "user": {"username": "prometheus"} if good else {}}}
        wanted = body["spec"]["resourceAttributes"]
        allowed = body["spec"]["user"] == "prometheus" and wanted["subresource"] == "metrics"
        return {"status": {"allowed": allowed}}


def access(reviews: Reviews, trusted: frozenset[bytes] = frozenset()) -> Access:
    client: Client = reviews  # type: ignore[assignment]
    return Access(client, FixedClock(), "n", trusted)


async def test_a_token_is_asked_about_once() -> None:
    reviews = Reviews()
    async with lab(access(reviews)) as it:
        good = {"authorization": "Bearer good"}
        for _ in range(3):
            async with it.session.get(f"{it.url}/metrics/resource", headers=good) as answer:
                assert answer.status == 200
        assert len(reviews.asked) == 2
        assert reviews.asked[1]["resourceAttributes"] == {
            "verb": "get",
            "resource": "nodes",
            "subresource": "metrics",
            "name": "n",
        }
        for path, headers, status in (
            ("/pods", good, 403),
            ("/exec/ns/p/c?command=ls&output=1", good, 403),
            ("/metrics/resource", {"authorization": "Bearer bad"}, 401),
            ("/metrics/resource", {}, 401),
            ("/healthz", {}, 401),
        ):
            async with it.session.get(it.url + path, headers=headers) as answer:
                assert (path, answer.status) == (path, status)
        assert [a["resourceAttributes"]["subresource"] for a in reviews.asked if "user" in a] == [
            "metrics",
            "pods",
            "proxy",
        ]


async def test_certificates_say_who_asks(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    pki.ensure([], NOW)

    def shown(name: str, scope: Scope | None = None) -> bytes:
        pem = pki.issue_client(name, ("system:masters",), NOW, scope=scope).certificate
        return ssl.PEM_cert_to_DER_cert(pem.decode())

    reviews, own = Reviews(), shown("api-server")
    check = access(reviews, frozenset({own})).check
    await check(Request("GET", "/exec/a/b/c", peer_certificate=own))
    assert reviews.asked == []
    await check(Request("GET", "/metrics/resource", peer_certificate=shown("prometheus")))
    assert reviews.asked[0]["groups"] == ["system:masters", "system:authenticated"]
    with pytest.raises(Denied) as denied:
        await check(Request("GET", "/metrics", peer_certificate=shown("prometheus", Scope("tenant", "u-1"))))
    assert denied.value.status == 401  # good in another cluster


# --- the certificate


async def test_the_certificate_is_kept_renewed_and_made_for_its_address(tmp_path: Path) -> None:
    made = Certificate(tmp_path, "node-1", "127.0.0.1")
    made.ensure(NOW)
    first = made.pem
    made.ensure(NOW + 86400 * 200)
    assert made.pem == first
    assert (tmp_path / "kubelet.key").stat().st_mode & 0o077 == 0
    made.ensure(NOW + 86400 * 310)
    assert made.pem != first
    second = made.pem
    Certificate(tmp_path, "node-1", "10.0.0.9").ensure(NOW)
    assert made.pem != second
    (tmp_path / "kubelet.key").write_bytes(b"")
    made.ensure(NOW)
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0, ssl=made.context(b""))
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
        await asyncio.open_connection("127.0.0.1", port, ssl=ssl.create_default_context())
    server.close()


async def test_a_node_whose_address_cannot_be_had_goes_on_without_a_server(tmp_path: Path) -> None:
    told: list[Endpoint] = []
    client: Client = Reviews()  # type: ignore[assignment]
    pods: Pods = FakePods()  # type: ignore[assignment]
    options = KubeletOptions(announce=told.append)
    made = Kubelet("n", tmp_path, client, Env.system(), pods, lambda uid: None, options)
    async with made.serving("203.0.113.7") as port:
        assert (port, told) == (0, [])
    ports = []
    for _ in range(2):
        async with made.serving("127.0.0.1") as port:
            ports.append(port)
            assert (told[-1].port, told[-1].certificate.startswith(b"-----BEGIN")) == (port, True)
    assert ports[0] == ports[1] > 0  # the port of the last time

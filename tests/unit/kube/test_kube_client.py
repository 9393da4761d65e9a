from __future__ import annotations

import asyncio
from contextlib import aclosing

import orjson
import pytest
from kube_fake import FakeServer, frame, make

from glebe.kube import errors
from glebe.kube.client import Client
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.resources import JOBS, NODES, PODS
from glebe.kube.transport import PLATFORM, ConnectionLost, Request, Response, User


class Scripted:
    """Answers with what it was given, in order, and remembers what it was asked."""

    def __init__(self, *responses: Response) -> None:
        self.responses = list(responses)
        self.requests: list[Request] = []

    async def send(self, request: Request) -> Response:
        self.requests.append(request)
        return self.responses.pop(0) if self.responses else Response(200, {}, b"{}")

    async def close(self) -> None:
        pass


async def test_verbs_against_a_server() -> None:
    client = Client(FakeServer())
    created = await client.create(PODS, make("a", "x"))
    assert created["metadata"]["namespace"] == "x"
    assert (await client.get(PODS, "a", "x"))["metadata"]["uid"] == created["metadata"]["uid"]

    created["spec"] = {"nodeName": "n"}
    updated = await client.update(PODS, created)
    with pytest.raises(ApiError) as caught:
        await client.update(PODS, created)  # the old resourceVersion
    assert errors.is_conflict(caught.value)

    patched = await client.patch(PODS, "a", {"spec": {"nodeName": None}}, "x")
    assert patched["spec"] == {}
    assert int(patched["metadata"]["resourceVersion"]) > int(updated["metadata"]["resourceVersion"])

    await client.delete(PODS, "a", "x")
    with pytest.raises(ApiError) as caught:
        await client.get(PODS, "a", "x")
    assert caught.value.code == 404
    assert caught.value.reason == "NotFound"


async def test_what_goes_over_the_wire() -> None:
    wire = Scripted()
    client = Client(wire, cluster="team-a", field_manager="me")
    await client.apply(JOBS, make("j", "x"), force=True, subresource="status")
    await client.patch(NODES, "n", [{"op": "remove", "path": "/spec/taints"}], kind="json", dry_run=True)
    await client.delete(PODS, "p", "x", grace_period=0, propagation="Foreground", uid="u")
    await client.list(PODS, label_selector="a=b", field_selector="spec.nodeName=n", limit=5, continue_="c")
    await client.create(
        PODS, {"metadata": {"name": "p"}}, "x", name="p", subresource="binding", field_validation="Strict"
    )

    seen = [(r.method, r.path, r.query, orjson.loads(r.body) if r.body else None) for r in wire.requests]
    assert seen[0][:3] == (
        "PATCH",
        "/clusters/team-a/apis/batch/v1/namespaces/x/jobs/j/status",
        [("fieldManager", "me"), ("force", "true")],
    )
    assert wire.requests[0].headers["content-type"] == "application/apply-patch+yaml"
    assert seen[1] == (
        "PATCH",
        "/clusters/team-a/api/v1/nodes/n",
        [("fieldManager", "me"), ("dryRun", "All")],
        [{"op": "remove", "path": "/spec/taints"}],
    )
    assert wire.requests[1].headers["content-type"] == "application/json-patch+json"
    assert seen[2][3] == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "gracePeriodSeconds": 0,
        "propagationPolicy": "Foreground",
        "preconditions": {"uid": "u"},
    }
    assert seen[3][1:3] == (
        "/clusters/team-a/api/v1/pods",
        [("labelSelector", "a=b"), ("fieldSelector", "spec.nodeName=n"), ("limit", "5"), ("continue", "c")],
    )
    assert seen[4][1] == "/clusters/team-a/api/v1/namespaces/x/pods/p/binding"


@pytest.mark.parametrize("name", ["", "a/b", ".", ".."])
async def test_a_name_never_addresses_something_else(name: str) -> None:
    wire = Scripted()
    client = Client(wire)
    for call in (client.get(PODS, name, "x"), client.delete(PODS, name, "x"), client.patch(PODS, name, {}, "x")):
        with pytest.raises(ApiError) as caught:
            await call
        assert caught.value.code == 400
    assert wire.requests == []


async def test_list_fills_in_kind_and_pages_show_one_revision() -> None:
    server = FakeServer(page_cap=2)
    for name in "abcde":
        server.put(make(name))
    client = Client(server)
    page = await client.list(PODS, limit=2)
    assert [item["kind"] for item in page.items] == ["Pod", "Pod"]
    assert page.items[0]["apiVersion"] == "v1"
    version = page.resource_version
    server.put(make("f"))
    rest = await client.list(PODS, limit=2, continue_=page.continue_)
    assert rest.resource_version == version

    everything = await client.list_all(PODS, page_size=2)
    assert [item["metadata"]["name"] for item in everything.items] == list("abcdef")
    assert everything.continue_ == ""


async def test_list_all_starts_again_when_its_pages_expire() -> None:
    server = FakeServer(page_cap=2)
    for name in "abcde":
        server.put(make(name))

    def expire(request: Request) -> Response | None:
        if request.param("continue"):
            server.fault = lambda _: None
            server.put(make("z"))
            server.compact()
        return None

    server.fault = expire
    everything = await Client(server).list_all(PODS, page_size=2)
    assert [item["metadata"]["name"] for item in everything.items] == list("abcdez")
    assert everything.resource_version == str(server.revision)


async def test_throttled_reads_are_repeated_and_writes_are_not() -> None:
    throttled = Response(429, {"retry-after": "3"}, b"slow down")
    wire = Scripted(throttled, throttled, Response(200, {}, b'{"kind":"Pod"}'))
    client = Client(wire)
    began = asyncio.get_running_loop().time()
    assert await client.get(PODS, "a", "x") == {"kind": "Pod"}
    assert asyncio.get_running_loop().time() - began == 6

    wire.responses = [throttled]
    with pytest.raises(ApiError) as caught:
        await client.create(PODS, make("a"))
    assert caught.value.code == 429
    assert caught.value.retry_after == 3

    wire.responses = [throttled] * 20
    with pytest.raises(ApiError):
        await client.get(PODS, "a", "x")
    assert len(wire.responses) == 15  # bounded


async def test_errors_that_are_not_a_status() -> None:
    client = Client(Scripted(Response(502, {}, b"<html>bad gateway</html>"), Response(500), Response(200, {}, b"[1")))
    with pytest.raises(ApiError, match="bad gateway") as caught:
        await client.get(PODS, "a", "x")
    assert caught.value.code == 502
    with pytest.raises(ApiError, match="500"):
        await client.get(PODS, "a", "x")
    with pytest.raises(ConnectionLost, match="not JSON"):
        await client.get(PODS, "a", "x")


async def test_warnings_reach_the_callback_in_other_clusters_too() -> None:
    header = '299 - "first, \\"quoted\\"", 299 - "second"'
    warned = Response(200, {"warning": header}, b"{}")
    texts: list[str] = []
    client = Client(Scripted(warned), on_warning=texts.append)
    await client.for_cluster("b").get(PODS, "a", "x")
    assert texts == ['first, "quoted"', "second"]


async def chunks_of(*chunks: bytes):  # type: ignore[no-untyped-def]
    for chunk in chunks:
        yield chunk


async def test_watch_frames_may_be_cut_anywhere() -> None:
    data = b"".join(frame("ADDED", make(name)) for name in "abc")
    for size in (1, 7, 64, len(data)):
        pieces = [data[i : i + size] for i in range(0, len(data), size)]
        client = Client(Scripted(Response(200, {}, b"", chunks_of(*pieces))))
        names = [event.object["metadata"]["name"] async for event in client.watch(PODS)]
        assert names == ["a", "b", "c"]


async def test_watch_errors() -> None:
    gone = errors.gone("too old")
    client = Client(
        Scripted(
            Response(200, {}, b"", chunks_of(frame("ERROR", gone.status()))),
            Response(410, {}, orjson.dumps(gone.status())),
            Response(200, {}, b"", chunks_of(frame("ADDED", make("a"))[:-20])),
        )
    )
    for _ in range(2):
        with pytest.raises(ApiError) as caught:
            await anext(client.watch(PODS))
        assert caught.value.code == 410
    with pytest.raises(ConnectionLost):  # the last frame is not whole
        await anext(client.watch(PODS))


async def test_leaving_a_watch_early_closes_it() -> None:
    server = FakeServer()
    server.put(make("a"))
    client = Client(server)
    async with aclosing(client.watch(PODS, resource_version="10")) as events:
        async for event in events:
            assert event.type == "ADDED"
            break
    assert server.watchers == []


async def test_logs_and_lines() -> None:
    wire = Scripted(Response(200, {}, b"", chunks_of(b"on", b"e\ntwo\n", b"three")), Response(200, {}, b"one\ntwo"))
    client = Client(wire)
    got = b"".join([c async for c in client.logs("p", "x", container="c", follow=True, tail=3)])
    assert got == b"one\ntwo\nthree"
    assert wire.requests[0].path == "/api/v1/namespaces/x/pods/p/log"
    assert wire.requests[0].query == [("container", "c"), ("follow", "true"), ("tailLines", "3")]
    assert [line async for line in client.stream_lines("GET", "/x")] == [b"one", b"two"]


async def test_in_process_transport_names_the_user() -> None:
    users: list[User | None] = []

    async def handle(request: Request) -> Response:
        users.append(request.user)
        return Response(200, {}, b"{}")

    transport = InProcessTransport(handle)
    await Client(transport).get(PODS, "a", "x")
    await Client(transport.as_user(User("jane"))).get(PODS, "a", "x")
    assert users == [PLATFORM, User("jane")]
    await transport.close()
    with pytest.raises(ConnectionLost):
        await Client(transport).get(PODS, "a", "x")


async def test_raw_and_collections_and_streamed_answers() -> None:
    streamed = Response(201, {}, b"", chunks_of(b'{"a"', b":1}"))
    refused = Response(403, {}, b"", chunks_of(orjson.dumps(errors.forbidden("", "pods", "a", "no").status())))
    wire = Scripted(streamed, refused)
    client = Client(wire, cluster="t")
    answer = await client.raw("POST", "/apis", query=[("a", "b")], body={"x": 1}, accept="text/plain")
    assert answer.body == b'{"a":1}'
    assert (wire.requests[0].path, wire.requests[0].body) == ("/clusters/t/apis", b'{"x":1}')
    assert wire.requests[0].headers == {"accept": "text/plain", "content-type": "application/json"}
    with pytest.raises(ApiError, match="forbidden: no"):
        await client.raw("GET", "/apis")
    await client.with_field_manager("other").delete_collection(PODS, "x", label_selector="a=b", propagation="Orphan")
    last = wire.requests[-1]
    assert (last.method, last.path, last.query) == (
        "DELETE",
        "/clusters/t/api/v1/namespaces/x/pods",
        [("labelSelector", "a=b")],
    )
    assert orjson.loads(last.body)["propagationPolicy"] == "Orphan"

"""exec, attach and port-forward over WebSocket and SPDY: every protocol, every way to leave."""

from __future__ import annotations

import asyncio
import base64
import struct

import aiohttp
import orjson
import pytest
from kubelet_world import Lab, SpdyClient, echo_server, lab

pytestmark = pytest.mark.realtime
UPGRADE = "Connection: Upgrade\nUpgrade: SPDY/3.1\nHost: n\n"


async def until_status(socket: aiohttp.ClientWebSocketResponse) -> tuple[dict[int, bytes], dict[str, object]]:
    """Everything of each channel, and the status on channel 3."""
    got: dict[int, bytes] = {}
    async for message in socket:
        got[message.data[0]] = got.get(message.data[0], b"") + message.data[1:]
    return got, orjson.loads(got.pop(3, b"{}"))


@pytest.mark.parametrize("protocol", ["v5.channel.k8s.io", "v4.channel.k8s.io"])
async def test_exec_carries_both_outputs_and_the_exit_code(protocol: str) -> None:
    async with lab() as it:
        url = f"{it.url}/exec/ns/p/c?command=sh&command=-c&input=1&output=1&error=1"
        async with it.session.ws_connect(url, protocols=("unknown", protocol)) as socket:
            assert socket.protocol == protocol
            assert (await socket.receive()).data == b"\x01"  # the connection stands
            await socket.send_bytes(b"\x00out")
            await socket.send_bytes(b"\x00!err")
            assert {(await socket.receive()).data for _ in range(2)} == {b"\x01out", b"\x02!err"}
            await socket.send_bytes(b"\x00exit 7")
            _, status = await until_status(socket)
        assert status["reason"] == "NonZeroExitCode"
        assert status["details"] == {"causes": [{"reason": "ExitCode", "message": "7"}]}
        assert it.pods.processes[0].argv == ["sh", "-c"]
        await it.idle()


async def test_the_end_of_input_is_said_in_version_5_alone() -> None:
    async with lab() as it:
        url = f"{it.url}/exec/ns/p/c?command=cat&input=1&output=1"
        async with it.session.ws_connect(url, protocols=("v5.channel.k8s.io",)) as socket:
            await socket.send_bytes(b"\x00last words")
            await socket.send_bytes(bytes((255, 0)))
            got, status = await until_status(socket)
        assert (got[1], status["status"]) == (b"last words", "Success")
        async with it.session.ws_connect(url, protocols=("v4.channel.k8s.io",)) as socket:
            await socket.send_bytes(bytes((255, 0)))
            await socket.send_bytes(b"\x00exit 0")
            assert (await until_status(socket))[1]["status"] == "Success"
        await it.idle()


async def test_base64_and_the_oldest_protocol() -> None:
    async with lab() as it:
        url = f"{it.url}/exec/ns/p/c?command=cat&input=1&output=1"
        async with it.session.ws_connect(url, protocols=("v4.base64.channel.k8s.io",)) as socket:
            assert (await socket.receive()).data == "1"
            await socket.send_str("0" + base64.b64encode(b"text").decode())
            assert (await socket.receive()).data == "1" + base64.b64encode(b"text").decode()
            await socket.send_str("0" + base64.b64encode(b"exit 0").decode())
            answer = (await socket.receive()).data
            assert orjson.loads(base64.b64decode(answer[1:]))["status"] == "Success"
        async with it.session.ws_connect(url) as socket:  # no subprotocol at all: an error is plain text
            await socket.send_bytes(b"\x00exit 3")
            messages = [message.data async for message in socket]
            assert messages[-1].startswith(b"\x03command terminated")
        await it.idle()


async def test_a_terminal_is_resized_and_has_one_output() -> None:
    async with lab() as it:
        url = f"{it.url}/exec/ns/p/c?command=sh&input=1&output=1&error=1&tty=1"
        async with it.session.ws_connect(url, protocols=("v5.channel.k8s.io",)) as socket:
            await socket.receive()
            for size in (
                b'{"Width":80,"Height":24}',
                b"nonsense",
                b'{"Width":0,"Height":1}',
                b'{"Width":99,"Height":7}',
            ):
                await socket.send_bytes(b"\x04" + size)
            await socket.send_bytes(b"\x00!hidden")
            await socket.send_bytes(b"\x00exit 0")
            got, _ = await until_status(socket)
        assert got == {}  # the fake process writes to a stream that a terminal has not
        assert it.pods.processes[0].sizes == [(80, 24), (99, 7)]
        await it.idle()


async def test_pings_are_answered_while_a_process_takes_no_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glebe.node.kubelet.remotecommand._SIGN", 0.05)
    async with lab() as it:
        url = f"{it.url}/exec/ns/p/c?command=deaf&input=1&output=1"
        async with it.session.ws_connect(url, protocols=("v5.channel.k8s.io",), autoping=False) as socket:
            await socket.receive()
            await socket.send_bytes(b"\x00into the void")
            await socket.ping(b"there?")
            assert (await socket.receive()).data == b"there?"
            for _ in range(20):
                await socket.send_bytes(b"\x00" + bytes(100_000))
            async with asyncio.timeout(3):  # now nothing is read any more
                signs = [await socket.receive() for _ in range(3)]
            assert {(sign.type, sign.data) for sign in signs} == {(aiohttp.WSMsgType.PONG, b"")}
            socket._response.connection.transport.abort()  # type: ignore[union-attr]
        await it.idle()


async def test_a_client_that_says_goodbye_is_heard_behind_what_nobody_takes() -> None:
    async with lab() as it:
        url = f"{it.url}/exec/ns/p/c?command=deaf&input=1&output=1"
        async with it.session.ws_connect(url, protocols=("v5.channel.k8s.io",)) as socket:
            await socket.send_bytes(b"\x00into the void")
        await it.idle()


async def test_whoever_leaves_takes_the_process_with_him() -> None:
    async with lab() as it:
        url = f"{it.url}/exec/ns/p/c?command=yes&output=1"
        socket = await it.session.ws_connect(url, protocols=("v5.channel.k8s.io",))
        await socket.receive()
        await socket.receive()
        transport = socket.get_extra_info("socket")
        assert transport is not None
        socket._response.connection.transport.abort()  # type: ignore[union-attr]
        await it.idle()
        assert it.pods.processes[0].closed


async def test_a_client_that_reads_nothing_holds_the_process_up_and_no_memory() -> None:
    async with lab() as it:
        head = (
            "GET /exec/ns/p/c?command=yes&output=1 HTTP/1.1\nHost: n\nConnection: Upgrade\nUpgrade: websocket\n"
            "Sec-WebSocket-Version: 13\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\n\n"
        )
        reader, writer = await it.open_raw(head)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(0.4)
        tasks = it.server.listener._connections
        assert len(tasks) == 1
        writer.transport.abort()
        await it.idle()
        assert reader is not None


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/exec/ns/p/c?output=1", 400, "at least 1 command"),
        ("/exec/ns/p/c?command=ls", 400, "at least 1 of stdin, stdout, stderr"),
        ("/exec/ns/p/nope?command=ls&output=1", 500, 'container not found ("nope")'),
        ("/exec/ns/other/c?command=ls&output=1", 404, "pod does not exist"),
        ("/exec/ns/p/other-uid/c?command=ls&output=1", 404, "pod not found"),
        ("/exec/ns/p/c?command=ls&output=1", 400, "Upgrade request required"),
        ("/attach/ns/p/plain?input=1&tty=1", 400, "did not allocate one"),
        ("/portForward/ns/other", 404, "pod does not exist"),
        ("/nothing", 404, "404 page not found"),
    ],
)
async def test_refusals(path: str, status: int, text: str) -> None:
    async with lab() as it, it.session.post(it.url + path) as answer:
        assert (answer.status, text in await answer.text()) == (status, True)


# --- SPDY


async def spdy(it: Lab, path: str, protocol: str) -> tuple[SpdyClient, asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await it.open_raw(f"POST {path} HTTP/1.1\n{UPGRADE}X-Stream-Protocol-Version: {protocol}\n\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), head
    assert f"x-stream-protocol-version: {protocol}".encode() in head
    return SpdyClient(), reader, writer


async def test_exec_over_spdy() -> None:
    async with lab() as it:
        path = "/exec/ns/p/u1/c?command=sh&input=1&output=1&error=1"
        client, reader, writer = await spdy(it, path, "v4.channel.k8s.io")
        numbers = {}
        for kind in ("error", "stdin", "stdout", "stderr"):
            numbers[kind], frame = client.stream(streamtype=kind)
            writer.write(frame)
        writer.write(client.ping(1))
        writer.write(client.data(numbers["stdin"], b"some"))
        got: dict[int, bytes] = {}
        kinds = []
        async with asyncio.timeout(5):
            while "goaway" not in kinds:
                for kind, number, data, _ in client.feed(await reader.read(4096)):
                    kinds.append(kind)
                    if kind == "data":
                        got[number] = got.get(number, b"") + data
                    if data == b"some":
                        writer.write(client.data(numbers["stdin"], b"exit 5", last=True))
        assert got[numbers["stdout"]] == b"some"
        assert orjson.loads(got[numbers["error"]])["details"]["causes"][0]["message"] == "5"
        assert kinds.count("reply") == 4
        assert "ping" in kinds
        writer.close()
        await it.idle()


async def test_spdy_protocols_are_negotiated() -> None:
    async with lab() as it:
        path = f"{it.url}/exec/ns/p/c?command=sh&output=1"
        headers = {"connection": "Upgrade", "upgrade": "SPDY/3.1", "x-stream-protocol-version": "v9.channel.k8s.io"}
        async with it.session.post(path, headers=headers) as answer:
            assert answer.status == 403
            assert "v4.channel.k8s.io" in answer.headers["x-accepted-stream-protocol-versions"]


async def test_what_is_no_spdy_ends_the_connection() -> None:
    async with lab() as it:
        for nonsense in (b"\xff" * 64, b"\x80\x02\x00\x01\x00\x00\x00\x04aaaa", b"\x00\x00\x00\x01\x00\xff\xff\xff"):
            _, reader, writer = await spdy(it, "/portForward/ns/p", "portforward.k8s.io")
            writer.write(nonsense)
            if nonsense.startswith(b"\x00"):
                writer.write_eof()
            async with asyncio.timeout(5):
                assert await reader.read() in (b"", None)
            writer.close()
        await it.idle()


# --- port-forward


async def test_port_forward_over_spdy_in_a_websocket() -> None:
    async with lab() as it, echo_server() as port:
        url = f"{it.url}/portForward/ns/p"
        async with it.session.ws_connect(url, protocols=("SPDY/3.1+portforward.k8s.io",)) as socket:
            client = SpdyClient()
            first = _pair(client, port, "1")
            second = _pair(client, port, "2")
            await socket.send_bytes(first[2] + second[2])
            await socket.send_bytes(client.data(first[0], b"hello\n") + client.data(second[0], b"you\n"))
            got = await _collect(client, socket, {first[0]: b"hello\n", second[0]: b"you\n"})
            assert got == {first[0]: b"hello\n", second[0]: b"you\n"}
            await socket.send_bytes(client.data(first[0], b"bye\n"))
            async with asyncio.timeout(5):
                ended: set[int] = set()
                while not {first[0], first[1]} <= ended:
                    frames = client.feed((await socket.receive()).data)
                    ended |= {number for kind, number, _, last in frames if kind == "data" and last}
            assert second[0] not in ended
        await it.idle()


async def test_a_port_where_nobody_listens_is_said_on_the_error_stream() -> None:
    async with lab() as it:
        client, reader, writer = await spdy(it, "/portForward/ns/p", "portforward.k8s.io")
        data, error, frames = _pair(client, 1, "7")
        writer.write(frames)
        seen: dict[str, bytes] = {}
        async with asyncio.timeout(5):
            while "reset" not in seen or "data" not in seen:
                for kind, number, body, _ in client.feed(await reader.read(4096)):
                    if kind in ("reset", "data") and (number in (data, error)):
                        seen[kind] = seen.get(kind, b"") + (body if number == error else b"")
        assert b"error forwarding port 1 to pod ns/p" in seen["data"]
        assert b"connection refused" in seen["data"]
        writer.close()
        await it.idle()


async def test_port_forward_over_channels() -> None:
    async with lab() as it, echo_server() as port:
        url = f"{it.url}/portForward/ns/p?port={port}"
        async with it.session.ws_connect(url, protocols=("v4.channel.k8s.io",)) as socket:
            for channel in (0, 1):
                assert (await socket.receive()).data == bytes((channel,)) + struct.pack("<H", port)
            await socket.send_bytes(b"\x00hi\n")
            assert (await socket.receive()).data == b"\x00hi\n"
        await it.idle()


def _pair(client: SpdyClient, port: int, request: str) -> tuple[int, int, bytes]:
    error, first = client.stream(streamtype="error", port=str(port), requestid=request)
    data, second = client.stream(streamtype="data", port=str(port), requestid=request)
    return data, error, first + second


async def _collect(
    client: SpdyClient, socket: aiohttp.ClientWebSocketResponse, wanted: dict[int, bytes]
) -> dict[int, bytes]:
    got = dict.fromkeys(wanted, b"")
    async with asyncio.timeout(5):
        while any(len(got[number]) < len(text) for number, text in wanted.items()):
            for kind, number, data, _ in client.feed((await socket.receive()).data):
                if kind == "data" and number in got:
                    got[number] += data
    return got

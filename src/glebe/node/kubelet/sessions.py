"""Requests that become conversations: which protocol the client speaks, and who talks to whom in it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from glebe.kube import websocket
from glebe.kube.errors import ApiError, bad_request
from glebe.kube.objects import Object
from glebe.kube.transport import Request, Response
from glebe.node.containers.containers import CannotExecute
from glebe.node.contracts import Streams as Process
from glebe.node.kubelet import dialogue, portforward, remotecommand, spdy
from glebe.node.kubelet.http import Takeover
from glebe.node.kubelet.pods import Pods, body_of
from glebe.node.kubelet.portforward import Forwarding, Tunnel
from glebe.node.kubelet.remotecommand import Options

#: Connects to a port of a pod. :raises OSError: nothing takes the connection.
Reach = Callable[[Object, int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]

_STREAM_SECONDS = 30.0  # for a client of SPDY to make its streams
_LARGEST_OUTPUT = 1 << 20


# --- exec and attach


async def execute(pods: Pods, pod: Object, container: str, request: Request) -> Response | Takeover:
    """
    :raises ApiError: 400, 500.
    """
    options = _options(request)
    argv = [value for name, value in request.query if name == "command"]
    if not argv:
        raise bad_request("you must specify at least 1 command for the container")
    if pods.running(pod, container) is None:
        raise ApiError(500, "InternalError", f'container not found ("{container}")')
    return _conversation(
        request, options, lambda: pods.execute(pod, container, argv, tty=options.tty, stdin=options.stdin), False
    )


async def attach(pods: Pods, pod: Object, container: str, request: Request) -> Response | Takeover:
    """
    :raises ApiError: 400, 500.
    """
    options = _options(request)
    if pods.running(pod, container) is None:
        raise ApiError(500, "InternalError", f'container not found ("{container}")')
    if options.tty and not body_of(pod, container).get("tty"):
        raise bad_request(f"Unable to use a TTY - container {container} did not allocate one")
    return _conversation(request, options, lambda: pods.attach(pod, container, stdin=options.stdin), True)


def _options(request: Request) -> Options:
    options = remotecommand.options_of(request)
    if isinstance(options, str):
        raise bad_request(options)
    return options


Begin = Callable[[], Awaitable[Process]]


def _conversation(request: Request, options: Options, begin: Begin, attached: bool) -> Response | Takeover:
    if websocket.is_asked(request):
        return _over_websocket(request, options, begin, attached)
    return _over_spdy(request, options, begin, attached)


def _over_websocket(request: Request, options: Options, begin: Begin, attached: bool) -> Response | Takeover:
    protocol = choose(websocket.offered(request), dialogue.CHANNEL_PROTOCOLS)
    headers = websocket.accept_headers(request, protocol or "") if protocol is not None else None
    if protocol is None or headers is None:
        return _no_websocket(request, dialogue.CHANNEL_PROTOCOLS)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = dialogue.Channels(websocket.WebSocket(reader, writer), protocol)
        first = dialogue.STDOUT if options.stdout else dialogue.STDERR if options.stderr else dialogue.ERROR
        with suppress(OSError):
            await client.begin(first)
            await _converse(client, options, begin, attached)

    return Takeover(headers, talk)


def _over_spdy(request: Request, options: Options, begin: Begin, attached: bool) -> Response | Takeover:
    protocol = _stream_protocol(request, dialogue.STREAM_PROTOCOLS)
    if isinstance(protocol, Response):
        return protocol
    resizes = options.tty and protocol in dialogue.STREAM_PROTOCOLS[:2]

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = spdy.Session(spdy.Raw(reader, writer))
        reading = asyncio.ensure_future(session.run())
        client = dialogue.Streams(session, protocol)
        try:
            with suppress(OSError, TimeoutError):
                await client.collect(options.streams + resizes, _STREAM_SECONDS)
                await _converse(client, options, begin, attached)
                await asyncio.wait({reading}, timeout=2.0)  # the client closes when it has read everything
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    return Takeover(_spdy_headers(protocol), talk)


async def _converse(client: dialogue.Dialogue, options: Options, begin: Begin, attached: bool) -> None:
    try:
        process = await begin()
    except CannotExecute as error:
        text = f"OCI runtime exec failed: exec failed: unable to start container process: exec: {error}\n"
        channel = dialogue.STDERR if options.stderr else dialogue.STDOUT
        if options.stderr or options.stdout:
            await client.tell(channel, text.encode())
        await client.finish(remotecommand.ended(error.exit_code))
    except ApiError as error:
        await client.finish(remotecommand.failed(f"error executing command in container: {error}"))
    else:
        await remotecommand.converse(client, process, options, attached=attached)


async def run(pods: Pods, pod: Object, container: str, argv: list[str]) -> Response:
    """
    :raises ApiError: 500.
    """
    try:
        process = await pods.execute(pod, container, argv, tty=False, stdin=False)
    except CannotExecute as error:
        raise ApiError(500, "InternalError", str(error)) from None
    out = bytearray()
    try:
        async for _, data in process.output():
            out += data
            if len(out) > _LARGEST_OUTPUT:
                break
        code = await process.wait() if len(out) <= _LARGEST_OUTPUT else 0
    finally:
        await process.close()
    if code:
        raise ApiError(
            500, "InternalError", f"command terminated with exit code {code}: {out.decode(errors='replace')}"
        )
    return Response(200, {"content-type": "text/plain; charset=utf-8"}, bytes(out))


# --- port-forward


async def port_forward(reach: Reach, pod: Object, request: Request) -> Response | Takeover:
    """
    :raises ApiError: 400.
    """
    name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"

    async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await reach(pod, port)

    if websocket.is_asked(request):
        if portforward.TUNNEL in websocket.offered(request):
            return _tunnelled(request, connect, name)
        return _forward_over_channels(request, connect, name)
    protocol = _stream_protocol(request, (portforward.STREAM_PROTOCOL,))
    if isinstance(protocol, Response):
        return protocol

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Forwarding(spdy.Session(spdy.Raw(reader, writer)), connect, name).run()

    return Takeover(_spdy_headers(protocol), talk)


def _tunnelled(request: Request, connect: portforward.Connect, name: str) -> Response | Takeover:
    headers = websocket.accept_headers(request, portforward.TUNNEL)
    if headers is None:
        return _no_websocket(request, (portforward.TUNNEL,))

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        socket = websocket.WebSocket(reader, writer)
        try:
            await Forwarding(spdy.Session(Tunnel(socket)), connect, name).run()
        finally:
            with suppress(OSError):
                await socket.close()

    return Takeover(headers, talk)


def _forward_over_channels(request: Request, connect: portforward.Connect, name: str) -> Response | Takeover:
    texts = [text for key, value in request.query if key == "port" for text in value.split(",")]
    ports = [int(text) for text in texts if text.isascii() and text.isdigit() and 0 < int(text) < 65536]
    if not texts or len(ports) != len(texts):
        raise bad_request('query parameter "port" is required' if not texts else f"unable to parse {texts} as ports")
    protocol = choose(websocket.offered(request), portforward.CHANNEL_PROTOCOLS)
    headers = websocket.accept_headers(request, protocol or "") if protocol is not None else None
    if protocol is None or headers is None:
        return _no_websocket(request, portforward.CHANNEL_PROTOCOLS)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            socket = websocket.WebSocket(reader, writer)
            await portforward.over_channels(socket, protocol, ports, connect, name)

    return Takeover(headers, talk)


# --- protocols


def choose(offered: Sequence[str], known: Sequence[str]) -> str | None:
    """The client's first choice that is known here; "" when it names none; None when none of its own is known."""
    if not offered:
        return ""
    return next((name for name in offered if name in known), None)


def _stream_protocol(request: Request, known: Sequence[str]) -> str | Response:
    """What a client of SPDY and this server both speak, or the refusal."""
    if "spdy/3.1" not in request.headers.get("upgrade", "").lower():
        return Response(400, {"content-type": "text/plain"}, b"Upgrade request required")
    offered = [w.strip() for w in request.headers.get("x-stream-protocol-version", "").split(",") if w.strip()]
    protocol = choose(offered, known)
    if protocol is None:
        headers = {"x-accepted-stream-protocol-versions": ", ".join(known), "content-type": "text/plain"}
        text = f"unable to upgrade: unable to negotiate protocol: client supports {offered}, server accepts {known}"
        return Response(403, headers, text.encode())
    return protocol or known[-1]


def _spdy_headers(protocol: str) -> dict[str, str]:
    return {"connection": "Upgrade", "upgrade": "SPDY/3.1", "x-stream-protocol-version": protocol}


def _no_websocket(request: Request, known: Sequence[str]) -> Response:
    text = f"unable to upgrade: no WebSocket subprotocol of {websocket.offered(request)} is known, only {list(known)}"
    return Response(403, {"content-type": "text/plain"}, text.encode())


__all__: list[Any] = ["Reach", "attach", "choose", "execute", "port_forward", "run"]

"""A stream of bytes as the messages of a WebSocket, for clients that ask for it so (upstream's ``wsstream.Reader``)."""

from __future__ import annotations

import asyncio
import base64
from contextlib import suppress

from glebe.apiserver.http.upgrades import as_streams
from glebe.kube import websocket
from glebe.kube.transport import Request, Response
from glebe.kube.websocket import BINARY, TEXT, WebSocket

_BINARY, _BASE64 = "binary.k8s.io", "base64.binary.k8s.io"


def in_messages(request: Request, answer: Response) -> Response:
    """``answer`` as it is, unless the client wants a WebSocket and the answer is good.

    Whoever wants a subprotocol that is not known here gets 403.
    """
    if answer.status != 200 or not websocket.is_asked(request):
        return answer
    offered = websocket.offered(request)
    protocol = next((name for name in offered if name in (_BINARY, _BASE64)), None if offered else "")
    headers = websocket.accept_headers(request, protocol) if protocol is not None else None
    if protocol is None or headers is None:
        return Response(403, {"content-type": "text/plain"}, b"unable to upgrade: no subprotocol is known")

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        socket = WebSocket(reader, writer)
        sending = asyncio.ensure_future(_send(socket, answer, protocol))
        leaving = asyncio.ensure_future(_ignore(socket))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended = sending.done()
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            await answer.close()
        if ended:
            await socket.close()

    return Response(101, headers, upgrade=as_streams(talk))


async def _send(socket: WebSocket, answer: Response, protocol: str) -> None:
    with suppress(OSError):
        if answer.body:
            await _message(socket, answer.body, protocol)
        if answer.stream is not None:
            async for chunk in answer.stream:
                await _message(socket, chunk, protocol)


async def _message(socket: WebSocket, chunk: bytes, protocol: str) -> None:
    if protocol == _BASE64:
        await socket.send(base64.b64encode(chunk), TEXT)
    else:
        await socket.send(chunk, BINARY)


async def _ignore(socket: WebSocket) -> None:
    """What the client says means nothing; that it leaves does."""
    with suppress(OSError):
        while await socket.receive() is not None:
            pass

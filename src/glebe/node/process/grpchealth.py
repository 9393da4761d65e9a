"""The gRPC health protocol (grpc.health.v1.Health/Check) for probes, on h2: one call on one connection, without TLS."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

SERVING = 1
_STATUSES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_CODES = (
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
)
_UNIMPLEMENTED = 12
_AGAIN = 0.05  # seconds between attempts to connect


async def check(host: str, port: int, service: str, timeout: float) -> tuple[bool, str]:
    """Whether the service says that it is healthy, and what there is to say about it (upstream's words)."""
    where = f"{host}:{port}"
    connected = False
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await _connect(host, port)
            connected = True
            try:
                answer = await _call(reader, writer, where, service)
            finally:
                writer.close()
    except TimeoutError:
        if connected:
            return False, f"timeout: health rpc did not complete within {timeout:g}s"
        return False, f'timeout: failed to connect service "{where}" within {timeout:g}s: context deadline exceeded'
    except (OSError, EOFError, ValueError) as error:
        words = str(error) or "error reading from server: EOF"
        return False, f'error: health rpc probe failed: rpc error: code = Unavailable desc = "{words}"'
    return _verdict(*answer)


def _verdict(code: int, message: str, body: bytes) -> tuple[bool, str]:
    if code == _UNIMPLEMENTED:
        text = "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"
        return False, f"{text}: {message}"
    if code:
        name = _CODES[code] if code < len(_CODES) else f"Code({code})"
        return False, f"error: health rpc probe failed: rpc error: code = {name} desc = {message}"
    status = _status_of(body)
    if status != SERVING:
        return False, f'service unhealthy (responded with "{_STATUSES.get(status, status)}")'
    return True, "service healthy"


async def _connect(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """As gRPC clients do, a refused connection is tried again until time is up."""
    while True:
        with contextlib.suppress(OSError):
            return await asyncio.open_connection(host, port)
        await asyncio.sleep(_AGAIN)


async def _call(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: str, service: str
) -> tuple[int, str, bytes]:
    """One unary call; returns (grpc-status, grpc-message, message)."""
    from h2 import events  # imported late: few pods have gRPC probes
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.exceptions import ProtocolError

    connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    connection.initiate_connection()
    name = service.encode()
    message = (b"\x0a" + _varint(len(name)) + name) if name else b""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/grpc.health.v1.Health/Check",
        ":authority": where,
        "content-type": "application/grpc",
        "te": "trailers",
        "user-agent": "kube-probe/1.36",
    }
    connection.send_headers(1, list(headers.items()))
    connection.send_data(1, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
    seen: dict[str, str] = {}
    body = b""
    while True:
        writer.write(connection.data_to_send())
        await writer.drain()
        data = await reader.read(65536)
        if not data:
            raise EOFError
        try:
            received = connection.receive_data(data)
        except ProtocolError as error:
            raise ValueError(f"error reading server preface: {error}") from None
        for event in received:
            if isinstance(event, events.ResponseReceived | events.TrailersReceived):
                seen.update({str(key): str(value) for key, value in event.headers or ()})
            elif isinstance(event, events.DataReceived):
                body += event.data or b""
                connection.acknowledge_received_data(event.flow_controlled_length or 0, 1)
            elif isinstance(event, events.StreamEnded):
                return *_grpc_status(seen), body
            elif isinstance(event, events.StreamReset | events.ConnectionTerminated):
                raise EOFError


def _grpc_status(headers: Mapping[str, str]) -> tuple[int, str]:
    code = headers.get("grpc-status", "")
    if code.isdigit():
        return int(code), headers.get("grpc-message", "")
    return 2, f"unexpected HTTP status code received from server: {headers.get(':status', '')}"


def _status_of(body: bytes) -> int:
    """Field 1 (varint) of HealthCheckResponse; absent: UNKNOWN."""
    message = body[5:]
    if len(message) >= 2 and message[0] == 0x08:
        return message[1]
    return 0


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)

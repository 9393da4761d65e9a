"""Where a Kubernetes cluster calls ``glebe controller``: one HTTPS server for conversion, admission and visibility.

The certificate's authority is made anew at each start and handed over with every registration (definitions, webhooks,
APIServices): whoever registers last is called.
"""

from __future__ import annotations

import base64
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from cryptography import x509

from glebe.apiserver.auth.pki import Pki
from glebe.apiserver.http import HttpServer
from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.objects import Object
from glebe.kube.transport import Request, Response
from glebe.platform import bootstrap
from glebe.queueing import versions

Answer = Callable[[Request], Awaitable[Response]]
CONVERT = "/convert"


@dataclass(slots=True)
class Door:
    """The server while it is open. ``paths`` may be added to at any time; the longest prefix answers."""

    url: str
    host: str
    port: int
    ca: bytes
    paths: dict[str, Answer] = field(default_factory=dict)

    async def answer(self, request: Request) -> Response:
        found = [prefix for prefix in self.paths if request.path == prefix or request.path.startswith(f"{prefix}/")]
        return await self.paths[max(found, key=len)](request) if found else Response(404)


def own_address() -> str:
    """The address of this machine or pod as its own resolver knows it; else its name."""
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return socket.gethostname()


@asynccontextmanager
async def open_door(
    env: Env, listen: str, clients: Sequence[x509.Certificate] = (), names: Sequence[str] = ()
) -> AsyncIterator[Door]:
    """Listen while the block runs; conversion is answered from the first moment.

    :param listen: HOST:PORT at which the cluster reaches this process; empty: :func:`own_address` and any port.
    :param clients: authorities whose certificates callers may show.
    :param names: further names by which the cluster knows it.
    :raises OSError: the address cannot be had.
    """
    host, _, port = listen.rpartition(":") if listen else (own_address(), "", "0")
    host = host.strip("[]")
    door = Door("", host, 0, b"")
    with tempfile.TemporaryDirectory(prefix="glebe-door-") as directory:
        pki = Pki(Path(directory))
        pki.ensure([host, *names], env.clock.now())
        server = HttpServer(door.answer, host=host, port=int(port), tls=pki.server_context(clients))
        await server.start()
        door.url, door.port, door.ca = server.url, server.port, pki.ca_pem
        door.paths[CONVERT] = json_answer(versions.review)
        try:
            yield door
        finally:
            await server.close()


def json_answer(answer: Callable[[Object], Mapping[str, object]]) -> Answer:
    """POST of one JSON document, answered by another."""

    async def handle(request: Request) -> Response:
        if request.method != "POST":
            return Response(405)
        try:
            asked = orjson.loads(request.body)
        except orjson.JSONDecodeError:
            return Response(400)
        return Response(200, {"content-type": "application/json"}, orjson.dumps(answer(asked)))

    return handle


async def point_conversion(client: Client, door: Door) -> None:
    """Have the cluster ask this process to convert objects; clients of v1beta2 need nobody for that."""
    config = {"service": None, "url": f"{door.url}{CONVERT}", "caBundle": base64.b64encode(door.ca).decode()}
    for crd in bootstrap.custom_resource_definitions():
        if (crd["spec"].get("conversion") or {}).get("strategy") == "Webhook":
            change = {"spec": {"conversion": {"webhook": {"clientConfig": config}}}}
            await client.patch(r.CUSTOM_RESOURCE_DEFINITIONS, crd["metadata"]["name"], change)

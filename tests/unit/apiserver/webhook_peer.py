"""A webhook server with TLS of its own, for tests: what it answers is a function of the review it gets."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Answer = Callable[[dict[str, Any]], dict[str, Any]]
SERVER_NAME = "hook.default.svc"


class WebhookPeer:
    """``ca`` goes into ``caBundle``; ``reviews`` are the requests that came."""

    def __init__(self, ca: str, port: int) -> None:
        self.ca = ca
        self.port = port
        self.reviews: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.answer: Answer = lambda request: {"allowed": True}
        self.delay = 0.0
        self.status = 200
        self.raw: Callable[[dict[str, Any]], Any] | None = None
        self.connections = 0

    def config(self, path: str = "/hook") -> dict[str, Any]:
        """A ``clientConfig`` by URL."""
        return {"url": f"https://localhost:{self.port}{path}", "caBundle": self.ca}

    async def handle(self, request: web.Request) -> web.Response:
        review = orjson.loads(await request.read())
        self.reviews.append(review["request"])
        self.paths.append(request.path_qs)
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.raw is not None:
            return web.json_response(self.raw(review), status=self.status)
        response = {"uid": review["request"]["uid"], **self.answer(review["request"])}
        body = {"kind": "AdmissionReview", "apiVersion": review["apiVersion"], "response": response}
        return web.json_response(body, status=self.status)


def patching(*operations: dict[str, Any]) -> dict[str, Any]:
    """An answer that allows and changes."""
    return {"allowed": True, "patchType": "JSONPatch", "patch": base64.b64encode(orjson.dumps(operations)).decode()}


def denying(message: str = "", code: int = 0, reason: str = "") -> dict[str, Any]:
    status: dict[str, Any] = {k: v for k, v in (("message", message), ("code", code), ("reason", reason)) if v}
    return {"allowed": False, "status": status}


def _certificate(folder: Path) -> tuple[ssl.SSLContext, str]:
    """A context for the server and its certificate, base64 of PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "webhook")])
    now = datetime.now(UTC)
    names = [x509.DNSName("localhost"), x509.DNSName(SERVER_NAME)]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "webhook.pem").write_bytes(pem + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "webhook.pem")
    return context, base64.b64encode(pem).decode()


@asynccontextmanager
async def webhook_peer(folder: Path) -> AsyncIterator[WebhookPeer]:
    """A running one on 127.0.0.1."""
    context, ca = _certificate(folder)
    peer = WebhookPeer(ca, 0)
    app = web.Application()
    app.router.add_post("/{rest:.*}", peer.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    sockets = site._server.sockets  # type: ignore[union-attr]
    peer.port = sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        await runner.cleanup()

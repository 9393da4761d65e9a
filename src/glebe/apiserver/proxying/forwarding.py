"""Passes requests on and answers back: the ``proxy`` subresources, and what a kubelet answers for a node.

Bodies of answers are streams; upgrades become a connection of bytes in both directions.
"""

from __future__ import annotations

import posixpath
import ssl
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from glebe.apiserver.dialing import DialError, Target
from glebe.apiserver.proxying import locations, rewriting
from glebe.apiserver.proxying.locations import Location
from glebe.apiserver.request.call import Call
from glebe.apiserver.verbs import admitting
from glebe.kube import errors
from glebe.kube.transport import Request, Response

if TYPE_CHECKING:
    import aiohttp

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
#: Belong to one connection, or say who asks: neither is the other side's business.
_KEPT_BACK = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "content-length",
        "host",
        "authorization",
        "accept-encoding",
    }
)
_KEPT_BACK_PREFIXES = ("impersonate-", "x-remote-")
_ANSWER_KEPT_BACK = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding"})
#: HTML pages beyond this are passed on as they are.
_LARGEST_PAGE = 8 << 20
_SAFE = "/:@!$&'()*+,;=~-._"


async def pod(call: Call) -> Response:
    """``pods/NAME/proxy[/PATH]``."""
    return await _proxy(call, "PodProxyOptions", locations.of_pod)


async def service(call: Call) -> Response:
    """``services/NAME/proxy[/PATH]``."""
    return await _proxy(call, "ServiceProxyOptions", locations.of_service)


async def node(call: Call) -> Response:
    """``nodes/NAME/proxy[/PATH]``: the node's kubelet, or another of its ports."""
    return await _proxy(call, "NodeProxyOptions", locations.of_node)


async def _proxy(call: Call, kind: str, locate: Callable[[Call], Location]) -> Response:
    request = call.request
    if request.method not in METHODS:
        raise errors.method_not_allowed()
    path, prefix = _path(call)
    await admitting.connect(call, {"apiVersion": "v1", "kind": kind, "path": path})
    location = locate(call)
    if not path and request.method in ("GET", "HEAD"):
        return Response(301, {"location": f"{request.path}/{_query(request)}"})
    return await forward(call, location, path or "/", prefix)


def _path(call: Call) -> tuple[str, str]:
    """(path after the subresource, with its slash; the path up to there as the client sees it)."""
    segments = 8 if call.info.namespaced else 6  # "", api, v1, [namespaces, NAMESPACE,] RESOURCE, NAME, proxy
    parts = call.route.path.split("/")
    rest = "/".join(parts[segments:])
    path = f"/{rest}" if len(parts) > segments else ""
    return path, call.request.path.removesuffix(path)


def _query(request: Request) -> str:
    return f"?{urlencode(request.query)}" if request.query else ""


async def forward(call: Call, location: Location, path: str, prefix: str = "") -> Response:
    """Ask ``location`` what the client asked, for ``path``.

    :param prefix: the path that leads here; "": the answer's links stay as they are.
    :raises ApiError: 503 when nothing answers there.
    """
    request = call.request
    headers = _headers(request)
    if prefix:
        uri = posixpath.normpath(f"{prefix}/{path.lstrip('/')}")
        headers["x-forwarded-uri"] = f"{uri}/" if path.endswith("/") and not uri.endswith("/") else uri
        headers["x-forwarded-host"] = request.headers.get("host", "")
        headers["x-forwarded-proto"] = "https"
    escaped = quote(path, safe=_SAFE)
    if "upgrade" in request.headers.get("connection", "").lower():
        from glebe.apiserver.proxying.upgrading import upgrade  # late: few requests are upgrades

        return await upgrade(call, location, escaped + _query(request), headers)
    target = Target(((location.host, location.number),), location.host, location.authority, escaped, location.scheme)
    context = tls_context(call, location) if location.scheme == "https" else None
    try:
        answer = await call.server.dialer.open(
            target, request.method, request.body, headers=headers, context=context, query=_query(request)
        )
    except DialError as error:
        raise errors.ApiError(503, "ServiceUnavailable", f"error trying to reach service: {error}") from None
    return await _answered(answer, request, prefix, location)


def tls_context(call: Call, location: Location) -> ssl.SSLContext:
    """Pods and kubelets show certificates that nobody here knows, unless they are this process' own; to kubelets the
    server shows who it is.
    """
    dialer = call.server.dialer
    identity = call.server.kubelet_identity if location.kubelet else None
    known = bool(location.trust)
    return dialer.context(location.trust, insecure=not known, identity=identity or (b"", b""), name="proxy")


def _headers(request: Request) -> dict[str, str]:
    kept_back = {h.strip().lower() for h in request.headers.get("connection", "").split(",")} | _KEPT_BACK
    return {
        name: value
        for name, value in request.headers.items()
        if name not in kept_back and not name.startswith(_KEPT_BACK_PREFIXES)
    } | {"accept-encoding": "identity"}


async def _answered(answer: aiohttp.ClientResponse, request: Request, prefix: str, location: Location) -> Response:
    headers = {k.lower(): v for k, v in answer.headers.items() if k.lower() not in _ANSWER_KEPT_BACK}
    hosts = (location.authority, request.headers.get("host", ""))
    if prefix and "location" in headers:
        headers["location"] = rewriting.rewritten(headers["location"], prefix, hosts)
    if request.method == "HEAD" or answer.status in (204, 304):
        answer.release()
        return Response(answer.status, headers)
    if prefix and headers.get("content-type", "").lower().startswith("text/html"):
        return await _page(answer, headers, prefix, hosts)
    return Response(answer.status, headers, stream=_Body(answer))


async def _page(
    answer: aiohttp.ClientResponse, headers: dict[str, str], prefix: str, hosts: tuple[str, ...]
) -> Response:
    import aiohttp

    begun = bytearray()
    try:
        async for chunk in answer.content.iter_any():
            begun += chunk
            if len(begun) > _LARGEST_PAGE:
                return Response(answer.status, headers, stream=_Body(answer, bytes(begun)))
    except aiohttp.ClientError as error:
        raise errors.ApiError(503, "ServiceUnavailable", f"error trying to reach service: {error}") from None
    answer.release()
    return Response(answer.status, headers, rewriting.rewritten_page(bytes(begun), prefix, hosts))


class _Body:
    """The body of an answer, as it comes; closing it closes the connection."""

    def __init__(self, answer: aiohttp.ClientResponse, begun: bytes = b"") -> None:
        self._answer = answer
        self._begun = begun
        self._chunks: Any = answer.content.iter_any()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        import aiohttp

        if self._begun:
            begun, self._begun = self._begun, b""
            return begun
        try:
            chunk: bytes = await anext(self._chunks)
            return chunk
        except aiohttp.ClientError:
            raise StopAsyncIteration from None  # the other side broke off: what came, came

    async def aclose(self) -> None:
        self._answer.close()

"""Passing a request on to the server that answers its group version, and the answer back.

Who asks is told in ``X-Remote-User``, ``X-Remote-Group``, ``X-Remote-Uid`` and ``X-Remote-Extra-*``; that this server
may say so it proves with a client certificate of the CA that is published in the ConfigMap
``kube-system/extension-apiserver-authentication``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from glebe.apiserver.aggregation.remotes import Remote
from glebe.apiserver.dialing import Dialer, DialError
from glebe.kube import errors
from glebe.kube.transport import Request, Response, User

if TYPE_CHECKING:
    import ssl

    import aiohttp

#: Of one connection, or ours to say: not passed on.
_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "content-length",
        "authorization",
        "accept-encoding",
    }
)
_BACK = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "upgrade"})
#: Answers with a length of at most so many bytes are read whole; everything else is a stream.
_WHOLE = 4 << 20


def unavailable(message: str = "service unavailable") -> Response:
    """503 in upstream's words."""
    headers = {"content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff"}
    return Response(503, headers, message.encode() + b"\n")


def identity_headers(user: User) -> list[tuple[str, str]]:
    """Who asks, as a request header authenticator reads it."""
    headers = [("x-remote-user", user.name)]
    if user.uid:
        headers.append(("x-remote-uid", user.uid))
    headers += [("x-remote-group", group) for group in user.groups]
    for key, values in user.extra.items():
        name = f"x-remote-extra-{quote(key.lower(), safe='!#$&+-.^_`|~')}"
        headers += [(name, value) for value in values]
    return headers


def passed_headers(request: Request, user: User) -> list[tuple[str, str]]:
    """The request's own headers without what is ours to say, and who asks."""
    named = {name.strip().lower() for name in request.headers.get("connection", "").split(",")}
    kept = [
        (name, value)
        for name, value in request.headers.items()
        if name not in _HOP and name not in named and not name.startswith(("x-remote-", "impersonate-"))
    ]
    if request.remote:
        before = request.headers.get("x-forwarded-for")
        kept = [(n, v) for n, v in kept if n != "x-forwarded-for"]
        kept.append(("x-forwarded-for", f"{before}, {request.remote}" if before else request.remote))
    return [*kept, *identity_headers(user)]


def _quoted(path: str) -> str:
    return quote(path, safe="/:@!$&'()*+,;=~-._")


class Proxy:
    """Passes requests on.

    :param identity: (certificate, key) in PEM by which other servers know this one; empty when there is none.
    """

    def __init__(self, dialer: Dialer, identity: tuple[bytes, bytes]) -> None:
        self._dialer = dialer
        self._identity = identity

    async def send(self, cluster: str, remote: Remote, path: str, request: Request, user: User) -> Response:
        """The remote's answer to ``request`` for ``path`` (without the cluster's prefix); 503 when there is none."""
        query = f"?{urlencode(request.query)}" if request.query else ""
        try:
            answer = await self._open(cluster, remote, request.method, path, request.body, query, request, user)
        except DialError as error:
            return unavailable(f"error trying to reach service: {error}")
        headers = {name.lower(): value for name, value in answer.headers.items() if name.lower() not in _BACK}
        if answer.content_length is not None and answer.content_length <= _WHOLE:
            try:
                return Response(answer.status, headers, await answer.read())
            except Exception as error:
                return unavailable(f"error trying to reach service: {error}")
            finally:
                answer.release()
        return Response(answer.status, headers, stream=_Stream(answer))

    async def upgrade(self, cluster: str, remote: Remote, path: str, request: Request, user: User) -> Response:
        """Offer an upgrade (WebSocket, SPDY) to the remote: bytes go both ways once it agrees.

        :raises ApiError: 503 when nothing answers.
        """
        from glebe.apiserver.proxying.upgrading import offer  # late: brings streams of its own

        query = f"?{urlencode(request.query)}" if request.query else ""
        try:
            target = self._dialer.of_service(cluster, {**remote.reference, "path": _quoted(path)})
        except DialError:
            return unavailable()
        context = self._context(remote, target.server_name)
        headers = passed_headers(request, user)
        refused: errors.ApiError | None = None
        for address in target.addresses:
            try:
                return await offer(
                    request, address, target.host_header, target.path + query, headers, context, target.server_name
                )
            except errors.ApiError as error:
                refused = error
        raise refused or errors.ApiError(503, "ServiceUnavailable", "no endpoints available")

    async def fetch(
        self, cluster: str, remote: Remote, path: str, user: User, accept: str, known: str = ""
    ) -> tuple[int, bytes, str]:
        """(status, body, ETag) of a GET of our own.

        :raises DialError: no answer. :raises TimeoutError: none within 5 s.
        """
        headers = [("accept", accept), *identity_headers(user)]
        if known:
            headers.append(("if-none-match", f'"{known}"'))
        from multidict import CIMultiDict

        target = self._dialer.of_service(cluster, {**remote.reference, "path": path})
        answer = await self._dialer.request(
            target, "GET", headers=CIMultiDict(headers), context=self._context(remote, target.server_name), timeout=5.0
        )
        return answer.status, answer.body, answer.headers.get("etag", "").strip('"')

    def _context(self, remote: Remote, name: str) -> ssl.SSLContext:
        return self._dialer.context(remote.ca_bundle, insecure=remote.insecure, identity=self._identity, name=name)

    async def _open(
        self,
        cluster: str,
        remote: Remote,
        method: str,
        path: str,
        body: bytes,
        query: str,
        request: Request,
        user: User,
    ) -> aiohttp.ClientResponse:
        from multidict import CIMultiDict

        target = self._dialer.of_service(cluster, {**remote.reference, "path": _quoted(path)})
        headers = CIMultiDict(passed_headers(request, user))
        context = self._context(remote, target.server_name)
        return await self._dialer.open(target, method, body, headers=headers, context=context, query=query)


class _Stream:
    """The answer's body as it comes (watches, logs)."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self._chunks = answer.content.iter_any()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        import aiohttp

        try:
            return await self._chunks.__anext__()
        except (aiohttp.ClientError, ConnectionError) as error:
            raise StopAsyncIteration from error

    async def aclose(self) -> None:
        self._answer.close()

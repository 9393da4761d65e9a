"""The transport to a server in the same process: no sockets, no encoding of the request, the same bytes back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from glebe.kube.transport import PLATFORM, ConnectionLost, Request, Response, User


class InProcessTransport:
    """Calls a server's ``handle`` coroutine directly, on behalf of ``user``.

    :param handle: the server.
    :param user: who asks; a request that already names a user keeps it.
    """

    __slots__ = ("_closed", "_handle", "_user")

    def __init__(self, handle: Callable[[Request], Awaitable[Response]], user: User = PLATFORM) -> None:
        self._handle = handle
        self._user = user
        self._closed = False

    async def send(self, request: Request) -> Response:
        if self._closed:
            raise ConnectionLost("the transport is closed")
        if request.user is None:
            request.user = self._user
        return await self._handle(request)

    def as_user(self, user: User) -> InProcessTransport:
        """The same server, asked by someone else."""
        return InProcessTransport(self._handle, user)

    async def close(self) -> None:
        self._closed = True

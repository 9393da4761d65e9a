"""One request, one response: the seam between every client and every server.

A :class:`Transport` carries a :class:`Request` to a Kubernetes API and brings a :class:`Response` back. Over HTTP it is
aiohttp; in one process it is the server's own ``handle`` coroutine. Both carry the same bytes, so nothing above this
line can tell which it is, and a fault injector is just a transport around a transport.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class User:
    """Who asks (``authentication.k8s.io`` UserInfo)."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def info(self) -> dict[str, Any]:
        """``UserInfo`` as reviews, webhooks and audit events show it; what is empty is left out."""
        out: dict[str, Any] = {"username": self.name}
        if self.uid:
            out["uid"] = self.uid
        if self.groups:
            out["groups"] = list(self.groups)
        if self.extra:
            out["extra"] = {key: list(values) for key, values in self.extra.items()}
        return out


#: The platform's own controllers inside one process: all rights, as upstream's ``system:masters``.
PLATFORM = User("system:glebe", ("system:masters", "system:authenticated"))


@dataclass(slots=True)
class Request:
    """An HTTP request without the wire.

    ``path`` is percent-decoded and starts with ``/``; ``query`` holds the pairs in their order; header names are in
    lower case. ``user`` is set by a trusted transport (in process) and by nobody else; over HTTP the server
    authenticates from ``headers`` and ``peer_certificate`` (DER).
    """

    method: str
    path: str
    query: list[tuple[str, str]] = field(default_factory=list)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    user: User | None = None
    peer_certificate: bytes | None = None
    remote: str = ""
    """The client's IP address; "" in process."""
    piecewise: bool = False
    """The answer may come in :attr:`Response.parts`."""

    def param(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        for key, value in self.query:
            if key == name:
                return value
        return default


class StreamSink(Protocol):
    """Where a server's front writes a stream; a stream with a method ``push_to(sink)`` may write there by itself."""

    full: bool
    """The client takes less than it is given: nothing may be pushed now."""

    def write(self, chunk: bytes) -> None: ...


class Parts(Protocol):
    """A body that is known and not yet put together."""

    size: int
    """Bytes of all."""

    def pieces(self, least: Callable[[], int]) -> Iterator[bytes]:
        """All of it, in pieces of not much more than ``least()`` bytes."""
        ...


@dataclass(slots=True)
class Response:
    """An HTTP response: either ``body`` is whole, or ``stream`` yields chunks until the end.

    Whoever takes a streaming response must exhaust ``stream`` or ``await response.close()``.
    """

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    stream: AsyncIterator[bytes] | None = None
    upgrade: Callable[[asyncio.Transport], asyncio.Protocol] | None = None
    """With status 101: makes the protocol that speaks on the connection from now on. Only over HTTP."""
    parts: Parts | None = None
    """The body, for a request that takes it piecewise; ``body`` is empty then."""

    async def close(self) -> None:
        """Stop a stream early and release what it holds. Harmless when there is none."""
        closer = getattr(self.stream, "aclose", None)
        if closer is not None:
            await closer()


class ConnectionLost(Exception):
    """The server could not be reached, or the connection broke before the response was whole.

    The request may or may not have taken effect.
    """


class Transport(Protocol):
    async def send(self, request: Request) -> Response:
        """Carry one request.

        :raises ConnectionLost: no (whole) response came back.
        """
        ...

    async def close(self) -> None:
        """Release connections."""
        ...

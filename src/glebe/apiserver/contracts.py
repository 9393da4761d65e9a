"""What the server asks of the rooms around it: the shapes of what is hung into :class:`.server.ApiServer`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from glebe.apiserver.flight import Flight
from glebe.kube.objects import Object
from glebe.kube.transport import Request, Response, User

if TYPE_CHECKING:
    from glebe.apiserver.request.call import Call
    from glebe.apiserver.store import Entry

Handler: TypeAlias = "Callable[[Call], Awaitable[Response]]"
Preparation: TypeAlias = Callable[[Flight], Awaitable[None]]
Allocator: TypeAlias = "Callable[[Call, Object, Object | None], Awaitable[None]]"
"""(call, new object, old object or None): takes what the object needs, right before it is written."""
Follower: TypeAlias = "Callable[[Call, Entry | None, Entry | None], None]"
"""(call, new state or None, old state or None)."""

Converter: TypeAlias = Callable[[list[Object], str], list[Object]]
"""(objects, apiVersion) -> the same objects in that version. Raises ValueError for what it cannot convert."""


class Authenticator(Protocol):
    async def authenticate(self, request: Request, cluster: str) -> User | None:
        """Who asks; None when the credentials are missing or wrong."""
        ...


class Authorizer(Protocol):
    async def authorize(
        self,
        user: User,
        cluster: str,
        verb: str,
        group: str,
        resource: str,
        subresource: str,
        namespace: str,
        name: str,
        path: str,
        fields: str = "",
    ) -> tuple[bool, str]:
        """(allowed, reason). ``fields`` is a list's or a watch's field selector."""
        ...


class Reviewer(Protocol):
    """Answers kinds that are asked, not stored."""

    def handles(self, group: str, plural: str) -> bool: ...

    async def review(self, group: str, plural: str, cluster: str, namespace: str, user: User, obj: Object) -> Object:
        """``obj`` with its status filled in."""
        ...

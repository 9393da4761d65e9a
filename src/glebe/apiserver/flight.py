"""Filters: what stands around every request that is past authentication.

A filter sees the whole flight, from the authenticated request to its response. The order, outermost first, is the order
of ``ApiServer.filters``: audit, fairness, authorization, routing to other servers (aggregation), and the innermost is
the server's own dispatch. A filter answers itself, raises :class:`glebe.kube.errors.ApiError`, or awaits ``onward``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from glebe.apiserver.request.routing import Route
from glebe.kube.transport import Request, Response, User

if TYPE_CHECKING:
    from glebe.apiserver.clusters.logical import LogicalCluster


@dataclass(slots=True)
class Flight:
    """A request that is known (who asks, what is asked) and not yet answered."""

    request: Request
    route: Route
    user: User
    """Whose rights count: the impersonated user, when there is one."""
    impersonator: User | None = None
    """Who really asked, when ``user`` is impersonated."""
    tenant: LogicalCluster | None = None
    """The logical cluster, once it is known that it exists."""
    warnings: list[str] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)
    """For the audit log: whoever decides something about the request may note why."""
    reason: str = ""
    """Why authorization allowed (or refused) it."""
    allowed: bool = False
    """Authorization is past."""

    @property
    def trusted(self) -> bool:
        """The platform's own parts, in this process: filters that protect the server from clients let them pass."""
        return self.request.user is not None


Onward: TypeAlias = Callable[[Flight], Awaitable[Response]]
Filter: TypeAlias = Callable[[Flight, Onward], Awaitable[Response]]


def chain(filters: tuple[Filter, ...], last: Onward) -> Onward:
    """One coroutine function that passes a flight through all ``filters`` and then to ``last``."""
    onward = last
    for each in reversed(filters):
        onward = _around(each, onward)
    return onward


def _around(each: Filter, onward: Onward) -> Onward:
    def through(flight: Flight) -> Awaitable[Response]:
        return each(flight, onward)

    return through

"""What stands below one object: status, scale, binding, eviction, log, finalize, token."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from glebe.apiserver import patching, reading, writing
from glebe.apiserver.call import Call
from glebe.kube import errors
from glebe.kube.objects import Object
from glebe.kube.transport import Response


class PodLogs(Protocol):
    """Where the lines that containers print come from."""

    def logs(
        self,
        pod: Object,
        container: str,
        *,
        follow: bool,
        tail_lines: int | None,
        since_seconds: int | None,
        previous: bool,
        timestamps: bool,
        limit_bytes: int | None,
    ) -> AsyncIterator[bytes]: ...


Handler = Callable[[Call], Awaitable[Response]]

_STATUS: dict[str, Handler] = {"get": reading.get, "update": writing.update, "patch": patching.patch}


def subresource_handler(call: Call) -> Handler:
    """The handler of the call's subresource and verb.

    :raises ApiError: 404 for an unknown subresource, 405 for a verb that it has not.
    """
    name = call.route.subresource
    if name not in call.info.subresources:
        raise errors.path_not_found()
    if name == "status":
        handler = _STATUS.get(call.route.verb)
        if handler is not None:
            return handler
    raise errors.method_not_allowed()

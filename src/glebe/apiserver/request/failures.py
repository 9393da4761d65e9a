"""What goes wrong with a request, as the ``Status`` that its client reads."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import orjson

from glebe.apiserver.request import media
from glebe.apiserver.request.routing import Route
from glebe.apiserver.store import Compacted, StoreUnavailable, TooLarge
from glebe.kube import errors
from glebe.kube.transport import Request, Response, User

log = logging.getLogger("glebe.apiserver")


def answer(request: Request, error: Exception) -> Response:
    """The response to a request that ended in ``error``; what no client can cause is logged."""
    found = _as_api_error(request, error)
    headers = {"content-type": media.JSON}
    if found.retry_after is not None:
        headers["retry-after"] = str(found.retry_after)
    return Response(found.code, headers, orjson.dumps(found.status()))


def _as_api_error(request: Request, error: Exception) -> errors.ApiError:
    if isinstance(error, errors.ApiError):
        return error
    if isinstance(error, TooLarge):
        return errors.ApiError(413, "RequestEntityTooLarge", str(error))
    if isinstance(error, StoreUnavailable):
        log.error("storage: %s", error)
        return errors.ApiError(503, "ServiceUnavailable", str(error), retry_after=5)
    if isinstance(error, Compacted):
        return errors.gone(str(error))
    if _too_deep(error):
        return errors.bad_request("the request's body is nested too deeply")
    log.error("request %s %s failed", request.method, request.path, exc_info=error)
    return errors.internal(f"{type(error).__name__}: {error}")


def denied(user: User, route: Route, reason: str) -> errors.ApiError:
    """403: the authorizer said no, for ``reason``."""
    if not route.resource:
        message = f'forbidden: User "{user.name}" cannot {route.verb} path "{route.path}"'
        return errors.ApiError(403, "Forbidden", message + (f": {reason}" if reason else ""))
    resource = f"{route.resource}/{route.subresource}" if route.subresource else route.resource
    where = f'in the namespace "{route.namespace}"' if route.namespace else "at the cluster scope"
    why = f'User "{user.name}" cannot {route.verb} resource "{resource}" in API group "{route.group}" {where}'
    if reason:
        why += f": {reason}"
    return errors.forbidden(route.group, route.resource, route.name, why)


def warning_header(warnings: Iterable[str]) -> str:
    """The ``Warning`` header (RFC 7234) that says all ``warnings``."""
    return ", ".join(f'299 - "{_escaped(w)}"' for w in warnings)


def _too_deep(error: Exception) -> bool:
    """Collections within collections, beyond what we walk (or the JSON encoder writes: 254)."""
    return isinstance(error, RecursionError) or (isinstance(error, TypeError) and "Recursion limit" in str(error))


def as_asked(request: Request, response: Response) -> None:
    """Turn an error into protobuf for who asked for that."""
    accept = request.headers.get("accept", "")
    if media.PROTOBUF not in accept or response.headers.get("content-type") != media.JSON:
        return
    try:
        wanted = media.negotiate(accept)
        status = orjson.loads(response.body)
    except (errors.ApiError, orjson.JSONDecodeError):
        return
    if wanted.media == media.PROTOBUF and status.get("kind") == "Status":
        response.body, response.headers["content-type"] = media.encode(status, wanted)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")

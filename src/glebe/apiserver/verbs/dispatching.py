"""From a request that may be made to the verb that answers it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glebe.apiserver.clusters import wildcard
from glebe.apiserver.contracts import Handler, Reviewer
from glebe.apiserver.custom import removal as custom_kinds
from glebe.apiserver.custom.naming import DEFINITIONS
from glebe.apiserver.flight import Flight
from glebe.apiserver.request import media, routing
from glebe.apiserver.request.call import Call, respond
from glebe.apiserver.store import EVERY_CLUSTER
from glebe.apiserver.subresources import subresource_handler
from glebe.apiserver.types.registry import ResourceInfo
from glebe.apiserver.verbs import (
    admitting,
    deleting,
    eventexpiry,
    patching,
    reading,
    schema_steps,
    watching,
    writing,
)
from glebe.kube import errors
from glebe.kube.transport import Response

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer

_NAMED = ("update", "patch")
_DEPRECATED = {
    "componentstatuses": "v1 ComponentStatus is deprecated in v1.19+",
    "endpoints": "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
}
#: Subresources whose answers are no objects: they come in the form that they have.
_UNFORMED = frozenset({"proxy", "exec", "attach", "portforward", "log"})
_VERBS: dict[str, Handler] = {
    "get": reading.get,
    "list": reading.list_objects,
    "watch": watching.watch,
    "create": writing.create,
    "update": writing.update,
    "patch": patching.patch,
    "delete": deleting.delete,
    "deletecollection": deleting.delete_collection,
}


async def dispatch(server: ApiServer, flight: Flight, info: ResourceInfo) -> Response:
    """The answer of the verb, or of whoever answers for this kind or subresource.

    :raises ApiError: 404, 405, 406; and what the verb raises.
    """
    request, route = flight.request, flight.route
    if route.namespace and not info.namespaced and info.group_resource != "namespaces":
        raise errors.path_not_found()
    for given, what in ((route.name, "Name"), (route.namespace, "Namespace")):
        if given[:1] == "." or "%" in given:
            _check_segment(what, given)
    if info.group_resource in server.preparing:
        await server.preparing[info.group_resource](flight)
    accept = request.headers.get("accept", "") if route.subresource not in _UNFORMED else ""
    wanted = media.negotiate_for(accept, info.api_version, info.kind)
    if request.param("pretty") in ("true", "1"):
        wanted = media.Wanted(wanted.media, wanted.shape, wanted.version, True)
    call = Call(server, request, route, info, flight.user, wanted, flight.warnings, annotations=flight.annotations)
    if info.deprecation:
        call.warn(info.deprecation)
    call.tenant = flight.tenant
    try:
        return await _perform(server, call)
    finally:
        admitting.settle(call, False)


async def _perform(server: ApiServer, call: Call) -> Response:
    info, route = call.info, call.route
    if server.reviews is not None and server.reviews.handles(info.group, info.plural):
        return await _review(call, server.reviews)
    if call.request.user is None and (text := _DEPRECATED.get(info.group_resource)) is not None:
        call.warn(text)
    if (answer := server.answered.get(info.group_resource)) is not None:
        return await answer(call)
    if route.subresource:
        response = await subresource_handler(call)(call)
        if info.group_resource == DEFINITIONS:
            await custom_kinds.clean_up(call)
        return response
    handler = (_VERBS if route.cluster != EVERY_CLUSTER else wildcard.VERBS).get(route.verb)
    if handler is None or (info.verbs and route.verb not in info.verbs):
        raise errors.method_not_allowed()
    if route.verb == "create" and (route.name or (info.custom is not None and info.custom.terminating)):
        raise errors.method_not_allowed()
    if info.namespaced and not route.namespace and route.verb not in ("list", "watch"):
        raise errors.method_not_allowed()
    if call.request.method == "HEAD" or (not route.name and route.verb in _NAMED):
        raise errors.method_not_allowed()
    response = await handler(call)
    if info.is_custom or info.group_resource == DEFINITIONS:
        await custom_kinds.clean_up(call)
    elif info.group_resource in eventexpiry.RESOURCES:
        await server.event_expiry.sweep()
    return response


async def _review(call: Call, reviewer: Reviewer) -> Response:
    """A question instead of an object."""
    info, route = call.info, call.route
    if route.verb != "create":
        raise errors.method_not_allowed()
    if call.wanted.shape:
        raise media.not_acceptable()  # an answer is no object that has columns or metadata
    obj = writing.decode_body(call)
    schema_steps.prune(call, obj, call.duplicates)
    answer = await reviewer.review(info.group, info.plural, route.cluster, route.namespace, call.user, obj)
    return respond(answer, media.Wanted(call.wanted.media), 201)


def _check_segment(what: str, given: str) -> None:
    fault = routing.name_fault(given)
    if fault:
        raise errors.bad_request(f'{what} parameter invalid: "{given}": {fault}')

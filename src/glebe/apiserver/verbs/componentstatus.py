"""``componentstatuses``: asked, not stored. What this server depends on is its store."""

from __future__ import annotations

from glebe.apiserver.request.call import Call, partial, respond, table_of
from glebe.kube import errors
from glebe.kube.objects import Object
from glebe.kube.transport import Response


def _components(call: Call) -> list[Object]:
    ready = call.server.ready
    condition = {"type": "Healthy", "status": "True" if ready else "False", "message": "ok" if ready else "not ready"}
    meta = {"name": "store", "creationTimestamp": None}
    return [{"apiVersion": "v1", "kind": "ComponentStatus", "metadata": meta, "conditions": [condition]}]


async def read(call: Call) -> Response:
    """get and list.

    :raises ApiError: 404, 405.
    """
    verb, wanted, info = call.route.verb, call.wanted, call.info
    if verb not in info.verbs or call.route.subresource:
        raise errors.method_not_allowed()
    found = _components(call)
    if verb == "get":
        found = [o for o in found if o["metadata"]["name"] == call.route.name]
        if not found:
            raise call.not_found()
    if wanted.shape == "Table":
        return respond(table_of(call, found, {}), wanted)
    if wanted.shape:
        found = [partial(o, wanted.version) for o in found]
    if verb == "get":
        return respond(found[0], wanted)
    kind = "PartialObjectMetadataList" if wanted.shape else info.list_kind
    version = f"meta.k8s.io/{wanted.version}" if wanted.shape else "v1"
    return respond({"kind": kind, "apiVersion": version, "metadata": {}, "items": found}, wanted)

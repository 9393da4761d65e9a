"""Serving from a mirror that other replicas' writes reach a moment later.

Reads that ask for the most recent state wait until the mirror has it; reads that ask for "at least this version" wait
for that. Writes start from what the mirror has: compare-and-set protects them, and what they are refused for (objects,
namespaces, rights that are not there yet) is looked at once more when the mirror was behind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from glebe.apiserver.store import Store
from glebe.kube.errors import ApiError
from glebe.kube.transport import Request, Response

Serve = Callable[[Request, list[str]], Awaitable[Response]]

_MAYBE_STALE = frozenset({400, 401, 403, 404, 409, 422, 504})
_OBJECTS = ("/api", "/clusters", "/snapshot")


async def serve(store: Store, request: Request, warnings: list[str], onward: Serve) -> Response:
    """Answer by ``onward``, with what is known anywhere when it must be known.

    :raises ApiError: as ``onward`` raises.
    :raises StoreUnavailable: it cannot be learned what the most recent state is.
    """
    if request.method == "GET":
        if not request.path.startswith(_OBJECTS):
            return await onward(request, warnings)
        version = request.param("resourceVersion")
        if not version:
            await store.fresh()
            return await onward(request, warnings)
        if version.isascii() and version.isdigit() and version != "0":
            await store.fresh(int(version))
    seen = store.revision
    try:
        return await onward(request, warnings)
    except ApiError as error:
        if error.code not in _MAYBE_STALE:
            raise
        await store.fresh()
        if store.revision == seen:
            raise
    warnings.clear()
    return await onward(request, warnings)

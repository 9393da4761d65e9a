"""patch: pick the format, make the new object, go the way of every update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from glebe.apiserver.patch import json_patch, merge_patch
from glebe.apiserver.request import duplicates, media, options
from glebe.apiserver.request.call import Call
from glebe.apiserver.verbs.metadata import check_identity
from glebe.apiserver.verbs.writing import change, check_type
from glebe.kube import errors
from glebe.kube.objects import Object
from glebe.kube.transport import Response


async def patch(call: Call) -> Response:
    header = call.request.headers.get("content-type", "")
    kind = media.PATCH_TYPES.get(media.content_type(header))
    accepted = [t for t in media.PATCH_TYPES if not (call.info.is_custom and "strategic" in t)]
    if kind is None or (kind == "strategic" and call.info.is_custom):
        raise errors.unsupported_media_type(media.content_type(header), accepted)
    call.dry_run = options.dry_run(call.request)
    if kind == "apply":
        from glebe.apiserver.verbs.applying import apply_patch  # late: only servers that are applied to need it

        return await apply_patch(call)
    body = media.load_json(call.request.body)
    if kind != "json" and options.field_validation(call.request) != "Ignore":
        call.duplicates = duplicates.find(call.request.body, body)
    return await change(call, _maker(call, kind, body))


def _maker(call: Call, kind: str, body: Any) -> Callable[[Object], Object]:
    if kind != "json" and not isinstance(body, dict):
        raise errors.bad_request("error decoding patch: the patch is not an object")

    def make(old: Object) -> Object:
        version = old["metadata"]["resourceVersion"]
        if kind == "json":
            new = json_patch.apply(old, body)
        elif kind == "merge":
            new = merge_patch.apply(old, body)
        else:
            from glebe.apiserver.patch import strategic

            new = strategic.apply(old, body, call.info.schema)
        if not isinstance(new, dict):
            raise errors.bad_request("the patched document is not an object")
        check_type(call, new)
        check_identity(call, new)
        new["metadata"].setdefault("resourceVersion", version)
        return new

    return make

"""Server-side apply as a request: the merging itself is :mod:`glebe.apiserver.patch.apply`."""

from __future__ import annotations

from typing import Any

from glebe.apiserver.patch.apply import server_side_apply
from glebe.apiserver.request import media, options, yamlbody
from glebe.apiserver.request.call import Call
from glebe.apiserver.verbs.metadata import check_identity
from glebe.apiserver.verbs.writing import change, check_type, create_object
from glebe.kube import errors
from glebe.kube.errors import Cause
from glebe.kube.objects import Object
from glebe.kube.transport import Response


async def apply_patch(call: Call) -> Response:
    """PATCH with ``application/apply-patch+yaml``: creates what is not there, merges into what is."""
    manager, force = _parameters(call)
    applied = _decode(call)
    now = call.server.now_text()
    if call.server.store.get(call.key()) is None:
        if call.route.subresource:
            raise call.not_found()
        if applied["metadata"].get("uid"):
            why = "uid mismatch: the provided object specified uid that does not exist"
            raise errors.conflict(call.info.group, call.info.plural, call.route.name, why)
        await call.server.require(call, "create")
        result = server_side_apply(call.info, None, applied, manager, force, now, "")
        return await create_object(call, result, applied=True)
    version = applied["metadata"].get("resourceVersion")

    def make(live: Object) -> Object:
        new = server_side_apply(call.info, live, applied, manager, force, now, call.route.subresource)
        new["metadata"]["resourceVersion"] = version or live["metadata"]["resourceVersion"]
        return new

    return await change(call, make, applied=True)


def _parameters(call: Call) -> tuple[str, bool]:
    """(field manager, force)."""
    options.dry_run(call.request, "PatchOptions")
    manager = call.request.param("fieldManager")
    if not manager:
        cause = Cause("FieldValueRequired", "Required value: is required for apply patch", "fieldManager")
        raise errors.invalid("meta.k8s.io", "PatchOptions", "", [cause])
    return manager, call.request.param("force") in ("true", "1", "True")


def _decode(call: Call) -> Object:
    body = call.request.body
    applied: Any = media.load_json(body) if body[:1] == b"{" else media.load_yaml(body)
    if not isinstance(applied, dict):
        raise errors.bad_request("error decoding YAML: the applied configuration is not an object")
    for field in ("apiVersion", "kind"):
        if not applied.get(field):
            raise errors.bad_request(f"error decoding YAML: Object '{field}' is missing")
    if body[:1] != b"{":
        _look_for_repeated(call, body)
    check_type(call, applied)
    check_identity(call, applied)
    _declared(call, applied)
    return applied


def _look_for_repeated(call: Call, body: bytes) -> None:
    """Keys that are set twice: refused under Strict, and warned of.

    :raises ApiError: 400.
    """
    mode = options.field_validation(call.request)
    found = yamlbody.repeated_keys(body) if mode != "Ignore" else []
    if found and mode == "Strict":
        listed = "\n  ".join(["yaml: unmarshal errors:", *found])
        raise errors.bad_request(f"error strict decoding YAML: error converting YAML to JSON: {listed}")
    for line in found:
        call.warn(line)


def _declared(call: Call, applied: Object) -> None:
    """Who applies a configuration will own its fields, so that all of them must be known.

    :raises ApiError: 500, as upstream.
    """
    from glebe.apiserver.types.prune import undeclared

    schema = call.info.schema
    if schema is None or schema.check(applied):
        return
    found = [f"{path}: field not declared in schema" for path in sorted(undeclared(schema, applied))]
    if not found:
        return
    meta = applied["metadata"]
    where = f"{meta.get('namespace', '')}/{meta.get('name', '')}; {call.info.api_version}, Kind={call.info.kind}"
    listed = found[0] if len(found) == 1 else "\n  ".join(["errors:", *found])
    raise errors.ApiError(500, "", f"failed to create typed patch object ({where}): {listed}")

"""The steps of a write that come from the kind's schema: default, prune, validate, field ownership."""

from __future__ import annotations

from glebe.apiserver.request import options
from glebe.apiserver.request.call import Call
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object


def default(call: Call, obj: Object) -> None:
    """Fill in the schema's defaults."""
    if call.info.group_resource == "pods":
        from glebe.apiserver.types.poddefaults import complete_pod

        complete_pod(call.info, obj)
        return
    from glebe.apiserver.types.defaults import apply_defaults

    apply_defaults(call.info, obj)
    if not call.info.is_custom:
        from glebe.apiserver.types.completion import complete

        complete(call.info, obj)


def prune(call: Call, obj: Object, duplicates: list[str] | None = None) -> None:
    """Drop unknown fields, and say so as ``fieldValidation`` asks.

    :raises ApiError: 400 under Strict.
    """
    from glebe.apiserver.types.prune import prune as prune_unknown

    unknown = prune_unknown(call.info, obj)
    mode = options.field_validation(call.request)
    if mode == "Ignore" or not (unknown or duplicates):
        return
    named = [f'unknown field "{path}"' for path in (sorted(unknown) if call.info.is_custom else unknown)]
    lines = [path for path in duplicates or () if path.startswith("line ")]  # of a YAML body
    repeated = [f'duplicate field "{path}"' for path in duplicates or () if not path.startswith("line ")]
    texts = [*lines, *repeated, *named] if call.info.is_custom else [*lines, *named, *repeated]
    if mode == "Strict":
        if lines:
            texts = ["\n  ".join(["yaml: unmarshal errors:", *lines]), *texts[len(lines) :]]
        listed = ", ".join(texts)
        kind = call.info.kind
        message = (
            f'{kind} in version "{call.info.version}" cannot be handled as a {kind}: strict decoding error: {listed}'
        )
        raise ApiError(400, "BadRequest", message)
    for text in texts:
        call.warn(text)


def validate(call: Call, obj: Object, old: Object | None, subresource: str) -> None:
    """Check schema and kind-specific rules.

    :raises ApiError: 422 with all causes.
    """
    from glebe.apiserver.types.validation import validate as validate_object

    causes = validate_object(call.info, obj, old, subresource)
    if causes:
        raise call.invalid(obj["metadata"].get("name", ""), causes)
    if call.info.group_resource == "customresourcedefinitions.apiextensions.k8s.io":
        from glebe.apiserver.types.schemarules import unknown_formats

        known = unknown_formats(old) if old is not None else ()
        for text in unknown_formats(obj):
            if text not in known:
                call.warn(f'unrecognized format "{text}"')


def own_fields(call: Call, live: Object | None, new: Object, subresource: str) -> None:
    """Record in ``metadata.managedFields`` who wrote what."""
    from glebe.apiserver.patch.apply import update_managed_fields

    now = call.server.now_text()
    update_managed_fields(
        call.info, live, new, call.field_manager(), operation="Update", now=now, subresource=subresource
    )

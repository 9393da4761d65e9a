"""How a namespace is let go."""

from __future__ import annotations

from glebe.apiserver.request import options
from glebe.apiserver.request.call import Call, respond_entry, respond_object
from glebe.apiserver.verbs.modify import modify
from glebe.apiserver.verbs.writing import decode_body
from glebe.kube import errors
from glebe.kube.objects import Object
from glebe.kube.transport import Response


async def finalize(call: Call) -> Response:
    """``namespaces/NAME/finalize``: set ``spec.finalizers``; the last one of an ending namespace lets it go."""
    body = decode_body(call)
    call.dry_run = options.dry_run(call.request)
    finalizers = list((body.get("spec") or {}).get("finalizers") or ())
    version = body["metadata"].get("resourceVersion")

    def edit(obj: Object) -> bool:
        if version and version != obj["metadata"]["resourceVersion"]:
            raise errors.modified("", "namespaces", call.route.name)
        spec = obj.setdefault("spec", {})
        if finalizers:
            spec["finalizers"] = finalizers
        else:
            spec.pop("finalizers", None)
        meta = obj["metadata"]
        return "deletionTimestamp" in meta and not finalizers and not meta.get("finalizers")

    entry, obj = await modify(call, edit)
    return respond_object(call, obj) if entry is None else respond_entry(call, entry)

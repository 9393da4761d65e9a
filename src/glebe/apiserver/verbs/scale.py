"""The scale subresource: an ``autoscaling/v1 Scale`` view of workloads."""

from __future__ import annotations

import copy
from typing import Any

from glebe.apiserver.patch import json_patch, merge_patch
from glebe.apiserver.request import media, options
from glebe.apiserver.request.call import Call, respond
from glebe.apiserver.verbs import admitting
from glebe.apiserver.verbs.modify import modify
from glebe.kube import errors
from glebe.kube.objects import Object
from glebe.kube.selectors import LabelSelector
from glebe.kube.transport import Response


def _paths(call: Call) -> tuple[str, str, str]:
    """(spec replicas, status replicas, selector) as dotted paths."""
    scale = call.info.scale
    if scale is not None:
        return scale.spec_replicas.lstrip("."), scale.status_replicas.lstrip("."), scale.label_selector.lstrip(".")
    return "spec.replicas", "status.replicas", "spec.selector"


def _get(obj: Any, path: str) -> Any:
    for part in path.split(".") if path else ():
        obj = obj.get(part) if isinstance(obj, dict) else None
    return obj


def _scale(call: Call, obj: Object) -> Object:
    meta = obj["metadata"]
    replicas, actual, selector = _paths(call)
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: dict[str, Any] = {"replicas": _get(obj, actual) or 0}
    chosen = _get(obj, selector) if selector else None
    if isinstance(chosen, str):
        status["selector"] = chosen
    elif isinstance(chosen, dict):
        structured = chosen if call.info.group else {"matchLabels": chosen}
        status["selector"] = str(LabelSelector.from_object(structured))
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {k: meta[k] for k in kept if k in meta},
        "spec": {"replicas": _get(obj, replicas) or 0},
        "status": status,
    }


async def get(call: Call) -> Response:
    entry = call.server.store.get(call.key())
    if entry is None:
        raise call.not_found()
    return respond(_scale(call, entry.view()), media.Wanted(call.wanted.media))


async def update(call: Call) -> Response:
    body = media.decode(call.request.body, call.request.headers.get("content-type", ""))
    return await _set(call, lambda _: body)


async def patch(call: Call) -> Response:
    kind = media.PATCH_TYPES.get(media.content_type(call.request.headers.get("content-type", "")))
    body = media.load_json(call.request.body)
    if kind == "json":
        return await _set(call, lambda scale: json_patch.apply(scale, body))
    if kind in ("merge", "strategic"):
        return await _set(call, lambda scale: merge_patch.apply(scale, body))
    raise errors.unsupported_media_type(call.request.headers.get("content-type", ""), list(media.PATCH_TYPES)[:3])


def _without_lock(call: Call, asked: Object, before: Object) -> None:
    """A patch that names no version does not mind other writes."""
    meta = asked.get("metadata")
    if call.request.method != "PATCH" or not isinstance(meta, dict):
        return
    if meta.get("resourceVersion") == before["metadata"].get("resourceVersion"):
        meta.pop("resourceVersion", None)


async def _set(call: Call, make: Any) -> Response:
    call.dry_run = options.dry_run(call.request)
    path = _paths(call)[0].split(".")
    entry = call.server.store.get(call.key())
    if entry is None:
        raise call.not_found()
    before = _scale(call, entry.view())
    made = make(copy.deepcopy(before))
    if not isinstance(made, dict):
        raise errors.bad_request("expected a Scale")
    asked = {**made, "apiVersion": "autoscaling/v1", "kind": "Scale"}
    _without_lock(call, asked, before)
    await admitting.mutate(call, "UPDATE", asked, before)
    await admitting.judge(call)

    def edit(obj: Object) -> None:
        wanted = asked
        version = (wanted.get("metadata") or {}).get("resourceVersion")
        if version and version != obj["metadata"]["resourceVersion"]:
            raise errors.modified(call.info.group, call.info.plural, call.route.name)
        replicas = (wanted.get("spec") or {}).get("replicas") or 0
        if not isinstance(replicas, int) or replicas < 0:
            why = f"Invalid value: {replicas}: must be greater than or equal to 0"
            cause = errors.Cause("FieldValueInvalid", why, "spec.replicas")
            raise errors.invalid("autoscaling", "Scale", call.route.name, [cause])
        node = obj
        for part in path[:-1]:
            node = node.setdefault(part, {})
        if node.get(path[-1]) != replicas:
            node[path[-1]] = replicas
            if "generation" in obj["metadata"]:
                obj["metadata"]["generation"] += 1

    _, obj = await modify(call, edit)
    return respond(_scale(call, obj), media.Wanted(call.wanted.media))

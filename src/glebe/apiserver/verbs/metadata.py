"""``metadata``: what the server fills in and what nobody may change."""

from __future__ import annotations

from typing import Any

from glebe.apiserver.request.call import Call
from glebe.apiserver.strategy.base import forbidden, immutable
from glebe.apiserver.types.registry import ResourceInfo
from glebe.kube import errors
from glebe.kube.errors import Cause
from glebe.kube.objects import Object

_KEPT = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generateName")
_PLAIN_FINALIZERS = ("orphan", "foregroundDeletion", "kubernetes")
_FIXED = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")


def check_identity(call: Call, obj: Object) -> None:
    """Name and namespace of the body against the path; what the body leaves out comes from the path.

    :raises ApiError: 400 when they differ.
    """
    meta, route, info = obj["metadata"], call.route, call.info
    if info.namespaced:
        namespace = meta.get("namespace")
        if not namespace:
            meta["namespace"] = route.namespace
        elif namespace != route.namespace:
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
    else:
        meta.pop("namespace", None)
    if route.name:
        name = meta.get("name")
        if not name:
            if route.subresource or call.request.method != "PUT":
                meta["name"] = route.name
            else:
                raise errors.bad_request("name must be provided")
        elif name != route.name:
            raise errors.bad_request(
                f"the name of the object ({name}) does not match the name on the URL ({route.name})"
            )


def fill_create(call: Call, obj: Object, counts_generation: bool, now: str) -> None:
    """A new object's system fields."""
    meta = obj["metadata"]
    if meta.get("resourceVersion"):
        raise errors.bad_request("resourceVersion should not be set on objects to be created")
    for name in ("resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"):
        meta.pop(name, None)
    meta["uid"] = call.server.env.new_uid()
    meta["creationTimestamp"] = now
    if counts_generation:
        meta["generation"] = 1
    if not meta.get("name") and not meta.get("generateName"):
        cause = Cause("FieldValueRequired", "Required value: name or generateName is required", "metadata.name")
        raise call.invalid("", [cause])
    _tidy(meta)


def fill_update(call: Call, new: Object, old: Object) -> None:
    """What an update may leave out is kept from ``old``."""
    meta, before = new["metadata"], old["metadata"]
    for name in _KEPT:
        if not meta.get(name) and name in before:
            meta[name] = before[name]
    meta.pop("selfLink", None)
    meta["resourceVersion"] = before["resourceVersion"]
    if "generation" in before:
        meta["generation"] = before["generation"]
    else:
        meta.pop("generation", None)
    if "managedFields" not in meta and "managedFields" in before:
        meta["managedFields"] = before["managedFields"]
    _tidy(meta)


def check_finalizers(info: ResourceInfo, meta: dict[str, Any]) -> list[Cause]:
    """Finalizers of built-in kinds are qualified names, or one of the few that need no domain."""
    if info.is_custom or info.group == "apiextensions.k8s.io":
        return []
    return [
        Cause(
            "FieldValueInvalid",
            f'Invalid value: "{name}": name is neither a standard finalizer name nor is it fully qualified',
            f"metadata.finalizers[{i}]",
        )
        for i, name in enumerate(meta.get("finalizers") or ())
        if "/" not in name and name not in _PLAIN_FINALIZERS
    ]


def _tidy(meta: dict[str, Any]) -> None:
    """Empty maps and lists are not stored."""
    for name in ("labels", "annotations", "ownerReferences", "finalizers"):
        if name in meta and not meta[name]:
            del meta[name]


def check_update(info: ResourceInfo, new: Object, old: Object) -> list[Cause]:
    """Complaints about changed identity or late finalizers."""
    meta, before = new["metadata"], old["metadata"]
    causes = check_finalizers(info, meta) if meta.get("finalizers") != before.get("finalizers") else []
    causes += [
        immutable(f"metadata.{name}", meta.get(name, "")) for name in _FIXED if meta.get(name) != before.get(name)
    ]
    if "deletionTimestamp" in before:
        known = before.get("finalizers") or ()
        added = [f for f in meta.get("finalizers") or () if f not in known]
        if added:
            listed = ", ".join(f'"{f}"' for f in added)
            why = (
                "no new finalizers can be added if the object is being deleted, found new finalizers "
                f"[]string{{{listed}}}"
            )
            causes.append(forbidden("metadata.finalizers", why))
    return causes

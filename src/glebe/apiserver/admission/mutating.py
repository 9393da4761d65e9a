"""Putting a mutated object in place of the one that is being admitted."""

from __future__ import annotations

from typing import Any

from glebe.apiserver.admission.base import AdmissionAttributes
from glebe.kube import errors
from glebe.kube.objects import Object


def replace(a: AdmissionAttributes, made: Object) -> bool:
    """``a.obj`` becomes ``made``, pruned and with defaults; False when that changes nothing.

    :raises ApiError: 400 when it would become an object of another place.
    """
    obj = a.obj
    assert obj is not None
    before: dict[str, Any] = obj.get("metadata") or {}
    after = made.get("metadata")
    if not isinstance(after, dict):
        raise errors.bad_request("admission left an object without metadata")
    below = bool(a.subresource) and a.subresource not in ("status", "ephemeralcontainers", "resize")
    for name in () if below else ("name", "namespace", "uid"):
        if before.get(name) and after.get(name) != before[name]:
            raise errors.bad_request(
                f"the {name} of the object after admission ({after.get(name)}) does not match the one of the request "
                f"({before[name]})"
            )
    if not below:
        _complete(a, made)
    if made == obj:
        return False
    obj.clear()
    obj.update(made)
    return True


def _complete(a: AdmissionAttributes, made: Object) -> None:
    from glebe.apiserver.types.defaults import apply_defaults
    from glebe.apiserver.types.prune import prune

    made["apiVersion"], made["kind"] = a.info.api_version, a.info.kind
    prune(a.info, made)
    apply_defaults(a.info, made)

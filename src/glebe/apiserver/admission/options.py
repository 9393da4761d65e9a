"""The options of a request, as registrations are told them."""

from __future__ import annotations

from typing import Any

import orjson

from glebe.apiserver.admission.base import AdmissionAttributes

_KINDS = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}


def operation_options(a: AdmissionAttributes) -> dict[str, Any] | None:
    """CreateOptions, UpdateOptions (for patches, too) or DeleteOptions; None for CONNECT."""
    kind = _KINDS.get(a.operation)
    if kind is None:
        return None
    options: dict[str, Any] = {"kind": kind, "apiVersion": "meta.k8s.io/v1"}
    request = a.request
    if request is None:
        return {**options, **({"dryRun": ["All"]} if a.dry_run else {})}
    if kind == "DeleteOptions" and request.body[:1] == b"{":
        body = orjson.loads(request.body)
        if isinstance(body, dict):
            options.update({k: v for k, v in body.items() if k not in ("kind", "apiVersion")})
    if a.dry_run:
        options["dryRun"] = ["All"]
    names = ("propagationPolicy",) if kind == "DeleteOptions" else ("fieldManager", "fieldValidation")
    for name in names:
        if value := request.param(name):
            options[name] = value
    return options

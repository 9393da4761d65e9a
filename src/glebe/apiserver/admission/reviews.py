"""AdmissionReview: what a webhook is sent, and whether what it sends back is an answer."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from glebe.apiserver.admission.base import AdmissionAttributes
from glebe.apiserver.admission.conditions import request_facts
from glebe.apiserver.admission.matching import Match
from glebe.apiserver.admission.options import operation_options
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object

_VERSIONS = ("v1", "v1beta1")


class BadReview(Exception):
    """The webhook's answer is none."""


@dataclass(slots=True)
class Verdict:
    """A webhook's answer. ``patch``: the operations of its JSON patch; None: nothing to change."""

    allowed: bool
    result: dict[str, Any] | None = None
    patch: list[Any] | None = None
    warnings: list[str] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)


def version_for(accepted: list[str]) -> str:
    """The first of the webhook's review versions that we speak; "" for none."""
    return next((v for v in accepted if v in _VERSIONS), "")


def request_for(
    a: AdmissionAttributes, match: Match, version: str, uid: str, obj: Object | None, old: Object | None
) -> bytes:
    """The review to send."""
    request: dict[str, Any] = {
        "uid": uid,
        **request_facts(a, match),
        "object": obj,
        "oldObject": old,
        "dryRun": a.dry_run,
        "options": operation_options(a),
    }
    for name in ("subResource", "requestSubResource", "name", "namespace"):
        if not request[name]:
            del request[name]
    return orjson.dumps({"kind": "AdmissionReview", "apiVersion": f"admission.k8s.io/{version}", "request": request})


def verdict_of(body: bytes, version: str, uid: str, mutating: bool) -> Verdict:
    """:raises BadReview: it is not an answer to the review ``uid``."""
    try:
        review = orjson.loads(body)
    except ValueError as error:
        raise BadReview(f"couldn't get version/kind; json parse error: {error}") from None
    if not isinstance(review, dict):
        raise BadReview("couldn't get version/kind; json parse error")
    response = review.get("response")
    if not isinstance(response, dict):
        raise BadReview("webhook response was absent")
    if version == "v1":
        _check_identity(review, response, uid)
    patch = _patch(response, version, mutating)
    warnings = [str(w) for w in response.get("warnings") or ()]
    annotations = response.get("auditAnnotations")
    result = response.get("status")
    return Verdict(
        response.get("allowed") is True,
        result if isinstance(result, dict) else None,
        patch,
        warnings,
        {str(k): str(v) for k, v in annotations.items()} if isinstance(annotations, dict) else {},
    )


def _check_identity(review: Mapping[str, Any], response: Mapping[str, Any], uid: str) -> None:
    given = response.get("uid") or ""
    if given != uid:
        raise BadReview(f'expected response.uid="{uid}", got "{given}"')
    if review.get("kind") != "AdmissionReview" or review.get("apiVersion") != "admission.k8s.io/v1":
        group, _, version = str(review.get("apiVersion") or "").rpartition("/")
        shown = f"{group}/{version}, Kind={review.get('kind') or ''}"
        raise BadReview(f"expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {shown}")


def _patch(response: Mapping[str, Any], version: str, mutating: bool) -> list[Any] | None:
    text, kind = response.get("patch"), response.get("patchType")
    if not mutating:
        if version == "v1" and text:
            raise BadReview("validating webhook may not return response.patch")
        if version == "v1" and kind is not None:
            raise BadReview("validating webhook may not return response.patchType")
        return None
    if version == "v1":
        if text and kind is None:
            raise BadReview("webhook returned response.patch but not response.patchType")
        if not text and kind is not None:
            raise BadReview("webhook returned response.patchType but not response.patch")
    if not text:
        return None
    if version == "v1" and kind != "JSONPatch":
        raise BadReview(f'webhook returned invalid response.patchType of "{kind}"')
    try:
        operations = orjson.loads(base64.b64decode(text))
    except (ValueError, TypeError) as error:
        raise BadReview(f"received undecodable patch in webhook response: {error}") from None
    if not isinstance(operations, list):
        raise BadReview("received undecodable patch in webhook response: it is not a list")
    return operations


def denial(name: str, result: dict[str, Any] | None) -> ApiError:
    """The error that a webhook's refusal becomes: its status under our preface."""
    result = dict(result or {})
    by = f'admission webhook "{name}" denied the request'
    code = result.get("code")
    code = code if isinstance(code, int) and code >= 400 else 400
    message, reason = str(result.get("message") or ""), str(result.get("reason") or "")
    if message:
        text = f"{by}: {message}"
    else:
        text = f"{by}: {reason}" if reason else f"{by} without explanation"
    details = result.get("details")
    return ApiError(code, reason, text, details=details if isinstance(details, dict) else None)

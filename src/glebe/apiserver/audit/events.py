"""What an audit event says."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import orjson

from glebe.apiserver.audit.policy import REQUEST, REQUEST_RESPONSE, Verdict
from glebe.apiserver.flight import Flight
from glebe.apiserver.request import media
from glebe.apiserver.request.routing import Route
from glebe.kube.clock import format_micro_time
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object
from glebe.kube.transport import Request, Response, User

CLUSTER = "glebe.dev/cluster"
_LONGEST_ID = 64


def begin(
    request: Request, route: Route, user: User | None, verdict: Verdict, now: float, fresh_id: str
) -> dict[str, Any]:
    """What is known when the request comes in."""
    query = f"?{urlencode(request.query)}" if request.query else ""
    event: dict[str, Any] = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": verdict.level,
        "auditID": _id(request, fresh_id),
        "stage": "RequestReceived",
        "requestURI": request.path + query,
        "verb": route.verb,
        "user": user.info() if user is not None else {},
    }
    if addresses := source_addresses(request):
        event["sourceIPs"] = addresses
    if agent := request.headers.get("user-agent"):
        event["userAgent"] = agent[:1024]
    if route.resource:
        event["objectRef"] = _reference(route)
    event["requestReceivedTimestamp"] = event["stageTimestamp"] = format_micro_time(now)
    event["annotations"] = {CLUSTER: route.cluster}
    return event


def add_request(event: dict[str, Any], flight: Flight, verdict: Verdict) -> None:
    """The request's body, when the policy asks for it and it can be read."""
    request = flight.request
    if verdict.level not in (REQUEST, REQUEST_RESPONSE) or not request.body:
        return
    if request.method == "PATCH":
        body = _patch(request.body, request.headers.get("content-type", ""))
    else:
        body = _object(request.body, request.headers.get("content-type", ""))
    if body is not None:
        event["requestObject"] = _without_managed(body) if verdict.omit_managed_fields else body


def add_decision(event: dict[str, Any], flight: Flight, code: int) -> None:
    """How authorization decided, what admission noted, and for whom it was done."""
    notes = event["annotations"]
    if flight.impersonator is not None:
        event["impersonatedUser"] = flight.user.info()
    notes.update(flight.annotations)
    if flight.allowed:
        notes["authorization.k8s.io/decision"] = "allow"
        notes["authorization.k8s.io/reason"] = flight.reason
    elif code == 403:
        notes["authorization.k8s.io/decision"] = "forbid"
        notes["authorization.k8s.io/reason"] = flight.reason


def add_response(event: dict[str, Any], response: Response, verdict: Verdict) -> None:
    """What was answered: the status, and the object when the policy asks for it."""
    event["responseStatus"] = {"metadata": {}, "code": response.status}
    if response.stream is not None or (verdict.level != REQUEST_RESPONSE and response.status < 400):
        return
    parts = response.parts
    whole = response.body if parts is None else b"".join(parts.pieces(lambda: parts.size))
    body = _object(whole, response.headers.get("content-type", ""))
    if not isinstance(body, dict):
        return
    if body.get("kind") == "Status" and body.get("apiVersion") == "v1":
        event["responseStatus"] = {k: v for k, v in body.items() if k not in ("kind", "apiVersion")}
        event["responseStatus"]["code"] = response.status
    if verdict.level == REQUEST_RESPONSE:
        event["responseObject"] = _without_managed(body) if verdict.omit_managed_fields else body


def add_error(event: dict[str, Any], error: ApiError, verdict: Verdict) -> None:
    """The request was refused."""
    status = error.status()
    event["responseStatus"] = {k: v for k, v in status.items() if k not in ("kind", "apiVersion")}
    if verdict.level == REQUEST_RESPONSE:
        event["responseObject"] = status


def source_addresses(request: Request) -> list[str]:
    """Who sent it, by the headers of proxies and by the connection, in upstream's order. The headers are only what the
    client says.
    """
    found: list[str] = []
    if forwarded := request.headers.get("x-forwarded-for"):
        found += [part.strip()[:64] for part in forwarded.split(",")[:16] if part.strip()]
    if (real := request.headers.get("x-real-ip", "").strip()[:64]) and real not in found:
        found.append(real)
    if request.remote and request.remote not in found:
        found.append(request.remote)
    return found


def _id(request: Request, fresh: str) -> str:
    said = request.headers.get("audit-id", "")
    return said if said and len(said) <= _LONGEST_ID and said.isascii() and said.isprintable() else fresh


def _reference(route: Route) -> Object:
    fields = {
        "resource": route.resource,
        "namespace": route.namespace,
        "name": route.name,
        "apiGroup": route.group,
        "apiVersion": route.version,
        "subresource": route.subresource,
    }
    return {k: v for k, v in fields.items() if v}


def _object(body: bytes, content_type: str) -> Any:
    if not body:
        return None
    try:
        return media.decode(body, content_type)
    except (ApiError, ValueError, RecursionError):
        return None  # whoever reads the request says what is wrong with it


def _patch(body: bytes, content_type: str) -> Any:
    try:
        return media.load_yaml(body) if "yaml" in content_type else orjson.loads(body)
    except (ApiError, ValueError, RecursionError):
        return None


def _without_managed(obj: Any) -> Any:
    """A copy without ``managedFields``, also in a list's items."""
    if not isinstance(obj, dict):
        return obj
    out = dict(obj)
    if isinstance(meta := out.get("metadata"), dict) and "managedFields" in meta:
        out["metadata"] = {k: v for k, v in meta.items() if k != "managedFields"}
    if isinstance(items := out.get("items"), list):
        out["items"] = [_without_managed(item) for item in items]
    return out

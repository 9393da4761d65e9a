"""Kueue's visibility API on a cluster that is not embedded: an aggregated API, answered by the leader at its door.

The cluster's aggregator shows its own certificate and says who asks; whether he may is asked of the cluster
(SubjectAccessReview). Without the aggregator's authority (``extension-apiserver-authentication``) nothing is served.
"""

from __future__ import annotations

import base64
import json
import logging
from typing import Any

import orjson
from cryptography import x509

from glebe.apiserver.auth.requestheader import FrontProxy, RequestHeaders
from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object, ObjectKey
from glebe.kube.resources import Resource
from glebe.kube.transport import Request, Response, User
from glebe.platform.door import Door
from glebe.platform.visibilityapi import PENDING, VERSIONS
from glebe.queueing.telling.visibility import DEFAULT_LIMIT, GROUP, Visibility, bounded, summary
from glebe.queueing.tenants.tenancy import HOST

log = logging.getLogger("glebe.platform")

SERVICE = "glebe-visibility"
BASE = f"/apis/{GROUP}"
API_SERVICES = Resource("apiregistration.k8s.io", "v1", "apiservices", "APIService", namespaced=False)
_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
_PLURALS = {"clusterqueues": False, "localqueues": True}


async def front_proxy(client: Client) -> FrontProxy | None:
    """How the cluster's aggregator shows that it is the one; ``None`` where it may not be known."""
    try:
        found = await client.get(r.CONFIGMAPS, "extension-apiserver-authentication", "kube-system")
    except ApiError as error:
        log.info("the visibility API is not served: %s", error)
        return None
    data = found.get("data") or {}
    pem = data.get("requestheader-client-ca-file", "")
    if not pem:
        return None

    def names(key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(json.loads(data.get(f"requestheader-{key}") or "[]")) or default

    return FrontProxy(
        x509.load_pem_x509_certificates(pem.encode()),
        names("allowed-names", ()),
        names("username-headers", ("X-Remote-User",)),
        group_headers=names("group-headers", ("X-Remote-Group",)),
        extra_prefixes=names("extra-headers-prefix", ("X-Remote-Extra-",)),
    )


class VisibilityServer:
    """Answers what the aggregator passes on."""

    def __init__(self, client: Client, env: Env, proxy: FrontProxy, visibility: Visibility) -> None:
        self._client = client
        self._callers = RequestHeaders(env.clock, proxy)
        self._visibility = visibility

    async def answer(self, request: Request) -> Response:
        user = self._callers.check(request, HOST)
        if user is None:
            return _status(401, "Unauthorized", "only the cluster's aggregator is answered")
        parts = request.path.removeprefix(BASE).strip("/").split("/")
        if len(parts) == 1 and parts[0] in VERSIONS:
            return _json(_resources(parts[0]))
        found = _asked(parts)
        if found is None or request.method != "GET":
            return _status(404, "NotFound", "the server could not find the requested resource")
        version, namespace, plural, name = found
        if not await self._may(user, version, namespace, plural, name):
            return _status(
                403, "Forbidden", f'{plural}.{GROUP} "{name}" is forbidden: User "{user.name}" cannot get it'
            )
        try:
            offset = bounded(request.param("offset"), 0)
            limit = bounded(request.param("limit"), DEFAULT_LIMIT) or DEFAULT_LIMIT
        except ValueError:
            return _status(400, "BadRequest", "offset and limit must be whole numbers")
        if namespace:
            items = self._visibility.local_queue(ObjectKey(HOST, namespace, name), offset, limit)
        else:
            items = self._visibility.cluster_queue(name, offset, limit)
        if items is None:
            return _status(404, "NotFound", f'{plural.removesuffix("s")}.{GROUP} "{name}" not found')
        return _json(summary(version, name, items))

    async def _may(self, user: User, version: str, namespace: str, plural: str, name: str) -> bool:
        attributes = {"group": GROUP, "version": version, "resource": plural, "subresource": PENDING, "verb": "get"}
        spec: dict[str, Any] = {
            "user": user.name,
            "groups": list(user.groups),
            "extra": {key: list(values) for key, values in user.extra.items()},
            "resourceAttributes": {**attributes, "name": name, "namespace": namespace},
        }
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        answer = orjson.loads((await self._client.raw("POST", _REVIEWS, body=review)).body)
        return bool((answer.get("status") or {}).get("allowed"))


def _asked(parts: list[str]) -> tuple[str, str, str, str] | None:
    """(version, namespace, plural, name) of a path below the group."""
    if len(parts) == 4 and parts[1] == "clusterqueues":
        version, plural, name, below = parts
        namespace = ""
    elif len(parts) == 6 and parts[1] == "namespaces" and parts[3] == "localqueues":
        version, _, namespace, plural, name, below = parts
    else:
        return None
    return (version, namespace, plural, name) if version in VERSIONS and below == PENDING else None


def _resources(version: str) -> Object:
    rows = [
        {"name": f"{plural}/{PENDING}", "singularName": "", "namespaced": namespaced, "verbs": ["get"]}
        | {"kind": "PendingWorkloadsSummary"}
        for plural, namespaced in _PLURALS.items()
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{GROUP}/{version}", "resources": rows}


def _json(body: Any, code: int = 200) -> Response:
    return Response(code, {"content-type": "application/json"}, orjson.dumps(body))


def _status(code: int, reason: str, message: str) -> Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}
    return _json({**body, "message": message}, code)


async def register(client: Client, door: Door, namespace: str) -> None:
    """Have the cluster ask this process: a service that is this address, and an APIService for each version."""
    ports = [{"name": "https", "port": door.port, "protocol": "TCP"}]
    service: Object = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": SERVICE, "namespace": namespace},
        "spec": {"type": "ExternalName", "externalName": door.host, "ports": ports},
    }
    await client.apply(r.SERVICES, service, force=True)
    for order, version in enumerate(reversed(VERSIONS), 1):
        spec = {
            "group": GROUP,
            "version": version,
            "groupPriorityMinimum": 100,
            "versionPriority": 100 * order,
            "caBundle": base64.b64encode(door.ca).decode(),
            "service": {"name": SERVICE, "namespace": namespace, "port": door.port},
        }
        made = {
            "apiVersion": API_SERVICES.api_version,
            "kind": "APIService",
            "metadata": {"name": f"{version}.{GROUP}"},
        }
        await client.apply(API_SERVICES, {**made, "spec": spec}, force=True)

"""Who may ask a node what (upstream's ``pkg/kubelet/server/auth.go``).

A client is known by a certificate of the client CA or by a bearer token that the API server vouches for
(TokenReview); what it may do is asked there, too (SubjectAccessReview on ``nodes/NAME`` and its subresources). The
API server's own certificate needs no question.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

from glebe.kube.client import Client
from glebe.kube.clock import Clock
from glebe.kube.errors import ApiError
from glebe.kube.resources import Resource
from glebe.kube.transport import ConnectionLost, Request, User

_TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)
_ACCESS_REVIEWS = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", False)
_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
#: First segment of a path -> the subresources that allow it, any of them.
_SUBRESOURCES = {
    "stats": ("stats",),
    "metrics": ("metrics",),
    "logs": ("log",),
    "pods": ("pods", "proxy"),
    "runningpods": ("pods", "proxy"),
    "healthz": ("healthz", "proxy"),
    "configz": ("configz", "proxy"),
}
_REMEMBERED = 256
_SECONDS = 60.0  # for which an answer is believed
_REFUSED_SECONDS = 10.0


class Denied(Exception):
    """The request is not answered: 401 or 403, or 500 when nobody could be asked."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Access:
    """
    :param trusted: certificates (DER) that need no question: the platform's own.
    """

    def __init__(self, client: Client, clock: Clock, node: str, trusted: frozenset[bytes] = frozenset()) -> None:
        self._client = client
        self._clock = clock
        self._node = node
        self._trusted = trusted
        self._known: OrderedDict[tuple[str, ...], tuple[float, User | bool | None]] = OrderedDict()

    async def check(self, request: Request) -> None:
        """
        :raises Denied: 401, 403.
        """
        if request.peer_certificate is not None and request.peer_certificate in self._trusted:
            return
        user = await self._user(request)
        if user is None:
            raise Denied(401, "Unauthorized")
        first = request.path.lstrip("/").partition("/")[0].lower()
        subresources = _SUBRESOURCES.get(first, ("proxy",))
        verb = _VERBS.get(request.method, "")
        for subresource in subresources:
            if await self._allowed(user, verb, subresource):
                return
        text = f"Forbidden (user={user.name}, verb={verb}, resource=nodes, subresource(s)=[{' '.join(subresources)}])"
        raise Denied(403, text)

    # --- who

    async def _user(self, request: Request) -> User | None:
        if request.peer_certificate is not None:
            return _bearer(request.peer_certificate)  # TLS has checked whose certificate it is
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return None
        return await self._of_token(token.strip())

    async def _of_token(self, token: str) -> User | None:
        key = ("token", hashlib.sha256(token.encode()).hexdigest())
        found = self._recall(key)
        if found is None:
            status = await self._ask(_TOKEN_REVIEWS, "TokenReview", {"token": token})
            info = status.get("user") or {}
            groups = tuple(info.get("groups") or ())
            found = User(str(info["username"]), groups, str(info.get("uid") or "")) if info.get("username") else False
            self._remember(key, found if status.get("authenticated") else False)
            found = self._known[key][1]
        return found if isinstance(found, User) else None

    # --- what

    async def _allowed(self, user: User, verb: str, subresource: str) -> bool:
        key = ("right", user.name, *user.groups, verb, subresource)
        found = self._recall(key)
        if found is None:
            attributes = {"verb": verb, "resource": "nodes", "subresource": subresource, "name": self._node}
            spec = {"user": user.name, "groups": list(user.groups), "resourceAttributes": attributes}
            status = await self._ask(_ACCESS_REVIEWS, "SubjectAccessReview", spec)
            found = bool(status.get("allowed"))
            self._remember(key, found)
        return bool(found)

    async def _ask(self, resource: Resource, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
        body = {"apiVersion": resource.api_version, "kind": kind, "metadata": {}, "spec": spec}
        try:
            answer = await self._client.create(resource, body)
        except (ApiError, ConnectionLost) as error:
            raise Denied(500, f"{kind} failed: {error}") from None
        return dict(answer.get("status") or {})

    def _recall(self, key: tuple[str, ...]) -> User | bool | None:
        held = self._known.get(key)
        if held is None:
            return None
        self._known.move_to_end(key)
        return held[1] if self._clock.now() < held[0] else None

    def _remember(self, key: tuple[str, ...], found: User | bool) -> None:
        self._known[key] = (self._clock.now() + (_SECONDS if found else _REFUSED_SECONDS), found)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)


def _bearer(der: bytes) -> User | None:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    certificate = x509.load_der_x509_certificate(der)
    names = [str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = [str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    if not names or not names[0] or _scoped(certificate):
        return None
    return User(names[0], (*groups, "system:authenticated"))


def _scoped(certificate: object) -> bool:
    """Was it issued for one logical cluster? Then it says nothing here."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value  # type: ignore[attr-defined]
    except x509.ExtensionNotFound:
        return False
    return any(uri.startswith("urn:glebe:") for uri in names.get_values_for_type(x509.UniformResourceIdentifier))

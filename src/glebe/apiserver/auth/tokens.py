"""Service account tokens: issued for TokenRequests, bound to their account (and pod), valid in one logical cluster."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from glebe.apiserver.auth import Lookup, jwt
from glebe.kube import errors
from glebe.kube.clock import Env, format_time
from glebe.kube.errors import Cause
from glebe.kube.objects import Object
from glebe.kube.transport import User

DEFAULT_LIFE = 3600
SHORTEST_LIFE = 600
LONGEST_LIFE = 1 << 32
_BOUND_KINDS = {"Pod": "pods", "Secret": "secrets"}


def issuer_of(cluster: str) -> str:
    """The ``iss`` and default audience of one logical cluster: a token is worth nothing in another."""
    return f"https://kubernetes.default.svc/clusters/{cluster}"


class ServiceAccountTokens:
    """Issues and checks tokens with one key for all logical clusters."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, env: Env, lookup: Lookup) -> None:
        self._key = key
        self._public = key.public_key()
        self._env = env
        self._lookup = lookup

    def issue(self, cluster: str, service_account: Object, request: Object) -> Object:
        """``request`` (a TokenRequest) with its status filled in.

        :raises ApiError: 422 for a lifetime out of range, 404 or 409 for a bound object that is not there.
        """
        spec = dict(request.get("spec") or {})
        meta = service_account["metadata"]
        life = spec.get("expirationSeconds", DEFAULT_LIFE)
        _check_life(life, meta["name"])
        audiences = list(spec.get("audiences") or (issuer_of(cluster),))
        bound: Object = {"namespace": meta["namespace"], "serviceaccount": {"name": meta["name"], "uid": meta["uid"]}}
        if reference := spec.get("boundObjectRef"):
            bound |= self._bind(cluster, meta["namespace"], reference)
        now = int(self._env.clock.now())
        claims = {
            "aud": audiences,
            "exp": now + life,
            "iat": now,
            "iss": issuer_of(cluster),
            "jti": self._env.new_uid(),
            "kubernetes.io": bound,
            "nbf": now,
            "sub": f"system:serviceaccount:{meta['namespace']}:{meta['name']}",
        }
        status = {"token": jwt.sign(claims, self._key), "expirationTimestamp": format_time(now + life)}
        out = {**request, "spec": {**spec, "audiences": audiences, "expirationSeconds": life}, "status": status}
        out["metadata"] = {**(request.get("metadata") or {}), "name": meta["name"], "namespace": meta["namespace"]}
        return out

    def _bind(self, cluster: str, namespace: str, reference: dict[str, Any]) -> Object:
        kind, name = str(reference.get("kind")), str(reference.get("name"))
        resource = _BOUND_KINDS.get(kind)
        if resource is None:
            raise errors.bad_request(f"cannot bind token for object of type {reference.get('apiVersion')}, Kind={kind}")
        found = self._lookup.read(cluster, resource, namespace, name)
        if found is None:
            raise errors.not_found("", resource, name)
        uid = found["metadata"]["uid"]
        if reference.get("uid") not in (None, "", uid):
            why = f"the UID in the bound object reference ({reference['uid']}) does not match the UID in record ({uid})"
            raise errors.conflict("", resource, name, why)
        return {kind.lower(): {"name": name, "uid": uid}}

    def check(self, token: str, cluster: str, audiences: tuple[str, ...] = ()) -> tuple[User, list[str]] | None:
        """Whose token it is, and for which of ``audiences`` (default: the cluster's API) it is good."""
        claims = jwt.verify(token, self._public)
        if claims is None or claims.get("iss") != issuer_of(cluster):
            return None
        now = self._env.clock.now()
        if not claims.get("nbf", 0) <= now < claims.get("exp", 0):
            return None
        good = [a for a in (audiences or (issuer_of(cluster),)) if a in claims.get("aud", ())]
        bound = claims.get("kubernetes.io") or {}
        if not good or not self._exists(cluster, bound):
            return None
        return _user(claims, bound), good

    def _exists(self, cluster: str, bound: Object) -> bool:
        """Whether the account, and the pod or secret, are still the ones the token was made for."""
        namespace = bound.get("namespace", "")
        for claim, resource in (("serviceaccount", "serviceaccounts"), ("pod", "pods"), ("secret", "secrets")):
            reference = bound.get(claim)
            if reference is None:
                continue
            found = self._lookup.read(cluster, resource, namespace, reference["name"])
            if found is None or found["metadata"]["uid"] != reference["uid"]:
                return False
        return "serviceaccount" in bound


def _check_life(life: Any, name: str) -> None:
    if not isinstance(life, int) or life < SHORTEST_LIFE:
        text = f"Invalid value: {life}: may not specify a duration less than 10 minutes"
    elif life > LONGEST_LIFE:
        text = f"Invalid value: {life}: may not specify a duration larger than 2^32 seconds"
    else:
        return
    cause = Cause("FieldValueInvalid", text, "spec.expirationSeconds")
    raise errors.invalid("authentication.k8s.io", "TokenRequest", name, [cause])


def _user(claims: dict[str, Any], bound: Object) -> User:
    namespace, account = bound["namespace"], bound["serviceaccount"]
    extra = {"authentication.kubernetes.io/credential-id": (f"JTI={claims.get('jti', '')}",)}
    if pod := bound.get("pod"):
        extra["authentication.kubernetes.io/pod-name"] = (pod["name"],)
        extra["authentication.kubernetes.io/pod-uid"] = (pod["uid"],)
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    return User(str(claims["sub"]), groups, account["uid"], extra)

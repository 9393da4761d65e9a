"""Service account tokens: issued for TokenRequests, bound to their account (and pod, node or secret), valid in the one
logical cluster that they were issued in.
"""

from __future__ import annotations

import hmac
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from glebe.apiserver.auth import Lookup, jwt
from glebe.apiserver.auth.binding import Bound, bind
from glebe.apiserver.auth.jwt import PrivateKey, PublicKey
from glebe.apiserver.auth.scope import Scope, UidOf
from glebe.apiserver.request.routing import ROOT
from glebe.kube import errors
from glebe.kube.clock import Env, format_time, parse_time
from glebe.kube.errors import Cause
from glebe.kube.objects import Object
from glebe.kube.transport import User

GROUP = "authentication.k8s.io"
DEFAULT_ISSUER = "https://kubernetes.default.svc"
DEFAULT_LIFE = 3600
SHORTEST_LIFE = 600
LONGEST_LIFE = 1 << 32
LEEWAY = 60.0
"""Seconds for which a token outlives the mark for deletion of what it is bound to."""

_LEGACY_ISSUER = "kubernetes/serviceaccount"
_LEGACY = "kubernetes.io/serviceaccount/"
_CLUSTER_CLAIM = "glebe.dev/cluster"
_REMEMBERED = 2048


class ServiceAccountTokens:
    """Issues and checks tokens for all logical clusters.

    :param keys: the first signs; all of them verify, so that keys can be changed without a break.
    :param issuer: URL under which this server is known to others; a cluster's issuer is ``ISSUER/clusters/NAME``.
    :param uid_of: uids of clusters; a token says the uid of its cluster.
    :param longest_life: longer requests are shortened to so many seconds (0: never).
    """

    def __init__(
        self,
        keys: PrivateKey | Sequence[PrivateKey | PublicKey],
        env: Env,
        lookup: Lookup,
        *,
        uid_of: UidOf = lambda name: f"uid-of-{name}",
        issuer: str = DEFAULT_ISSUER,
        longest_life: int = 0,
    ) -> None:
        every = tuple(keys) if isinstance(keys, Sequence) else (keys,)
        first = every[0] if every else None
        if not isinstance(first, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise ValueError("the first service account key must be a private one")
        self._key: PrivateKey = first
        self.public_keys: list[PublicKey] = [k.public_key() if hasattr(k, "public_key") else k for k in every]
        self._by_id = {jwt.key_id(k): k for k in self.public_keys}
        self._env = env
        self._lookup = lookup
        self._uid_of = uid_of
        self._issuer = issuer.rstrip("/")
        self._longest = longest_life
        self._verified: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def issuer_of(self, cluster: str) -> str:
        """The ``iss`` and default audience of one logical cluster."""
        return f"{self._issuer}/clusters/{cluster}"

    # --- issuing

    def issue(self, cluster: str, service_account: Object, request: Object) -> Object:
        """``request`` (a TokenRequest) with its status filled in.

        :raises ApiError: 422 for a lifetime out of range, 404, 400 or 409 for a bound object that cannot be one.
        """
        spec = _spec(request)
        meta = service_account["metadata"]
        _check_identity(request.get("metadata") or {}, meta)
        life = DEFAULT_LIFE if spec.get("expirationSeconds") is None else spec["expirationSeconds"]
        _check_life(life)
        if self._longest and life > self._longest:
            life = self._longest
        audiences = list(spec.get("audiences") or (self.issuer_of(cluster),))
        bound: Bound = {"namespace": meta["namespace"], "serviceaccount": {"name": meta["name"], "uid": meta["uid"]}}
        if reference := spec.get("boundObjectRef"):
            bound |= bind(self._lookup, cluster, meta, reference)
        now = int(self._env.clock.now())
        claims = {
            "aud": audiences,
            "exp": now + life,
            "iat": now,
            "iss": self.issuer_of(cluster),
            "jti": self._env.new_uid(),
            "kubernetes.io": bound,
            "nbf": now,
            "sub": f"system:serviceaccount:{meta['namespace']}:{meta['name']}",
            _CLUSTER_CLAIM: {"name": cluster, "uid": self._uid_of(cluster)},
        }
        status = {"token": jwt.sign(claims, self._key), "expirationTimestamp": format_time(now + life)}
        out = {**request, "spec": {**spec, "audiences": audiences, "expirationSeconds": life}, "status": status}
        own = {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]}
        out["metadata"] = {**(request.get("metadata") or {}), **own, "creationTimestamp": format_time(now)}
        return out

    def issue_legacy(self, cluster: str, service_account: Object, secret: str) -> str:
        """A token without an end, for a Secret of type ``kubernetes.io/service-account-token``."""
        meta = service_account["metadata"]
        claims = {
            "iss": _LEGACY_ISSUER,
            "sub": f"system:serviceaccount:{meta['namespace']}:{meta['name']}",
            f"{_LEGACY}namespace": meta["namespace"],
            f"{_LEGACY}secret.name": secret,
            f"{_LEGACY}service-account.name": meta["name"],
            f"{_LEGACY}service-account.uid": meta["uid"],
            _CLUSTER_CLAIM: {"name": cluster, "uid": self._uid_of(cluster)},
        }
        return jwt.sign(claims, self._key)

    # --- checking

    def check(self, token: str, cluster: str, audiences: tuple[str, ...] = ()) -> tuple[User, list[str]] | None:
        """Whose token it is, and for which of ``audiences`` (default: the cluster's API) it is good."""
        claims = self._claims(token)
        if claims is None or not self._is_of(claims, cluster):
            return None
        own = self.issuer_of(cluster)
        if claims.get("iss") == _LEGACY_ISSUER:
            return self._check_legacy(token, claims, cluster, [a for a in audiences or (own,) if a == own])
        now = self._env.clock.now()
        if claims.get("iss") != own or not _number(claims, "nbf") <= now < _number(claims, "exp"):
            return None
        good = [a for a in (audiences or (own,)) if a in (claims.get("aud") or ())]
        bound = claims.get("kubernetes.io")
        if not good or not isinstance(bound, dict) or not self._exists(cluster, bound, now):
            return None
        return _user(claims, bound), good

    def _claims(self, token: str) -> dict[str, Any] | None:
        """What one of our keys has signed; remembered, since a signature stays what it is."""
        known = self._verified.get(token)
        if known is not None:
            self._verified.move_to_end(token)
            return known
        parsed = jwt.parse(token)
        if parsed is None:
            return None
        keys = [self._by_id[parsed.key_id]] if parsed.key_id in self._by_id else []
        if not parsed.key_id:
            keys = self.public_keys
        if not any(jwt.signed_by(parsed, key) for key in keys):
            return None
        self._verified[token] = parsed.claims
        if len(self._verified) > _REMEMBERED:
            self._verified.popitem(last=False)
        return parsed.claims

    def _is_of(self, claims: dict[str, Any], cluster: str) -> bool:
        """Issued in this very cluster. Tokens of before the claim existed were of the root cluster's issuer."""
        said = claims.get(_CLUSTER_CLAIM)
        if said is None:
            return cluster == ROOT and claims.get("iss") == self.issuer_of(ROOT)
        return Scope(str(said.get("name")), str(said.get("uid"))).holds_in(cluster, self._uid_of)

    def _exists(self, cluster: str, bound: Bound, now: float) -> bool:
        """Whether the account, and what else the token is bound to, are still the ones it was made for."""
        namespace = bound.get("namespace", "")
        checks = [("serviceaccount", "serviceaccounts", namespace)]
        if "secret" in bound:
            checks.append(("secret", "secrets", namespace))
        if "pod" in bound:
            checks.append(("pod", "pods", namespace))
        elif "node" in bound:  # beside a pod the node is for information only
            checks.append(("node", "nodes", ""))
        return all(
            claim in bound
            and _is_same(self._lookup.read(cluster, resource, space, bound[claim]["name"]), bound[claim], now)
            for claim, resource, space in checks
        )

    def _check_legacy(
        self, token: str, claims: dict[str, Any], cluster: str, good: list[str]
    ) -> tuple[User, list[str]] | None:
        fields = ("namespace", "secret.name", "service-account.name", "service-account.uid")
        namespace, secret, name, uid = (str(claims.get(_LEGACY + f) or "") for f in fields)
        if not good or claims.get("sub") != f"system:serviceaccount:{namespace}:{name}":
            return None
        now = self._env.clock.now()
        account = self._lookup.read(cluster, "serviceaccounts", namespace, name)
        if not _is_same(account, {"name": name, "uid": uid}, now):
            return None
        stored = self._lookup.read(cluster, "secrets", namespace, secret)
        if stored is None or "deletionTimestamp" in stored["metadata"]:
            return None
        held = b64decode((stored.get("data") or {}).get("token") or "")
        if not hmac.compare_digest(held, token.encode()):
            return None
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        return User(str(claims["sub"]), groups, uid), good


def _is_same(found: Object | None, reference: dict[str, Any], now: float) -> bool:
    if found is None or found["metadata"].get("uid") != reference.get("uid"):
        return False
    deleted = found["metadata"].get("deletionTimestamp")
    return not deleted or parse_time(deleted) >= now - LEEWAY


def _number(claims: dict[str, Any], name: str) -> float:
    value = claims.get(name, 0)
    return float(value) if isinstance(value, int | float) else 0.0


def _spec(request: Object) -> Object:
    """The request's spec, with parts of the kinds that they must be.

    :raises ApiError: 400.
    """
    spec = request.get("spec") or {}
    if isinstance(spec, dict) and isinstance(request.get("metadata") or {}, dict):
        audiences, reference = spec.get("audiences") or [], spec.get("boundObjectRef") or {}
        texts = isinstance(audiences, list) and all(isinstance(a, str) for a in audiences)
        if texts and isinstance(reference, dict):
            return dict(spec)
    why = "a field has the wrong type"
    raise errors.bad_request(f'TokenRequest in version "v1" cannot be handled as a TokenRequest: {why}')


def _check_identity(asked: Object, meta: Object) -> None:
    for field, what in (("name", "name"), ("namespace", "namespace")):
        if asked.get(field) and asked[field] != meta[field]:
            text = f'Invalid value: "{asked[field]}": must match the service account {what} if specified'
            cause = Cause("FieldValueInvalid", text, f"metadata.{field}")
            raise errors.invalid(GROUP, "TokenRequest", meta["name"], [cause])
    if asked.get("uid") and asked["uid"] != meta["uid"]:
        uids = asked["uid"], meta["uid"]
        why = "the UID in the token request ({}) does not match the UID of the service account ({})".format(*uids)
        raise errors.conflict(GROUP, "TokenRequest", meta["name"], why)


def _check_life(life: Any) -> None:
    if not isinstance(life, int) or isinstance(life, bool) or life < SHORTEST_LIFE:
        text = f"Invalid value: {life}: may not specify a duration less than 10 minutes"
    elif life > LONGEST_LIFE:
        text = f"Invalid value: {life}: may not specify a duration larger than 2^32 seconds"
    else:
        return
    cause = Cause("FieldValueInvalid", text, "spec.expirationSeconds")
    raise errors.invalid(GROUP, "TokenRequest", "", [cause])


def _user(claims: dict[str, Any], bound: Bound) -> User:
    namespace, account = bound["namespace"], bound["serviceaccount"]
    prefix = "authentication.kubernetes.io/"
    extra = {f"{prefix}credential-id": (f"JTI={claims.get('jti', '')}",)}
    for kind in ("pod", "node"):
        if reference := bound.get(kind):
            extra[f"{prefix}{kind}-name"] = (reference["name"],)
            if reference.get("uid"):
                extra[f"{prefix}{kind}-uid"] = (reference["uid"],)
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    return User(str(claims["sub"]), groups, account["uid"], extra)

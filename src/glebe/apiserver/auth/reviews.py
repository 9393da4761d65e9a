"""Questions about rights and identities: objects that are answered instead of stored."""

from __future__ import annotations

from typing import Any

from glebe.apiserver.auth.authn import Authenticator
from glebe.apiserver.auth.rbac import RbacAuthorizer
from glebe.apiserver.auth.rules import Attributes, Rule
from glebe.kube import errors
from glebe.kube.clock import Clock, format_time
from glebe.kube.errors import Cause
from glebe.kube.objects import Object
from glebe.kube.transport import User

AUTHENTICATION, AUTHORIZATION = "authentication.k8s.io", "authorization.k8s.io"


class Reviews:
    """Answers the six review kinds."""

    def __init__(self, clock: Clock, authorizer: RbacAuthorizer, authenticator: Authenticator) -> None:
        self._clock = clock
        self._authorizer = authorizer
        self._authenticator = authenticator
        self._kinds = {
            (AUTHORIZATION, "selfsubjectaccessreviews"): self._self_access,
            (AUTHORIZATION, "subjectaccessreviews"): self._access,
            (AUTHORIZATION, "localsubjectaccessreviews"): self._local_access,
            (AUTHORIZATION, "selfsubjectrulesreviews"): self._rules,
            (AUTHENTICATION, "selfsubjectreviews"): self._whoami,
            (AUTHENTICATION, "tokenreviews"): self._token,
        }

    def handles(self, group: str, plural: str) -> bool:
        """Whether creations of this resource are answered here."""
        return (group, plural) in self._kinds

    async def review(self, group: str, plural: str, cluster: str, namespace: str, user: User, obj: Object) -> Object:
        """``obj`` with its status filled in.

        :raises ApiError: 422 when the question is not complete.
        """
        status = self._kinds[group, plural](cluster, namespace, user, obj)
        out = {**obj, "status": status}
        if plural == "selfsubjectreviews":
            out["metadata"] = {"creationTimestamp": format_time(self._clock.now())}
        out.setdefault("metadata", {})
        return out

    def _self_access(self, cluster: str, namespace: str, user: User, obj: Object) -> Object:
        return self._decide(user, cluster, obj)

    def _access(self, cluster: str, namespace: str, user: User, obj: Object) -> Object:
        spec = obj.get("spec") or {}
        if not spec.get("user") and not spec.get("groups"):
            cause = Cause(
                "FieldValueInvalid", 'Invalid value: "": at least one of user or group must be specified', "spec.user"
            )
            raise errors.invalid(AUTHORIZATION, str(obj.get("kind")), "", [cause])
        extra = {k: tuple(v) for k, v in (spec.get("extra") or {}).items()}
        other = User(spec.get("user", ""), tuple(spec.get("groups") or ()), spec.get("uid", ""), extra)
        return self._decide(other, cluster, obj)

    def _local_access(self, cluster: str, namespace: str, user: User, obj: Object) -> Object:
        asked = ((obj.get("spec") or {}).get("resourceAttributes") or {}).get("namespace", "")
        if asked != namespace:
            text = f'Invalid value: "{asked}": must match metadata.namespace'
            cause = Cause("FieldValueInvalid", text, "spec.resourceAttributes.namespace")
            raise errors.invalid(AUTHORIZATION, str(obj.get("kind")), "", [cause])
        return self._access(cluster, namespace, user, obj)

    def _decide(self, user: User, cluster: str, obj: Object) -> Object:
        spec = obj.get("spec") or {}
        resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
        if bool(resource) == bool(path):
            text = "Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified"
            cause = Cause("FieldValueInvalid", text, "spec.resourceAttributes")
            raise errors.invalid(AUTHORIZATION, str(obj.get("kind")), "", [cause])
        allowed, reason = self._authorizer.decide(user, cluster, _attributes(resource, path))
        return {"allowed": allowed, "reason": reason} if reason else {"allowed": allowed}

    def _rules(self, cluster: str, namespace: str, user: User, obj: Object) -> Object:
        asked = (obj.get("spec") or {}).get("namespace", "")
        if not asked:
            raise errors.bad_request("no namespace on request")
        rules = self._authorizer.rules_of(user, cluster, asked)
        return {
            "resourceRules": [
                _shown(r, "apiGroups", "resources", "resourceNames") for r in rules if r.get("resources")
            ],
            "nonResourceRules": [_shown(r, "nonResourceURLs") for r in rules if r.get("nonResourceURLs")],
            "incomplete": False,
        }

    def _whoami(self, cluster: str, namespace: str, user: User, obj: Object) -> Object:
        return {"userInfo": user_info(user)}

    def _token(self, cluster: str, namespace: str, user: User, obj: Object) -> Object:
        spec = obj.get("spec") or {}
        found = self._authenticator.check_token(spec.get("token", ""), cluster, tuple(spec.get("audiences") or ()))
        if found is None:
            return {"user": {}, "error": "[invalid bearer token]"}
        return {"authenticated": True, "user": user_info(found[0]), "audiences": found[1]}


def user_info(user: User) -> Object:
    """``authentication.k8s.io`` UserInfo."""
    out: Object = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        out["uid"] = user.uid
    if user.extra:
        out["extra"] = {k: list(v) for k, v in user.extra.items()}
    return out


def _attributes(resource: dict[str, Any] | None, path: dict[str, Any] | None) -> Attributes:
    if not resource:
        path = path or {}
        return Attributes(path.get("verb", ""), path=path.get("path", "") or "/")
    fields = ("verb", "group", "resource", "subresource", "namespace", "name")
    return Attributes(**{f: str(resource.get(f) or "") for f in fields})


def _shown(rule: Rule, *fields: str) -> Object:
    return {f: list(rule[f]) for f in ("verbs", *fields) if rule.get(f)}

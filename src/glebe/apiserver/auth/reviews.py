"""Questions about rights and identities: objects that are answered instead of stored."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from glebe.apiserver.auth.authn import Authenticator
from glebe.apiserver.auth.authorizer import Authorizers
from glebe.apiserver.auth.reviewfields import check_subject, check_token, question
from glebe.apiserver.auth.rules import Rule
from glebe.kube import errors
from glebe.kube.clock import Clock, format_time
from glebe.kube.errors import Cause
from glebe.kube.objects import Object
from glebe.kube.transport import User

AUTHENTICATION, AUTHORIZATION = "authentication.k8s.io", "authorization.k8s.io"

_Answer = Callable[[str, str, User, Object], Awaitable[Object]]


class Reviews:
    """Answers the six review kinds."""

    def __init__(self, clock: Clock, authorizer: Authorizers, authenticator: Authenticator) -> None:
        self._clock = clock
        self._authorizer = authorizer
        self._authenticator = authenticator
        self._kinds: dict[tuple[str, str], _Answer] = {
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
        status = await self._kinds[group, plural](cluster, namespace, user, obj)
        out = {**obj, "status": status}
        if plural == "selfsubjectreviews":
            out["metadata"] = {"creationTimestamp": format_time(self._clock.now())}
        out.setdefault("metadata", {})
        return out

    async def _self_access(self, cluster: str, namespace: str, user: User, obj: Object) -> Object:
        return await self._decide(user, cluster, obj)

    async def _access(self, cluster: str, namespace: str, user: User, obj: Object) -> Object:
        return await self._decide(check_subject(obj), cluster, obj)

    async def _local_access(self, cluster: str, namespace: str, user: User, obj: Object) -> Object:
        spec = obj.get("spec") or {}
        asked = (spec.get("resourceAttributes") or {}).get("namespace", "")
        if asked != namespace:
            text = f'Invalid value: "{asked}": must match metadata.namespace'
            cause = Cause("FieldValueInvalid", text, "spec.resourceAttributes.namespace")
            raise errors.invalid(AUTHORIZATION, str(obj.get("kind")), "", [cause])
        if spec.get("nonResourceAttributes"):
            text = "Forbidden: disallowed on this kind of request"
            cause = Cause("FieldValueForbidden", text, "spec.nonResourceAttributes")
            raise errors.invalid(AUTHORIZATION, str(obj.get("kind")), "", [cause])
        return await self._access(cluster, namespace, user, obj)

    async def _decide(self, user: User, cluster: str, obj: Object) -> Object:
        allowed, reason = await self._authorizer.decide(user, cluster, question(obj))
        return {"allowed": allowed, "reason": reason} if reason else {"allowed": allowed}

    async def _rules(self, cluster: str, namespace: str, user: User, obj: Object) -> Object:
        asked = (obj.get("spec") or {}).get("namespace", "")
        if not asked:
            raise errors.bad_request("no namespace on request")
        rules = self._authorizer.rules_of(user, cluster, asked)
        incomplete = self._authorizer.incomplete(user)
        answer = {
            "resourceRules": [
                _shown(r, "apiGroups", "resources", "resourceNames") for r in rules if r.get("resources")
            ],
            "nonResourceRules": [_shown(r, "nonResourceURLs") for r in rules if r.get("nonResourceURLs")],
            "incomplete": bool(incomplete),
        }
        return {**answer, "evaluationError": incomplete} if incomplete else answer

    async def _whoami(self, cluster: str, namespace: str, user: User, obj: Object) -> Object:
        return {"userInfo": user.info()}

    async def _token(self, cluster: str, namespace: str, user: User, obj: Object) -> Object:
        token, audiences = check_token(obj)
        found = await self._authenticator.check_token(token, cluster, audiences)
        if found is None:
            return {"user": {}, "error": "[invalid bearer token]"}
        answer = {"authenticated": True, "user": found[0].info()}
        return {**answer, "audiences": found[1]} if found[1] else answer


def _shown(rule: Rule, *fields: str) -> Object:
    out: dict[str, Any] = {f: list(rule[f]) for f in ("verbs", *fields) if rule.get(f)}
    return out

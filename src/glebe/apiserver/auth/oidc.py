"""Users of identity providers: ID tokens checked, their claims made into users."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from glebe.apiserver.auth import jwt
from glebe.apiserver.auth.authconfig import ClaimRule, ConfigError, Issuer, Mapped
from glebe.apiserver.auth.jwt import Token
from glebe.apiserver.auth.providerkeys import Fetch, ProviderKeys
from glebe.kube.clock import Env
from glebe.kube.transport import User

log = logging.getLogger("glebe.apiserver.oidc")

AUTHENTICATED = "system:authenticated"
_RESERVED = "system:"
_EVERY_CLUSTER = "*"
_REMEMBERED = 1024


class Refused(Exception):
    """Why a token of a known provider is not good; for the log, never for the client."""


class OidcUsers:
    """Good in every logical cluster; what they may do there is for that cluster's RBAC to say. Nobody among them has a
    name or a group that begins with ``system:``: those are ours to give.

    :raises ConfigError: an expression does not compile.
    """

    def __init__(self, env: Env, issuers: Sequence[Issuer], fetch: Fetch | None = None) -> None:
        self._providers = {i.url: _Provider(env, i, fetch) for i in issuers}
        self._clock = env.clock
        self._checked: OrderedDict[str, tuple[User, float]] = OrderedDict()

    async def check(self, token: str, cluster: str) -> User | None:
        """Whose token it is."""
        if cluster in ("", _EVERY_CLUSTER):
            return None
        known = self._checked.get(token)
        if known is not None:
            return known[0] if self._clock.now() < known[1] else None
        parsed = jwt.parse(token)
        provider = self._providers.get(str(parsed.claims.get("iss"))) if parsed is not None else None
        if parsed is None or provider is None:
            return None
        try:
            user = await provider.user_of(parsed)
        except Refused as why:
            log.info("a token of %s is refused: %s", provider.issuer.url, why)
            return None
        self._checked[token] = (user, float(parsed.claims["exp"]))
        if len(self._checked) > _REMEMBERED:
            self._checked.popitem(last=False)
        return user


class _Provider:
    """One provider with its keys and expressions."""

    def __init__(self, env: Env, issuer: Issuer, fetch: Fetch | None) -> None:
        self.issuer = issuer
        self._clock = env.clock
        self._keys = ProviderKeys(env.clock, issuer.url, issuer.discovery_url, issuer.ca, fetch)
        self._claims = _Expressions("claims")
        self._user = _Expressions("user")
        for mapped in (issuer.username, issuer.groups, issuer.uid):
            self._claims.add(mapped.expression)
        for _, expression in issuer.extra:
            self._claims.add(expression)
        for rule in issuer.claim_rules:
            self._claims.add(rule.expression)
        for rule in issuer.user_rules:
            self._user.add(rule.expression)

    async def user_of(self, token: Token) -> User:
        """:raises Refused:"""
        if token.algorithm not in self.issuer.algorithms:
            raise Refused(f"algorithm {token.algorithm!r}")
        self._check_times(token.claims)
        keys = await self._keys.candidates(token.key_id)
        if not any(jwt.signed_by(token, key) for key in keys):
            raise Refused("no key of the provider signed it")
        claims = token.claims  # distributed claims are not followed: no token makes the server ask other addresses
        audiences = claims.get("aud")
        audiences = [audiences] if isinstance(audiences, str) else audiences
        if not isinstance(audiences, list) or not set(self.issuer.audiences).intersection(map(str, audiences)):
            raise Refused("it is meant for others")
        for rule in self.issuer.claim_rules:
            self._check_rule(rule, claims)
        return self._made(claims)

    def _check_times(self, claims: dict[str, Any]) -> None:
        now, end, start = self._clock.now(), claims.get("exp"), claims.get("nbf", 0)
        if not isinstance(end, int | float) or isinstance(end, bool) or now >= end:
            raise Refused("its time is over")
        if not isinstance(start, int | float) or now < start:
            raise Refused("its time has not come")

    def _check_rule(self, rule: ClaimRule, claims: dict[str, Any]) -> None:
        if rule.claim:
            if claims.get(rule.claim) != rule.value:
                raise Refused(f"claim {rule.claim!r} is not as required")
        elif self._claims.value(rule.expression, claims) is not True:
            raise Refused(rule.message or f"validation expression '{rule.expression}' failed")

    def _made(self, claims: dict[str, Any]) -> User:
        issuer = self.issuer
        name = self._one(issuer.username, claims, "username")
        if not name:
            raise Refused("it names nobody")
        groups = self._several(issuer.groups, claims)
        uid = self._one(issuer.uid, claims, "uid") if issuer.uid != Mapped() else ""
        extra = {}
        for key, expression in issuer.extra:
            values = _texts(self._claims.value(expression, claims), f"extra {key}")
            if values:
                extra[key] = values
        if isinstance(jti := claims.get("jti"), str) and jti:
            extra["authentication.kubernetes.io/credential-id"] = (f"JTI={jti}",)
        if reserved := next((n for n in (name, *groups) if n.startswith(_RESERVED)), ""):
            raise Refused(f"{reserved!r} is a name of the system")
        shown = {"username": name, "uid": uid, "groups": list(groups), "extra": {k: list(v) for k, v in extra.items()}}
        for rule in issuer.user_rules:
            if self._user.value(rule.expression, shown) is not True:
                raise Refused(rule.message or f"validation expression '{rule.expression}' failed")
        return User(name, tuple(dict.fromkeys((*groups, AUTHENTICATED))), uid, extra)

    def _one(self, mapped: Mapped, claims: dict[str, Any], what: str) -> str:
        if mapped.expression:
            value = self._claims.value(mapped.expression, claims)
        else:
            value = claims.get(mapped.claim)
            if mapped.claim == "email" and "email_verified" in claims and claims["email_verified"] is not True:
                raise Refused("the email address is not verified")
        if not isinstance(value, str):
            raise Refused(f"its {what} is no text")
        return mapped.prefix + value if value else ""

    def _several(self, mapped: Mapped, claims: dict[str, Any]) -> tuple[str, ...]:
        if mapped.expression:
            return _texts(self._claims.value(mapped.expression, claims), "groups")
        if not mapped.claim or claims.get(mapped.claim) is None:
            return ()
        return tuple(mapped.prefix + g for g in _texts(claims[mapped.claim], "groups"))


class _Expressions:
    """Compiled expressions over one variable."""

    def __init__(self, variable: str) -> None:
        self._variable = variable
        self._programs: dict[str, Any] = {}

    def add(self, text: str) -> None:
        """:raises ConfigError: it does not compile."""
        if not text:
            return
        from glebe.cel.environment import CompileError, Environment  # late: only configurations with CEL
        from glebe.cel.types import DYN, STRING, map_of

        try:
            self._programs[text] = Environment({self._variable: map_of(STRING, DYN)}).compile(text)
        except CompileError as error:
            raise ConfigError(f"expression {text!r} does not compile: {error}") from None

    def value(self, text: str, data: dict[str, Any]) -> Any:
        """:raises Refused: the expression fails on these claims."""
        from glebe.cel.budget import EvalError, OutOfBudget

        try:
            return self._programs[text].evaluate({self._variable: data})
        except (EvalError, OutOfBudget) as error:
            raise Refused(f"expression {text!r}: {error}") from None


def _texts(value: Any, what: str) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not all(isinstance(v, str) for v in values):
        raise Refused(f"its {what} are no texts")
    return tuple(v for v in values if v)

"""Identity providers: ``AuthenticationConfiguration`` (apiserver.config.k8s.io/v1) and the ``--oidc-*`` flags."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from glebe.kube.objects import Object

_VERSIONS = ("v1", "v1beta1")
_NO_PREFIX = "prefix is required when claim is set. It can be set to an empty string to disable prefixing"
_EXTRA_KEY = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[-._~a-z0-9/]+")


class ConfigError(ValueError):
    """The configuration makes no sense; says which field."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """Where a part of the user comes from: a claim with a prefix, or a CEL expression over ``claims``."""

    claim: str = ""
    prefix: str = ""
    expression: str = ""


@dataclass(frozen=True, slots=True)
class ClaimRule:
    """What a token must say: a claim's value, or an expression that must be true."""

    claim: str = ""
    value: str = ""
    expression: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Issuer:
    """One identity provider."""

    url: str
    audiences: tuple[str, ...]
    username: Mapped
    groups: Mapped = Mapped()
    uid: Mapped = Mapped()
    extra: tuple[tuple[str, str], ...] = ()
    """(key, expression)."""
    claim_rules: tuple[ClaimRule, ...] = ()
    user_rules: tuple[ClaimRule, ...] = ()
    discovery_url: str = ""
    ca: str = ""
    """PEM; "": the system's."""
    algorithms: tuple[str, ...] = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")


@dataclass(frozen=True, slots=True)
class AuthenticationConfiguration:
    """The whole file."""

    issuers: tuple[Issuer, ...] = ()
    anonymous: bool | None = None
    anonymous_paths: tuple[str, ...] | None = None
    warnings: tuple[str, ...] = field(default=())


def read(document: Any) -> AuthenticationConfiguration:
    """The configuration in a decoded file.

    :raises ConfigError: names the field that is wrong.
    """
    if not isinstance(document, dict) or document.get("kind") != "AuthenticationConfiguration":
        raise ConfigError("kind: must be AuthenticationConfiguration")
    group, _, version = str(document.get("apiVersion")).partition("/")
    if group != "apiserver.config.k8s.io" or version not in _VERSIONS:
        raise ConfigError("apiVersion: must be apiserver.config.k8s.io/v1 (or v1beta1)")
    issuers = tuple(_issuer(entry, f"jwt[{i}]") for i, entry in enumerate(_list(document, "jwt", "jwt")))
    urls = [i.url for i in issuers]
    for i, url in enumerate(urls):
        if url in urls[:i]:
            raise ConfigError(f"jwt[{i}].issuer.url: Duplicate value: {url!r}")
    anonymous = document.get("anonymous")
    if anonymous is None:
        return AuthenticationConfiguration(issuers)
    conditions = _list(anonymous, "conditions", "anonymous.conditions")
    if conditions and not anonymous.get("enabled"):
        raise ConfigError("anonymous.conditions: enabled should be set to true when conditions are defined")
    paths = tuple(_text(c, "path", f"anonymous.conditions[{i}].path") for i, c in enumerate(conditions))
    return AuthenticationConfiguration(issuers, bool(anonymous.get("enabled")), paths or None)


def from_flags(flags: Mapping[str, Any]) -> Issuer:
    """The provider that the ``--oidc-*`` flags describe (names without the prefix, as ``issuer_url``).

    :raises ConfigError: the client id is missing, or the URL is not HTTPS.
    """
    url, client = str(flags.get("issuer_url") or ""), str(flags.get("client_id") or "")
    if not client:
        raise ConfigError("--oidc-client-id: required with --oidc-issuer-url")
    claim = str(flags.get("username_claim") or "sub")
    prefix = flags.get("username_prefix") or ""
    if prefix == "-":
        prefix = ""
    elif not prefix and claim != "email":
        prefix = f"{url}#"
    rules = []
    for text in flags.get("required_claim") or ():
        name, equals, value = str(text).partition("=")
        if not equals:
            raise ConfigError(f"--oidc-required-claim: {text!r} is not KEY=VALUE")
        rules.append(ClaimRule(claim=name, value=value))
    return Issuer(
        url=_https(url, "--oidc-issuer-url"),
        audiences=(client,),
        username=Mapped(claim, str(prefix)),
        groups=Mapped(str(flags.get("groups_claim") or ""), str(flags.get("groups_prefix") or "")),
        claim_rules=tuple(rules),
        ca=str(flags.get("ca") or ""),
        algorithms=tuple(flags.get("signing_algs") or ("RS256",)),
    )


def _issuer(entry: Object, path: str) -> Issuer:
    issuer = entry.get("issuer") or {}
    url = _https(_text(issuer, "url", f"{path}.issuer.url"), f"{path}.issuer.url")
    audiences = tuple(str(a) for a in _list(issuer, "audiences", f"{path}.issuer.audiences"))
    if not audiences:
        raise ConfigError(f"{path}.issuer.audiences: Required value: at least one")
    if len(audiences) > 1 and issuer.get("audienceMatchPolicy") != "MatchAny":
        raise ConfigError(f"{path}.issuer.audienceMatchPolicy: must be MatchAny for multiple audiences")
    discovery = str(issuer.get("discoveryURL") or "")
    if discovery:
        _https(discovery, f"{path}.issuer.discoveryURL")
        if discovery.rstrip("/") == url.rstrip("/"):
            raise ConfigError(f"{path}.issuer.discoveryURL: must be different from URL")
    mappings = entry.get("claimMappings") or {}
    where = f"{path}.claimMappings"
    username = _mapped(mappings.get("username") or {}, f"{where}.username", prefixed=True)
    if not username.claim and not username.expression:
        raise ConfigError(f"{where}.username: Required value: claim or expression is required")
    return Issuer(
        url=url,
        audiences=audiences,
        username=username,
        groups=_mapped(mappings.get("groups") or {}, f"{where}.groups", prefixed=True),
        uid=_mapped(mappings.get("uid") or {}, f"{where}.uid"),
        extra=tuple(_extra(e, f"{where}.extra[{i}]") for i, e in enumerate(_list(mappings, "extra", f"{where}.extra"))),
        claim_rules=tuple(
            _rule(r, f"{path}.claimValidationRules[{i}]")
            for i, r in enumerate(_list(entry, "claimValidationRules", f"{path}.claimValidationRules"))
        ),
        user_rules=tuple(
            _rule(r, f"{path}.userValidationRules[{i}]", of_user=True)
            for i, r in enumerate(_list(entry, "userValidationRules", f"{path}.userValidationRules"))
        ),
        discovery_url=discovery,
        ca=str(issuer.get("certificateAuthority") or ""),
    )


def _mapped(value: Object, path: str, *, prefixed: bool = False) -> Mapped:
    claim, expression = str(value.get("claim") or ""), str(value.get("expression") or "")
    prefix = value.get("prefix")
    if claim and expression:
        raise ConfigError(f"{path}: claim and expression can't both be set")
    if expression and prefix is not None:
        raise ConfigError(f"{path}.prefix: prefix can't be set when expression is set")
    if prefixed and claim and prefix is None:
        raise ConfigError(f"{path}.prefix: Required value: {_NO_PREFIX}")
    return Mapped(claim, str(prefix or ""), expression)


def _extra(value: Object, path: str) -> tuple[str, str]:
    key, expression = _text(value, "key", f"{path}.key"), _text(value, "valueExpression", f"{path}.valueExpression")
    if not _EXTRA_KEY.fullmatch(key):
        raise ConfigError(f"{path}.key: must be a lower-case domain-prefixed path (such as example.org/key)")
    domain = key.partition("/")[0]
    if domain in ("kubernetes.io", "k8s.io") or domain.endswith((".kubernetes.io", ".k8s.io")):
        raise ConfigError(f"{path}.key: k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use")
    return key, expression


def _rule(value: Object, path: str, *, of_user: bool = False) -> ClaimRule:
    rule = ClaimRule(*(str(value.get(k) or "") for k in ("claim", "requiredValue", "expression", "message")))
    if of_user and not rule.expression:
        raise ConfigError(f"{path}.expression: Required value: expression is required")
    if bool(rule.claim) == bool(rule.expression):
        raise ConfigError(f"{path}: exactly one of claim and expression is required")
    return rule


def _https(url: str, path: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ConfigError(f"{path}: Invalid value: {url!r}: must be an https URL without user, query or fragment")
    return url


def _text(value: Object, key: str, path: str) -> str:
    found = value.get(key)
    if not isinstance(found, str) or not found:
        raise ConfigError(f"{path}: Required value")
    return found


def _list(value: Object, key: str, path: str) -> list[Any]:
    found = value.get(key) or []
    if not isinstance(found, list):
        raise ConfigError(f"{path}: must be a list")
    return found

"""Audit policies (``audit.k8s.io/v1`` Policy): how much of which request is written down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from glebe.apiserver.request.routing import Route
from glebe.kube.objects import Object
from glebe.kube.transport import User

NONE, METADATA, REQUEST, REQUEST_RESPONSE = "None", "Metadata", "Request", "RequestResponse"
LEVELS = (NONE, METADATA, REQUEST, REQUEST_RESPONSE)
STAGES = ("RequestReceived", "ResponseStarted", "ResponseComplete", "Panic")
_RULE_FIELDS = (
    "level", "users", "userGroups", "verbs", "resources", "namespaces", "nonResourceURLs", "omitStages",
    "omitManagedFields",
)  # fmt: skip


class PolicyError(ValueError):
    """The policy makes no sense; says which field."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do about one request."""

    level: str
    omit_stages: frozenset[str] = frozenset()
    omit_managed_fields: bool = False


@dataclass(frozen=True, slots=True)
class _Resources:
    group: str
    resources: tuple[str, ...]
    names: tuple[str, ...]

    def match(self, route: Route, name: str) -> bool:
        if self.group != route.group:
            return False
        if not self.resources:
            return True
        if self.names and name not in self.names:
            return False
        sub = route.subresource
        full = f"{route.resource}/{sub}" if sub else route.resource
        for wanted in self.resources:
            if wanted in ("*", full) or (sub and wanted == f"*/{sub}") or wanted == f"{route.resource}/*":
                return True
        return False


@dataclass(frozen=True, slots=True)
class _Rule:
    verdict: Verdict
    users: frozenset[str]
    groups: frozenset[str]
    verbs: frozenset[str]
    resources: tuple[_Resources, ...]
    namespaces: frozenset[str]
    urls: tuple[str, ...]

    def match(self, user: User, route: Route) -> bool:
        if self.users and user.name not in self.users:
            return False
        if self.groups and not self.groups.intersection(user.groups):
            return False
        if self.verbs and route.verb not in self.verbs:
            return False
        if self.namespaces or self.resources:
            if not route.resource or (self.namespaces and route.namespace not in self.namespaces):
                return False
            return not self.resources or any(r.match(route, route.name) for r in self.resources)
        if self.urls:
            return not route.resource and any(_url_matches(u, route.path) for u in self.urls)
        return True


class Policy:
    """Rules in order; the first that matches decides, and what none matches is not written."""

    def __init__(self, rules: tuple[_Rule, ...]) -> None:
        self._rules = rules

    def verdict(self, user: User, route: Route) -> Verdict | None:
        """``None``: the request is not written down at all."""
        for rule in self._rules:
            if rule.match(user, route):
                return None if rule.verdict.level == NONE else rule.verdict
        return None


def read(document: Any) -> Policy:
    """The policy in a decoded file.

    :raises PolicyError: names the field that is wrong.
    """
    if not isinstance(document, dict) or document.get("kind") != "Policy":
        raise PolicyError("kind: must be Policy")
    if document.get("apiVersion") != "audit.k8s.io/v1":
        raise PolicyError("apiVersion: must be audit.k8s.io/v1")
    rules = document.get("rules")
    if not isinstance(rules, list) or not rules:
        raise PolicyError("rules: Required value: a policy has at least one rule")
    stages = _stages(document, "omitStages")
    managed = bool(document.get("omitManagedFields"))
    return Policy(tuple(_rule(rule, f"rules[{i}]", stages, managed) for i, rule in enumerate(rules)))


def everything_metadata() -> Policy:
    """What is written when a log is wanted and no policy given: who did what, nothing of its content."""
    return read({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": METADATA}]})


def _rule(rule: Any, path: str, stages: frozenset[str], managed: bool) -> _Rule:
    if not isinstance(rule, dict):
        raise PolicyError(f"{path}: must be an object")
    for field in rule:
        if field not in _RULE_FIELDS:
            raise PolicyError(f'{path}: unknown field "{field}"')
    level = rule.get("level")
    if level not in LEVELS:
        raise PolicyError(f"{path}.level: Unsupported value: {level!r}: supported values: {', '.join(LEVELS)}")
    resources, urls = rule.get("resources") or [], tuple(_texts(rule, "nonResourceURLs", path))
    if urls and (resources or rule.get("namespaces")):
        raise PolicyError(f"{path}.nonResourceURLs: rules cannot apply to both regular resources and non-resource URLs")
    for url in urls:
        if url != "*" and (not url.startswith("/") or "*" in url[:-1]):
            raise PolicyError(f"{path}.nonResourceURLs: {url!r} must begin with '/' and may hold '*' at its end only")
    omit = rule.get("omitManagedFields")
    verdict = Verdict(level, stages | _stages(rule, f"{path}.omitStages"), managed if omit is None else bool(omit))
    return _Rule(
        verdict,
        frozenset(_texts(rule, "users", path)),
        frozenset(_texts(rule, "userGroups", path)),
        frozenset(_texts(rule, "verbs", path)),
        tuple(_resources(r, f"{path}.resources[{i}]") for i, r in enumerate(resources)),
        frozenset(_texts(rule, "namespaces", path)),
        urls,
    )


def _resources(value: Object, path: str) -> _Resources:
    if not isinstance(value, dict):
        raise PolicyError(f"{path}: must be an object")
    resources, names = tuple(_texts(value, "resources", path)), tuple(_texts(value, "resourceNames", path))
    if names and not resources:
        raise PolicyError(f"{path}.resourceNames: using resourceNames requires at least one resource")
    return _Resources(str(value.get("group") or ""), resources, names)


def _texts(value: Object, field: str, path: str) -> list[str]:
    found = value.get(field) or []
    if not isinstance(found, list) or not all(isinstance(v, str) for v in found):
        raise PolicyError(f"{path}.{field}: must be a list of texts")
    return found


def _stages(value: Object, path: str) -> frozenset[str]:
    found = value.get("omitStages") or []
    for stage in found:
        if stage not in STAGES:
            raise PolicyError(f"{path}: Unsupported value: {stage!r}: supported values: {', '.join(STAGES)}")
    return frozenset(found)


def _url_matches(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern[:-1]))

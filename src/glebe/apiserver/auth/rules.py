"""RBAC rules as pure functions: does a rule allow a request, do rules cover other rules."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Rule: TypeAlias = Mapping[str, Any]
"""A ``PolicyRule`` as it stands in a role."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What somebody wants to do: to a resource, or (``path`` set) to a non-resource URL."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    fields: str = ""
    """The field selector of a list or a watch."""


def allows(rule: Rule, a: Attributes) -> bool:
    """Whether one rule allows the request."""
    if not _has(rule.get("verbs"), a.verb):
        return False
    if a.path:
        return any(_url_matches(url, a.path) for url in rule.get("nonResourceURLs") or ())
    names = rule.get("resourceNames") or ()
    return (
        _has(rule.get("apiGroups"), a.group)
        and _resource_matches(rule.get("resources") or (), a.resource, a.subresource)
        and (not names or a.name in names)
    )


def _has(values: Iterable[str] | None, wanted: str) -> bool:
    return any(v in ("*", wanted) for v in values or ())


def _resource_matches(resources: Iterable[str], resource: str, subresource: str) -> bool:
    full = f"{resource}/{subresource}" if subresource else resource
    return any(r in ("*", full) or (subresource and r == f"*/{subresource}") for r in resources)


def _url_matches(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern[:-1]))


def uncovered(owned: Iterable[Rule], wanted: Iterable[Rule]) -> list[Rule]:
    """The simplest parts of ``wanted`` (one verb, one resource) that no rule of ``owned`` covers."""
    owned = list(owned)
    return [part for rule in wanted for part in _parts(rule) if not any(_covers(o, part) for o in owned)]


def _parts(rule: Rule) -> Iterator[Rule]:
    verbs = rule.get("verbs") or ()
    for verb, url in itertools.product(verbs, rule.get("nonResourceURLs") or ()):
        yield {"verbs": [verb], "nonResourceURLs": [url]}
    names = [[n] for n in rule.get("resourceNames") or ()] or [[]]
    pairs = itertools.product(verbs, rule.get("apiGroups") or (), rule.get("resources") or (), names)
    for verb, group, resource, name in pairs:
        part = {"verbs": [verb], "apiGroups": [group], "resources": [resource]}
        yield {**part, "resourceNames": name} if name else part


def _covers(owner: Rule, part: Rule) -> bool:
    if not _has(owner.get("verbs"), part["verbs"][0]):
        return False
    if "nonResourceURLs" in part:
        return any(_url_matches(url, part["nonResourceURLs"][0]) for url in owner.get("nonResourceURLs") or ())
    if not _has(owner.get("apiGroups"), part["apiGroups"][0]):
        return False
    resource, _, subresource = part["resources"][0].partition("/")
    if not _resource_matches(owner.get("resources") or (), resource, subresource):
        return False
    names, wanted = owner.get("resourceNames") or (), part.get("resourceNames") or ()
    return not names or bool(wanted and wanted[0] in names)


def show(rule: Rule) -> str:
    """A rule in the compact form that escalation errors use."""
    fields = (
        ("APIGroups", "apiGroups"), ("Resources", "resources"), ("ResourceNames", "resourceNames"),
        ("NonResourceURLs", "nonResourceURLs"), ("Verbs", "verbs"),
    )  # fmt: skip
    parts = [
        f"{title}:[{', '.join(f'{chr(34)}{v}{chr(34)}' for v in rule[key])}]" for title, key in fields if rule.get(key)
    ]
    return "{" + ", ".join(parts) + "}"

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


#: So many parts (one verb, one resource, one name) of a rule are looked at; who grants more at once grants too much.
MOST_PARTS = 20_000


class TooManyParts(ValueError):
    """A rule says more than can be looked at."""


def uncovered(owned: Iterable[Rule], wanted: Iterable[Rule]) -> list[Rule]:
    """The simplest parts of ``wanted`` (one verb, one resource) that no rule of ``owned`` covers.

    :raises TooManyParts: there would be more than :data:`MOST_PARTS` to look at.
    """
    owned, left, out = list(owned), MOST_PARTS, []
    for rule in wanted:
        if any(_covers_whole(o, rule) for o in owned):
            continue
        left -= _size(rule)
        if left < 0:
            raise TooManyParts(f"a role with more than {MOST_PARTS} combinations of verb and resource")
        near = [o for o in owned if _touches(o, rule)]
        out += [part for part in _parts(rule) if not any(_covers(o, part) for o in near)]
    return out


def _size(rule: Rule) -> int:
    resources = len(rule.get("apiGroups") or ()) * len(rule.get("resources") or ())
    names = max(len(rule.get("resourceNames") or ()), 1)
    return len(rule.get("verbs") or ()) * (len(rule.get("nonResourceURLs") or ()) + resources * names)


def _touches(owner: Rule, rule: Rule) -> bool:
    """Whether there is a verb that both may mean."""
    verbs = owner.get("verbs") or ()
    return "*" in verbs or not set(verbs).isdisjoint(rule.get("verbs") or ())


def _covers_whole(owner: Rule, rule: Rule) -> bool:
    """Whether one rule covers all of another, without taking it apart. May say no where the parts say yes."""
    if rule.get("nonResourceURLs") or owner.get("nonResourceURLs"):
        return False
    for field in ("verbs", "apiGroups", "resources"):
        have = owner.get(field) or ()
        if "*" not in have and not set(rule.get(field) or ()) <= set(have):
            return False
    names, wanted = owner.get("resourceNames") or (), rule.get("resourceNames") or ()
    return not names or (bool(wanted) and set(wanted) <= set(names))


def compact(rules: Iterable[Rule]) -> list[Rule]:
    """Rules of one resource (and name) are put together; their verbs add up."""
    out: list[dict[str, Any]] = []
    simple: dict[tuple[str, ...], dict[str, Any]] = {}
    for rule in rules:
        groups, resources = list(rule.get("apiGroups") or ()), list(rule.get("resources") or ())
        names = list(rule.get("resourceNames") or ())
        if len(groups) != 1 or len(resources) != 1 or len(names) > 1 or rule.get("nonResourceURLs"):
            out.append(dict(rule))
            continue
        key = (str(groups[0]), str(resources[0]), *map(str, names))
        known = simple.setdefault(key, {**rule, "verbs": []})
        known["verbs"] = [*known["verbs"], *rule["verbs"]]
    return [*out, *simple.values()]


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
        ("APIGroups", "apiGroups"), ("Resources", "resources"), ("NonResourceURLs", "nonResourceURLs"),
        ("ResourceNames", "resourceNames"), ("Verbs", "verbs"),
    )  # fmt: skip
    parts = [f"{title}:[{' '.join(_quoted(v) for v in rule[key])}]" for title, key in fields if rule.get(key)]
    return "{" + ", ".join(parts) + "}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

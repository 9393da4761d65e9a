"""RBAC in the form in which it is asked: per logical cluster, per user, one dictionary look-up per question.

A :class:`Policy` is made from the roles and bindings of one cluster and never changes; a change makes a new one. All
clusters without roles of their own share one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from glebe.apiserver.auth.bootstrap import Address
from glebe.apiserver.auth.rules import Rule
from glebe.kube.objects import Object
from glebe.kube.selectors import LabelSelector
from glebe.kube.transport import User

_ACCOUNT = "system:serviceaccount:"
#: Bounds of what is remembered; both are filled by what clients ask, so that they must not grow for ever.
_USERS: Final = 512
_ANSWERS: Final = 1024

#: (reason) when it is allowed for any name, and the reasons for single names.
_Answer = tuple["str | None", "Mapping[str, str] | None"]
_NO: Final[_Answer] = (None, None)


class Grant:
    """One binding as it concerns one of its subjects."""

    __slots__ = ("binding", "rules", "subject")

    def __init__(self, binding: Object, subject: Object, rules: list[Rule]) -> None:
        self.binding = binding
        self.subject = subject
        self.rules = rules

    def reason(self) -> str:
        """As upstream explains an allowed request."""
        meta, reference, subject = self.binding["metadata"], self.binding["roleRef"], self.subject
        space = meta.get("namespace", "")
        kind = "RoleBinding" if space else "ClusterRoleBinding"
        where = f"{meta['name']}/{space}" if space else meta["name"]
        who = f'{subject["kind"]} "{subject["name"]}"'
        if subject["kind"] == "ServiceAccount":
            who = f'ServiceAccount "{subject["name"]}/{subject.get("namespace") or space}"'
        return f'RBAC: allowed by {kind} "{where}" of {reference["kind"]} "{reference["name"]}" to {who}'


class _Rights:
    """What one user may do: grants by namespace ("" is everywhere), and the answers given so far."""

    __slots__ = ("answers", "grants")

    def __init__(self, grants: dict[str, list[Grant]]) -> None:
        self.grants = grants
        self.answers: dict[tuple[str, str, str, str, str], _Answer] = {}

    def of(self, namespace: str) -> Iterator[Grant]:
        yield from self.grants.get("", ())
        if namespace:
            yield from self.grants.get(namespace, ())

    def answer(self, key: tuple[str, str, str, str, str]) -> _Answer:
        """The answer to (namespace, verb, group, resource[/subresource], "") or (.., verb, "", "", path)."""
        found = self._search(*key)
        if len(self.answers) >= _ANSWERS:
            self.answers.clear()
        self.answers[key] = found
        return found

    def _search(self, namespace: str, verb: str, group: str, resource: str, path: str) -> _Answer:
        names: dict[str, str] = {}
        for grant in self.of(namespace):
            for rule in grant.rules:
                if not _has(rule.get("verbs"), verb):
                    continue
                if path:
                    if any(_url_matches(url, path) for url in rule.get("nonResourceURLs") or ()):
                        return grant.reason(), None
                    continue
                if not _has(rule.get("apiGroups"), group) or not _names(rule.get("resources"), resource):
                    continue
                only = rule.get("resourceNames")
                if not only:
                    return grant.reason(), names or None
                for name in only:
                    names.setdefault(name, grant.reason())
        return (None, names) if names else _NO


def _has(values: Any, wanted: str) -> bool:
    return bool(values) and (wanted in values or "*" in values)


def _names(resources: Any, full: str) -> bool:
    if not resources:
        return False
    if full in resources or "*" in resources:
        return True
    _, slash, subresource = full.partition("/")
    return bool(slash) and f"*/{subresource}" in resources


def _url_matches(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern[:-1]))


class Policy:
    """The roles and bindings of one cluster, indexed by whom they speak of.

    :param objects: by resource (``.bootstrap`` names them) and address.
    """

    def __init__(
        self,
        roles: Mapping[Address, Object],
        cluster_roles: Mapping[Address, Object],
        bindings: Mapping[Address, Object],
        cluster_bindings: Mapping[Address, Object],
    ) -> None:
        self._roles = roles
        self._cluster_roles = cluster_roles
        self._of_users: dict[str, list[tuple[str, Grant]]] = {}
        self._of_groups: dict[str, list[tuple[str, Grant]]] = {}
        self._rights: dict[tuple[str, tuple[str, ...]], _Rights] = {}
        effective: dict[tuple[str, str, str], list[Rule] | None] = {}
        for address, binding in [*sorted(cluster_bindings.items()), *sorted(bindings.items())]:
            self._index(address[0], binding, effective)

    def _index(self, space: str, binding: Object, effective: dict[tuple[str, str, str], list[Rule] | None]) -> None:
        reference = binding.get("roleRef") or {}
        key = (space, str(reference.get("kind")), str(reference.get("name")))
        if key not in effective:
            effective[key] = self.rules_of_role(reference, space)
        rules = effective[key]
        if not rules:
            return
        for subject in binding.get("subjects") or ():
            kind, name = subject.get("kind"), str(subject.get("name"))
            index = self._of_groups if kind == "Group" else self._of_users
            if kind == "ServiceAccount":
                owner = subject.get("namespace") or space
                if not owner:
                    continue
                name = f"{_ACCOUNT}{owner}:{name}"
            elif kind not in ("User", "Group"):
                continue
            index.setdefault(name, []).append((space, Grant(binding, subject, rules)))

    def rules_of_role(self, reference: Object, namespace: str) -> list[Rule] | None:
        """The rules of a ``roleRef``; ``None`` when the role does not exist."""
        name = str(reference.get("name"))
        if reference.get("kind") != "ClusterRole":
            role = self._roles.get((namespace, name))
            return None if role is None else list(role.get("rules") or ())
        role = self._cluster_roles.get(("", name))
        return None if role is None else aggregated(role, self._cluster_roles)

    def _rights_of(self, user: User) -> _Rights:
        key = (user.name, user.groups)
        found = self._rights.get(key)
        if found is None:
            grants: dict[str, list[Grant]] = {}
            for space, grant in self._of_users.get(user.name, ()):
                grants.setdefault(space, []).append(grant)
            for group in user.groups:
                for space, grant in self._of_groups.get(group, ()):
                    grants.setdefault(space, []).append(grant)
            if len(self._rights) >= _USERS:
                self._rights.pop(next(iter(self._rights)))
            found = self._rights[key] = _Rights(grants)
        return found

    def decide(
        self, user: User, verb: str, group: str, resource: str, namespace: str, name: str, path: str
    ) -> str | None:
        """Why it is allowed, or ``None``. ``resource`` holds the subresource, too (``pods/log``)."""
        rights = self._rights.get((user.name, user.groups)) or self._rights_of(user)
        key = (namespace, verb, group, resource, path)
        always, names = rights.answers.get(key) or rights.answer(key)
        if always is not None or names is None:
            return always
        return names.get(name) if name else None

    def rules_of(self, user: User, namespace: str) -> list[Rule]:
        """Everything that ``user`` may do in ``namespace`` (or, without one, everywhere)."""
        return [rule for grant in self._rights_of(user).of(namespace) for rule in grant.rules]


def aggregated(role: Object, roles: Mapping[Address, Object], seen: set[str] | None = None) -> list[Rule]:
    """A role's rules; an aggregated role has those of the roles that its selectors choose, each rule once.

    Aggregates may contain aggregates (admin > edit > view), also in a circle.
    """
    selectors = (role.get("aggregationRule") or {}).get("clusterRoleSelectors")
    if not selectors:
        return list(role.get("rules") or ())
    seen = {role["metadata"]["name"]} if seen is None else seen
    parsed = [LabelSelector.from_object(s) for s in selectors]
    out: list[Rule] = []
    for (_, name), part in sorted(roles.items()):
        if name not in seen and any(s.matches(part["metadata"].get("labels") or {}) for s in parsed):
            seen.add(name)
            out += [rule for rule in aggregated(part, roles, seen) if rule not in out]
    return out

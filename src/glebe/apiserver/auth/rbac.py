"""Role-based access control over the stored roles and bindings, with the bootstrap policy underneath."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from glebe.apiserver.auth import Lookup, bootstrap
from glebe.apiserver.auth.rules import Attributes, Rule, allows
from glebe.kube.objects import Object
from glebe.kube.selectors import LabelSelector
from glebe.kube.transport import User

GROUP = "rbac.authorization.k8s.io"
ROLES, BINDINGS = f"roles.{GROUP}", f"rolebindings.{GROUP}"
CLUSTER_ROLES, CLUSTER_BINDINGS = f"clusterroles.{GROUP}", f"clusterrolebindings.{GROUP}"
MASTERS = "system:masters"


class RbacAuthorizer:
    """Reads roles and bindings at each request, so that a change holds from the next request on.

    A stored object replaces the bootstrap object of the same name.
    """

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    async def authorize(
        self,
        user: User,
        cluster: str,
        verb: str,
        group: str,
        resource: str,
        subresource: str,
        namespace: str,
        name: str,
        path: str,
    ) -> tuple[bool, str]:
        """Whether ``user`` may do it, and which binding says so."""
        return self.decide(user, cluster, Attributes(verb, group, resource, subresource, namespace, name, path))

    def decide(self, user: User, cluster: str, a: Attributes) -> tuple[bool, str]:
        """The same without the ceremony."""
        if MASTERS in user.groups:
            return True, ""
        for binding, rules in self._bindings(user, cluster, a.namespace):
            if any(allows(rule, a) for rule in rules):
                return True, f"RBAC: allowed by {_describe(binding, user)}"
        return False, ""

    def rules_of(self, user: User, cluster: str, namespace: str = "") -> list[Rule]:
        """Everything that ``user`` may do in ``namespace`` (or only cluster-wide)."""
        if MASTERS in user.groups:
            return list(bootstrap.EVERYTHING)
        return [rule for _, rules in self._bindings(user, cluster, namespace) for rule in rules]

    def rules_of_role(self, cluster: str, reference: Object, namespace: str) -> list[Rule] | None:
        """The rules of a ``roleRef``; ``None`` when the role does not exist."""
        if reference.get("kind") == "ClusterRole":
            role = self._cluster_role(cluster, str(reference.get("name")))
            return None if role is None else self._effective(cluster, role)
        role = self._lookup.read(cluster, ROLES, namespace, str(reference.get("name")))
        return None if role is None else list(role.get("rules") or ())

    # --- evaluation

    def _bindings(self, user: User, cluster: str, namespace: str) -> Iterator[tuple[Object, list[Rule]]]:
        """The bindings that speak of ``user`` and apply in ``namespace``, with their roles' rules."""
        for binding in self._cluster_bindings(cluster):
            if _speaks_of(binding, user, ""):
                yield binding, self.rules_of_role(cluster, binding["roleRef"], "") or []
        if not namespace:
            return
        for binding in self._lookup.read_all(cluster, BINDINGS, namespace):
            if _speaks_of(binding, user, namespace):
                yield binding, self.rules_of_role(cluster, binding["roleRef"], namespace) or []

    def _cluster_bindings(self, cluster: str) -> Iterator[Object]:
        stored = self._lookup.read_all(cluster, CLUSTER_BINDINGS)
        names = {b["metadata"]["name"] for b in stored}
        yield from stored
        for name, binding in bootstrap.cluster_role_bindings().items():
            if name not in names:
                yield binding

    def _cluster_role(self, cluster: str, name: str) -> Object | None:
        return self._lookup.read(cluster, CLUSTER_ROLES, "", name) or bootstrap.cluster_roles().get(name)

    def _effective(self, cluster: str, role: Object) -> list[Rule]:
        """A role's rules; an aggregated role has those of the roles that its selectors choose."""
        if not (role.get("aggregationRule") or {}).get("clusterRoleSelectors"):
            return list(role.get("rules") or ())
        stored = {r["metadata"]["name"]: r for r in self._lookup.read_all(cluster, CLUSTER_ROLES)}
        return _aggregated(role, {**bootstrap.cluster_roles(), **stored}, {role["metadata"]["name"]})


def _aggregated(role: Object, roles: dict[str, Object], seen: set[str]) -> list[Rule]:
    """The rules of all roles that ``role`` selects, each once: aggregates may contain aggregates (admin > edit > view),
    also in a circle.
    """
    selectors = (role.get("aggregationRule") or {}).get("clusterRoleSelectors")
    if not selectors:
        return list(role.get("rules") or ())
    parsed = [LabelSelector.from_object(s) for s in selectors]
    out: list[Rule] = []
    for name, part in sorted(roles.items()):
        labels = part["metadata"].get("labels") or {}
        if name not in seen and any(s.matches(labels) for s in parsed):
            seen.add(name)
            out += _aggregated(part, roles, seen)
    return out


def _speaks_of(binding: Object, user: User, namespace: str) -> bool:
    return any(_is(subject, user, namespace) for subject in binding.get("subjects") or ())


def _is(subject: dict[str, Any], user: User, namespace: str) -> bool:
    match subject.get("kind"):
        case "User":
            return bool(subject.get("name") == user.name)
        case "Group":
            return subject.get("name") in user.groups
        case "ServiceAccount":
            space = subject.get("namespace") or namespace
            return bool(space) and user.name == f"system:serviceaccount:{space}:{subject.get('name')}"
    return False


def _describe(binding: Object, user: User) -> str:
    meta, reference = binding["metadata"], binding["roleRef"]
    space = meta.get("namespace", "")
    kind = "RoleBinding" if space else "ClusterRoleBinding"
    subject = next(s for s in binding["subjects"] if _is(s, user, space))
    where = f"{meta['name']}/{space}" if space else meta["name"]
    who = f'{subject["kind"]} "{subject["name"]}"'
    if subject["kind"] == "ServiceAccount":
        who = f'ServiceAccount "{subject["name"]}/{subject.get("namespace") or space}"'
    return f'{kind} "{where}" of {reference["kind"]} "{reference["name"]}" to {who}'

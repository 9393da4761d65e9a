"""Nobody gives rights that they do not have: the check on writing roles and bindings."""

from __future__ import annotations

from glebe.apiserver.admission.base import AdmissionAttributes
from glebe.apiserver.auth.bootstrap import EVERYTHING
from glebe.apiserver.auth.rbac import (
    BINDINGS,
    CLUSTER_BINDINGS,
    CLUSTER_ROLES,
    GROUP,
    MASTERS,
    ROLES,
    RbacAuthorizer,
)
from glebe.apiserver.auth.rules import Attributes, Rule, TooManyParts, compact, show, uncovered
from glebe.kube import errors
from glebe.kube.objects import Object
from glebe.kube.transport import User

_SHOWN = 100
_GARBAGE = ("ownerReferences", "finalizers", "resourceVersion", "managedFields")
_ROLES = ("roles", "clusterroles")
_BINDINGS = ("rolebindings", "clusterrolebindings")


class EscalationCheck:
    """An admission plugin. The verbs ``escalate`` (roles) and ``bind`` (bindings) lift the check."""

    resources = frozenset((ROLES, CLUSTER_ROLES, BINDINGS, CLUSTER_BINDINGS))

    def __init__(self, authorizer: RbacAuthorizer) -> None:
        self._authorizer = authorizer

    async def validate(self, a: AdmissionAttributes) -> None:
        if a.info.group != GROUP or a.operation not in ("CREATE", "UPDATE") or a.obj is None:
            return
        if MASTERS in a.user.groups:
            return
        if a.info.plural in _ROLES:
            self._check_role(a, a.obj)
        elif a.info.plural in _BINDINGS:
            self._check_binding(a, a.obj)

    def _check_role(self, a: AdmissionAttributes, role: Object) -> None:
        # Labels count, too: an aggregated role may collect this one by them.
        if _only_for_garbage(role, a.old) or self._may(a, "escalate", a.info.plural, a.name):
            return
        wanted: list[Rule] = list(role.get("rules") or ())
        if role.get("aggregationRule") or (a.old or {}).get("aggregationRule"):
            wanted += EVERYTHING
        self._require(a, wanted)

    def _check_binding(self, a: AdmissionAttributes, binding: Object) -> None:
        if _only_for_garbage(binding, a.old):
            return
        reference = binding.get("roleRef") or {}
        resource = "clusterroles" if reference.get("kind") == "ClusterRole" else "roles"
        name = str(reference.get("name"))
        if self._may(a, "bind", resource, name):
            return
        rules = self._authorizer.rules_of_role(a.cluster, reference, a.namespace)
        if rules is None:
            raise errors.not_found(GROUP, resource, name)
        self._require(a, rules)

    def _may(self, a: AdmissionAttributes, verb: str, resource: str, name: str) -> bool:
        wanted = Attributes(verb, GROUP, resource, namespace=a.namespace, name=name)
        return self._authorizer.decide(a.user, a.cluster, wanted)[0]

    def _require(self, a: AdmissionAttributes, wanted: list[Rule]) -> None:
        try:
            missing = uncovered(self._authorizer.rules_of(a.user, a.cluster, a.namespace), wanted)
        except TooManyParts as error:
            raise errors.forbidden(GROUP, a.info.plural, a.name, f"cannot be checked for escalation: {error}") from None
        if missing:
            raise errors.forbidden(GROUP, a.info.plural, a.name, _message(a.user, missing))


def _only_for_garbage(new: Object, old: Object | None) -> bool:
    """Whether an update changes nothing but what garbage collection needs (owners and finalizers)."""
    if old is None:
        return False
    if any(new.get(k) != old.get(k) for k in {**new, **old} if k != "metadata"):
        return False
    meta, before = new["metadata"], old["metadata"]
    return all(meta.get(k) == before.get(k) for k in {**meta, **before} if k not in _GARBAGE)


def _message(user: User, missing: list[Rule]) -> str:
    groups = " ".join(f'"{g}"' for g in user.groups)
    lines = sorted({show(rule) for rule in compact(missing)})
    listed = "\n".join(lines[:_SHOWN] + (["..."] if len(lines) > _SHOWN else []))
    return (
        f'user "{user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n{listed}'
    )

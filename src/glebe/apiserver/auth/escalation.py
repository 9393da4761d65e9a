"""Nobody gives rights that they do not have: the check on writing roles and bindings."""

from __future__ import annotations

from glebe.apiserver.admission.base import AdmissionAttributes
from glebe.apiserver.auth.rbac import (
    BINDINGS,
    CLUSTER_BINDINGS,
    CLUSTER_ROLES,
    GROUP,
    MASTERS,
    ROLES,
    RbacAuthorizer,
)
from glebe.apiserver.auth.rules import Attributes, Rule, show, uncovered
from glebe.kube import errors
from glebe.kube.objects import Object
from glebe.kube.transport import User

_ROLES = ("roles", "clusterroles")
_BINDINGS = ("rolebindings", "clusterrolebindings")


class EscalationCheck:
    """An admission plugin. The verbs ``escalate`` (roles) and ``bind`` (bindings) lift the check."""

    resources = frozenset((ROLES, CLUSTER_ROLES, BINDINGS, CLUSTER_BINDINGS))

    def __init__(self, authorizer: RbacAuthorizer) -> None:
        self._authorizer = authorizer

    async def admit(self, a: AdmissionAttributes) -> None:
        if a.info.group != GROUP or a.operation not in ("CREATE", "UPDATE") or a.obj is None:
            return
        if MASTERS in a.user.groups:
            return
        if a.info.plural in _ROLES:
            self._check_role(a, a.obj)
        elif a.info.plural in _BINDINGS:
            self._check_binding(a, a.obj)

    def _check_role(self, a: AdmissionAttributes, role: Object) -> None:
        same = a.old is not None and all(a.old.get(k) == role.get(k) for k in ("rules", "aggregationRule"))
        if same or self._may(a, "escalate", a.info.plural, a.name):
            return
        wanted: list[Rule] = list(role.get("rules") or ())
        if role.get("aggregationRule"):
            wanted += [
                {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
                {"nonResourceURLs": ["*"], "verbs": ["*"]},
            ]
        self._require(a, wanted)

    def _check_binding(self, a: AdmissionAttributes, binding: Object) -> None:
        keys = ("roleRef", "subjects")
        if a.old is not None and all(a.old.get(k) == binding.get(k) for k in keys):
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
        missing = uncovered(self._authorizer.rules_of(a.user, a.cluster, a.namespace), wanted)
        if missing:
            raise errors.forbidden(GROUP, a.info.plural, a.name, _message(a.user, missing))


def _message(user: User, missing: list[Rule]) -> str:
    groups = ", ".join(f'"{g}"' for g in user.groups)
    listed = "\n".join(show(rule) for rule in missing)
    return (
        f'user "{user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n{listed}'
    )

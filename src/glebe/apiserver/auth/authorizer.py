"""Everybody who decides what may be done, asked in turn: ``system:masters``, nodes, RBAC."""

from __future__ import annotations

from glebe.apiserver.auth.nodes import NodeAuthorizer, node_of
from glebe.apiserver.auth.rbac import MASTERS, RbacAuthorizer
from glebe.apiserver.auth.rules import Attributes, Rule
from glebe.kube.objects import Object
from glebe.kube.transport import User


class Authorizers:
    """The server's authorizer: Node and RBAC (as upstream's ``--authorization-mode=Node,RBAC``)."""

    def __init__(self, rbac: RbacAuthorizer, nodes: NodeAuthorizer) -> None:
        self.rbac = rbac
        self._nodes = nodes

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
        fields: str = "",
    ) -> tuple[bool, str]:
        """(allowed, why)."""
        why = ""
        if user.name.startswith("system:node:") and (node := node_of(user)) is not None:
            asked = Attributes(verb, group, resource, subresource, namespace, name, path, fields)
            allowed, why = self._nodes.decide(node, cluster, asked)
            if allowed:
                return True, why
        if subresource:
            resource = f"{resource}/{subresource}"
        reason = self.rbac.policy(cluster).decide(user, verb, group, resource, namespace, name, path)
        return (False, why) if reason is None else (True, reason)

    async def decide(self, user: User, cluster: str, a: Attributes) -> tuple[bool, str]:
        """The same for a question in one piece; members of ``system:masters`` may do everything."""
        if MASTERS in user.groups:
            return True, ""
        return await self.authorize(
            user, cluster, a.verb, a.group, a.resource, a.subresource, a.namespace, a.name, a.path, a.fields
        )

    def rules_of(self, user: User, cluster: str, namespace: str = "") -> list[Rule]:
        """Everything that ``user`` may do by RBAC in ``namespace`` (or only cluster-wide)."""
        return self.rbac.rules_of(user, cluster, namespace)

    def rules_of_role(self, cluster: str, reference: Object, namespace: str) -> list[Rule] | None:
        """The rules of a ``roleRef``; ``None`` when the role does not exist."""
        return self.rbac.rules_of_role(cluster, reference, namespace)

    def incomplete(self, user: User) -> str:
        """Why :meth:`rules_of` cannot list everything; "" when it can."""
        return "node authorizer does not support user rule resolution" if node_of(user) is not None else ""

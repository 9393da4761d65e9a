"""OwnerReferencesPermissionEnforcement: who names an owner must have rights of his own (off unless asked for).

Changing the owners of an object needs the right to delete it; an owner that cannot be deleted before it
(``blockOwnerDeletion``) needs the right to set that owner's finalizers (``plugin/pkg/admission/gc``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from glebe.apiserver.admission.base import AdmissionAttributes, BuiltinPlugin
from glebe.kube.objects import Object

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer

_MASTERS = "system:masters"


class OwnerReferencesPermissionEnforcement(BuiltinPlugin):
    name = "OwnerReferencesPermissionEnforcement"

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    async def validate(self, a: AdmissionAttributes) -> None:
        if a.obj is None or a.operation not in ("CREATE", "UPDATE"):
            return
        if a.info.group_resource == "pods" and a.subresource == "status":
            return  # cannot change owners
        new, old = _owners(a.obj), _owners(a.old)
        if new == old:
            return
        if a.operation != "CREATE":
            allowed, why = await self._may(a, "delete", a.info.group, a.info.plural, a.subresource, a.namespace, a.name)
            if not allowed:
                raise a.refusal(f"cannot set an ownerRef on a resource you can't delete: {why}, <nil>")
        blocking = _newly_blocking(new, old)
        if not blocking or (await self._may(a, "update", "*", "*", "finalizers", "", "*"))[0]:
            return
        for reference in blocking:
            await self._check(a, reference)

    async def _check(self, a: AdmissionAttributes, reference: dict[str, Any]) -> None:
        group, _, version = reference.get("apiVersion", "").rpartition("/")
        kind = reference.get("kind", "")
        infos = [
            info
            for info in self._server.registry.resources(a.cluster)
            if (info.group, info.version, info.kind) == (group, version, kind)
        ]
        if not infos:
            where = f"APIVersion {reference.get('apiVersion')} Kind {kind}"
            text = f"cannot set blockOwnerDeletion in this case because cannot find RESTMapping for {where}"
            raise a.refusal(f'{text}: no matches for kind "{kind}" in version "{reference.get("apiVersion")}"')
        for info in infos:
            namespace = a.namespace if info.namespaced else ""
            allowed, why = await self._may(
                a, "update", info.group, info.plural, "finalizers", namespace, reference.get("name", "")
            )
            if not allowed:
                text = "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set"
                raise a.refusal(f"{text} finalizers on: {why}, <nil>")

    async def _may(
        self, a: AdmissionAttributes, verb: str, group: str, resource: str, sub: str, namespace: str, name: str
    ) -> tuple[bool, str]:
        authorizer = self._server.authorizer
        if authorizer is None or _MASTERS in a.user.groups:
            return True, ""
        return await authorizer.authorize(a.user, a.cluster, verb, group, resource, sub, namespace, name, "")


def _owners(obj: Object | None) -> list[dict[str, Any]]:
    return list(((obj or {}).get("metadata") or {}).get("ownerReferences") or ())


def _newly_blocking(new: list[dict[str, Any]], old: list[dict[str, Any]]) -> list[dict[str, Any]]:
    blocked = {o.get("uid") for o in old if o.get("blockOwnerDeletion")}
    return [o for o in new if o.get("blockOwnerDeletion") and o.get("uid") not in blocked]

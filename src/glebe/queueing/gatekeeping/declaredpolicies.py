"""Admission policies for kinds of jobs that somebody declared, on a Kubernetes that is not embedded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from glebe.kube.client import Client
from glebe.kube.errors import is_not_found
from glebe.kube.objects import Object
from glebe.queueing import labels
from glebe.queueing.gatekeeping.policy import Group, of_group
from glebe.queueing.gatekeeping.policyparts import (
    VALIDATING_BINDINGS,
    VALIDATING_POLICIES,
    mutating_bindings,
    mutating_policies,
)
from glebe.queueing.jobkinds.model import JobKind


def objects(kinds: Sequence[JobKind], version: str = "v1") -> list[Object]:
    """Policies and bindings of all of them, marked as such."""
    out: list[Object] = []
    for kind in kinds:
        name = f"declared-{kind.resource.plural}-{kind.resource.group.replace('.', '-')}"
        out.extend(of_group(Group(name, (kind,)), version))
    for obj in out:
        obj["metadata"]["labels"] = {labels.DECLARED_KIND: "true"}
    return out


def bringing(
    client: Client, version_of: Callable[[], Awaitable[str | None]]
) -> Callable[[Sequence[JobKind]], Awaitable[None]]:
    """What brings the policies of the kinds that are declared now, and takes those of others away.

    :param version_of: the version of MutatingAdmissionPolicy that the cluster serves; None: it serves none.
    """

    async def bring(kinds: Sequence[JobKind]) -> None:
        version = await version_of()
        if version is None:
            return
        resources = (mutating_policies(version), mutating_bindings(version), VALIDATING_POLICIES, VALIDATING_BINDINGS)
        wanted = objects(kinds, version)
        for resource in resources:
            mine = [obj for obj in wanted if obj["kind"] == resource.kind]
            for obj in mine:
                await client.apply(resource, obj, field_manager="glebe", force=True)
            names = {obj["metadata"]["name"] for obj in mine}
            known = await client.list(resource, label_selector=f"{labels.DECLARED_KIND}=true")
            for obj in known.items:
                if obj["metadata"]["name"] not in names:
                    try:
                        await client.delete(resource, obj["metadata"]["name"])
                    except Exception as error:
                        if not is_not_found(error):
                            raise

    return bring

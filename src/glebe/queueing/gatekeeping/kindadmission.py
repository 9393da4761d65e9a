"""The rules of :mod:`.validation` inside the embedded server, for whoever is not the platform itself."""

from __future__ import annotations

from glebe.apiserver.admission.base import AdmissionAttributes
from glebe.kube.errors import invalid
from glebe.kube.resources import CLUSTER_QUEUES, COHORTS, RESOURCE_FLAVORS, WORKLOADS
from glebe.kube.transport import PLATFORM
from glebe.queueing.gatekeeping.validation import faults
from glebe.queueing.versions import NEW, convert


class KindAdmission:
    """A plugin. The platform's own writes are not looked at: they are many, and made by who knows the rules."""

    resources = frozenset(kind.group_resource for kind in (CLUSTER_QUEUES, COHORTS, RESOURCE_FLAVORS, WORKLOADS))

    async def admit(self, a: AdmissionAttributes) -> None:
        """:raises ApiError: 422, with every fault."""
        if a.user is PLATFORM or a.obj is None or a.operation not in ("CREATE", "UPDATE"):
            return
        try:
            new, *before = convert([a.obj, *([a.old] if a.old is not None else [])], NEW)
            causes = faults(a.info.kind, new, before[0] if before else None)
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # the schema says better what is wrong with it
        if causes:
            raise invalid(a.info.group, a.info.kind, a.name or a.obj["metadata"].get("name", ""), causes)

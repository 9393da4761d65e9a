"""What tenants may not write though they may do everything in their own clusters: what the shared queue believes.

A Workload says what its job asks for and what it was given, a LocalQueue's status what was used. In a tenant's cluster
they are written by the platform; the tenant changes ``spec.active``, deletes, and writes LocalQueues' specs. Likewise
the definitions of these kinds stay as the platform brought them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from glebe.apiserver.admission.base import AdmissionAttributes
from glebe.kube.objects import Object
from glebe.kube.resources import CUSTOM_RESOURCE_DEFINITIONS, LOCAL_QUEUES, WORKLOADS
from glebe.kube.transport import PLATFORM
from glebe.queueing.tenants import tenancy

_DEFINITIONS = frozenset((LOCAL_QUEUES.group_resource, WORKLOADS.group_resource))
_OF_THE_QUEUE = ("labels", "annotations", "ownerReferences")


class TenantGuard:
    """A validating plugin of the embedded server.

    :param serves: the logical clusters whose jobs are the queue's business; may be set later.
    """

    resources = frozenset((*_DEFINITIONS, CUSTOM_RESOURCE_DEFINITIONS.group_resource))

    def __init__(self, serves: Callable[[str], bool] = lambda cluster: False) -> None:
        self.serves = serves

    async def admit(self, a: AdmissionAttributes) -> None:
        """:raises ApiError: 403."""
        if a.user is PLATFORM or not tenancy.is_foreign(a.cluster) or not self.serves(a.cluster):
            return
        if a.info.plural == CUSTOM_RESOURCE_DEFINITIONS.plural:
            if a.operation in ("UPDATE", "DELETE") and a.name in _DEFINITIONS:
                raise a.refusal("the platform's queue uses this definition; only the platform changes it")
        elif a.subresource == "status":
            raise a.refusal("its status is written by the platform's queue only")
        elif a.info.plural == WORKLOADS.plural:
            self._workload(a)

    @staticmethod
    def _workload(a: AdmissionAttributes) -> None:
        if a.operation == "CREATE":
            raise a.refusal("Workloads are made by the platform's queue: create a job with the queue's label")
        if a.operation == "UPDATE" and a.old is not None and a.obj is not None and _facts(a.old) != _facts(a.obj):
            raise a.refusal("only spec.active of a Workload may be changed: change its job instead")


def _facts(workload: Object) -> tuple[Any, ...]:
    spec = {name: value for name, value in (workload.get("spec") or {}).items() if name != "active"}
    meta = workload["metadata"]
    return spec, *(meta.get(name) or None for name in _OF_THE_QUEUE)

"""What must be fulfilled beyond quota: AdmissionCheck, ProvisioningRequestConfig. And MultiKueue, which is refused."""

# ruff: noqa: RUF012 - msgspec copies empty mutable defaults for every instance
from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta

from glebe.kube.crdgen import Rule
from glebe.queueing.types.common import (
    LABEL_PATTERN,
    OPEN,
    SET,
    SUBDOMAIN_PATTERN,
    Base,
    Conditions,
    ObjectName,
    ResourceName,
    list_map,
)

Int32 = Annotated[int, Meta(extra_json_schema={"format": "int32"})]
_MULTIKUEUE = "MultiKueue is not served by Glebe: one queue covers all its logical clusters without it"


class CheckParameters(Base):
    """Where the check's own settings are."""

    api_group: Annotated[str, Meta(min_length=1, max_length=253, pattern=SUBDOMAIN_PATTERN)]
    """API group of the settings."""
    kind: Annotated[str, Meta(min_length=1, max_length=63, pattern=r"^[A-Za-z]([-A-Za-z0-9]*[A-Za-z0-9])?$")]
    """Kind of the settings."""
    name: Annotated[str, Meta(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    """Name of the settings."""


_CONTROLLER_RULES = {
    "x-kubernetes-validations": [
        {"rule": "self == oldSelf", "message": "controllerName is immutable"},
        {"rule": "self != 'kueue.x-k8s.io/multikueue'", "message": _MULTIKUEUE},
    ]
}


class AdmissionCheckSpec(Base):
    """Who checks, and with which settings."""

    controller_name: Annotated[str, Meta(min_length=1, max_length=253, extra_json_schema=_CONTROLLER_RULES)]
    """Who works on the check, e.g. kueue.x-k8s.io/provisioning-request."""
    parameters: CheckParameters | None = None
    """Where the check's own settings are."""


class AdmissionCheckStatus(Base):
    """Whether somebody works on the check."""

    conditions: Conditions = []
    """Active says whether the check's controller is ready to work on it."""


class AdmissionCheck(Base):
    """Something beyond quota that must be fulfilled before a workload starts."""

    spec: AdmissionCheckSpec | None = None
    """Who checks, and with which settings."""
    status: AdmissionCheckStatus | None = None
    """Whether somebody works on the check."""


class RetryStrategy(Base):
    """When a request that failed is made again."""

    backoff_limit_count: Int32 = 3
    """How often at most; after that the workload is deactivated."""
    backoff_base_seconds: Int32 = 60
    """The first wait; each further one is twice as long."""
    backoff_max_seconds: Int32 = 1800
    """The longest wait."""


class SelectorFromDetail(Base):
    """A node selector whose value is told by the ProvisioningRequest."""

    key: Annotated[str, Meta(min_length=1, max_length=317, pattern=LABEL_PATTERN)]
    """The node label."""
    value_from_provisioning_class_detail: Annotated[str, Meta(min_length=1, max_length=32768)]
    """Key of status.provisioningClassDetails that holds the value."""


class ProvisionedUpdates(Base):
    """How pods find the nodes that were made for them."""

    node_selector: Annotated[list[SelectorFromDetail], Meta(max_length=8, extra_json_schema=list_map("key"))] = []
    """Node selectors to add."""


class ProvisioningRequestConfigSpec(Base):
    """How nodes are asked for."""

    provisioning_class_name: ObjectName
    """The class of the ProvisioningRequest."""
    parameters: Annotated[dict[str, Annotated[str, Meta(max_length=255)]], Meta(max_length=100)] = {}
    """Parameters of the class."""
    managed_resources: Annotated[list[ResourceName], Meta(max_length=100, extra_json_schema=SET)] = []
    """Only pod sets that ask for one of these are put into the request; empty means all."""
    retry_strategy: Annotated[
        RetryStrategy | None,
        Meta(extra={"default": {"backoffLimitCount": 3, "backoffBaseSeconds": 60, "backoffMaxSeconds": 1800}}),
    ] = None
    """When a request that failed is made again."""
    pod_set_updates: ProvisionedUpdates | None = None
    """How pods find the nodes that were made for them."""
    pod_set_merge_policy: Literal["IdenticalPodTemplates", "IdenticalWorkloadSchedulingRequirements"] | None = None
    """Which pod sets are asked for as one."""


class ProvisioningRequestConfig(Base):
    """Settings of admission checks that ask an autoscaler for nodes (kueue.x-k8s.io/provisioning-request)."""

    spec: ProvisioningRequestConfigSpec | None = None
    """How nodes are asked for."""


class _Refused(Base):
    """Base of kinds that are served only to say why there are none."""

    spec: Annotated[dict[str, Any] | None, Meta(extra_json_schema=OPEN)] = None
    """Not looked at."""

    validations: ClassVar[tuple[Rule, ...]] = (Rule("false", _MULTIKUEUE),)


class MultiKueueCluster(_Refused):
    """Refused with a reason: Glebe does not hand workloads to other Kueue installations."""


class MultiKueueConfig(_Refused):
    """Refused with a reason: Glebe does not hand workloads to other Kueue installations."""

"""Who may use how much: ClusterQueue, Cohort, LocalQueue."""

# ruff: noqa: RUF012 - msgspec copies empty mutable defaults for every instance
from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from glebe.kube.crdgen import Rule
from glebe.queueing.types.common import (
    ATOMIC,
    SET,
    Base,
    CheckName,
    Conditions,
    Count,
    FairSharing,
    LabelSelector,
    ObjectName,
    Quantity,
    Quota,
    ResourceName,
    StopPolicy,
    Time,
    list_map,
)


class ResourceQuota(Base):
    """How much of one resource of one flavor."""

    name: ResourceName
    """The resource, e.g. nvidia.com/gpu."""
    nominal_quota: Quota
    """What is always available to the queue."""
    borrowing_limit: Quota | None = None
    """The most that may be borrowed from the cohort; without it, all that is unused."""
    lending_limit: Quota | None = None
    """The most that may be lent to the cohort; without it, all that is unused."""


class FlavorQuotas(Base):
    """Quotas of one flavor."""

    name: ObjectName
    """A ResourceFlavor."""
    resources: Annotated[list[ResourceQuota], Meta(min_length=1, max_length=64, extra_json_schema=list_map("name"))]
    """One entry per covered resource, in the order of coveredResources."""


class ResourceGroup(Base):
    """Resources that get their flavor together."""

    covered_resources: Annotated[list[ResourceName], Meta(min_length=1, max_length=64, extra_json_schema=ATOMIC)]
    """The resources of the group; a resource stands in one group only."""
    flavors: Annotated[list[FlavorQuotas], Meta(min_length=1, max_length=64, extra_json_schema=list_map("name"))]
    """Flavors in the order in which they are tried."""

    validations: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.flavors.all(f, size(f.resources) == size(self.coveredResources))",
            "each flavor needs exactly one quota per covered resource",
        ),
    )


ResourceGroups = Annotated[list[ResourceGroup], Meta(max_length=16, extra_json_schema=ATOMIC)]


class FlavorFungibility(Base):
    """When to go on to the next flavor."""

    when_can_borrow: Literal["MayStopSearch", "TryNextFlavor"] = "MayStopSearch"
    """What to do when the workload fits this flavor by borrowing."""
    when_can_preempt: Literal["MayStopSearch", "TryNextFlavor"] = "TryNextFlavor"
    """What to do when the workload fits this flavor by preemption."""
    preference: Literal["BorrowingOverPreemption", "PreemptionOverBorrowing"] | None = None
    """Which is better when both are possible."""

    validations: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.preference) || (self.whenCanBorrow == 'TryNextFlavor' && "
            "self.whenCanPreempt == 'TryNextFlavor')",
            "preference can only be set when both whenCanBorrow and whenCanPreempt are TryNextFlavor",
        ),
    )


class BorrowWithinCohort(Base):
    """Preemption while borrowing."""

    policy: Literal["Never", "LowerPriority"] = "Never"
    """Whom a borrowing workload may preempt in the cohort."""
    max_priority_threshold: Annotated[int, Meta(extra_json_schema={"format": "int32"})] | None = None
    """Only workloads of at most this priority are preempted."""


class Preemption(Base):
    """Which running workloads may be stopped for a pending one."""

    within_cluster_queue: Literal["Never", "LowerPriority", "LowerOrNewerEqualPriority"] = "Never"
    """Victims in the same queue."""
    reclaim_within_cohort: Literal["Never", "LowerPriority", "Any"] = "Never"
    """Victims in queues that borrow this queue's quota."""
    borrow_within_cohort: Annotated[BorrowWithinCohort | None, Meta(extra={"default": {}})] = None
    """Victims when the workload itself needs to borrow."""

    validations: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!(self.reclaimWithinCohort == 'Never' && has(self.borrowWithinCohort) && "
            "self.borrowWithinCohort.policy != 'Never')",
            "borrowWithinCohort needs a reclaimWithinCohort other than Never",
        ),
    )


class CheckRule(Base):
    """An admission check and the flavors that it is for."""

    name: CheckName
    """An AdmissionCheck."""
    on_flavors: Annotated[list[ObjectName], Meta(max_length=64, extra_json_schema=SET)] = []
    """Flavors whose use requires the check; empty means all."""


class AdmissionChecksStrategy(Base):
    """Checks that must pass before a workload starts."""

    admission_checks: Annotated[list[CheckRule], Meta(min_length=1, max_length=64, extra_json_schema=list_map("name"))]
    """The checks."""


class AdmissionScope(Base):
    """How LocalQueues of the queue share it."""

    admission_mode: Literal["UsageBasedAdmissionFairSharing", "NoAdmissionFairSharing"]
    """Whether past usage of a LocalQueue orders its workloads."""


class MigrationConstraints(Base):
    """How far a workload may move."""

    last_acceptable_flavor_name: ObjectName | None = None
    """The last flavor, in the queue's order, that a running workload may move to."""


class Migration(Base):
    """Whether a running workload moves to a better flavor."""

    mode: Literal["TryPreferredFlavors", "RetainFirstAdmission"]
    """Whether a workload that runs still tries flavors before its own."""
    constraints: MigrationConstraints | None = None
    """How far it may move."""


class ConcurrentAdmissionPolicy(Base):
    """Trying several flavors at once."""

    migration: Migration
    """Whether a running workload moves to a better flavor."""


class ClusterQueueSpec(Base):
    """What the queue governs and how."""

    resource_groups: ResourceGroups = []
    """Quotas, by groups of resources."""
    cohort_name: ObjectName | None = None
    """The Cohort whose members lend unused quota to each other."""
    queueing_strategy: Literal["StrictFIFO", "BestEffortFIFO"] = "BestEffortFIFO"
    """Whether younger workloads may pass an older one that cannot start."""
    namespace_selector: LabelSelector | None = None
    """Namespaces whose workloads the queue takes; without it none, empty means all."""
    flavor_fungibility: Annotated[FlavorFungibility | None, Meta(extra={"default": {}})] = None
    """Borrow, preempt, or try the next flavor."""
    preemption: Annotated[Preemption | None, Meta(extra={"default": {}})] = None
    """Which running workloads may be stopped."""
    admission_checks_strategy: AdmissionChecksStrategy | None = None
    """Checks before a workload starts."""
    stop_policy: StopPolicy = "None"
    """Hold stops new starts; HoldAndDrain also evicts what runs."""
    fair_sharing: FairSharing | None = None
    """Weight in the cohort."""
    admission_scope: AdmissionScope | None = None
    """How LocalQueues share the queue."""
    concurrent_admission_policy: ConcurrentAdmissionPolicy | None = None
    """Trying several flavors at once, and moving to a better one while running."""

    validations: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.cohortName) || !has(self.resourceGroups) || self.resourceGroups.all(g, g.flavors.all(f, "
            "f.resources.all(r, !has(r.borrowingLimit) && !has(r.lendingLimit))))",
            "borrowingLimit and lendingLimit need a cohortName: without a cohort nothing is borrowed or lent",
        ),
        Rule(
            "has(self.concurrentAdmissionPolicy) == has(oldSelf.concurrentAdmissionPolicy) && "
            "(!has(self.concurrentAdmissionPolicy) || "
            "self.concurrentAdmissionPolicy == oldSelf.concurrentAdmissionPolicy)",
            "concurrentAdmissionPolicy is immutable",
        ),
    )


class ResourceUsage(Base):
    """Use of one resource."""

    name: ResourceName
    """The resource."""
    total: Quantity = 0
    """All of it, borrowed quota included."""
    borrowed: Quantity = 0
    """The part above the nominal quota."""


class FlavorUsage(Base):
    """Use of one flavor."""

    name: ObjectName
    """The flavor."""
    resources: Annotated[list[ResourceUsage], Meta(max_length=64, extra_json_schema=list_map("name"))] = []
    """Use by resource."""


FlavorUsages = Annotated[list[FlavorUsage], Meta(max_length=64, extra_json_schema=list_map("name"))]


class LocalResourceUsage(Base):
    """Use of one resource by workloads of a LocalQueue."""

    name: ResourceName
    """The resource."""
    total: Quantity = 0
    """All of it, borrowed quota included."""


class LocalFlavorUsage(Base):
    """Use of one flavor by workloads of a LocalQueue."""

    name: ObjectName
    """The flavor."""
    resources: Annotated[list[LocalResourceUsage], Meta(max_length=64, extra_json_schema=list_map("name"))] = []
    """Use by resource."""


LocalFlavorUsages = Annotated[list[LocalFlavorUsage], Meta(max_length=64, extra_json_schema=list_map("name"))]


class ShareStatus(Base):
    """Where the object stands in fair sharing."""

    weighted_share: Annotated[int, Meta(extra_json_schema={"format": "int64"})]
    """Greatest ratio of borrowed to lendable quota over resources, in thousandths, divided by the weight."""


class ClusterQueueStatus(Base):
    """What the queue holds now."""

    conditions: Conditions = []
    """Active says whether the queue admits workloads, and why not."""
    flavors_reservation: FlavorUsages = []
    """Quota held by workloads with QuotaReserved."""
    flavors_usage: FlavorUsages = []
    """Quota held by admitted workloads."""
    pending_workloads: Count = 0
    """Workloads that wait."""
    reserving_workloads: Count = 0
    """Workloads that hold quota."""
    admitted_workloads: Count = 0
    """Workloads that are admitted and not finished."""
    fair_sharing: ShareStatus | None = None
    """Share in the cohort."""


class ClusterQueue(Base):
    """Quota of a group of users over flavors of resources, and the order in which their workloads get it."""

    spec: ClusterQueueSpec | None = None
    """What the queue governs and how."""
    status: ClusterQueueStatus | None = None
    """What it holds now."""


class CohortSpec(Base):
    """Where the cohort stands in the tree and what it adds."""

    validations: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.parentName) || !has(self.resourceGroups) || self.resourceGroups.all(g, g.flavors.all(f, "
            "f.resources.all(r, !has(r.borrowingLimit) && !has(r.lendingLimit))))",
            "borrowingLimit and lendingLimit need a parentName: a root has nobody to borrow from or lend to",
        ),
    )

    parent_name: ObjectName | None = None
    """The cohort above; without it the cohort is a root."""
    resource_groups: ResourceGroups = []
    """Quota of the cohort itself, for all its members."""
    fair_sharing: FairSharing | None = None
    """Weight against sibling cohorts."""


class CohortStatus(Base):
    """Where the cohort stands in fair sharing."""

    fair_sharing: ShareStatus | None = None
    """Share in the parent cohort."""


class Cohort(Base):
    """A group of queues, or of cohorts, that lend unused quota to each other."""

    spec: CohortSpec | None = None
    """Where the cohort stands in the tree and what it adds."""
    status: CohortStatus | None = None
    """Where it stands in fair sharing."""


class LocalQueueSpec(Base):
    """Where the queue leads."""

    cluster_queue: ObjectName
    """The ClusterQueue that gives the quota."""
    stop_policy: StopPolicy = "None"
    """Hold stops new starts; HoldAndDrain also evicts what runs."""
    fair_sharing: FairSharing | None = None
    """Weight against other LocalQueues of the ClusterQueue."""

    validations: ClassVar[tuple[Rule, ...]] = (
        Rule("self.clusterQueue == oldSelf.clusterQueue", "clusterQueue is immutable: make a new LocalQueue"),
    )


class AdmissionShareStatus(Base):
    """Past use, for usage-based order among LocalQueues."""

    consumed_resources: dict[str, Quantity]
    """Use over time, of which the past counts less and less."""
    last_update: Time
    """When it was computed."""


class LocalQueueShareStatus(ShareStatus):
    """Where the queue stands among those of its ClusterQueue."""

    admission_fair_sharing_status: AdmissionShareStatus | None = None
    """Past use, for usage-based order among LocalQueues."""


class LocalQueueStatus(Base):
    """What the queue holds now."""

    conditions: Conditions = []
    """Active says whether workloads of the queue can be admitted, and why not."""
    pending_workloads: Count = 0
    """Workloads that wait."""
    reserving_workloads: Count = 0
    """Workloads that hold quota."""
    admitted_workloads: Count = 0
    """Workloads that are admitted and not finished."""
    flavors_reservation: LocalFlavorUsages = []
    """Quota held by workloads with QuotaReserved."""
    flavors_usage: LocalFlavorUsages = []
    """Quota held by admitted workloads."""
    fair_sharing: LocalQueueShareStatus | None = None
    """Where the queue stands among those of its ClusterQueue."""


class LocalQueue(Base):
    """A team's door to a ClusterQueue, in the team's namespace."""

    spec: LocalQueueSpec | None = None
    """Where the queue leads."""
    status: LocalQueueStatus | None = None
    """What it holds now."""

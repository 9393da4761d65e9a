"""One entry of a queue: Workload."""

# ruff: noqa: RUF012 - msgspec copies empty mutable defaults for every instance
from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta

from glebe.kube.crdgen import Rule
from glebe.queueing.types.common import (
    ATOMIC,
    OPEN,
    Base,
    CheckName,
    Conditions,
    Count,
    LabelKey,
    ObjectName,
    Quantity,
    ShortName,
    Time,
    Tolerations,
    list_map,
)

Int32 = Annotated[int, Meta(extra_json_schema={"format": "int32"})]
Positive = Annotated[int, Meta(ge=1, extra_json_schema={"format": "int32"})]
LevelName = Annotated[str, Meta(max_length=63)]
ClusterName = Annotated[str, Meta(max_length=256)]
GateName = Annotated[str, Meta(min_length=1, max_length=63)]
_MOST_POD_SETS = 18


class SliceConstraint(Base):
    """Slices of one size within domains of one level."""

    topology: Annotated[str, Meta(min_length=1, max_length=63)]
    """Level within one domain of which each slice must run."""
    size: Positive
    """Pods per slice."""


class PodSetTopologyRequest(Base):
    """How close the pods of a set must be."""

    required: LevelName | None = None
    """Level within one domain of which all pods must run."""
    preferred: LevelName | None = None
    """Level within one domain of which the pods should run; else the next wider level, at last several domains."""
    unconstrained: bool | None = None
    """Any nodes of the flavor will do."""
    pod_index_label: LabelKey | None = None
    """Label that holds a pod's rank."""
    sub_group_index_label: LabelKey | None = None
    """Label that holds the rank of a pod's group."""
    sub_group_count: Count | None = None
    """Number of groups."""
    pod_set_group_name: Annotated[str, Meta(max_length=256)] | None = None
    """Pod sets of one group get the same flavor and domain."""
    pod_set_slice_required_topology: LevelName | None = None
    """Level within one domain of which each slice must run."""
    pod_set_slice_size: Positive | None = None
    """Pods per slice."""
    podset_slice_required_topology_constraints: Annotated[
        list[SliceConstraint] | None, Meta(max_length=3, extra_json_schema=ATOMIC)
    ] = None
    """Nested slices, the widest first, in place of the two above."""


class PodSet(Base):
    """Pods that are alike."""

    template: Annotated[dict[str, Any], Meta(extra_json_schema=OPEN)]
    """The pods' template, as in the job."""
    name: ShortName = "main"
    """Name within the workload."""
    count: Count = 1
    """Number of pods that run at once."""
    min_count: Positive | None = None
    """The fewest pods with which the workload may start."""
    topology_request: PodSetTopologyRequest | None = None
    """How close the pods must be."""

    validations: ClassVar[tuple[Rule, ...]] = (
        Rule("!has(self.minCount) || self.minCount <= self.count", "minCount must be at most count"),
    )


class PriorityClassRef(Base):
    """Where the priority comes from."""

    group: Literal["kueue.x-k8s.io", "scheduling.k8s.io", "glebe.dev"]
    """API group of the class."""
    kind: Literal["WorkloadPriorityClass", "PriorityClass", "WorkloadClass"]
    """Kind of the class."""
    name: ObjectName
    """Name of the class."""

    validations: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.group != 'scheduling.k8s.io' || self.kind == 'PriorityClass'",
            "the group scheduling.k8s.io has the kind PriorityClass only",
        ),
        Rule(
            "self.group != 'kueue.x-k8s.io' || self.kind == 'WorkloadPriorityClass'",
            "the group kueue.x-k8s.io has the kind WorkloadPriorityClass only",
        ),
        Rule(
            "self.group != 'glebe.dev' || self.kind == 'WorkloadClass'",
            "the group glebe.dev has the kind WorkloadClass only",
        ),
    )


class PreemptionGate(Base):
    """What must open before the workload may preempt others."""

    name: GateName
    """The gate; whoever opens it writes status.preemptionGates."""


class WorkloadSpec(Base):
    """What waits and runs."""

    pod_sets: Annotated[list[PodSet], Meta(min_length=1, max_length=_MOST_POD_SETS, extra_json_schema=list_map("name"))]
    """The pods, which start together or not at all."""
    queue_name: ObjectName | None = None
    """LocalQueue in the workload's namespace."""
    priority_class_ref: PriorityClassRef | None = None
    """Where the priority comes from."""
    priority: Int32 | None = None
    """Greater goes first."""
    active: Annotated[bool, Meta(extra={"default": True})] | None = None
    """False keeps the workload from starting and evicts it when it runs."""
    maximum_execution_time_seconds: Positive | None = None
    """After this time admitted, all runs added up, the workload is deactivated."""
    preemption_gates: Annotated[list[PreemptionGate], Meta(max_length=8, extra_json_schema=list_map("name"))] = []
    """Gates, closed at first, that keep the workload from preempting others."""

    validations: ClassVar[tuple[Rule, ...]] = (
        Rule("!has(self.priorityClassRef) || has(self.priority)", "priority is required with priorityClassRef"),
    )


class IndividualValues(Base):
    """Values that differ: prefix + root + suffix each."""

    roots: Annotated[list[str], Meta(min_length=1, max_length=100000, extra_json_schema=ATOMIC)]
    """What differs, by domain."""
    prefix: Annotated[str, Meta(max_length=63)] | None = None
    """Common beginning."""
    suffix: Annotated[str, Meta(max_length=63)] | None = None
    """Common end."""


class LevelValues(Base):
    """Values of one level: one for all domains, or one for each."""

    universal: Annotated[str, Meta(max_length=63)] | None = None
    """The value of every domain."""
    individual: IndividualValues | None = None
    """Values by domain."""

    validations: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.universal) != has(self.individual)", "give one of universal and individual"),
    )


class PodCounts(Base):
    """Pods by domain: the same number in all of them, or one for each."""

    universal: Positive | None = None
    """Pods in every domain."""
    individual: Annotated[list[Positive], Meta(min_length=1, max_length=100000, extra_json_schema=ATOMIC)] | None = None
    """Pods by domain."""

    validations: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.universal) != has(self.individual)", "give one of universal and individual"),
    )


class AssignmentSlice(Base):
    """Some of the domains, written compactly."""

    domain_count: Positive
    """Number of domains."""
    values_per_level: Annotated[list[LevelValues], Meta(min_length=1, max_length=16, extra_json_schema=ATOMIC)]
    """Domain values, one entry per level."""
    pod_counts: PodCounts
    """Pods by domain."""

    validations: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.podCounts.individual) || size(self.podCounts.individual) == self.domainCount",
            "podCounts.individual has one number per domain",
        ),
        Rule(
            "self.valuesPerLevel.all(x, !has(x.individual) || size(x.individual.roots) == self.domainCount)",
            "valuesPerLevel[].individual.roots has one value per domain",
        ),
    )


class TopologyAssignment(Base):
    """How many pods go where, in rank order."""

    levels: Annotated[list[LabelKey], Meta(min_length=1, max_length=16, extra_json_schema=ATOMIC)]
    """Node labels that tell a domain; only the hostname where the topology has it."""
    slices: Annotated[list[AssignmentSlice], Meta(max_length=1000, extra_json_schema=ATOMIC)]
    """The domains."""


class PodSetAssignment(Base):
    """What one pod set was given."""

    name: ShortName = "main"
    """The pod set."""
    flavors: dict[str, ObjectName] = {}
    """Flavor by resource."""
    resource_usage: dict[str, Quantity] = {}
    """Resources of all its pods."""
    count: Count | None = None
    """Number of pods."""
    topology_assignment: TopologyAssignment | None = None
    """Nodes of its pods."""
    delayed_topology_request: Literal["Pending", "Ready"] | None = None
    """Whether nodes are chosen only when the checks have passed, and whether that was done."""


class Admission(Base):
    """What the workload was given."""

    cluster_queue: ObjectName
    """The queue whose quota it holds."""
    pod_set_assignments: Annotated[
        list[PodSetAssignment], Meta(max_length=_MOST_POD_SETS, extra_json_schema=list_map("name"))
    ]
    """By pod set."""


class RequeueState(Base):
    """Past evictions."""

    count: Count | None = None
    """How often the workload was requeued."""
    requeue_at: Time | None = None
    """Not before this time."""


class Counterfactual(Base):
    """What would start the workload sooner, as the same engine finds it."""

    change: Annotated[str, Meta(max_length=1024)]
    """What to change, in a sentence: fewer GPUs, another flavor or class, a wider topology, borrowing."""
    start_p50: Time | None = None
    """Expected start with that change."""
    start_p90: Time | None = None
    """Start that is kept in nine cases of ten, with that change."""


class Forecast(Base):
    """When the workload is expected to start, and what it waits for."""

    cluster_queue: ObjectName | None = None
    """The ClusterQueue in which it waits."""
    position: Count | None = None
    """Place in its ClusterQueue, from 1."""
    gpus_ahead: Count | None = None
    """GPUs that workloads before it in the queue ask for."""
    start_p50: Time | None = None
    """Expected start: as likely earlier as later. Missing when it never starts as things are."""
    start_p90: Time | None = None
    """Start that is kept in nine cases of ten."""
    reserved_start: Time | None = None
    """Start that is kept for it: later work may fill the time until then and does not delay it."""
    counterfactuals: Annotated[list[Counterfactual], Meta(max_length=16, extra_json_schema=ATOMIC)] = []
    """What would start it sooner, the soonest first."""
    reason: str = ""
    """Machine-readable cause of the wait."""
    message: Annotated[str, Meta(max_length=32768)] = ""
    """The cause in a sentence."""
    remedy: Annotated[str, Meta(max_length=32768)] = ""
    """What would help."""
    computed_at: Time | None = None
    """When the forecast was made."""


class ReclaimablePod(Base):
    """Pods whose resources are no longer needed."""

    name: ShortName
    """The pod set."""
    count: Count
    """Number of pods."""


class EvictionCount(Base):
    """Evictions for one cause."""

    reason: Annotated[str, Meta(max_length=316)]
    """Reason of the condition Evicted."""
    count: Count
    """How many."""
    underlying_cause: Annotated[str, Meta(max_length=316)]
    """The cause in more detail."""


class SchedulingStats(Base):
    """Counts over the workload's life."""

    evictions: Annotated[
        list[EvictionCount], Meta(max_length=256, extra_json_schema=list_map("reason", "underlyingCause"))
    ] = []
    """Evictions by cause."""


class UnhealthyNode(Base):
    """A node that failed under the workload."""

    name: Annotated[str, Meta(max_length=63)]
    """The node."""


class PodSetUpdate(Base):
    """What an admission check adds to the pods of one set."""

    name: ShortName
    """The pod set."""
    labels: dict[str, str] = {}
    """Labels to add."""
    annotations: dict[str, str] = {}
    """Annotations to add."""
    node_selector: dict[str, str] = {}
    """Node selectors to add."""
    tolerations: Tolerations = []
    """Tolerations to add."""


class AdmissionCheckState(Base):
    """Where one admission check stands."""

    name: CheckName
    """The AdmissionCheck."""
    state: Literal["Pending", "Ready", "Retry", "Rejected"]
    """Retry evicts and tries later; Rejected evicts and deactivates the workload."""
    last_transition_time: Time
    """When the state last changed."""
    message: Annotated[str, Meta(max_length=32768)]
    """The state in a sentence."""
    requeue_after_seconds: Count | None = None
    """With Retry, the least time before the workload is tried again."""
    retry_count: Count | None = None
    """How often the state became Retry."""
    pod_set_updates: Annotated[list[PodSetUpdate], Meta(max_length=_MOST_POD_SETS, extra_json_schema=ATOMIC)] = []
    """What the check adds to pods when the workload starts."""


class PodSetRequest(Base):
    """What the pods of one set ask for together."""

    name: ShortName
    """The pod set."""
    resources: dict[str, Quantity] = {}
    """Resources of all its pods, with the defaults and transformations that count."""


class PreemptionGateState(Base):
    """Where one preemption gate stands."""

    name: GateName
    """The gate."""
    position: Literal["Closed", "Open"]
    """A closed gate keeps the workload from preempting others."""
    last_transition_time: Time
    """When the position last changed."""


class WorkloadStatus(Base):
    """Where the workload stands."""

    validations: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(oldSelf.clusterName) || !has(self.clusterName) || oldSelf.clusterName == self.clusterName",
            "clusterName is immutable once set",
        ),
        Rule(
            "!has(self.clusterName) || !has(self.nominatedClusterNames) || size(self.nominatedClusterNames) == 0",
            "clusterName and nominatedClusterNames exclude each other",
        ),
    )

    conditions: Conditions = []
    """QuotaReserved, Admitted, PodsReady, Evicted, Requeued, Finished."""
    admission: Admission | None = None
    """What it was given, while it holds quota."""
    requeue_state: RequeueState | None = None
    """Past evictions."""
    reclaimable_pods: Annotated[
        list[ReclaimablePod], Meta(max_length=_MOST_POD_SETS, extra_json_schema=list_map("name"))
    ] = []
    """Pods whose resources are no longer needed."""
    admission_checks: Annotated[list[AdmissionCheckState], Meta(max_length=8, extra_json_schema=list_map("name"))] = []
    """The checks that the workload needs, and where they stand."""
    resource_requests: Annotated[
        list[PodSetRequest], Meta(max_length=_MOST_POD_SETS, extra_json_schema=list_map("name"))
    ] = []
    """What a waiting workload asked for when it was last looked at; empty while it holds quota."""
    accumulated_past_execution_time_seconds: Count | None = None
    """Seconds admitted in earlier runs."""
    scheduling_stats: SchedulingStats | None = None
    """Counts over the workload's life."""
    unhealthy_nodes: Annotated[list[UnhealthyNode], Meta(max_length=8, extra_json_schema=list_map("name"))] = []
    """Nodes that failed under the workload."""
    preemption_gates: Annotated[list[PreemptionGateState], Meta(max_length=8, extra_json_schema=list_map("name"))] = []
    """Where the gates of spec.preemptionGates stand."""
    nominated_cluster_names: Annotated[list[ClusterName], Meta(max_length=20, extra_json_schema=ATOMIC)] = []
    """Clusters that might run the workload (MultiKueue); Glebe keeps it and does not write it."""
    cluster_name: ClusterName | None = None
    """The cluster that runs the workload (MultiKueue); Glebe keeps it and does not write it."""
    forecast: Forecast | None = None
    """When it is expected to start (Glebe's addition to Kueue's kind)."""


class Workload(Base):
    """One entry of a queue: the pods of one job, which start together or not at all."""

    spec: WorkloadSpec | None = None
    """What waits and runs."""
    status: WorkloadStatus | None = None
    """Where it stands."""

"""What the scheduling core sees: an immutable snapshot of fleet, quota and work; what it answers: decisions.

Quantities are integers in base units: ``cpu`` in millicores, ``memory`` in bytes, anything else in units. Times are
seconds since the epoch, durations seconds. Names follow Kueue's API (``kueue.x-k8s.io/v1beta2``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from types import MappingProxyType

Amounts = Mapping[str, int]
NO_AMOUNTS: Amounts = MappingProxyType({})
NO_LABELS: Mapping[str, str] = MappingProxyType({})
GPU = "nvidia.com/gpu"
EVEN = Fraction(1)  # the weight of whoever says nothing about it


@dataclass(frozen=True, slots=True)
class Taint:
    key: str
    value: str = ""
    effect: str = "NoSchedule"


@dataclass(frozen=True, slots=True)
class Toleration:
    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """One host. ``other_use`` is what pods outside any admitted workload hold there."""

    name: str
    labels: Mapping[str, str]
    allocatable: Amounts
    taints: tuple[Taint, ...] = ()
    ready: bool = True  # Ready and not cordoned
    other_use: Amounts = field(default_factory=lambda: NO_AMOUNTS)


@dataclass(frozen=True, slots=True)
class Topology:
    """Node label keys from the widest domain to the narrowest, e.g. block, rack, hostname."""

    name: str
    levels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Flavor:
    """ResourceFlavor: the nodes that carry ``node_labels``."""

    name: str
    node_labels: Mapping[str, str] = field(default_factory=lambda: NO_LABELS)
    node_taints: tuple[Taint, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    topology: str | None = None


@dataclass(frozen=True, slots=True)
class Quota:
    """``None`` is "no limit" for both limits."""

    nominal: int
    borrowing_limit: int | None = None
    lending_limit: int | None = None


@dataclass(frozen=True, slots=True)
class FlavorQuotas:
    flavor: str
    quotas: Mapping[str, Quota]  # by resource


@dataclass(frozen=True, slots=True)
class ResourceGroup:
    """Flavors are tried in order; all covered resources of a pod set get the same flavor."""

    covered: tuple[str, ...]
    flavors: tuple[FlavorQuotas, ...]


class Strategy(StrEnum):
    STRICT_FIFO = "StrictFIFO"
    BEST_EFFORT_FIFO = "BestEffortFIFO"


@dataclass(frozen=True, slots=True)
class ClusterQueue:
    name: str
    resource_groups: tuple[ResourceGroup, ...]
    cohort: str | None = None
    strategy: Strategy = Strategy.BEST_EFFORT_FIFO
    stopped: bool = False  # stopPolicy Hold or HoldAndDrain
    borrow_last: bool = False  # flavorFungibility.whenCanBorrow TryNextFlavor: rather another flavor than borrowing
    weight: Fraction = EVEN  # in fair sharing


@dataclass(frozen=True, slots=True)
class Cohort:
    """A node of the cohort tree, with quota of its own if it has ``resource_groups``."""

    name: str
    parent: str | None = None
    resource_groups: tuple[ResourceGroup, ...] = ()
    weight: Fraction = EVEN  # in fair sharing


class TopologyMode(StrEnum):
    REQUIRED = "required"
    PREFERRED = "preferred"
    UNCONSTRAINED = "unconstrained"


@dataclass(frozen=True, slots=True)
class Slice:
    """Every ``size`` pods, in rank order, run within one domain of ``level`` (a node label key)."""

    level: str
    size: int


@dataclass(frozen=True, slots=True)
class TopologyRequest:
    """``level`` is a node label key of the flavor's topology (empty for UNCONSTRAINED).

    ``slices`` are nested, the widest first. Two pod sets of one ``group``, one of them a single pod (the leader), are
    placed together, as the other one (the workers) asks.
    """

    mode: TopologyMode
    level: str = ""
    slices: tuple[Slice, ...] = ()
    group: str = ""


@dataclass(frozen=True, slots=True)
class Expression:
    """One requirement of a required node affinity; ``operator`` as in Kubernetes (In, NotIn, Exists, Gt, ...)."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PodSet:
    """``count`` identical pods that start together."""

    name: str
    count: int
    requests: Amounts  # per pod
    node_selector: Mapping[str, str] = field(default_factory=lambda: NO_LABELS)
    tolerations: tuple[Toleration, ...] = ()
    topology: TopologyRequest | None = None
    affinity: tuple[tuple[Expression, ...], ...] = ()  # required node affinity: terms, one of which must hold


@dataclass(frozen=True, slots=True)
class RunTime:
    """How long the workload is predicted to run, in seconds from its start."""

    p50: float
    p90: float


@dataclass(frozen=True, slots=True)
class Pending:
    """A workload that waits. Order within a queue: ``priority`` descending, ``queued_at``, ``key``."""

    key: str  # unique; "cluster:namespace/name" of the Workload
    queue: str  # ClusterQueue name
    priority: int
    queued_at: float
    pod_sets: tuple[PodSet, ...]
    run_time: RunTime


@dataclass(frozen=True, slots=True)
class PodSetAssignment:
    """``flavors`` by resource; ``usage`` is the total over the pods; ``nodes`` says how many pods go where.

    ``nodes`` is in rank order (pods 0..k-1 on the first node, and so on) and empty when the pod set is not placed by
    the core, i.e. none of its flavors has a topology.
    """

    pod_set: str
    count: int
    flavors: Mapping[str, str]
    usage: Amounts
    nodes: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Admitted:
    """A workload that holds quota, and its nodes if placed."""

    key: str
    queue: str
    priority: int
    started_at: float
    pod_sets: tuple[PodSet, ...]
    assignments: tuple[PodSetAssignment, ...]
    run_time: RunTime  # predicted total from started_at


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a decision depends on."""

    nodes: tuple[Node, ...] = ()
    topologies: tuple[Topology, ...] = ()
    flavors: tuple[Flavor, ...] = ()
    queues: tuple[ClusterQueue, ...] = ()
    cohorts: tuple[Cohort, ...] = ()
    admitted: tuple[Admitted, ...] = ()
    pending: tuple[Pending, ...] = ()


class Outcome(StrEnum):
    ADMIT = "Admit"
    WAIT = "Wait"  # will start when something that is in use becomes free
    NEVER = "Never"  # cannot start on this fleet and these quotas as they are written


class Reason(StrEnum):
    """Machine reasons; those that Kueue has are Kueue's (condition QuotaReserved)."""

    ADMITTED = "Admitted"
    WAITING_FOR_QUOTA = "WaitingForQuota"
    EXCEEDS_MAX_QUOTA = "ExceedsMaxQuota"
    NO_MATCHING_FLAVOR = "NoMatchingFlavor"
    TOPOLOGY_PLACEMENT_FAILED = "TopologyPlacementFailed"  # waits: capacity exists but is in use or fragmented
    EXCEEDS_CAPACITY = "ExceedsCapacity"  # never: the fleet, or one topology domain, is too small
    BEHIND_HEAD = "BehindHeadOfQueue"  # StrictFIFO: an older workload of the queue goes first
    QUEUE_STOPPED = "ClusterQueueStopped"
    QUEUE_NOT_FOUND = "ClusterQueueNotFound"
    MISCONFIGURED = "Misconfigured"


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to one pending workload now, with its reason in words and what would help."""

    key: str
    outcome: Outcome
    reason: Reason
    message: str
    remedy: str = ""
    assignments: tuple[PodSetAssignment, ...] = ()


@dataclass(frozen=True, slots=True)
class Forecast:
    """When one pending workload is expected to start.

    ``start_p50``/``start_p90`` are ``None`` when it never starts as things are. ``position`` counts from 1 within its
    ClusterQueue; ``gpus_ahead`` are the GPUs that pending workloads before it in that queue ask for, without those that
    never start. ``decision`` is today's: its message is the binding constraint, its remedy what would help.
    ``blockers`` are the keys of the running workloads whose end it waits for, in the order in which they are predicted
    to end.
    """

    key: str
    position: int
    gpus_ahead: int
    start_p50: float | None
    start_p90: float | None
    decision: Decision
    blockers: tuple[str, ...] = field(default=())

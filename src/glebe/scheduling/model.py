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

from glebe.scheduling.policies import (
    DEFAULT_GATES,
    FUNGIBLE,
    NO_PREEMPTION,
    Afs,
    Backfill,
    FairSharing,
    FairStrategy,
    Fungibility,
    Gates,
    Preemption,
    PreemptionPolicy,
    Preference,
    QuotaCheck,
    TryNext,
    Victim,
    VictimReason,
)
from glebe.scheduling.reasons import Outcome, Reason

__all__ = [
    "DEFAULT_GATES",
    "EVEN",
    "FUNGIBLE",
    "GPU",
    "NO_AMOUNTS",
    "NO_LABELS",
    "NO_PREEMPTION",
    "Admitted",
    "Afs",
    "Amounts",
    "Backfill",
    "ClusterQueue",
    "Cohort",
    "Counterfactual",
    "Decision",
    "Expression",
    "FairSharing",
    "FairStrategy",
    "Flavor",
    "FlavorQuotas",
    "Forecast",
    "Fungibility",
    "Gates",
    "Node",
    "Outcome",
    "Pending",
    "PodSet",
    "PodSetAssignment",
    "Preemption",
    "PreemptionPolicy",
    "Preference",
    "Preferred",
    "Quota",
    "QuotaCheck",
    "Reason",
    "ResourceGroup",
    "RunTime",
    "Slice",
    "Snapshot",
    "Strategy",
    "Taint",
    "Toleration",
    "Topology",
    "TopologyMode",
    "TopologyRequest",
    "TryNext",
    "Victim",
    "VictimReason",
]

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
    weight: Fraction = EVEN  # in fair sharing
    preemption: Preemption = NO_PREEMPTION
    fungibility: Fungibility = FUNGIBLE
    min_run_time: float = 0.0  # seconds after its start in which a workload of this queue is not preempted
    afs: bool = False  # admissionScope UsageBasedAdmissionFairSharing
    checks: tuple[tuple[str, tuple[str, ...]], ...] = ()  # admission checks, each with its flavors (none: all)
    delays_topology: tuple[str, ...] = ()  # flavors with a check that provisions nodes: placed in a second pass
    migrate_from: str = ""  # concurrentAdmissionPolicy: lastAcceptableFlavorName of migrations
    migrates: bool = False  # concurrentAdmissionPolicy is set
    backfill: Backfill = Backfill.GREEDY


@dataclass(frozen=True, slots=True)
class Cohort:
    """A node of the cohort tree, with quota of its own if it has ``resource_groups``."""

    name: str
    parent: str | None = None
    resource_groups: tuple[ResourceGroup, ...] = ()
    weight: Fraction = EVEN  # in fair sharing
    fair_sharing: bool | None = None  # of a root: switches fair sharing for its tree; None: as the snapshot says


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
class Preferred:
    """One term of a preferred node affinity: nodes for which all of ``term`` holds count ``weight`` more."""

    weight: int
    term: tuple[Expression, ...]


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
    min_count: int | None = None  # partial admission: so many pods suffice
    preferred: tuple[Preferred, ...] = ()  # preferred node affinity
    charged: Amounts | None = None  # what each pod counts against quota, if that is not ``requests`` (transformations)


@dataclass(frozen=True, slots=True)
class RunTime:
    """How long the workload is predicted to run, in seconds from its start.

    ``curve``: run times at the levels (i + 0.5) / len, ascending, where history says more than two quantiles.
    ``bound``: when the platform ends it (maximumExecutionTimeSeconds), if it does. ``kin``: run times with the same
    kin are likely to be long or short together.
    """

    p50: float
    p90: float
    curve: tuple[float, ...] = ()
    bound: float | None = None
    kin: str = ""


@dataclass(frozen=True, slots=True)
class Pending:
    """A workload that waits. Order within a queue: ``priority`` descending, ``queued_at``, ``key``."""

    key: str  # unique; "cluster:namespace/name" of the Workload
    queue: str  # ClusterQueue name
    priority: int
    queued_at: float
    pod_sets: tuple[PodSet, ...]  # without the pods that are no longer needed (reclaimablePods)
    run_time: RunTime
    local_queue: str = ""  # "namespace/name"; with a prefix for the logical cluster if there are several
    created_at: float = 0.0
    uid: str = ""
    gated: bool = False  # a preemption gate is closed: it may start, but not preempt
    replaces: str = ""  # key of the admitted slice that this slice of an elastic workload replaces
    reclaimable: tuple[tuple[str, int], ...] = ()  # pods no longer needed, by pod set; already out of ``pod_sets``
    flavors: tuple[str, ...] = ()  # only these flavors (variants of concurrent admission); none: all
    variant_of: str = ""  # the parent of a variant
    invalid: str = ""  # cannot be admitted as it is (limit range, limits, namespace), in words
    failed_checks: bool = False  # an admission check says Retry or Rejected: not looked at
    preempting: bool = False  # others were told to leave for it: it goes first when they are gone
    preempted_by: tuple[tuple[str, float], ...] = ()  # for whom it had to leave: uid, and since when it is known


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
    delayed: str = ""  # delayedTopologyRequest: "Pending" (to be placed in a second pass) or "Ready"


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
    local_queue: str = ""
    uid: str = ""
    created_at: float = 0.0
    queued_at: float = 0.0  # the time that orders it among workloads of its priority, as in ``Pending``
    reserved_at: float = 0.0  # when it got its quota
    evicted: bool = False  # on its way out, still holding
    unhealthy: tuple[str, ...] = ()  # failed nodes that it uses
    preemptible: bool = True
    second_pass: bool = False  # its topology was delayed and can be decided now, or ``unhealthy`` needs a replacement
    flavors: tuple[str, ...] = ()  # as in ``Pending``
    variant_of: str = ""
    owned_by_pod: bool = False  # a plain pod: it cannot move to another node
    preempted_by: tuple[tuple[str, float], ...] = ()  # as in ``Pending``


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
    fair_sharing: FairSharing | None = None
    afs: Afs | None = None
    least_lost: bool = False  # victims by least lost GPU-seconds before age
    quota_check: QuotaCheck = QuotaCheck.BLOCK_UNDECLARED
    gates: Gates = DEFAULT_GATES


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to one pending workload now, with its reason in words and what would help.

    ``victims`` must leave before it can start (WAIT with WAITING_FOR_PREEMPTED); they hold their quota until they are
    gone. ``replaces``: with ADMIT, the running slice that is finished by this admission. ``parked``: nothing to look
    at again until something in the cluster changes (Kueue's inadmissible). A decision about a running workload
    (second pass) has its key: ADMIT with the new ``assignments``, or EVICT.
    """

    key: str
    outcome: Outcome
    reason: Reason
    message: str
    remedy: str = ""
    assignments: tuple[PodSetAssignment, ...] = ()
    victims: tuple[Victim, ...] = ()
    replaces: str = ""
    parked: bool = False


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """With this ``change`` (in words) the workload would start then."""

    change: str
    start_p50: float
    start_p90: float | None


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
    counterfactuals: tuple[Counterfactual, ...] | None = None  # not asked for: None
    reserved_start: float | None = None  # of a blocked head with a reservation: later work does not delay it

"""What the Deployment controller decided to do, in the order in which the shell does it.

The order makes a crash at any line harmless: ReplicaSets first, then the status that tells of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from glebe.kube.objects import Object
from glebe.workloads.deployment.sets import name_of


@dataclass(frozen=True, slots=True)
class Event:
    """An event to record about the Deployment. ``type``: Normal or Warning."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Change:
    """A ReplicaSet as it shall be, and what to tell once it is."""

    replica_set: Object
    event: Event | None = None


@dataclass(slots=True)
class Plan:
    """The shell carries out the fields from top to bottom and stops at the first error."""

    create: Change | None = None
    change: list[Change] = field(default_factory=list)
    delete: list[Object] = field(default_factory=list)
    deployment: Object | None = None  # the whole new object (a rollback), when it differs
    status: Object | None = None  # the whole new object with its status and its revision, when they differ
    events: list[Event] = field(default_factory=list)  # once all that is done
    requeue_after: float | None = None


def scaled(replica_set: Object, before: int, after: int, annotations: dict[str, str]) -> Change:
    """A change of size (or of the annotations alone)."""
    meta = {**replica_set["metadata"], "annotations": annotations}
    new = {**replica_set, "metadata": meta, "spec": {**replica_set["spec"], "replicas": after}}
    if before == after:
        return Change(new)
    way = "up" if after > before else "down"
    text = f"Scaled {way} replica set {name_of(replica_set)} from {before} to {after}"
    return Change(new, Event("Normal", "ScalingReplicaSet", text))

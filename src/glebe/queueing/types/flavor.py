"""What there is to use: ResourceFlavor and Topology."""

# ruff: noqa: RUF012 - msgspec copies empty mutable defaults for every instance
from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from glebe.kube.crdgen import Rule
from glebe.queueing.types.common import ATOMIC, Base, LabelKey, ObjectName, list_map


class Taint(Base):
    """A mark that keeps pods away which do not tolerate it."""

    key: Annotated[str, Meta(min_length=1)]
    """The taint's key."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]
    """What happens to pods that do not tolerate it."""
    value: str = ""
    """The taint's value."""


class Toleration(Base):
    """Lets a pod onto nodes with a matching taint."""

    key: str = ""
    """The taint's key; empty with operator Exists matches every taint."""
    operator: Literal["Exists", "Equal"] | None = None
    """How key and value are compared; Equal when missing."""
    value: str = ""
    """The taint's value for Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The effect that is tolerated; without it all."""
    toleration_seconds: Annotated[int, Meta(extra_json_schema={"format": "int64"})] | None = None
    """How long a NoExecute taint is tolerated."""


class ResourceFlavorSpec(Base):
    """Which nodes the flavor stands for."""

    node_labels: Annotated[dict[str, str], Meta(max_length=64)] = {}
    """Labels of the flavor's nodes; admitted pods get them as node selector."""
    node_taints: Annotated[list[Taint], Meta(max_length=64, extra_json_schema=ATOMIC)] = []
    """Taints of the flavor's nodes; workloads must tolerate them."""
    tolerations: Annotated[list[Toleration], Meta(max_length=64, extra_json_schema=ATOMIC)] = []
    """Tolerations that admitted pods get."""
    topology_name: ObjectName | None = None
    """The Topology of the flavor's nodes; with it, pods are placed on nodes when the workload is admitted."""

    validations: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.topologyName) || (has(self.nodeLabels) && size(self.nodeLabels) > 0)",
            "topologyName needs at least one entry in nodeLabels, to tell the flavor's nodes",
        ),
    )


class ResourceFlavor(Base):
    """A kind of node, e.g. one GPU model or price, told by node labels."""

    spec: ResourceFlavorSpec | None = None
    """Which nodes the flavor stands for."""


class TopologyLevel(Base):
    """One level of the hierarchy."""

    node_label: LabelKey
    """Label whose value names a node's domain at this level."""


class TopologySpec(Base):
    """The hierarchy."""

    levels: Annotated[list[TopologyLevel], Meta(min_length=1, max_length=16, extra_json_schema=list_map("nodeLabel"))]
    """Levels from the widest to the narrowest; kubernetes.io/hostname only as the last."""

    validations: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.levels.all(l, l.nodeLabel != 'kubernetes.io/hostname') || "
            "self.levels[size(self.levels) - 1].nodeLabel == 'kubernetes.io/hostname'",
            "kubernetes.io/hostname can only be the last level",
        ),
    )


class Topology(Base):
    """How nodes are close to each other: blocks, racks, hosts."""

    spec: TopologySpec | None = None
    """The hierarchy."""

"""What there is to use: ResourceFlavor and Topology."""

# ruff: noqa: RUF012 - msgspec copies empty mutable defaults for every instance
from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from glebe.kube.crdgen import Rule
from glebe.queueing.types.common import ATOMIC, LABEL_PATTERN, Base, ObjectName, Taint, Tolerations


class ResourceFlavorSpec(Base):
    """Which nodes the flavor stands for."""

    node_labels: Annotated[
        dict[str, str], Meta(max_length=8, extra_json_schema={"x-kubernetes-map-type": "atomic"})
    ] = {}
    """Labels of the flavor's nodes; admitted pods get them as node selector."""
    node_taints: Annotated[list[Taint], Meta(max_length=8, extra_json_schema=ATOMIC)] = []
    """Taints of the flavor's nodes; workloads must tolerate them."""
    tolerations: Tolerations = []
    """Tolerations that admitted pods get."""
    topology_name: ObjectName | None = None
    """The Topology of the flavor's nodes; with it, pods are placed on nodes when the workload is admitted."""

    validations: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.topologyName) || (has(self.nodeLabels) && size(self.nodeLabels) > 0)",
            "topologyName needs at least one entry in nodeLabels, to tell the flavor's nodes",
        ),
        Rule(
            "!has(oldSelf.topologyName) || (has(self.topologyName) && self.topologyName == oldSelf.topologyName)",
            "topologyName is immutable once it is set",
        ),
    )


class ResourceFlavor(Base):
    """A kind of node, e.g. one GPU model or price, told by node labels."""

    spec: ResourceFlavorSpec | None = None
    """Which nodes the flavor stands for."""


class TopologyLevel(Base):
    """One level of the hierarchy."""

    node_label: Annotated[str, Meta(min_length=1, max_length=316, pattern=LABEL_PATTERN)]
    """Label whose value names a node's domain at this level."""


_LEVEL_RULES = {
    **ATOMIC,
    "x-kubernetes-validations": [
        {
            "rule": "self == oldSelf || (self[size(self) - 1].nodeLabel == 'kubernetes.io/hostname' && "
            "oldSelf[size(oldSelf) - 1].nodeLabel == 'kubernetes.io/hostname')",
            "message": "levels may change only where kubernetes.io/hostname is the last one before and after",
        },
        {
            "rule": "size(self.filter(i, size(self.filter(j, j == i)) > 1)) == 0",
            "message": "levels must be unique",
        },
        {
            "rule": "size(self.filter(i, i.nodeLabel == 'kubernetes.io/hostname')) == 0 || "
            "self[size(self) - 1].nodeLabel == 'kubernetes.io/hostname'",
            "message": "kubernetes.io/hostname can only be the last level",
        },
    ],
}


class TopologySpec(Base):
    """The hierarchy."""

    levels: Annotated[list[TopologyLevel], Meta(min_length=1, max_length=16, extra_json_schema=_LEVEL_RULES)]
    """Levels from the widest to the narrowest; kubernetes.io/hostname only as the last."""


class Topology(Base):
    """How nodes are close to each other: blocks, racks, hosts."""

    spec: TopologySpec | None = None
    """The hierarchy."""

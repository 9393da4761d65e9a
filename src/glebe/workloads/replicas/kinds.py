"""What differs between a ReplicaSet and a ReplicationController."""

from __future__ import annotations

from dataclasses import dataclass

from glebe.kube.objects import Object
from glebe.kube.resources import REPLICA_SETS, REPLICATION_CONTROLLERS, Resource
from glebe.kube.selectors import LabelSelector, SelectorError
from glebe.workloads.owned import selector_of


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind that keeps replicas.

    :param name: the controller's, in logs.
    :param component: the controller's, in events.
    :param counts_terminating: its status has ``terminatingReplicas``.
    :param plain_selector: its selector is a map of labels.
    """

    resource: Resource
    name: str
    component: str
    counts_terminating: bool
    plain_selector: bool

    def selector(self, obj: Object) -> LabelSelector | None:
        """Which pods are the object's; ``None`` when it selects nothing."""
        if not self.plain_selector:
            return selector_of(obj)
        labels = obj["spec"].get("selector")
        try:
            return LabelSelector.from_object({"matchLabels": labels}) if labels else None
        except SelectorError:
            return None


REPLICA_SET = Kind(REPLICA_SETS, "replicaset", "replicaset-controller", True, False)
REPLICATION_CONTROLLER = Kind(REPLICATION_CONTROLLERS, "replication", "replication-controller", False, True)

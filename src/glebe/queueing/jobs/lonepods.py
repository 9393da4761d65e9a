"""Workloads that are one plain pod: such a pod stays where it is, and its Workload goes with it."""

from __future__ import annotations

from glebe.kube.objects import Object, annotations_of
from glebe.queueing import labels


def owned_by_pod(workload: Object) -> bool:
    """Does the workload stand for one plain pod (not a pod group, whose pods can be replaced)?"""
    if annotations_of(workload).get(labels.GROUP_WORKLOAD) == "true":
        return False
    owners: list[dict[str, str]] = workload["metadata"].get("ownerReferences") or []
    return len(owners) == 1 and owners[0].get("kind") == "Pod" and owners[0].get("apiVersion") == "v1"

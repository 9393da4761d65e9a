"""Which happenings can let a pod fit that did not (upstream's queueing hints). Pure.

A hint that says yes too often costs an attempt; one that says no too often leaves a pod waiting until
:data:`glebe.workloads.binder.waitroom.AT_MOST`.
"""

from __future__ import annotations

from collections.abc import Set

from glebe.kube.objects import Object
from glebe.kube.quantity import to_int
from glebe.workloads.binder.needs import Needs
from glebe.workloads.binder.places import SUITS, judge


def node_helps(needs: Needs, plugins: Set[str], node: Object) -> bool:
    """A node appeared or changed. Any place for spread may change with it."""
    if "PodTopologySpread" in plugins:
        return True
    if needs.named is not None and node["metadata"]["name"] not in needs.named:
        return False
    if judge(needs, node) != SUITS:
        return False
    amounts = {"pods": 110, **((node.get("status") or {}).get("allocatable") or {})}
    return all(to_int(amounts.get(resource, 0), resource) >= amount for resource, amount in needs.requests.items())


def pod_gone_helps(needs: Needs, plugins: Set[str], gone: Needs) -> bool:
    """A pod released what it had (or its nomination)."""
    if "NodeResourcesFit" in plugins and any(resource in needs.requests for resource in gone.requests):
        return True
    if "NodePorts" in plugins and gone.ports:
        return True
    if "VolumeRestrictions" in plugins and gone.claims:
        return True
    if "InterPodAffinity" in plugins and (needs.relations.apart or needs.relations.near or gone.relations.apart):
        return True
    return "PodTopologySpread" in plugins and gone.namespace == needs.namespace


def pod_here_helps(needs: Needs, plugins: Set[str], here: Needs) -> bool:
    """A pod was bound, or its labels changed."""
    if "InterPodAffinity" in plugins and needs.relations.near:
        return True
    return "PodTopologySpread" in plugins and here.namespace == needs.namespace

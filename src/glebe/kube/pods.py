"""What all rooms say about pods in the same words: whether one has ended, where it is, what it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from glebe.kube.objects import Object, cluster_of, condition_is_true
from glebe.kube.quantity import to_int

ENDED: Final = ("Succeeded", "Failed")
#: Index over pods by the node that they are bound to; one name and one function, so that all users share one index.
BY_NODE: Final = "by-node"
#: Index over pods by cluster and node.
BY_PLACE: Final = "by-place"
#: Index over pods by cluster and namespace.
BY_SPACE: Final = "by-space"


def phase_of(pod: Object) -> str:
    """``status.phase``; a pod that says nothing is ``Pending``."""
    return str((pod.get("status") or {}).get("phase") or "Pending")


def has_ended(pod: Object) -> bool:
    """Whether no container of the pod runs, or ever will again."""
    return (pod.get("status") or {}).get("phase") in ENDED


def is_overruled(pod: Object) -> bool:
    """Whether somebody calls the pod not ready although its containers are (its node was silent, a gate is shut)."""
    return not condition_is_true(pod, "Ready") and condition_is_true(pod, "ContainersReady")


def node_of(pod: Object) -> list[str]:
    """The node that the pod is bound to, as the indexer behind :data:`BY_NODE` has it: none or one."""
    name = (pod.get("spec") or {}).get("nodeName")
    return [name] if name else []


def place_of(pod: Object) -> list[str]:
    """Cluster and node of the pod, as the indexer behind :data:`BY_PLACE` has it: none or one."""
    name = (pod.get("spec") or {}).get("nodeName")
    return [space(cluster_of(pod), name)] if name else []


def space_of(pod: Object) -> list[str]:
    """Cluster and namespace of the pod, as the indexer behind :data:`BY_SPACE` has it."""
    return [space(cluster_of(pod), pod["metadata"]["namespace"])]


def space(cluster: str, namespace: str) -> str:
    """The value by which :data:`BY_SPACE` finds a namespace's pods, and :data:`BY_PLACE` a node's."""
    return f"{cluster}/{namespace}"


def requests_of(spec: Mapping[str, Any], only: str = "", *, zeros: bool = False) -> dict[str, int]:
    """Requests of a pod's spec by resource, as integers (see :func:`glebe.kube.quantity.to_int`).

    The greater of what runs together (containers and sidecars) and what any init container needs at its turn, plus
    overhead; a limit counts as request where no request is given; requests of the pod as a whole win.

    :param only: look at this resource alone.
    :param zeros: name also what is asked for in an amount of 0.
    :raises glebe.kube.quantity.QuantityError: for an amount that is none.
    """
    running: dict[str, int] = {}
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in spec.get("initContainers") or ():
        asked = _asked(container, only)
        if container.get("restartPolicy") == "Always":
            _add(sidecars, asked)
            _raise_to(peak, sidecars)
        else:
            _add(asked, sidecars)
            _raise_to(peak, asked)
    for container in spec.get("containers") or ():
        _add(running, _asked(container, only))
    _add(running, sidecars)
    _raise_to(running, peak)
    running.update(_asked(spec, only))  # spec.resources: the pod as a whole
    _add(running, _amounts(spec.get("overhead") or {}, only))
    return {resource: amount for resource, amount in sorted(running.items()) if amount or zeros}


def _asked(container: Mapping[str, Any], only: str) -> dict[str, int]:
    resources = container.get("resources") or {}
    return _amounts({**(resources.get("limits") or {}), **(resources.get("requests") or {})}, only)


def _amounts(quantities: Mapping[str, Any], only: str) -> dict[str, int]:
    return {name: to_int(amount, name) for name, amount in quantities.items() if not only or name == only}


def _add(into: dict[str, int], more: Mapping[str, int]) -> None:
    for resource, amount in more.items():
        into[resource] = into.get(resource, 0) + amount


def _raise_to(into: dict[str, int], floor: Mapping[str, int]) -> None:
    for resource, amount in floor.items():
        into[resource] = max(into.get(resource, 0), amount)

"""What one pod asks for: the rule by which Kubernetes adds up its containers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glebe.kube.quantity import to_int


def pod_requests(spec: Mapping[str, Any]) -> dict[str, int]:
    """Requests of a pod spec by resource, as integers (see :func:`glebe.kube.quantity.to_int`).

    The greater of what runs together (containers and sidecars) and what any init container needs at its turn, plus
    overhead; a limit counts as request where no request is given; requests of the pod as a whole win.

    :raises glebe.kube.quantity.QuantityError: for an amount that is none.
    """
    running: dict[str, int] = {}
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in spec.get("initContainers") or ():
        asked = _container(container)
        if container.get("restartPolicy") == "Always":
            _add(sidecars, asked)
            _raise_to(peak, sidecars)
        else:
            _raise_to(peak, _sum(sidecars, asked))
    for container in spec.get("containers") or ():
        _add(running, _container(container))
    _add(running, sidecars)
    _raise_to(running, peak)
    running.update(_container(spec))  # spec.resources: the pod as a whole
    for resource, amount in (spec.get("overhead") or {}).items():
        running[resource] = running.get(resource, 0) + to_int(amount, resource)
    return {resource: amount for resource, amount in sorted(running.items()) if amount}


def _container(container: Mapping[str, Any]) -> dict[str, int]:
    resources = container.get("resources") or {}
    asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {resource: to_int(amount, resource) for resource, amount in asked.items()}


def _add(into: dict[str, int], more: Mapping[str, int]) -> None:
    for resource, amount in more.items():
        into[resource] = into.get(resource, 0) + amount


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    out = dict(one)
    _add(out, other)
    return out


def _raise_to(into: dict[str, int], floor: Mapping[str, int]) -> None:
    for resource, amount in floor.items():
        into[resource] = max(into.get(resource, 0), amount)

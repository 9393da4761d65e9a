"""What pods of simulated nodes use: what they declare, since no program runs.

``sim.glebe.dev/cpu-usage`` and ``sim.glebe.dev/memory-usage`` on the pod: a quantity (``250m``, ``1Gi``) or a
percentage of the request (``80%``) for each of its containers, or several ``CONTAINER=AMOUNT`` with commas. Without
them a container uses what it requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from glebe.kube import quantity
from glebe.kube.objects import Object, annotations_of
from glebe.kube.quantity import QuantityError

CPU_USAGE = "sim.glebe.dev/cpu-usage"
MEMORY_USAGE = "sim.glebe.dev/memory-usage"
_ANNOTATIONS = (("cpu", CPU_USAGE), ("memory", MEMORY_USAGE))


def usage_of(pod: Object) -> dict[str, tuple[float, int]]:
    """(cores, bytes) by the name of each container that runs. What cannot be read counts as not said."""
    notes = annotations_of(pod)
    amounts = {resource: notes.get(annotation, "") for resource, annotation in _ANNOTATIONS}
    out = {}
    for container in running_containers(pod):
        cpu, memory = (_amount(amounts[resource], container, resource) for resource, _ in _ANNOTATIONS)
        out[str(container["name"])] = (float(cpu), int(memory))
    return out


def running_containers(pod: Object) -> list[dict[str, Any]]:
    """The containers of the specification that run now, sidecars first."""
    status = pod.get("status") or {}
    going = {
        each["name"]
        for kind in ("initContainerStatuses", "containerStatuses")
        for each in status.get(kind) or ()
        if "running" in (each.get("state") or {})
    }
    spec = pod["spec"]
    return [c for kind in ("initContainers", "containers") for c in spec.get(kind) or () if c["name"] in going]


def _amount(said: str, container: Mapping[str, Any], resource: str) -> Fraction:
    resources = container.get("resources") or {}
    asked = (resources.get("requests") or {}).get(resource) or (resources.get("limits") or {}).get(resource) or "0"
    try:
        request = quantity.parse(asked)
        own = _own_part(said, str(container["name"]))
        if not own:
            return request
        if own.endswith("%"):
            return request * Fraction(own[:-1].strip()) / 100
        return max(Fraction(0), quantity.parse(own))
    except (QuantityError, ValueError, ZeroDivisionError):
        return Fraction(0)


def _own_part(said: str, container: str) -> str:
    """What is said of one container; "" when nothing is."""
    if "=" not in said:
        return said.strip()
    parts = dict(part.partition("=")[::2] for part in said.replace(" ", "").split(","))
    return parts.get(container, "")

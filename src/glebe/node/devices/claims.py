"""Devices that a pod has through ResourceClaims: from the allocation to UUIDs, for each container. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from glebe.kube.objects import Object
from glebe.node.contracts import SandboxError
from glebe.node.devices.slices import DRIVER


def claim_names(pod: Object) -> dict[str, str]:
    """The claims' names by entries of ``spec.resourceClaims``.

    :raises SandboxError: one is not made yet.
    """
    made = {s["name"]: s for s in (pod.get("status") or {}).get("resourceClaimStatuses") or ()}
    found: dict[str, str] = {}
    for entry in (pod.get("spec") or {}).get("resourceClaims") or ():
        name = entry.get("resourceClaimName")
        if name is None and entry["name"] not in made:
            raise _problem(f"ResourceClaim for {entry['name']} not created yet")
        if name is None:
            name = made[entry["name"]].get("resourceClaimName")
        if name:  # a template may need no claim
            found[entry["name"]] = name
    return found


def check(pod: Object, claim: Object) -> None:
    """:raises SandboxError: the claim is not the pod's to use (yet)."""
    name, status = claim["metadata"]["name"], claim.get("status") or {}
    if status.get("allocation") is None:
        raise _problem(f"ResourceClaim {name} is not allocated")
    if all(r.get("uid") != pod["metadata"]["uid"] for r in status.get("reservedFor") or ()):
        pod_name = f"{pod['metadata']['name']}({pod['metadata']['uid']})"
        raise _problem(f"pod {pod_name} is not allowed to use ResourceClaim {name}({claim['metadata']['uid']})")


def results(claim: Object, node: str) -> list[Mapping[str, Any]]:
    """The results that this node has to provide."""
    found = ((claim.get("status") or {}).get("allocation") or {}).get("devices") or {}
    return [r for r in found.get("results") or () if r.get("driver") == DRIVER and r.get("pool") == node]


def ids(claim: Object, node: str, known: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """UUIDs by request. ``known``: UUIDs by device name.

    :raises SandboxError: the node does not have such a device (any more).
    """
    found: dict[str, tuple[str, ...]] = {}
    for result in results(claim, node):
        uuid = known.get(result["device"])
        if uuid is None:
            name = claim["metadata"]["name"]
            raise _problem(f"device {result['device']} of ResourceClaim {name} is not on this node")
        request = str(result["request"]).partition("/")[0]
        found[request] = (*found.get(request, ()), uuid)
    return found


def share(pod: Object, given: Mapping[str, Mapping[str, Sequence[str]]]) -> dict[str, tuple[str, ...]]:
    """Who of the pod's containers sees what. ``given``: UUIDs by entry and request."""
    spec = pod["spec"]
    seen: dict[str, tuple[str, ...]] = {}
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        mine: list[str] = []
        for used in (container.get("resources") or {}).get("claims") or ():
            requests = given.get(used["name"], {})
            for request, uuids in requests.items():
                if used.get("request") in (None, "", request):
                    mine += uuids
        if mine:
            seen[container["name"]] = tuple(dict.fromkeys(mine))
    return seen


def reported(claim: Object, node: str) -> list[dict[str, Any]]:
    """``status.devices`` with what this node says of its own: they are ready."""
    mine = results(claim, node)
    old = (claim.get("status") or {}).get("devices") or ()
    keys = ("driver", "pool", "device")
    others = [d for d in old if all(any(d.get(k) != r[k] for k in keys) for r in mine)]
    return [*others, *({k: r[k] for k in keys} for r in mine)]


def _problem(text: str) -> SandboxError:
    return SandboxError(f"failed to prepare dynamic resources: {text}")

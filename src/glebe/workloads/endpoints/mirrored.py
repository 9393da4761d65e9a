"""Hand-made Endpoints as EndpointSlices, one per subset and address family. Pure.

Source: ``pkg/controller/endpointslicemirroring``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from glebe.kube.objects import Object, annotations_of, labels_of, owner_reference
from glebe.workloads.endpoints.backends import Ports, family_of, normal_address, ports_key
from glebe.workloads.endpoints.kinds import (
    LAST_APPLIED,
    MANAGED_BY,
    MIRROR_CONTROLLER,
    SERVICE_NAME,
    SKIP_MIRROR,
    TRIGGER_TIME,
    elects_leaders,
)
from glebe.workloads.endpoints.packing import Plan, identity, prefix
from glebe.workloads.endpoints.subsets import repack

MOST: Final = 1000
"""Addresses mirrored per subset."""


@dataclass(slots=True)
class Mirror:
    """The writes, and how many addresses were left out: ``invalid`` ones, and (``skipped``) those and too many."""

    plan: Plan = field(default_factory=Plan)
    invalid: int = 0
    skipped: int = 0


@dataclass(slots=True)
class _Wanted:
    ports: list[Object]
    endpoints: dict[object, Object] = field(default_factory=dict)


def wants_mirror(endpoints: Object) -> bool:
    """Not those of leader election, nor those that say so."""
    return labels_of(endpoints).get(SKIP_MIRROR) != "true" and not elects_leaders(endpoints)


def mirror(endpoints: Object, existing: Iterable[Object]) -> Mirror:
    """What to write so that the mirrored slices say what ``endpoints`` says."""
    out = Mirror()
    wanted: dict[tuple[str, Ports], _Wanted] = {}
    for subset in repack(endpoints.get("subsets") or ()):
        _take(subset, wanted, out)
    known: dict[tuple[str, Ports], list[Object]] = {}
    for slice_ in existing:
        known.setdefault((slice_.get("addressType", ""), ports_key(slice_.get("ports"))), []).append(slice_)
    for key, want in wanted.items():
        old, new = known.pop(key, []), _slice(endpoints, key[0], want)
        out.plan.delete += old[1:]
        if not old:
            out.plan.create.append(new)
        elif not _same(old[0], new):
            out.plan.update.append(_over(old[0], new))
    out.plan.delete += [s for slices in known.values() for s in slices]
    _recycle(out.plan)
    return out


def _take(subset: Object, wanted: dict[tuple[str, Ports], _Wanted], out: Mirror) -> None:
    ports = [_port(p) for p in subset.get("ports") or ()]
    key, taken = ports_key(ports), 0
    listed = [(a, True) for a in subset.get("addresses") or ()]
    listed += [(a, False) for a in subset.get("notReadyAddresses") or ()]
    for address, ready in listed:
        if taken >= MOST:
            break
        family = family_of(address["ip"])
        if not family:
            out.invalid += 1
            continue
        endpoint = _endpoint(address, ready)
        wanted.setdefault((family, key), _Wanted(ports)).endpoints[identity(endpoint)] = endpoint
        taken += 1
    out.skipped += len(listed) - taken


def _port(port: Object) -> Object:
    out: Object = {"name": port.get("name", ""), "protocol": port.get("protocol", "TCP"), "port": port.get("port")}
    if port.get("appProtocol") is not None:
        out["appProtocol"] = port["appProtocol"]
    return out


def _endpoint(address: Object, ready: bool) -> Object:
    out: Object = {"addresses": [normal_address(address["ip"])], "conditions": {"ready": ready}}
    for name in ("targetRef", "nodeName", "hostname"):
        if address.get(name):
            out[name] = address[name]
    return out


def _slice(endpoints: Object, family: str, want: _Wanted) -> Object:
    meta = endpoints["metadata"]
    notes = {k: v for k, v in annotations_of(endpoints).items() if k not in (TRIGGER_TIME, LAST_APPLIED)}
    made: Object = {
        "generateName": prefix(meta["name"]),
        "namespace": meta["namespace"],
        "labels": {**labels_of(endpoints), SERVICE_NAME: meta["name"], MANAGED_BY: MIRROR_CONTROLLER},
        "ownerReferences": [owner_reference({"apiVersion": "v1", "kind": "Endpoints", "metadata": meta})],
    }
    if notes:
        made["annotations"] = notes
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": made,
        "addressType": family,
        "ports": want.ports,
        "endpoints": list(want.endpoints.values()),
    }


def _same(old: Object, new: Object) -> bool:
    def endpoints(slice_: Object) -> dict[object, Object]:
        return {identity(e): e for e in slice_.get("endpoints") or ()}

    owners = [r.get("uid") for r in old["metadata"].get("ownerReferences") or () if r.get("kind") == "Endpoints"]
    return (
        endpoints(old) == endpoints(new)
        and labels_of(old) == labels_of(new)
        and annotations_of(old) == annotations_of(new)
        and owners == [new["metadata"]["ownerReferences"][0]["uid"]]
    )


def _over(old: Object, new: Object) -> Object:
    """``new`` written over ``old``."""
    meta = {key: value for key, value in old["metadata"].items() if key != "annotations"}
    fresh = {key: value for key, value in new["metadata"].items() if key != "generateName"}
    return {**new, "metadata": {**meta, **fresh}}


def _recycle(plan: Plan) -> None:
    """Rewrite slices that would be deleted in place of making new ones; the address type cannot change."""
    for made in list(plan.create):
        old = next((s for s in plan.delete if s.get("addressType") == made["addressType"]), None)
        if old is not None:
            plan.delete.remove(old)
            plan.create.remove(made)
            plan.update.append(_over(old, made))

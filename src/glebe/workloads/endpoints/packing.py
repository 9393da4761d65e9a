"""Endpoints into slices of at most 100, with as few writes as possible. Pure.

The order of preference is upstream's (``staging/src/k8s.io/endpointslice/reconciler.go``): what has to be written
anyway is filled up first; then one unchanged slice with just enough room is looked for; else new slices are made.
Slices that are sparsely filled are not merged for that alone: every write goes to every node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from glebe.kube.objects import Object, labels_of, owner_reference
from glebe.workloads.endpoints.backends import Ports, ports_key
from glebe.workloads.endpoints.kinds import HEADLESS, MANAGED_BY, SERVICE_NAME, SLICE_CONTROLLER, is_headless

MOST: Final = 100
"""Endpoints per slice."""
_RESERVED: Final = (HEADLESS, MANAGED_BY, SERVICE_NAME)


@dataclass(slots=True)
class Group:
    """The endpoints that are wanted with one set of ports."""

    ports: list[Object]
    endpoints: list[Object] = field(default_factory=list)


@dataclass(slots=True)
class Plan:
    """Slices to write, whole; those to create have no name yet."""

    create: list[Object] = field(default_factory=list)
    update: list[Object] = field(default_factory=list)
    delete: list[Object] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.create or self.update or self.delete)

    def add(self, other: Plan) -> None:
        self.create += other.create
        self.update += other.update
        self.delete += other.delete


def plan(service: Object, family: str, wanted: Iterable[Group], existing: Iterable[Object]) -> Plan:
    """What to write so that the Service's slices of one address family hold exactly ``wanted``."""
    existing = list(existing)
    groups = {ports_key(group.ports): group for group in wanted}
    out = Plan()
    mine: dict[Ports, list[Object]] = {}
    for slice_ in existing:
        key = ports_key(slice_.get("ports"))
        if not owned(slice_, service) or key not in groups:
            out.delete.append(slice_)
        else:
            mine.setdefault(key, []).append(slice_)
    for key, group in groups.items():
        out.add(_pack(service, family, group, mine.get(key, [])))
    if len(out.delete) == len(existing) and not out.create:
        _placeholder(service, family, out)
    _recycle(service, out)
    return out


def _pack(service: Object, family: str, group: Group, existing: list[Object]) -> Plan:
    """One group into slices that have its ports."""
    left = {identity(endpoint): endpoint for endpoint in group.endpoints}
    labels = labels_for(service)
    changed: list[Object] = []
    unchanged: list[Object] = []
    out = Plan()
    for slice_ in existing:
        old = slice_.get("endpoints") or []
        kept = [left.pop(key) for e in old if (key := identity(e)) in left]
        if old and not kept:
            out.delete.append(slice_)
        elif kept != old or differs(slice_, labels):
            changed.append({**_with_labels(slice_, labels), "endpoints": kept})
        else:
            unchanged.append(slice_)
    rest = list(left.values())
    for slice_ in sorted(changed, key=lambda s: -len(s["endpoints"])):
        rest = _fill(slice_, rest)
    if rest and (roomy := _closest(unchanged, len(rest))) is not None:
        changed.append({**_with_labels(roomy, labels), "endpoints": [*(roomy.get("endpoints") or ()), *rest]})
        rest = []
    out.update += changed
    for start in range(0, len(rest), MOST):
        out.create.append(new_slice(service, family, group.ports, rest[start : start + MOST]))
    return out


def _fill(slice_: Object, rest: list[Object]) -> list[Object]:
    room = MOST - len(slice_["endpoints"])
    slice_["endpoints"] = [*slice_["endpoints"], *rest[:room]] if room > 0 else slice_["endpoints"]
    return rest[max(0, room) :]


def _closest(slices: list[Object], number: int) -> Object | None:
    """The fullest slice that still has room for so many."""
    able = [s for s in slices if len(s.get("endpoints") or ()) + number <= MOST]
    return max(able, key=lambda s: len(s.get("endpoints") or ()), default=None)


def _placeholder(service: Object, family: str, out: Plan) -> None:
    """A Service without endpoints has one empty slice, so that its end is told from its not having been looked at."""
    wanted = new_slice(service, family, [], [])
    for slice_ in out.delete:
        if not slice_.get("endpoints") and not slice_.get("ports") and owned(slice_, service):
            out.delete.remove(slice_)
            if differs(slice_, wanted["metadata"]["labels"]):
                out.update.append(_with_labels(slice_, wanted["metadata"]["labels"]))
            return
    out.create.append(wanted)


def _recycle(service: Object, out: Plan) -> None:
    """Rewrite slices that would be deleted in place of making new ones."""
    for slice_ in list(out.delete):
        if not out.create:
            return
        if owned(slice_, service):
            made = out.create.pop()
            meta = {**slice_["metadata"], "labels": made["metadata"]["labels"]}
            out.update.append({**made, "metadata": meta})
            out.delete.remove(slice_)


# --- parts of a slice


def identity(endpoint: Mapping[str, Any]) -> object:
    """Which endpoint it is, whatever its state."""
    target = endpoint.get("targetRef") or {}
    return (
        tuple(sorted(endpoint.get("addresses") or ())),
        endpoint.get("hostname", ""),
        target.get("namespace", ""),
        target.get("name", ""),
        target.get("uid", ""),
    )


def owned(slice_: Object, service: Object) -> bool:
    """Whether this very Service (not a namesake before it) owns the slice."""
    uid = service["metadata"]["uid"]
    return any(
        r.get("uid") == uid and r.get("kind") == "Service" and r.get("apiVersion") == "v1"
        for r in slice_["metadata"].get("ownerReferences") or ()
    )


def labels_for(service: Object) -> dict[str, str]:
    """The labels of the Service's slices: its own, except reserved ones, and what says whose they are."""
    labels = {key: value for key, value in labels_of(service).items() if key not in _RESERVED}
    if is_headless(service):
        labels[HEADLESS] = ""
    labels[SERVICE_NAME] = service["metadata"]["name"]
    labels[MANAGED_BY] = SLICE_CONTROLLER
    return labels


def differs(slice_: Object, labels: dict[str, str]) -> bool:
    """Whether the slice's labels, as far as they are the Service's, are others."""
    old = {key: value for key, value in labels_of(slice_).items() if key not in _RESERVED}
    return old != {key: value for key, value in labels.items() if key not in _RESERVED}


def _with_labels(slice_: Object, labels: dict[str, str]) -> Object:
    return {**slice_, "metadata": {**slice_["metadata"], "labels": labels}}


def new_slice(service: Object, family: str, ports: list[Object], endpoints: list[Object]) -> Object:
    """A slice that the server will give a name."""
    meta = service["metadata"]
    owner = owner_reference({"apiVersion": "v1", "kind": "Service", "metadata": meta})
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": prefix(meta["name"]),
            "namespace": meta["namespace"],
            "labels": labels_for(service),
            "ownerReferences": [owner],
        },
        "addressType": family,
        "ports": ports,
        "endpoints": endpoints,
    }


def prefix(name: str) -> str:
    """What the names of slices begin with."""
    return f"{name}-" if len(name) < 253 else name

"""What a pod needs: amounts, and conditions on its node and on who is near. Equal needs share one answer. Pure."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import orjson

from glebe.kube import pods as kube_pods
from glebe.kube.nodes import Term, term_matches, tolerated, tolerates
from glebe.kube.objects import Object, get_condition
from glebe.kube.quantity import to_int
from glebe.workloads.binder import nodematch
from glebe.workloads.binder.relations import NONE, Relations, Spread, relations_of

__all__ = ["Needs", "Port", "priority_of", "tolerates"]

NATIVE = frozenset({"cpu", "memory", "ephemeral-storage", "pods"})


class Port(NamedTuple):
    """A host port; ``ip`` is ``""`` for all addresses."""

    protocol: str
    number: int
    ip: str


class Claim(NamedTuple):
    """A volume claim that the pod mounts. ``ephemeral``: it is made for this pod."""

    name: str
    ephemeral: bool


class Device(NamedTuple):
    """An entry of ``spec.resourceClaims``; ``claim`` is the ResourceClaim's name, ``""`` while it is not made yet."""

    entry: str
    claim: str
    template: str


def priority_of(pod: Object) -> int:
    return int((pod.get("spec") or {}).get("priority") or 0)


def _text(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_SUBCLASS, default=tuple).decode()


def _requests(spec: Mapping[str, Any]) -> dict[str, int]:
    """What the pod holds on its node: its requests, and its place among the node's ``pods``."""
    return {**{name: amount for name, amount in kube_pods.requests_of(spec).items() if amount > 0}, "pods": 1}


def allocated(pod: Object) -> list[Any]:
    """What the node says of each container's resources: allocated and in force (KEP-1287)."""
    status = pod.get("status") or {}
    return [
        (c["name"], c.get("allocatedResources"), (c.get("resources") or {}).get("requests"))
        for field in ("containerStatuses", "initContainerStatuses")
        for c in status.get(field) or ()
        if c.get("allocatedResources") or c.get("resources")
    ]


def _held(pod: Object) -> Mapping[str, Any]:
    """The spec with the requests that count while a resize is under way: the most of what is asked, allocated and in
    force; of an infeasible one only what is there."""
    spec: Mapping[str, Any] = pod.get("spec") or {}
    there = {name: [r for r in amounts if r] for name, *amounts in allocated(pod)}
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    asked = {c["name"]: (c.get("resources") or {}).get("requests") or {} for c in containers if c["name"] in there}
    if all(amounts == asked[name] for name in asked for amounts in there[name]):
        return spec
    pending = get_condition(pod, "PodResizePending") or {}
    infeasible = pending.get("reason") == "Infeasible"

    def raised(container: Mapping[str, Any]) -> Mapping[str, Any]:
        among = there.get(container["name"])
        if not among:
            return container
        resources = container.get("resources") or {}
        among = among if infeasible else [resources.get("requests") or {}, *among]
        most = {
            name: max((a[name] for a in among if name in a), key=lambda q: to_int(q, name))
            for name in dict.fromkeys(key for a in among for key in a)
        }
        return {**container, "resources": {**resources, "requests": most}}

    fields = [f for f in ("containers", "initContainers") if spec.get(f)]
    return {**spec, **{field: [raised(c) for c in spec[field]] for field in fields}}


@dataclass(frozen=True)
class Needs:
    """One class of pods. ``key`` is equal for equal needs where nothing depends on the pods around; ``place`` for equal
    conditions on the node's fixed properties."""

    key: str
    place: str
    requests: Mapping[str, int]
    selector: Mapping[str, str]
    terms: tuple[Term, ...] | None  # required node affinity: any of them; None: no condition
    tolerations: tuple[Mapping[str, Any], ...]
    preferred: tuple[Mapping[str, Any], ...]
    ports: tuple[Port, ...]
    claims: tuple[Claim, ...]
    devices: tuple[Device, ...]
    priority: int
    may_preempt: bool
    namespace: str
    labels: Mapping[str, str]
    relations: Relations
    weight: tuple[int, int]
    """Thousandths of a core and bytes that count for the score: pods that ask for nothing weigh something, too."""

    @classmethod
    def of(cls, pod: Object, spread: tuple[Spread, ...] = ()) -> Needs:
        """What ``pod`` needs; ``spread``: how it is to be spread where it does not say so itself."""
        meta, spec = pod.get("metadata") or {}, pod.get("spec") or {}
        affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
        required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
        terms = None if required is None else tuple(required.get("nodeSelectorTerms") or ())
        preferred = tuple(affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ())
        requests = _requests(_held(pod) if spec.get("nodeName") else spec)
        selector = spec.get("nodeSelector") or {}
        tolerations = tuple(spec.get("tolerations") or ())
        namespace, labels = meta.get("namespace", ""), meta.get("labels") or {}
        relations = relations_of(spec, namespace, labels)
        ports, claims, devices = _ports(spec), _claims(spec, meta.get("name", "")), _devices(pod)
        priority, may_preempt = priority_of(pod), spec.get("preemptionPolicy") != "Never"
        place = _text([selector, terms, tolerations, preferred])
        rest: list[Any] = [requests, priority, may_preempt, ports]
        if claims or devices:
            rest += [namespace, claims, devices]
        if relations is not NONE:
            rest += [namespace, labels, spec.get("affinity"), spec.get("topologySpreadConstraints")]
        key = place + _text(rest)
        if spread:  # a matter of the score alone: it does not make another class
            relations = replace(relations, soft_spread=spread, by_default=True)
        return cls(
            key=sys.intern(key),
            place=sys.intern(place),
            requests=requests,
            selector=selector,
            terms=terms,
            tolerations=tolerations,
            preferred=preferred,
            ports=ports,
            claims=claims,
            devices=devices,
            priority=priority,
            may_preempt=may_preempt,
            namespace=namespace,
            labels=labels,
            relations=relations,
            weight=_weight(spec, requests),
        )

    @cached_property
    def extended(self) -> tuple[str, ...]:
        """Requested resources that are devices rather than cpu, memory or storage."""
        return tuple(sorted(r for r in self.requests if r not in NATIVE and "/" in r))

    @property
    def extras(self) -> bool:
        """Whether plug-ins have to be asked."""
        return bool(self.claims or self.devices)

    @cached_property
    def named(self) -> frozenset[str] | None:
        """The only nodes that are considered at all, when the pod names some."""
        return nodematch.named_nodes(self.terms)

    @cached_property
    def with_labels(self) -> str:
        """Like ``key``, for when the pods around judge this one by its labels."""
        return self.key + _text([self.namespace, self.labels])

    def likes(self, node: Object) -> int:
        """Weights of the preferred node affinity that the node satisfies."""
        return sum(int(p.get("weight") or 0) for p in self.preferred if term_matches(p.get("preference") or {}, node))

    def dislikes(self, node: Object) -> int:
        """How many PreferNoSchedule taints the pod does not tolerate."""
        soft = (t for t in nodematch.taints_of(node) if t.get("effect") == "PreferNoSchedule")
        return sum(1 for t in soft if not tolerated(t, self.tolerations))


def _weight(spec: Mapping[str, Any], requests: Mapping[str, int]) -> tuple[int, int]:
    """Upstream's ``GetNonzeroRequests``: 0.1 core and 200 MiB for each container that does not say."""
    whole = (spec.get("resources") or {}).get("requests") or {}
    asked = [(c.get("resources") or {}).get("requests") or {} for c in spec.get("containers") or ()]
    silent = [0 if name in whole else sum(name not in each for each in asked) for name in ("cpu", "memory")]
    return requests.get("cpu", 0) + 100 * silent[0], requests.get("memory", 0) + (200 << 20) * silent[1]


def _ports(spec: Mapping[str, Any]) -> tuple[Port, ...]:
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    return tuple(
        sorted(
            Port(port.get("protocol") or "TCP", port["hostPort"], _address(port.get("hostIP")))
            for container in (*(spec.get("containers") or ()), *sidecars)
            for port in container.get("ports") or ()
            if port.get("hostPort")
        )
    )


def _address(ip: str | None) -> str:
    return "" if not ip or ip == "0.0.0.0" else ip  # the wildcard, not something to listen on


def _claims(spec: Mapping[str, Any], pod: str) -> tuple[Claim, ...]:
    found = []
    for volume in spec.get("volumes") or ():
        if claim := volume.get("persistentVolumeClaim"):
            found.append(Claim(claim.get("claimName") or "", False))
        elif "ephemeral" in volume:
            found.append(Claim(f"{pod}-{volume['name']}", True))
    return tuple(found)


def _devices(pod: Object) -> tuple[Device, ...]:
    entries = (pod.get("spec") or {}).get("resourceClaims")
    if not entries:
        return ()
    made = {
        s["name"]: s.get("resourceClaimName") or ""
        for s in (pod.get("status") or {}).get("resourceClaimStatuses") or ()
    }
    return tuple(
        Device(
            each["name"],
            each.get("resourceClaimName") or made.get(each["name"], ""),
            each.get("resourceClaimTemplateName") or "",
        )
        for each in entries
    )

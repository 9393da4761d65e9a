"""The pod sets of a Workload as what the scheduling core sees: pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glebe.kube.objects import Object
from glebe.queueing import labels
from glebe.queueing.jobs.integrations import read
from glebe.queueing.life import checks
from glebe.queueing.picture import requests
from glebe.queueing.picture.fleetobjects import tolerations
from glebe.queueing.picture.requests import PLAIN, Surroundings
from glebe.scheduling import model as m


def pod_sets(workload: Object, around: Surroundings = PLAIN) -> tuple[m.PodSet, ...]:
    """The pods that are still needed: those whose resources were given back (``reclaimablePods``) are left out."""
    gone = dict(reclaimable(workload))
    return tuple(_pod_set(_updated(p, workload), gone, around) for p in workload["spec"]["podSets"])


def _updated(item: dict[str, Any], workload: Object) -> dict[str, Any]:
    """The pod set with what its admission checks add (``podSetUpdates``), by which its pods are placed."""
    name = item.get("name", labels.DEFAULT_POD_SET)
    updates = [
        u
        for check in checks.in_state(workload, checks.READY)
        for u in check.get("podSetUpdates") or ()
        if u.get("name") == name
    ]
    if not updates:
        return item
    spec = dict(item["template"].get("spec") or {})
    for update in updates:
        if selector := update.get("nodeSelector"):
            spec["nodeSelector"] = {**(spec.get("nodeSelector") or {}), **selector}
        if more := update.get("tolerations"):
            spec["tolerations"] = [*(spec.get("tolerations") or ()), *more]
    return {**item, "template": {**item["template"], "spec": spec}}


def reclaimable(workload: Object) -> tuple[tuple[str, int], ...]:
    """Pods that are no longer needed, by pod set."""
    listed = read(workload, ("status", "reclaimablePods"), ())
    return tuple((p["name"], int(p.get("count") or 0)) for p in listed if p.get("count"))


def _pod_set(item: dict[str, Any], gone: Mapping[str, int], around: Surroundings) -> m.PodSet:
    spec = item["template"].get("spec") or {}
    name, count = item.get("name", labels.DEFAULT_POD_SET), int(item.get("count", 1))
    taken, counted = requests.on_node(spec, around), requests.counted(spec, around)
    return m.PodSet(
        name=name,
        count=count - min(gone.get(name, 0), count),
        requests=taken,  # zeros, too: they get a flavor
        charged=None if counted == taken else counted,
        node_selector=spec.get("nodeSelector") or {},
        affinity=_affinity(spec),
        preferred=_preferred(spec),
        tolerations=tolerations(spec.get("tolerations")),
        topology=_topology_request(item.get("topologyRequest") or {}),
        min_count=item.get("minCount"),
    )


def _topology_request(request: Mapping[str, Any]) -> m.TopologyRequest | None:
    slices = tuple(
        m.Slice(s["topology"], int(s["size"])) for s in request.get("podsetSliceRequiredTopologyConstraints") or ()
    )
    if not slices and (level := request.get("podSetSliceRequiredTopology")):
        slices = (m.Slice(level, int(request.get("podSetSliceSize") or 0)),)
    group = request.get("podSetGroupName") or ""
    if level := request.get("required"):
        return m.TopologyRequest(m.TopologyMode.REQUIRED, level, slices, group)
    if level := request.get("preferred"):
        return m.TopologyRequest(m.TopologyMode.PREFERRED, level, slices, group)
    if request.get("unconstrained") or slices:
        return m.TopologyRequest(m.TopologyMode.UNCONSTRAINED, "", slices, group)
    return None


def _affinity(spec: Mapping[str, Any]) -> tuple[tuple[m.Expression, ...], ...]:
    """The terms of the required node affinity; what a term says of node fields is left to the scheduler of pods."""
    path = ("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
    return tuple(_expressions(term) for term in read(spec, path, ()))


def _preferred(spec: Mapping[str, Any]) -> tuple[m.Preferred, ...]:
    """The terms of the preferred node affinity, but for those that speak of node fields."""
    terms = read(spec, ("affinity", "nodeAffinity", "preferredDuringSchedulingIgnoredDuringExecution"), ())
    return tuple(
        m.Preferred(int(t.get("weight", 1)), _expressions(t["preference"]))
        for t in terms
        if not t["preference"].get("matchFields")
    )


def _expressions(term: Mapping[str, Any]) -> tuple[m.Expression, ...]:
    return tuple(
        m.Expression(e["key"], e["operator"], tuple(e.get("values") or ())) for e in term.get("matchExpressions") or ()
    )

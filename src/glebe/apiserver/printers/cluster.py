"""Nodes, namespaces and what stands in them for others to read."""

from __future__ import annotations

from typing import Any

from glebe.apiserver.printers.cells import NONE, Printer, Printers, age, name_of, plain, since, spec_of, status_of
from glebe.kube.objects import Object, get_condition


def _node(obj: Object, now: float) -> list[Any]:
    ready = get_condition(obj, "Ready")
    state = "Unknown" if ready is None else ("Ready" if ready.get("status") == "True" else "NotReady")
    if spec_of(obj).get("unschedulable"):
        state += ",SchedulingDisabled"
    roles = set()
    for key, value in (obj["metadata"].get("labels") or {}).items():
        if key.startswith("node-role.kubernetes.io/"):
            roles.add(key.rpartition("/")[2])
        elif key == "kubernetes.io/role" and value:
            roles.add(value)
    info = status_of(obj).get("nodeInfo") or {}
    addresses = {a.get("type"): a.get("address") for a in reversed(status_of(obj).get("addresses") or ())}
    unknown = "<unknown>"
    wide = [
        addresses.get("InternalIP", NONE),
        addresses.get("ExternalIP", NONE),
        info.get("osImage") or unknown,
        info.get("kernelVersion") or unknown,
        info.get("containerRuntimeVersion") or unknown,
    ]
    listed = ",".join(sorted(r for r in roles if r)) or NONE
    return [name_of(obj), state, listed, age(obj, now), info.get("kubeletVersion", ""), *wide]


def _event(obj: Object, now: float) -> list[Any]:
    involved = obj.get("involvedObject") or obj.get("regarding") or {}
    first = obj.get("firstTimestamp") or obj.get("deprecatedFirstTimestamp") or obj.get("eventTime")
    series = obj.get("series") or {}
    last = series.get("lastObservedTime") or obj.get("lastTimestamp") or obj.get("deprecatedLastTimestamp") or first
    count = series.get("count") or obj.get("count") or obj.get("deprecatedCount") or 1
    target = f"{involved.get('kind', '').lower()}/{involved.get('name', '')}"
    source = obj.get("source") or obj.get("deprecatedSource") or {}
    component = source.get("component") or obj.get("reportingComponent") or obj.get("reportingController") or ""
    instance = source.get("host") or obj.get("reportingInstance") or ""
    where = f"{component}, {instance}" if instance else component
    message = (obj.get("message") or obj.get("note") or "").strip()
    shown = [since(last, now), obj.get("type", ""), obj.get("reason", ""), target, involved.get("fieldPath", ""), where]
    return [*shown, message, since(first, now), count, name_of(obj)]


def _quota(obj: Object, now: float) -> list[Any]:
    status = status_of(obj)
    hard, used = status.get("hard") or {}, status.get("used") or {}
    requests: list[str] = []
    limits: list[str] = []
    for name in sorted(hard):
        shown = f"{name}: {used.get(name, '0')}/{hard[name]}"
        (limits if name.startswith("limits.") else requests).append(shown)
    return [name_of(obj), ", ".join(requests), ", ".join(limits), age(obj, now)]


_CREATED: Printer = (
    ("Name", "Created At:date"),
    lambda obj, now: [name_of(obj), obj["metadata"].get("creationTimestamp")],
)
_EVENT = ("Last Seen", "Type", "Reason", "Object", "+Subobject", "+Source", "Message")
_EVENT_WIDE = ("+First Seen", "+Count", "+Name")
_NODE_WIDE = ("+Internal-IP", "+External-IP", "+OS-Image", "+Kernel-Version", "+Container-Runtime")

#: group resource -> (columns, row)
PRINTERS: Printers = {
    "nodes": (("Name", "Status", "Roles", "Age", "Version", *_NODE_WIDE), _node),
    "namespaces": (("Name", "Status", "Age"), plain(lambda o: status_of(o).get("phase", ""))),
    "events": ((*_EVENT, *_EVENT_WIDE), _event),
    "events.events.k8s.io": ((*_EVENT, *_EVENT_WIDE), _event),
    "leases.coordination.k8s.io": (
        ("Name", "Holder", "Age"),
        plain(lambda o: spec_of(o).get("holderIdentity", "")),
    ),
    "configmaps": (
        ("Name", "Data", "Age"),
        plain(lambda o: len(o.get("data") or ()) + len(o.get("binaryData") or ())),
    ),
    "secrets": (
        ("Name", "Type", "Data", "Age"),
        lambda o, now: [name_of(o), o.get("type", ""), len(o.get("data") or ()), age(o, now)],
    ),
    "serviceaccounts": (("Name", "Age"), lambda o, now: [name_of(o), age(o, now)]),
    "limitranges": _CREATED,
    "resourcequotas": (("Name", "Request", "Limit", "Age"), _quota),
    "customresourcedefinitions.apiextensions.k8s.io": _CREATED,
    "runtimeclasses.node.k8s.io": (("Name", "Handler", "Age"), plain(lambda o: o.get("handler", ""))),
}

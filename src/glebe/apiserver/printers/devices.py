"""Devices, volumes' drivers, flow control, and the other kinds that administrators look at."""

from __future__ import annotations

from typing import Any

from glebe.apiserver.printers.cells import NONE, Fill, Printers, age, name_of, plain, spec_of, status_of
from glebe.kube.objects import Object, get_condition


def _claim_state(obj: Object) -> str:
    status, ending = status_of(obj), "deletionTimestamp" in obj["metadata"]
    states = ["deleted"] if ending else []
    if "allocation" in status:
        states.append("allocated")
        if status.get("reservedFor"):
            states.append("reserved")
    elif not ending:
        states.append("pending")
    return ",".join(states)


def _slice(obj: Object, now: float) -> list[Any]:
    spec = spec_of(obj)
    pool = (spec.get("pool") or {}).get("name", "")
    return [name_of(obj), spec.get("nodeName", ""), spec.get("driver", ""), pool, age(obj, now)]


def _level(obj: Object, now: float) -> list[Any]:
    spec = spec_of(obj)
    limited = spec.get("limited")
    queuing = ((limited or {}).get("limitResponse") or {}).get("queuing") or {}
    shares = NONE if limited is None else limited.get("nominalConcurrencyShares", 0)
    shown = [queuing.get(field, NONE) for field in ("queues", "handSize", "queueLengthLimit")]
    return [name_of(obj), spec.get("type", ""), shares, *shown, age(obj, now)]


def _flow_schema(obj: Object, now: float) -> list[Any]:
    spec = spec_of(obj)
    level = (spec.get("priorityLevelConfiguration") or {}).get("name", "")
    method = (spec.get("distinguisherMethod") or {}).get("type", NONE)
    dangling = (get_condition(obj, "Dangling") or {}).get("status", "?")
    return [name_of(obj), level, spec.get("matchingPrecedence", 0), method, age(obj, now), dangling]


def _driver(obj: Object, now: float) -> list[Any]:
    spec = spec_of(obj)
    requests = spec.get("tokenRequests")
    tokens = "<unset>" if requests is None else ",".join(r.get("audience", "") for r in requests)
    flags = [spec.get("attachRequired", True), spec.get("podInfoOnMount", False), spec.get("storageCapacity", False)]
    modes = ",".join(spec.get("volumeLifecycleModes") or ()) or NONE
    return [name_of(obj), *flags, tokens, spec.get("requiresRepublish", False), modes, age(obj, now)]


def _attachment(obj: Object, now: float) -> list[Any]:
    spec = spec_of(obj)
    volume = (spec.get("source") or {}).get("persistentVolumeName") or ""
    attached = bool(status_of(obj).get("attached"))
    return [name_of(obj), spec.get("attacher", ""), volume, spec.get("nodeName", ""), attached, age(obj, now)]


def _ingress_class(obj: Object, now: float) -> list[Any]:
    notes = obj["metadata"].get("annotations") or {}
    default = notes.get("ingressclass.kubernetes.io/is-default-class") == "true"
    ref = spec_of(obj).get("parameters")
    shown = NONE
    if ref is not None:
        kind = f"{ref.get('kind', '')}.{ref['apiGroup']}" if ref.get("apiGroup") else ref.get("kind", "")
        shown = f"{kind}/{ref.get('name', '')}"
    name = name_of(obj) + (" (default)" if default else "")
    return [name, spec_of(obj).get("controller", ""), shown, age(obj, now)]


def _address(obj: Object) -> str:
    ref = spec_of(obj).get("parentRef")
    if ref is None:
        return NONE
    resource = f"{ref.get('resource', '')}.{ref['group']}" if ref.get("group") else ref.get("resource", "")
    parts = [resource.lower(), ref.get("namespace", ""), ref.get("name", "")]
    return "/".join(p for p in parts if p)


def _revision(obj: Object, now: float) -> list[Any]:
    owner = next((o for o in obj["metadata"].get("ownerReferences") or () if o.get("controller")), None)
    shown = NONE
    if owner is not None:
        group, _, _ = owner.get("apiVersion", "").rpartition("/")
        kind = f"{owner['kind']}.{group}" if group else owner["kind"]
        shown = f"{kind.lower()}/{owner['name']}"
    return [name_of(obj), shown, obj.get("revision", 0), age(obj, now)]


def _template(obj: Object, now: float) -> list[Any]:
    template = obj.get("template") or {}
    found = (template.get("spec") or {}).get("containers") or ()
    labels = (template.get("metadata") or {}).get("labels") or {}
    names, images = (",".join(c.get(field, "") for c in found) for field in ("name", "image"))
    return [name_of(obj), names, images, ",".join(f"{k}={v}" for k, v in sorted(labels.items())) or NONE]


def _service_of_api(obj: Object, now: float) -> list[Any]:
    ref = spec_of(obj).get("service")
    where = f"{ref.get('namespace', '')}/{ref.get('name', '')}" if ref else "Local"
    found = get_condition(obj, "Available")
    shown = "Unknown"
    if found is not None:
        shown = str(found.get("status"))
        if shown != "True":
            shown += f" ({found.get('reason', '')})"
    return [name_of(obj), where, shown, age(obj, now)]


def _pod_group(obj: Object, now: float) -> list[Any]:
    spec = spec_of(obj)
    kind = "Gang" if (spec.get("schedulingPolicy") or {}).get("gang") is not None else "Basic"
    ref = ((spec.get("podGroupTemplateRef") or {}).get("workload") or {}).get("workloadName") or NONE
    state = "Pending"
    if (found := get_condition(obj, "PodGroupScheduled")) is not None:
        state = "Scheduled" if found.get("status") == "True" else "Unschedulable"
    if (found := get_condition(obj, "DisruptionTarget")) is not None:
        state = found.get("reason", "")
    return [name_of(obj), kind, ref, state, age(obj, now)]


def _component(obj: Object, now: float) -> list[Any]:
    healthy: Object = next((c for c in obj.get("conditions") or () if c.get("type") == "Healthy"), {})
    state = {"True": "Healthy", "False": "Unhealthy"}.get(healthy.get("status", ""), "Unknown")
    return [name_of(obj), state, healthy.get("message", ""), healthy.get("error", "")]


_AGED: Fill = lambda obj, now: [name_of(obj), age(obj, now)]  # noqa: E731
_QUEUES = ("NominalConcurrencyShares", "Queues", "HandSize", "QueueLengthLimit")
_FLAGS = ("AttachRequired:boolean", "PodInfoOnMount:boolean", "StorageCapacity:boolean")

#: group resource -> (columns, row)
PRINTERS: Printers = {
    "resourceclaims.resource.k8s.io": (("Name", "State", "Age"), plain(_claim_state)),
    "resourceclaimtemplates.resource.k8s.io": (("Name", "Age"), _AGED),
    "deviceclasses.resource.k8s.io": (("Name", "Age"), _AGED),
    "resourceslices.resource.k8s.io": (("Name", "Node", "Driver", "Pool", "Age"), _slice),
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": (("Name", "Type", *_QUEUES, "Age"), _level),
    "flowschemas.flowcontrol.apiserver.k8s.io": (
        ("Name", "PriorityLevel", "MatchingPrecedence", "DistinguisherMethod", "Age", "MissingPL"),
        _flow_schema,
    ),
    "csidrivers.storage.k8s.io": (
        ("Name", *_FLAGS, "TokenRequests", "RequiresRepublish:boolean", "Modes", "Age"),
        _driver,
    ),
    "csinodes.storage.k8s.io": (
        ("Name", "Drivers:integer", "Age"),
        plain(lambda o: len(spec_of(o).get("drivers") or ())),
    ),
    "volumeattachments.storage.k8s.io": (
        ("Name", "Attacher:string:name", "PV", "Node", "Attached:boolean", "Age"),
        _attachment,
    ),
    "volumeattributesclasses.storage.k8s.io": (
        ("Name", "DriverName", "Age"),
        plain(lambda o: o.get("driverName", "")),
    ),
    "ingressclasses.networking.k8s.io": (("Name", "Controller", "Parameters", "Age"), _ingress_class),
    # upstream names no column for the age, and fills it in all the same
    "ipaddresses.networking.k8s.io": (("Name", "ParentRef"), plain(_address)),
    "servicecidrs.networking.k8s.io": (
        ("Name", "CIDRs", "Age"),
        plain(lambda o: ",".join(spec_of(o).get("cidrs") or ())),
    ),
    "controllerrevisions.apps": (("Name", "Controller", "Revision", "Age"), _revision),
    "componentstatuses": (("Name", "Status", "Message", "Error"), _component),
    "podtemplates": (("Name", "Containers", "Images", "Pod Labels"), _template),
    "apiservices.apiregistration.k8s.io": (("Name", "Service", "Available", "Age"), _service_of_api),
    "workloads.scheduling.k8s.io": (("Name", "Age"), _AGED),
    "podgroups.scheduling.k8s.io": (("Name", "Policy", "Workload", "Status", "Age"), _pod_group),
}

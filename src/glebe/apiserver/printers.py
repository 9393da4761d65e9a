"""What each built-in kind shows in a table: its columns, and the function that fills a row.

A column is written ``Name:type`` (type string when left out); ``+`` marks one that only ``-o wide`` shows. Status words
follow kubectl's, because people and scripts read them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from glebe.apiserver.podprinter import pod_cells
from glebe.kube.clock import parse_time
from glebe.kube.duration import format_duration
from glebe.kube.objects import Object, get_condition

Fill = Callable[[Object, float], list[Any]]
NONE = "<none>"


def since(text: str | None, now: float) -> str:
    """How long ago a time was, as kubectl says it."""
    if not text:
        return "<unknown>"
    try:
        return format_duration(max(0.0, now - parse_time(text)))
    except ValueError:
        return "<invalid>"


def age(obj: Object, now: float) -> str:
    return since(obj["metadata"].get("creationTimestamp"), now)


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def _spec(obj: Object) -> dict[str, Any]:
    return obj.get("spec") or {}


def _status(obj: Object) -> dict[str, Any]:
    return obj.get("status") or {}


def _pairs(labels: dict[str, str] | None) -> str:
    return ",".join(f"{k}={v}" for k, v in sorted((labels or {}).items())) or NONE


def _selector(selector: dict[str, Any] | None) -> str:
    if not selector:
        return NONE
    parts = [f"{k}={v}" for k, v in sorted((selector.get("matchLabels") or {}).items())]
    for term in selector.get("matchExpressions") or ():
        key, values = term["key"], ",".join(term.get("values") or ())
        text = {"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": key}
        parts.append(text.get(term["operator"], f"!{key}"))
    return ",".join(parts) or NONE


def _containers(obj: Object) -> list[str]:
    """Names and images of the pod template."""
    template = _spec(obj).get("template") or _spec(obj).get("jobTemplate", {}).get("spec", {}).get("template") or {}
    found = (template.get("spec") or {}).get("containers") or ()
    return [",".join(c.get("name", "") for c in found), ",".join(c.get("image", "") for c in found)]


# --------------------------------------------------------------------------------------------------------- workloads


def _job(obj: Object, now: float) -> list[Any]:
    spec, status = _spec(obj), _status(obj)
    done = status.get("succeeded", 0)
    if spec.get("completions") is not None:
        completions = f"{done}/{spec['completions']}"
    else:
        parallelism = spec.get("parallelism") or 0
        completions = f"{done}/1 of {parallelism}" if parallelism > 1 else f"{done}/1"
    duration = ""
    if start := status.get("startTime"):
        end = status.get("completionTime")
        duration = format_duration((parse_time(end) if end else now) - parse_time(start))
    wide = [*_containers(obj), _selector(spec.get("selector"))]
    return [_name(obj), _job_state(obj), completions, duration, age(obj, now), *wide]


def _job_state(obj: Object) -> str:
    def true(kind: str) -> bool:
        return (get_condition(obj, kind) or {}).get("status") == "True"

    for kind in ("Complete", "Failed"):
        if true(kind):
            return kind
    if "deletionTimestamp" in obj["metadata"]:
        return "Terminating"
    for kind in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if true(kind):
            return kind
    return "Running"


def _cron_job(obj: Object, now: float) -> list[Any]:
    spec, status = _spec(obj), _status(obj)
    last = since(status["lastScheduleTime"], now) if status.get("lastScheduleTime") else NONE
    suspended = "True" if spec.get("suspend") else "False"
    active = len(status.get("active") or ())
    zone = spec.get("timeZone") or NONE
    return [_name(obj), spec.get("schedule"), zone, suspended, active, last, age(obj, now), *_containers(obj), NONE]


def _deployment(obj: Object, now: float) -> list[Any]:
    spec, status = _spec(obj), _status(obj)
    ready = f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}"
    counts = [status.get("updatedReplicas", 0), status.get("availableReplicas", 0)]
    return [_name(obj), ready, *counts, age(obj, now), *_containers(obj), _selector(spec.get("selector"))]


def _replica_set(obj: Object, now: float) -> list[Any]:
    spec, status = _spec(obj), _status(obj)
    counts = [spec.get("replicas", 0), status.get("replicas", 0), status.get("readyReplicas", 0)]
    selector = spec.get("selector")
    shown = _pairs(selector) if obj.get("kind") == "ReplicationController" else _selector(selector)
    return [_name(obj), *counts, age(obj, now), *_containers(obj), shown]


def _stateful_set(obj: Object, now: float) -> list[Any]:
    ready = f"{_status(obj).get('readyReplicas', 0)}/{_spec(obj).get('replicas', 0)}"
    return [_name(obj), ready, age(obj, now), *_containers(obj)]


def _daemon_set(obj: Object, now: float) -> list[Any]:
    spec, status = _spec(obj), _status(obj)
    fields = ("desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled")
    counts = [status.get(f, 0) for f in (*fields, "numberAvailable")]
    node_selector = (spec.get("template") or {}).get("spec", {}).get("nodeSelector")
    shown = _pairs(node_selector)
    return [_name(obj), *counts, shown, age(obj, now), *_containers(obj), _selector(spec.get("selector"))]


# ------------------------------------------------------------------------------------------------- nodes and cluster


def _node(obj: Object, now: float) -> list[Any]:
    ready = get_condition(obj, "Ready")
    state = "Unknown" if ready is None else ("Ready" if ready.get("status") == "True" else "NotReady")
    if _spec(obj).get("unschedulable"):
        state += ",SchedulingDisabled"
    roles = set()
    for key, value in (obj["metadata"].get("labels") or {}).items():
        if key.startswith("node-role.kubernetes.io/"):
            roles.add(key.rpartition("/")[2])
        elif key == "kubernetes.io/role" and value:
            roles.add(value)
    info = _status(obj).get("nodeInfo") or {}
    addresses = {a.get("type"): a.get("address") for a in reversed(_status(obj).get("addresses") or ())}
    unknown = "<unknown>"
    wide = [
        addresses.get("InternalIP", NONE),
        addresses.get("ExternalIP", NONE),
        info.get("osImage") or unknown,
        info.get("kernelVersion") or unknown,
        info.get("containerRuntimeVersion") or unknown,
    ]
    listed = ",".join(sorted(r for r in roles if r)) or NONE
    return [_name(obj), state, listed, age(obj, now), info.get("kubeletVersion", ""), *wide]


def _event(obj: Object, now: float) -> list[Any]:
    involved = obj.get("involvedObject") or obj.get("regarding") or {}
    first = obj.get("firstTimestamp") or obj.get("deprecatedFirstTimestamp") or obj.get("eventTime")
    series = obj.get("series") or {}
    last = series.get("lastObservedTime") or obj.get("lastTimestamp") or obj.get("deprecatedLastTimestamp") or first
    count = series.get("count") or obj.get("count") or obj.get("deprecatedCount") or 1
    target = f"{involved.get('kind', '').lower()}/{involved.get('name', '')}"
    source = obj.get("source") or obj.get("deprecatedSource") or {}
    component = source.get("component") or obj.get("reportingComponent") or obj.get("reportingController") or ""
    where = f"{component}, {source['host']}" if source.get("host") else component
    message = (obj.get("message") or obj.get("note") or "").strip()
    shown = [since(last, now), obj.get("type", ""), obj.get("reason", ""), target, involved.get("fieldPath", ""), where]
    return [*shown, message, since(first, now), count, _name(obj)]


# ---------------------------------------------------------------------------------------------- services and storage


def _service(obj: Object, now: float) -> list[Any]:
    spec = _spec(obj)
    kind = spec.get("type", "")
    if kind == "ExternalName":
        external = spec.get("externalName", "")
    else:
        ingress = (_status(obj).get("loadBalancer") or {}).get("ingress") or ()
        found = [*(i.get("ip") or i.get("hostname", "") for i in ingress), *(spec.get("externalIPs") or ())]
        external = ",".join(found) or ("<pending>" if kind == "LoadBalancer" else NONE)
    ports = []
    for port in spec.get("ports") or ():
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        ports.append(f"{port.get('port')}{node}/{port.get('protocol', 'TCP')}")
    address = spec.get("clusterIP") or NONE
    shown = ",".join(ports) or NONE
    return [_name(obj), kind, address, external, shown, age(obj, now), _pairs(spec.get("selector"))]


def _endpoints(obj: Object, now: float) -> list[Any]:
    found: list[str] = []
    for subset in obj.get("subsets") or ():
        addresses = [str(a.get("ip")) for a in subset.get("addresses") or ()]
        ports = [f":{p['port']}" for p in subset.get("ports") or () if "port" in p] or [""]
        found.extend(address + port for port in ports for address in addresses)
    text = ",".join(found[:3]) + (f" + {len(found) - 3} more..." if len(found) > 3 else "")
    return [_name(obj), text or NONE, age(obj, now)]


def _slice(obj: Object, now: float) -> list[Any]:
    ports = ",".join(str(p.get("port", "*")) for p in obj.get("ports") or ()) or "<unset>"
    found = [a for e in obj.get("endpoints") or () for a in e.get("addresses") or ()]
    text = ",".join(found[:3]) + (f" + {len(found) - 3} more..." if len(found) > 3 else "")
    return [_name(obj), obj.get("addressType", ""), ports, text or "<unset>", age(obj, now)]


_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def _modes(modes: list[str] | None) -> str:
    return ",".join(_MODES.get(m, m) for m in modes or ())


def _claim(obj: Object, now: float) -> list[Any]:
    spec, status = _spec(obj), _status(obj)
    phase = "Terminating" if "deletionTimestamp" in obj["metadata"] else status.get("phase", "")
    bound = bool(spec.get("volumeName"))
    capacity = (status.get("capacity") or {}).get("storage", "") if bound else ""
    modes = _modes(status.get("accessModes")) if bound else ""
    tail = [spec.get("storageClassName", ""), spec.get("volumeAttributesClassName", "<unset>")]
    wide = spec.get("volumeMode", "<unset>")
    return [_name(obj), phase, spec.get("volumeName", ""), capacity, modes, *tail, age(obj, now), wide]


def _volume(obj: Object, now: float) -> list[Any]:
    spec, status = _spec(obj), _status(obj)
    ref = spec.get("claimRef") or {}
    claim = f"{ref.get('namespace')}/{ref.get('name')}" if ref else ""
    phase = "Terminating" if "deletionTimestamp" in obj["metadata"] else status.get("phase", "")
    head = [_name(obj), (spec.get("capacity") or {}).get("storage", ""), _modes(spec.get("accessModes"))]
    middle = [spec.get("persistentVolumeReclaimPolicy", ""), phase, claim, spec.get("storageClassName", "")]
    tail = [spec.get("volumeAttributesClassName", "<unset>"), status.get("reason", ""), age(obj, now)]
    return [*head, *middle, *tail, spec.get("volumeMode", "<unset>")]


def _storage_class(obj: Object, now: float) -> list[Any]:
    default = (obj["metadata"].get("annotations") or {}).get("storageclass.kubernetes.io/is-default-class") == "true"
    expand = bool(obj.get("allowVolumeExpansion"))
    modes = [obj.get("reclaimPolicy", "Delete"), obj.get("volumeBindingMode", "Immediate"), expand]
    return [_name(obj) + (" (default)" if default else ""), obj.get("provisioner", ""), *modes, age(obj, now)]


def _ingress(obj: Object, now: float) -> list[Any]:
    spec = _spec(obj)
    hosts = ",".join(r["host"] for r in spec.get("rules") or () if r.get("host")) or "*"
    found = (_status(obj).get("loadBalancer") or {}).get("ingress") or ()
    address = ",".join(i.get("ip") or i.get("hostname", "") for i in found)
    ports = "80, 443" if spec.get("tls") else "80"
    return [_name(obj), spec.get("ingressClassName", NONE), hosts, address, ports, age(obj, now)]


# ------------------------------------------------------------------------------------------------------------ others


def _quota(obj: Object, now: float) -> list[Any]:
    status = _status(obj)
    hard, used = status.get("hard") or {}, status.get("used") or {}
    requests: list[str] = []
    limits: list[str] = []
    for name in sorted(hard):
        shown = f"{name}: {used.get(name, '0')}/{hard[name]}"
        (limits if name.startswith("limits.") else requests).append(shown)
    return [_name(obj), ", ".join(requests), ", ".join(limits), age(obj, now)]


def _binding(obj: Object, now: float) -> list[Any]:
    ref = obj.get("roleRef") or {}
    by_kind: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for subject in obj.get("subjects") or ():
        name = subject.get("name", "")
        full = f"{subject.get('namespace', '')}/{name}" if subject.get("kind") == "ServiceAccount" else name
        by_kind.setdefault(subject.get("kind", ""), []).append(full)
    wide = [", ".join(by_kind[kind]) for kind in ("User", "Group", "ServiceAccount")]
    return [_name(obj), f"{ref.get('kind')}/{ref.get('name')}", age(obj, now), *wide]


def _budget(obj: Object, now: float) -> list[Any]:
    spec = _spec(obj)
    bounds = [str(spec.get("minAvailable", "N/A")), str(spec.get("maxUnavailable", "N/A"))]
    return [_name(obj), *bounds, _status(obj).get("disruptionsAllowed", 0), age(obj, now)]


def _autoscaler(obj: Object, now: float) -> list[Any]:
    spec, status = _spec(obj), _status(obj)
    ref = spec.get("scaleTargetRef") or {}
    target = f"{ref.get('kind')}/{ref.get('name')}"
    bounds = [str(spec.get("minReplicas", "<unset>")), spec.get("maxReplicas", 0), status.get("currentReplicas", 0)]
    return [_name(obj), target, "<unknown>", *bounds, age(obj, now)]


def _request(obj: Object, now: float) -> list[Any]:
    spec = _spec(obj)
    kinds = [c.get("type") for c in _status(obj).get("conditions") or ()]
    state = next((k for k in ("Denied", "Approved") if k in kinds), "Pending")
    if "Failed" in kinds:
        state += ",Failed"
    if _status(obj).get("certificate"):
        state += ",Issued"
    seconds = spec.get("expirationSeconds")
    duration = format_duration(seconds) if seconds else NONE
    return [_name(obj), age(obj, now), spec.get("signerName", ""), spec.get("username", ""), duration, state]


def _priority_class(obj: Object, now: float) -> list[Any]:
    default = bool(obj.get("globalDefault"))
    return [_name(obj), obj.get("value", 0), default, age(obj, now), obj.get("preemptionPolicy", "")]


def _policy(field: str) -> Fill:
    def fill(obj: Object, now: float) -> list[Any]:
        param = _spec(obj).get("paramKind")
        shown = f"{param.get('apiVersion')}/{param.get('kind')}" if param else "<unset>"
        return [_name(obj), len(_spec(obj).get(field) or ()), shown, age(obj, now)]

    return fill


def _policy_binding(obj: Object, now: float) -> list[Any]:
    spec = _spec(obj)
    ref = spec.get("paramRef")
    shown = "<unset>"
    if ref:
        shown = f"{ref['namespace']}/{ref.get('name', '')}" if ref.get("namespace") else ref.get("name", "*")
    return [_name(obj), spec.get("policyName", ""), shown, age(obj, now)]


def _count(field: str) -> Fill:
    return lambda obj, now: [_name(obj), len(obj.get(field) or ()), age(obj, now)]


def _plain(value: Callable[[Object], Any]) -> Fill:
    """Name, one value, age."""
    return lambda obj, now: [_name(obj), value(obj), age(obj, now)]


_CREATED: tuple[tuple[str, ...], Fill] = (
    ("Name", "Created At:date"),
    lambda obj, now: [_name(obj), obj["metadata"].get("creationTimestamp")],
)
_BINDING = ("Name", "Role", "Age", "+Users", "+Groups", "+ServiceAccounts")
_WIDE = ("+Containers", "+Images", "+Selector")
_COUNTS = ("Name", "Desired:integer", "Current:integer", "Ready:integer", "Age", *_WIDE)
_POD = ("Name", "Ready", "Status", "Restarts", "Age", "+IP", "+Node", "+Nominated Node", "+Readiness Gates")
_EVENT = ("Last Seen", "Type", "Reason", "Object", "+Subobject", "+Source", "Message")
_EVENT_WIDE = ("+First Seen", "+Count:integer", "+Name")
_NODE_WIDE = ("+Internal-IP", "+External-IP", "+OS-Image", "+Kernel-Version", "+Container-Runtime")
_DAEMON = ("Desired:integer", "Current:integer", "Ready:integer", "Up-to-date:integer", "Available:integer")
_ADMISSION = "admissionregistration.k8s.io"

#: group resource -> (columns, row)
PRINTERS: dict[str, tuple[tuple[str, ...], Fill]] = {
    "pods": (_POD, lambda obj, now: pod_cells(obj, now, age(obj, now))),
    "nodes": (("Name", "Status", "Roles", "Age", "Version", *_NODE_WIDE), _node),
    "namespaces": (("Name", "Status", "Age"), _plain(lambda o: _status(o).get("phase", ""))),
    "jobs.batch": (("Name", "Status", "Completions", "Duration", "Age", *_WIDE), _job),
    "cronjobs.batch": (
        ("Name", "Schedule", "Timezone", "Suspend", "Active:integer", "Last Schedule", "Age", *_WIDE),
        _cron_job,
    ),
    "deployments.apps": (("Name", "Ready", "Up-to-date:integer", "Available:integer", "Age", *_WIDE), _deployment),
    "replicasets.apps": (_COUNTS, _replica_set),
    "replicationcontrollers": (_COUNTS, _replica_set),
    "statefulsets.apps": (("Name", "Ready", "Age", "+Containers", "+Images"), _stateful_set),
    "daemonsets.apps": (("Name", *_DAEMON, "Node Selector", "Age", *_WIDE), _daemon_set),
    "services": (("Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age", "+Selector"), _service),
    "endpoints": (("Name", "Endpoints", "Age"), _endpoints),
    "endpointslices.discovery.k8s.io": (("Name", "AddressType", "Ports", "Endpoints", "Age"), _slice),
    "configmaps": (
        ("Name", "Data", "Age"),
        _plain(lambda o: len(o.get("data") or ()) + len(o.get("binaryData") or ())),
    ),
    "secrets": (
        ("Name", "Type", "Data:integer", "Age"),
        lambda o, now: [_name(o), o.get("type", ""), len(o.get("data") or ()), age(o, now)],
    ),
    "serviceaccounts": (("Name", "Age"), lambda o, now: [_name(o), age(o, now)]),
    "events": ((*_EVENT, *_EVENT_WIDE), _event),
    "events.events.k8s.io": ((*_EVENT, *_EVENT_WIDE), _event),
    "leases.coordination.k8s.io": (
        ("Name", "Holder", "Age"),
        _plain(lambda o: _spec(o).get("holderIdentity", "")),
    ),
    "priorityclasses.scheduling.k8s.io": (
        ("Name", "Value:integer", "Global-Default:boolean", "Age", "PreemptionPolicy"),
        _priority_class,
    ),
    "roles.rbac.authorization.k8s.io": _CREATED,
    "clusterroles.rbac.authorization.k8s.io": _CREATED,
    "rolebindings.rbac.authorization.k8s.io": (_BINDING, _binding),
    "clusterrolebindings.rbac.authorization.k8s.io": (_BINDING, _binding),
    "customresourcedefinitions.apiextensions.k8s.io": _CREATED,
    "limitranges": _CREATED,
    "resourcequotas": (("Name", "Request", "Limit", "Age"), _quota),
    "persistentvolumeclaims": (
        (
            "Name",
            "Status",
            "Volume",
            "Capacity",
            "Access Modes",
            "StorageClass",
            "VolumeAttributesClass",
            "Age",
            "+VolumeMode",
        ),
        _claim,
    ),
    "persistentvolumes": (
        (
            "Name",
            "Capacity",
            "Access Modes",
            "Reclaim Policy",
            "Status",
            "Claim",
            "StorageClass",
            "VolumeAttributesClass",
            "Reason",
            "Age",
            "+VolumeMode",
        ),
        _volume,
    ),
    "storageclasses.storage.k8s.io": (
        ("Name", "Provisioner", "ReclaimPolicy", "VolumeBindingMode", "AllowVolumeExpansion:boolean", "Age"),
        _storage_class,
    ),
    "poddisruptionbudgets.policy": (
        ("Name", "Min Available", "Max Unavailable", "Allowed Disruptions:integer", "Age"),
        _budget,
    ),
    "networkpolicies.networking.k8s.io": (
        ("Name", "Pod-Selector", "Age"),
        _plain(lambda o: _selector(_spec(o).get("podSelector"))),
    ),
    "ingresses.networking.k8s.io": (("Name", "Class", "Hosts", "Address", "Ports", "Age"), _ingress),
    "horizontalpodautoscalers.autoscaling": (
        ("Name", "Reference", "Targets", "MinPods", "MaxPods:integer", "Replicas:integer", "Age"),
        _autoscaler,
    ),
    "runtimeclasses.node.k8s.io": (("Name", "Handler", "Age"), _plain(lambda o: o.get("handler", ""))),
    "certificatesigningrequests.certificates.k8s.io": (
        ("Name", "Age", "SignerName", "Requestor", "RequestedDuration", "Condition"),
        _request,
    ),
    f"mutatingwebhookconfigurations.{_ADMISSION}": (("Name", "Webhooks:integer", "Age"), _count("webhooks")),
    f"validatingwebhookconfigurations.{_ADMISSION}": (("Name", "Webhooks:integer", "Age"), _count("webhooks")),
    f"mutatingadmissionpolicies.{_ADMISSION}": (
        ("Name", "Mutations:integer", "ParamKind", "Age"),
        _policy("mutations"),
    ),
    f"validatingadmissionpolicies.{_ADMISSION}": (
        ("Name", "Validations:integer", "ParamKind", "Age"),
        _policy("validations"),
    ),
    f"mutatingadmissionpolicybindings.{_ADMISSION}": (("Name", "PolicyName", "ParamRef", "Age"), _policy_binding),
    f"validatingadmissionpolicybindings.{_ADMISSION}": (("Name", "PolicyName", "ParamRef", "Age"), _policy_binding),
}

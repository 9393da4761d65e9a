"""Rules of devices and attachments, and of fields that never change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from glebe.apiserver.types.ruletables import named
from glebe.kube import names as n
from glebe.kube.errors import Cause
from glebe.kube.objects import Object

Rule = Callable[[Object, "Object | None"], list[Cause]]

_MOST, _MOST_CHOICES = 32, 8
_NO_REQUEST = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
_SUBDOMAIN, _LABEL = n.subdomain_faults, n.label_faults


def devices(spec: Any, path: str) -> list[Cause]:
    """What is wrong with a claim's specification."""
    given = (spec.get("devices") or {}).get("requests") or ()
    causes = _no_more(given, _MOST, f"{path}.devices.requests")
    if causes:
        return causes
    causes += _unlike(given, f"{path}.devices.requests")
    for i, request in enumerate(given):
        where = f"{path}.devices.requests[{i}]"
        causes += named(_LABEL)(request.get("name"), f"{where}.name")
        exactly, first = request.get("exactly"), request.get("firstAvailable")
        if (exactly is None) == (not first):
            both = exactly is not None
            why = "exactly one of `exactly` or `firstAvailable` is required"
            if both:
                causes.append(n.invalid(where, None, f"{why}, but multiple fields are set"))
            else:
                causes.append(n.required(where, why))
        elif exactly is not None:
            causes += _wanted(exactly, f"{where}.exactly")
        else:
            causes += _no_more(first, _MOST_CHOICES, f"{where}.firstAvailable") or [
                *_unlike(first, f"{where}.firstAvailable"),
                *(c for j, choice in enumerate(first) for c in _wanted(choice, f"{where}.firstAvailable[{j}]")),
            ]
    return causes + _about(spec, path)


def _no_more(items: Any, most: int, path: str) -> list[Cause]:
    if len(items) <= most:
        return []
    return [Cause("FieldValueTooMany", f"Too many: {len(items)}: must have at most {most} items", path)]


def _unlike(items: Any, path: str) -> list[Cause]:
    """Names that come twice."""
    given = [item.get("name") for item in items]
    return [n.duplicate(f"{path}[{i}]", name) for i, name in enumerate(given) if name and name in given[:i]]


def _about(spec: Any, path: str) -> list[Cause]:
    """Constraints and configuration, which name requests."""
    inside, known = spec.get("devices") or {}, _requests(spec)
    causes: list[Cause] = []
    for kind in ("constraints", "config"):
        for i, item in enumerate(inside.get(kind) or ()):
            where = f"{path}.devices.{kind}[{i}]"
            causes += [
                n.invalid(f"{where}.requests[{j}]", name, _NO_REQUEST)
                for j, name in enumerate(item.get("requests") or ())
                if name not in known
            ]
            causes += _constraint(item, where) if kind == "constraints" else _configuration(item, where)
    return causes


def _constraint(item: Any, where: str) -> list[Cause]:
    said = [key for key in ("matchAttribute", "distinctAttribute") if item.get(key) is not None]
    if not said:
        why = 'exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set'
        return [n.required(where, why)]
    why = "a fully qualified name must be a domain and a name separated by a slash"
    return [n.invalid(f"{where}.{key}", item[key], why) for key in said if "/" not in item[key]]


def _configuration(item: Any, where: str) -> list[Cause]:
    return [n.required(f"{where}.opaque")] if item.get("opaque") is None else []


def _wanted(request: Any, path: str) -> list[Cause]:
    """Class, selectors, number of devices and tolerations of one request."""
    causes = named(_SUBDOMAIN, why="")(request.get("deviceClassName"), f"{path}.deviceClassName")
    causes += selectors(request.get("selectors"), f"{path}.selectors")
    mode, count = request.get("allocationMode"), request.get("count") or 0
    if mode == "All" and count:
        causes.append(n.invalid(f"{path}.count", count, "must not be specified when allocationMode is 'All'"))
    elif mode == "ExactCount" and count <= 0:
        causes.append(n.invalid(f"{path}.count", count, "must be greater than zero"))
    for i, toleration in enumerate(request.get("tolerations") or ()):
        if toleration.get("operator") == "Exists" and toleration.get("value"):
            where = f"{path}.tolerations[{i}].value"
            causes.append(n.invalid(where, toleration["value"], "must be empty for operator `Exists`"))
    return causes


def selectors(given: Any, path: str) -> list[Cause]:
    """What is wrong with selectors of devices: they are compiled, and their cost is estimated."""
    causes = _no_more(given or (), _MOST, path)
    for i, selector in enumerate(() if causes else given or ()):
        cel = selector.get("cel")
        if cel is None:
            causes.append(n.required(f"{path}[{i}].cel"))
            continue
        where, text = f"{path}[{i}].cel.expression", str(cel.get("expression", ""))
        causes += _expression(text, where)
    return causes


def _expression(text: str, path: str) -> list[Cause]:
    from glebe.cel import devices as cel  # late: few servers ever see a device

    if len(text) > cel.LONGEST:
        return [n.too_long(path, cel.LONGEST)]
    try:
        program = cel.compile_selector(text)
    except cel.CompileError as error:
        return [n.invalid(path, text, str(error))]
    if cel.most_cost(program) > cel.MOST_COST:
        return [n.forbidden(path, "too complex, exceeds cost limit")]
    return []


def device_class(obj: Object, old: Object | None) -> list[Cause]:
    given = (obj.get("spec") or {}).get("selectors")
    if old is not None and given == (old.get("spec") or {}).get("selectors"):
        return []
    return selectors(given, "spec.selectors")


def claim(obj: Object, old: Object | None) -> list[Cause]:
    if old is not None and obj.get("spec") != old.get("spec"):
        return [n.invalid("spec", obj.get("spec"), "field is immutable")]
    return devices(obj.get("spec") or {}, "spec")


def claim_status(obj: Object, old: Object) -> list[Cause]:
    """What a claim's allocation and its consumers may become."""
    new, before = obj.get("status") or {}, old.get("status") or {}
    if new == before:
        return []
    causes: list[Cause] = []
    consumers, allocation = new.get("reservedFor") or (), new.get("allocation")
    uids = [str(c.get("uid") or "") for c in consumers]
    for i, consumer in enumerate(consumers):
        where = f"status.reservedFor[{i}]"
        causes += [n.required(f"{where}.{key}") for key in ("resource", "name", "uid") if not consumer.get(key)]
        if uids[i] and uids[i] in uids[:i]:
            causes.append(n.duplicate(where, uids[i]))
    if consumers and allocation is None:
        causes.append(n.forbidden("status.reservedFor", "may not be specified when `allocated` is not set"))
    elif obj["metadata"].get("deletionTimestamp") and [c for c in consumers if c not in before.get("reservedFor", ())]:
        why = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"
        causes.append(n.forbidden("status.reservedFor", why))
    if allocation is not None and before.get("allocation") is not None:
        if allocation != before["allocation"]:
            causes.append(n.invalid("status.allocation", allocation, "field is immutable"))
    elif allocation is not None:
        causes += _results(allocation, _requests(obj.get("spec") or {}))
    return causes


def _requests(spec: Any) -> set[str]:
    """Names of requests, and REQUEST/ALTERNATIVE."""
    names: set[str] = set()
    for request in (spec.get("devices") or {}).get("requests") or ():
        name = str(request.get("name") or "")
        names.add(name)
        names.update(f"{name}/{choice.get('name') or ''}" for choice in request.get("firstAvailable") or ())
    return names


def _results(allocation: Any, known: set[str]) -> list[Cause]:
    causes: list[Cause] = []
    for i, result in enumerate((allocation.get("devices") or {}).get("results") or ()):
        where, name = f"status.allocation.devices.results[{i}]", result.get("request", "")
        if name not in known:
            causes.append(n.invalid(f"{where}.request", name, _NO_REQUEST))
        causes += [n.required(f"{where}.{key}") for key in ("driver", "pool", "device") if not result.get(key)]
    return causes


def claim_template(obj: Object, old: Object | None) -> list[Cause]:
    if old is not None and obj.get("spec") != old.get("spec"):
        return [n.invalid("spec", obj.get("spec"), "field is immutable")]
    return devices((obj.get("spec") or {}).get("spec") or {}, "spec.spec")


def device_slice(obj: Object, old: Object | None) -> list[Cause]:
    spec, before = obj.get("spec") or {}, (old or {}).get("spec") or {}
    where = ("nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection")
    chosen = [field for field in where if spec.get(field)]
    listed = ", ".join(f"`{field}`" for field in where)
    causes: list[Cause] = []
    if not chosen:
        causes.append(n.required("spec", f"exactly one of {listed} is required"))
    elif len(chosen) > 1:
        why = f"exactly one of {listed} is required, but multiple fields are set"
        causes.append(n.invalid("spec", "{" + ", ".join(chosen) + "}", why))
    if old is None or spec.get("devices") != before.get("devices"):
        from glebe.apiserver.types import slicerules  # late: few servers ever see a device

        causes += slicerules.devices(spec)
    if before:
        fixed = (("driver", "driver"), ("nodeName", "nodeName"))
        causes += [
            n.invalid(f"spec.{field}", spec.get(field, ""), "field is immutable")
            for field, _ in fixed
            if spec.get(field) != before.get(field)
        ]
        if (spec.get("pool") or {}).get("name") != (before.get("pool") or {}).get("name"):
            causes.append(n.invalid("spec.pool.name", (spec.get("pool") or {}).get("name"), "field is immutable"))
    return causes


def fixed(*fields: str) -> Rule:
    """Fields that never change."""

    def rule(obj: Object, old: Object | None) -> list[Cause]:
        if old is None:
            return []
        return [n.invalid(f, obj.get(f), "field is immutable") for f in fields if obj.get(f) != old.get(f)]

    return rule


def forbidden_updates(*fields: str) -> Rule:
    def rule(obj: Object, old: Object | None) -> list[Cause]:
        if old is None:
            return []
        why = "updates to {} are forbidden."
        return [n.forbidden(f, why.format(f)) for f in fields if obj.get(f) != old.get(f)]

    return rule


def attachment(obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    source = spec.get("source") or {}
    causes: list[Cause] = []
    if old is not None and spec != old.get("spec"):
        causes.append(n.invalid("spec", spec, "field is immutable"))
    if not source.get("persistentVolumeName") and source.get("inlineVolumeSpec") is None:
        why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
        causes.append(n.required("spec.source", why))
    return causes

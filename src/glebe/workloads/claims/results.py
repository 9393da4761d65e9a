"""An allocation as it is written into ``claim.status.allocation``. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from glebe.kube import quantity
from glebe.kube.objects import Object
from glebe.workloads.claims.pools import Device
from glebe.workloads.claims.requests import Alternative


@dataclass(frozen=True, slots=True)
class Chosen:
    """A device for a request. ``consumed``: what it takes of the capacity of a device that is shared."""

    alternative: Alternative
    device: Device
    consumed: Mapping[str, Fraction]


def allocation(claim: Object, chosen: Sequence[Chosen], node: Object, new_id: Callable[[], str]) -> dict[str, Any]:
    """The AllocationResult for a claim."""
    devices: dict[str, Any] = {"results": [_result(c, new_id) for c in chosen]}
    if config := _config(claim, chosen):
        devices["config"] = config
    made: dict[str, Any] = {"devices": devices}
    if (selector := _selector(chosen, node)) is not None:
        made["nodeSelector"] = selector
    return made


def _result(chosen: Chosen, new_id: Callable[[], str]) -> dict[str, Any]:
    device, spec, body = chosen.device, chosen.alternative.spec, chosen.device.body
    result: dict[str, Any] = {
        "request": chosen.alternative.name,
        "driver": device.id.driver,
        "pool": device.id.pool,
        "device": device.id.device,
    }
    if chosen.alternative.admin:
        result["adminAccess"] = True
    if spec.get("tolerations"):
        result["tolerations"] = [dict(t) for t in spec["tolerations"]]
    if device.shared:
        result["shareID"] = new_id()
        if chosen.consumed:
            result["consumedCapacity"] = {n: quantity.format_binary(a) for n, a in sorted(chosen.consumed.items())}
    for key in ("bindingConditions", "bindingFailureConditions"):
        if body.get(key):
            result[key] = list(body[key])
    return result


def _config(claim: Object, chosen: Sequence[Chosen]) -> list[dict[str, Any]]:
    """Configuration of the classes that serve it, then the claim's own."""
    made: list[dict[str, Any]] = []
    of_class: dict[str, list[dict[str, Any]]] = {}
    names: list[str] = []
    for each in chosen:
        name, klass = each.alternative.name, each.alternative.klass
        if name in names:
            continue
        names.append(name)
        class_name = klass["metadata"]["name"]
        if class_name in of_class:
            for config in of_class[class_name]:
                config["requests"].append(name)
            continue
        configs = (klass.get("spec") or {}).get("config") or ()
        of_class[class_name] = [{"source": "FromClass", "requests": [name], **config} for config in configs]
        made += of_class[class_name]
    bases = {name.partition("/")[0] for name in names}
    for config in (claim["spec"].get("devices") or {}).get("config") or ():
        asked = config.get("requests") or []
        if not asked or any(name in names or name in bases for name in asked):
            made.append({**config, "source": "FromClaim"})
    return made


def _selector(chosen: Sequence[Chosen], node: Object) -> dict[str, Any] | None:
    """Where the allocated devices can be used; ``None``: everywhere."""
    fields: list[dict[str, Any]] = []
    expressions: list[dict[str, Any]] = []
    for each in chosen:
        where = each.device.body if each.device.slice.get("perDeviceNodeSelection") else each.device.slice
        if where.get("nodeName") or each.device.body.get("bindsToNode"):
            only = {"key": "metadata.name", "operator": "In", "values": [node["metadata"]["name"]]}
            return {"nodeSelectorTerms": [{"matchFields": [only]}]}
        for term in ((where.get("nodeSelector") or {}).get("nodeSelectorTerms") or ())[:1]:
            fields += [f for f in term.get("matchFields") or () if f not in fields]
            expressions += [e for e in term.get("matchExpressions") or () if e not in expressions]
    term = {key: value for key, value in (("matchFields", fields), ("matchExpressions", expressions)) if value}
    return {"nodeSelectorTerms": [term]} if term else None

"""Rules of the devices in a ResourceSlice (``pkg/apis/resource/validation``)."""

from __future__ import annotations

import re
from typing import Any

from glebe.kube import names as n
from glebe.kube.errors import Cause

_MOST, _MOST_COSTLY, _MOST_FACTS, _LONGEST = 128, 64, 32, 64
_VALUES = ("int", "bool", "string", "version")
_KINDS = ("Int", "Bool", "String", "Version")
_WHERE = ("nodeName", "nodeSelector", "allNodes")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?"
    r"(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?"
)
_NOT_C = (
    "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters "
    "or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')"
)


def devices(spec: Any) -> list[Cause]:
    """What is wrong with ``spec.devices`` and ``spec.sharedCounters``."""
    given = spec.get("devices") or ()
    if given and spec.get("sharedCounters"):
        return [n.invalid("spec", "", "only one of `sharedCounters` or `devices` is allowed")]
    costly = any(d.get("taints") or d.get("consumesCounters") for d in given)
    most = _MOST_COSTLY if costly else _MOST
    if len(given) > most:
        return [Cause("FieldValueTooMany", f"Too many: {len(given)}: must have at most {most} items", "spec.devices")]
    causes: list[Cause] = []
    seen: set[str] = set()
    for i, device in enumerate(given):
        where, name = f"spec.devices[{i}]", str(device.get("name") or "")
        causes += _device(device, where, bool(spec.get("perDeviceNodeSelection")))
        if name in seen:
            causes.append(n.duplicate(where, name))
        seen.add(name)
    return causes


def _device(device: Any, where: str, chooses: bool) -> list[Cause]:
    attributes, capacity = device.get("attributes") or {}, device.get("capacity") or {}
    causes: list[Cause] = []
    if (count := len(attributes) + len(capacity)) > _MOST_FACTS:
        why = f"the total number of attributes and capacities must not exceed {_MOST_FACTS}"
        causes.append(n.invalid(where, count, why))
    for name, value in attributes.items():
        causes += _qualified(name, f"{where}.attributes") + _attribute(value, f"{where}.attributes[{name}]")
    for name in capacity:
        causes += _qualified(name, f"{where}.capacity")
    for i, taint in enumerate(device.get("taints") or ()):
        path = f"{where}.taints[{i}].key"
        causes += [n.invalid(path, taint.get("key", ""), fault) for fault in n.key_faults(taint.get("key", ""))]
    for i, consumed in enumerate(device.get("consumesCounters") or ()):
        if not consumed.get("counters"):
            causes.append(n.required(f"{where}.consumesCounters[{i}].counters"))
    return causes + _place(device, where, chooses)


def _qualified(name: str, where: str) -> list[Cause]:
    domain, slash, own = name.rpartition("/")
    causes = [n.invalid(where, domain, fault) for fault in n.subdomain_faults(domain)] if slash else []
    return causes if _IDENTIFIER.fullmatch(own) else [*causes, n.invalid(where, own, _NOT_C)]


def _attribute(value: Any, where: str) -> list[Cause]:
    said = [key for key in _VALUES if value.get(key) is not None]
    if not said:
        return [n.invalid(where, "", "exactly one value must be specified")]
    if len(said) > 1:
        shown: dict[str, Any] = {f"{kind}Value": value.get(key) for kind, key in zip(_KINDS, _VALUES, strict=True)}
        shown |= {f"{kind}Values": None for kind in _KINDS}
        return [n.invalid(where, shown, "exactly one value must be specified")]
    (key,) = said
    if key in ("string", "version") and len(value[key]) > _LONGEST:
        return [n.too_long(f"{where}.{key}", _LONGEST)]
    if key == "version" and not _SEMVER.fullmatch(value[key]):
        why = "must be a string compatible with semver.org spec 2.0.0"
        return [n.invalid(f"{where}.version", value[key], why)]
    return []


def _place(device: Any, where: str, chooses: bool) -> list[Cause]:
    said = [key for key in _WHERE if device.get(key) is not None]
    if chooses and not said:
        listed = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required"
        why = f"{listed} when `perDeviceNodeSelection` is set to true in the ResourceSlice spec"
        return [n.required(where, why)]
    if not chooses and said:
        only = "can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec"
        return [n.invalid(where, None, f"`nodeName`, `nodeSelector` and `allNodes` {only}")]
    return []

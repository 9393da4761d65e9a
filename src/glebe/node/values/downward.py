"""What a pod may know of itself: its fields and its containers' resources (the downward API). Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Final

from glebe.kube import quantity
from glebe.kube.objects import Object, annotations_of, labels_of

_MAPS: Final = {"metadata.labels": labels_of, "metadata.annotations": annotations_of}
_ESCAPES: Final = {
    "\a": r"\a",
    "\b": r"\b",
    "\f": r"\f",
    "\n": r"\n",
    "\r": r"\r",
    "\t": r"\t",
    "\v": r"\v",
    "\\": r"\\",
    '"': r"\"",
}


class ConfigError(Exception):
    """The container cannot be created as it is written (yet); the message says what is missing."""


def field(pod: Object, path: str) -> str:
    """The value of a downward API field.

    :raises ConfigError: there is no such field.
    """
    head, subscript, key = path.removesuffix("']").partition("['")
    if subscript and path.endswith("']"):
        if head not in _MAPS:
            raise ConfigError(f'fieldPath "{path}" does not support subscript')
        return _MAPS[head](pod).get(key, "")
    if path in _MAPS:
        return format_map(_MAPS[path](pod))
    meta, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    table = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta.get("namespace", ""),
        "metadata.uid": meta["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "status.hostIP": status.get("hostIP", ""),
        "status.podIP": status.get("podIP", ""),
        "status.hostIPs": _addresses(status, "hostIP"),
        "status.podIPs": _addresses(status, "podIP"),
    }
    if path not in table:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return str(table[path])


def _addresses(status: Mapping[str, Any], name: str) -> str:
    first, several = status.get(name, ""), status.get(name + "s") or ()
    listed = [item.get("ip", "") for item in several]
    return ",".join(listed) if first in listed else first


def format_map(values: Mapping[str, str]) -> str:
    """Lines of ``key="value"`` in order of key, values quoted as Go does."""
    return "\n".join(f"{key}={quote(value)}" for key, value in sorted(values.items()))


def quote(text: str) -> str:
    """A Go string literal."""
    return '"' + "".join(map(_character, text)) + '"'


def _character(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    code = ord(char)
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    if char == " " or code < 0x7F or unicodedata.category(char)[0] in "LMNPS":
        return char
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def resource(
    pod: Object, container: dict[str, Any], reference: dict[str, Any], allocatable: Mapping[str, str] | None = None
) -> str:
    """The value of a resourceFieldRef, in units of its divisor, rounded up.

    :param allocatable: what the node has; it is the limit of a container that has none for CPU or memory.
    :raises ConfigError: it names no known resource or container.
    """
    name = reference.get("containerName")
    if name:
        spec = pod["spec"]
        named = [c for c in [*spec["containers"], *(spec.get("initContainers") or [])] if c["name"] == name]
        if not named:
            raise ConfigError(f"container {name} not found")
        container = named[0]
    kind, _, what = reference.get("resource", "").partition(".")
    if kind not in ("limits", "requests") or not what:
        raise ConfigError(f'unsupported resource "{reference.get("resource", "")}"')
    amount = _amount(pod, container, kind, what, allocatable or {})
    divisor = quantity.parse(reference.get("divisor") or "1") or Fraction(1)
    return str(-(-quantity.parse(amount) // divisor))


def _amount(pod: Object, container: dict[str, Any], kind: str, what: str, allocatable: Mapping[str, str]) -> str:
    own = container.get("resources") or {}
    limits = own.get("limits") or {}
    if what in (own.get(kind) or {}):
        return str(own[kind][what])
    if what in limits:
        return str(limits[what])
    if kind == "limits":
        whole = (pod["spec"].get("resources") or {}).get("limits") or {}
        return str(whole.get(what, allocatable.get(what, "0")))
    return "0"

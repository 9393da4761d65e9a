"""A container's environment: ``env``, ``envFrom``, references to fields and resources, ``$(VAR)`` expansion. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, TypeAlias

from glebe.kube import quantity
from glebe.kube.objects import Object, annotations_of, labels_of

#: Gives the data of a ConfigMap (``"configmap"``) or Secret (``"secret"``) by name, ``None`` when there is none.
Source: TypeAlias = Callable[[str, str], Mapping[str, str] | None]

_REFERENCE = re.compile(r"\$\$|\$\(([^()$]+)\)")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


class ConfigError(Exception):
    """The container cannot be created as it is written (yet); the message says what is missing."""


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace ``$(NAME)``; ``$$`` is a dollar sign; unknown references stay as they are."""

    def replace(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return "$"
        return variables.get(match.group(1), match.group(0))

    return _REFERENCE.sub(replace, text)


def build(pod: Object, container: dict[str, Any], base: Mapping[str, str], source: Source) -> dict[str, str]:
    """The environment of ``container``: ``base``, then ``envFrom``, then ``env`` in their order.

    :raises ConfigError: a referenced object, key or field is missing.
    """
    out = dict(base)
    for item in container.get("envFrom") or ():
        for kind in ("configMapRef", "secretRef"):
            if kind in item:
                data = _data(source, kind.removesuffix("Ref").lower(), item[kind])
                out.update({item.get("prefix", "") + key: value for key, value in data.items()})
    for item in container.get("env") or ():
        if "valueFrom" in item:
            value = _value_from(pod, container, item["valueFrom"], source)
            if value is not None:
                out[item["name"]] = value
        else:
            out[item["name"]] = expand(item.get("value") or "", out)
    return out


def decode_secret(secret: Object) -> dict[str, str]:
    """A Secret's data as text (bytes that are not UTF-8 are kept as surrogates)."""
    out = {}
    for key, value in (secret.get("data") or {}).items():
        try:
            out[key] = base64.b64decode(value or "").decode("utf-8", "surrogateescape")
        except binascii.Error:
            continue
    return out


def _data(source: Source, kind: str, reference: dict[str, Any]) -> Mapping[str, str]:
    name = reference.get("name", "")
    data = source(kind, name)
    if data is None:
        if reference.get("optional"):
            return {}
        raise ConfigError(f'{kind} "{name}" not found')
    return data


def _value_from(pod: Object, container: dict[str, Any], value: dict[str, Any], source: Source) -> str | None:
    if "fieldRef" in value:
        return field(pod, value["fieldRef"].get("fieldPath", ""))
    if "resourceFieldRef" in value:
        return resource(pod, container, value["resourceFieldRef"])
    for kind in ("configMapKeyRef", "secretKeyRef"):
        if kind in value:
            reference = value[kind]
            data = _data(source, kind.removesuffix("KeyRef").lower(), reference)
            key = reference.get("key", "")
            if key in data:
                return data[key]
            if reference.get("optional"):
                return None
            what = kind.removesuffix("KeyRef").lower()
            raise ConfigError(f"couldn't find key {key} in {what} {reference.get('name', '')}")
    return ""


def field(pod: Object, path: str) -> str:
    """The value of a downward API field.

    :raises ConfigError: there is no such field.
    """
    subscript = _SUBSCRIPT.fullmatch(path)
    if subscript is not None:
        values = labels_of(pod) if subscript.group(1) == "labels" else annotations_of(pod)
        return values.get(subscript.group(2), "")
    if path in ("metadata.labels", "metadata.annotations"):
        values = labels_of(pod) if path.endswith("labels") else annotations_of(pod)
        return "\n".join(f'{key}="{value}"' for key, value in sorted(values.items()))
    meta, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    table = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta.get("namespace", ""),
        "metadata.uid": meta["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "status.hostIP": status.get("hostIP", ""),
        "status.podIP": status.get("podIP", ""),
        "status.hostIPs": status.get("hostIP", ""),
        "status.podIPs": status.get("podIP", ""),
    }
    if path not in table:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return str(table[path])


def resource(pod: Object, container: dict[str, Any], reference: dict[str, Any]) -> str:
    """The value of a resourceFieldRef, in units of its divisor, rounded up.

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
    resources = container.get("resources") or {}
    amount = (resources.get(kind) or {}).get(what, (resources.get("limits") or {}).get(what, "0"))
    divisor = quantity.parse(reference.get("divisor") or "1") or Fraction(1)
    return str(-(-quantity.parse(amount) // divisor))

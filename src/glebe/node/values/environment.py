"""A container's environment: ``env``, ``envFrom``, references to fields and resources, ``$(VAR)`` expansion. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from glebe.kube.objects import Object
from glebe.node.values.downward import ConfigError, field, resource

__all__ = ["ConfigError", "Source", "build", "decode_secret", "expand"]

#: Gives the data of a ConfigMap (``"configmap"``) or Secret (``"secret"``) by name, ``None`` when there is none;
#: ``("node", "allocatable")`` is what the node offers.
Source: TypeAlias = Callable[[str, str], Mapping[str, str] | None]

_REFERENCE = re.compile(r"\$\$|\$\(([^()$]+)\)")


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
        return resource(pod, container, value["resourceFieldRef"], source("node", "allocatable"))
    for kind, word in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
        if kind in value:
            reference = value[kind]
            data = _data(source, word.lower(), reference)
            key = reference.get("key", "")
            if key in data:
                return data[key]
            if reference.get("optional"):
                return None
            where = f"{pod['metadata'].get('namespace', '')}/{reference.get('name', '')}"
            raise ConfigError(f"couldn't find key {key} in {word} {where}")
    return ""

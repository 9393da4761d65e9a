"""Rules of one container: resources, environment, ports, mounts, probes."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from glebe.kube import names as n
from glebe.kube import quantity
from glebe.kube.errors import Cause

Values = dict[str, Any]

_STANDARD = frozenset({"cpu", "memory", "ephemeral-storage"})
_ENV_NAME = re.compile(r"^[ -<>-~]+$")
_PORT_NAME = re.compile(r"^[a-z0-9-]+$")
_ENV_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
_FIELD_PATHS = frozenset(
    {
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    }
)
#: What only a file can hold: all labels, all annotations.
_FILE_PATHS = frozenset({"metadata.labels", "metadata.annotations"})
_KEYED_PATH = re.compile(r"^metadata\.(labels|annotations)\['.*'\]$")


def container(item: Values, path: str, volumes: set[str], host_network: bool, causes: list[Cause]) -> None:
    """All rules of one container; causes are appended."""
    name = item.get("name", "")
    if not name:
        causes.append(n.required(f"{path}.name"))
    else:
        causes.extend(n.invalid(f"{path}.name", name, fault) for fault in n.label_faults(name))
    image = item.get("image", "")
    if not image:
        causes.append(n.required(f"{path}.image"))
    elif image.strip() != image:
        causes.append(n.invalid(f"{path}.image", image, "must not have leading or trailing whitespace"))
    if item.get("resources"):
        resources(item["resources"], f"{path}.resources", causes)
    if item.get("env"):
        _environment(item["env"], f"{path}.env", causes)
    causes.extend(
        n.invalid(f"{path}.envFrom", "", "must specify one of: `configMapRef` or `secretRef`")
        for source in item.get("envFrom") or ()
        if not ("configMapRef" in source or "secretRef" in source)
    )
    if item.get("ports"):
        _ports(item["ports"], f"{path}.ports", host_network, causes)
    if item.get("volumeMounts"):
        _mounts(item["volumeMounts"], f"{path}.volumeMounts", volumes, causes)
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe in item:
            _probe(item[probe], f"{path}.{probe}", causes)
    for hook in ("postStart", "preStop"):
        if hook in (item.get("lifecycle") or {}):
            _handler(item["lifecycle"][hook], f"{path}.lifecycle.{hook}", causes)
    context = item.get("securityContext") or {}
    for field in ("runAsUser", "runAsGroup"):
        value = context.get(field)
        if value is not None and not 0 <= value <= 2**31 - 1:
            why = "must be between 0 and 2147483647, inclusive"
            causes.append(n.invalid(f"{path}.securityContext.{field}", value, why))


# --------------------------------------------------------------------------------------------------------- resources


@lru_cache(maxsize=4096)
def resource_faults(name: str) -> tuple[str, ...]:
    """What is wrong with the name of a container's resource."""
    faults = n.key_faults(name)
    if faults:
        return (*faults, "doesn't follow extended resource name standard") if "/" in name else faults
    if "/" not in name and name not in _STANDARD and not name.startswith("hugepages-"):
        return ("must be a standard resource type or fully qualified", "must be a standard resource for containers")
    return ()


def is_extended(name: str) -> bool:
    """Extended resources are domain-prefixed, and not kubernetes.io's own."""
    prefix, slash, _ = name.partition("/")
    return bool(slash) and not (prefix == "kubernetes.io" or prefix.endswith(".kubernetes.io"))


def non_negative_quantities(values: dict[str, str], path: str, causes: list[Cause]) -> None:
    for name, text in values.items():
        if quantity.parse(text) < 0:
            why = "must be greater than or equal to 0"
            causes.append(n.invalid(f"{path}[{name}]", quantity.canonical(text), why))


def resources(value: Values, path: str, causes: list[Cause]) -> None:
    """Limits and requests: names, signs, whole numbers, and requests within limits."""
    limits, requests = value.get("limits") or {}, value.get("requests") or {}
    for field, amounts in (("limits", limits), ("requests", requests)):
        for name, text in amounts.items():
            where = f"{path}.{field}[{name}]"
            causes.extend(n.invalid(where, name, fault) for fault in resource_faults(name))
            amount = _amount(text)
            if amount is None:
                causes.append(n.invalid(where, text, "must be a quantity"))
            elif amount.numerator < 0:
                causes.append(n.invalid(where, quantity.canonical(text), "must be greater than or equal to 0"))
            elif is_extended(name) and amount.denominator != 1:
                causes.append(n.invalid(where, quantity.canonical(text), "must be an integer"))
    _within(limits, requests, path, causes)


@lru_cache(maxsize=4096)
def _amount(text: str | int | float) -> Any:
    try:
        return quantity.parse(text)
    except ValueError:
        return None


def _within(limits: dict[str, str], requests: dict[str, str], path: str, causes: list[Cause]) -> None:
    for name, text in requests.items():
        whole = is_extended(name) or name.startswith("hugepages-")
        limit = limits.get(name)
        if limit is None:
            if whole:
                why = "Limit must be set for non overcommitable resources"
                causes.append(n.required(f"{path}.limits", why))
            continue
        if text == limit:
            continue
        asked, allowed = _amount(text), _amount(limit)
        if asked is None or allowed is None or asked == allowed:
            continue
        shown, bound = quantity.canonical(text), quantity.canonical(limit)
        if whole:
            causes.append(n.invalid(f"{path}.requests", shown, f"must be equal to {name} limit of {bound}"))
        elif asked > allowed:
            why = f"must be less than or equal to {name} limit of {bound}"
            causes.append(n.invalid(f"{path}.requests", shown, why))
    named = {*limits, *requests}
    if any(r.startswith("hugepages-") for r in named) and not named & {"cpu", "memory"}:
        causes.append(n.forbidden(path, "HugePages require cpu or memory"))


# ------------------------------------------------------------------------------------------------------- environment


def _environment(variables: list[Values], path: str, causes: list[Cause]) -> None:
    for index, variable in enumerate(variables):
        name = variable.get("name", "")
        where = f"{path}[{index}]"
        if not name:
            causes.append(n.required(f"{where}.name"))
        elif _ENV_NAME.match(name) is None:
            why = "a valid environment variable name must consist only of printable ASCII characters other than '='"
            causes.append(n.invalid(f"{where}.name", name, why))
        source = variable.get("valueFrom")
        if source is not None:
            _source(source, variable.get("value"), f"{where}.valueFrom", causes)


def _source(source: Values, value: str | None, path: str, causes: list[Cause]) -> None:
    given = [key for key in _ENV_SOURCES if key in source]
    if not given:
        *others, last = (f"`{key}`" for key in _ENV_SOURCES)
        causes.append(n.invalid(path, "", f"must specify one of: {', '.join(others)} or {last}"))
    elif value:
        causes.append(n.invalid(path, "", "may not be specified when `value` is not empty"))
    elif len(given) > 1:
        causes.append(n.invalid(path, "", "may not have more than one field specified at a time"))
    for key in given:
        ref = source[key]
        if key == "fieldRef":
            _field_path(ref.get("fieldPath", ""), f"{path}.fieldRef.fieldPath", causes)
        elif key == "resourceFieldRef" and not ref.get("resource"):
            causes.append(n.required(f"{path}.resourceFieldRef.resource"))
        elif key in ("configMapKeyRef", "secretKeyRef"):
            name = ref.get("name", "")
            causes.extend(n.invalid(f"{path}.{key}.name", name, fault) for fault in n.subdomain_faults(name))
            if not ref.get("key"):
                causes.append(n.required(f"{path}.{key}.key"))


def downward_item(item: Values, path: str, causes: list[Cause]) -> None:
    """One file of a downward API volume."""
    if not item.get("path"):
        causes.append(n.required(f"{path}.path"))
    elif ".." in item["path"].split("/"):
        causes.append(n.invalid(f"{path}.path", item["path"], "must not contain '..'"))
    if "fieldRef" in item:
        text = item["fieldRef"].get("fieldPath", "")
        if text not in _FILE_PATHS:
            _field_path(text, f"{path}.fieldRef.fieldPath", causes)
        if "resourceFieldRef" in item:
            why = "fieldRef and resourceFieldRef can not be specified simultaneously"
            causes.append(n.invalid(path, "resource", why))
    elif "resourceFieldRef" not in item:
        causes.append(n.required(path, "one of fieldRef and resourceFieldRef is required"))


def _field_path(text: str, path: str, causes: list[Cause]) -> None:
    if not text:
        causes.append(n.required(path))
    elif text not in _FIELD_PATHS and _KEYED_PATH.match(text) is None:
        causes.append(n.invalid(path, text, f"error converting fieldPath: field label not supported: {text}"))


# -------------------------------------------------------------------------------------------- ports, mounts and probes


def port_number(value: Any, path: str, causes: list[Cause]) -> None:
    if not 1 <= value <= 65535:
        causes.append(n.invalid(path, value, "must be between 1 and 65535, inclusive"))


def port_name_faults(name: str) -> list[str]:
    """What is wrong with the name of a port."""
    out = []
    if len(name) > 15:
        out.append("must be no more than 15 characters")
    if _PORT_NAME.match(name) is None:
        out.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not any("a" <= letter <= "z" for letter in name):
        out.append("must contain at least one letter (a-z)")
    if "--" in name:
        out.append("must not contain consecutive hyphens")
    if name[:1] == "-" or name[-1:] == "-":
        out.append("must not begin or end with a hyphen")
    return out


def _ports(ports: list[Values], path: str, host_network: bool, causes: list[Cause]) -> None:
    seen: set[str] = set()
    for index, port in enumerate(ports):
        where = f"{path}[{index}]"
        name = port.get("name")
        if name:
            if faults := port_name_faults(name):
                causes.extend(n.invalid(f"{where}.name", name, fault) for fault in faults)
            elif name in seen:
                causes.append(n.duplicate(f"{where}.name", name))
            seen.add(name)
        number = port.get("containerPort", 0)
        if number == 0:
            causes.append(n.required(f"{where}.containerPort"))
        else:
            port_number(number, f"{where}.containerPort", causes)
        host = port.get("hostPort", 0)
        if host:
            port_number(host, f"{where}.hostPort", causes)
            if host_network and host != number:
                why = "must match `containerPort` when `hostNetwork` is true"
                causes.append(n.invalid(f"{where}.hostPort", host, why))


def _mounts(mounts: list[Values], path: str, volumes: set[str], causes: list[Cause]) -> None:
    paths: set[str] = set()
    for index, mount in enumerate(mounts):
        where = f"{path}[{index}]"
        name = mount.get("name", "")
        if not name:
            causes.append(n.required(f"{where}.name"))
        if name not in volumes:
            causes.append(Cause("FieldValueNotFound", f"Not found: {n.show(name)}", f"{where}.name"))
        target = mount.get("mountPath", "")
        if not target:
            causes.append(n.required(f"{where}.mountPath"))
        elif target in paths:
            causes.append(n.invalid(f"{where}.mountPath", target, "must be unique"))
        paths.add(target)
        sub = mount.get("subPath", "")
        if sub.startswith("/"):
            causes.append(n.invalid(f"{where}.subPath", sub, "must be a relative path"))
        elif ".." in sub.split("/"):
            causes.append(n.invalid(f"{where}.subPath", sub, "must not contain '..'"))


_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")


def _handler(handler: Values, path: str, causes: list[Cause]) -> None:
    """What a probe or a hook does: one thing."""
    given = [key for key in _HANDLERS if key in handler]
    if not given:
        causes.append(n.required(path, "must specify a handler type"))
    causes.extend(n.forbidden(f"{path}.{key}", "may not specify more than 1 handler type") for key in given[1:])
    for kind in ("httpGet", "tcpSocket"):
        if kind not in handler:
            continue
        port = handler[kind].get("port", 0)
        if isinstance(port, int):
            port_number(port, f"{path}.{kind}.port", causes)
        else:
            causes.extend(n.invalid(f"{path}.{kind}.port", port, fault) for fault in port_name_faults(port))
    if "exec" in handler and not handler["exec"].get("command"):
        causes.append(n.required(f"{path}.exec.command"))


def _probe(probe: Values, path: str, causes: list[Cause]) -> None:
    _handler(probe, path, causes)
    for field in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        causes.extend(n.non_negative(f"{path}.{field}", probe.get(field)))

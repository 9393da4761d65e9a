"""Rules of CustomResourceDefinitions: names, versions and the structure of their schemas."""

from __future__ import annotations

from typing import Any

from glebe.apiserver.types import names as n
from glebe.kube.errors import Cause
from glebe.kube.objects import Object

Values = dict[str, Any]

_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_APPROVED = "api-approved.kubernetes.io"
#: what may not stand inside a junctor's branch
_FORBIDDEN_IN_BRANCH = ("description", "type", "default", "additionalProperties", "nullable", "title")


def validate_crd(obj: Object, old: Object | None) -> list[Cause]:
    """A definition that the API server could serve."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    group, names = spec.get("group", ""), spec.get("names") or {}
    plural = names.get("plural", "")
    wanted = f"{plural}.{group}"
    if obj["metadata"].get("name") != wanted:
        why = 'must be spec.names.plural+"."+spec.group'
        causes.append(n.invalid("metadata.name", obj["metadata"].get("name", ""), why))
    if not group:
        causes.append(n.required("spec.group"))
    elif faults := n.subdomain_faults(group):
        causes.extend(n.invalid("spec.group", group, fault) for fault in faults)
    elif "." not in group:
        causes.append(n.invalid("spec.group", group, "should be a domain with at least one dot"))
    causes += _protected(obj["metadata"], group, names, old)
    if spec.get("scope") not in ("Cluster", "Namespaced"):
        if not spec.get("scope"):
            causes.append(n.required("spec.scope"))
        else:
            causes.append(n.not_supported("spec.scope", spec["scope"], ["Cluster", "Namespaced"]))
    for field in ("plural", "singular", "kind", "listKind"):
        value = names.get(field, "")
        if not value:
            causes.append(n.required(f"spec.names.{field}"))
        else:
            causes.extend(n.invalid(f"spec.names.{field}", value, f) for f in n.label_1035_faults(value.lower()))
    for field in ("shortNames", "categories"):
        for index, value in enumerate(names.get(field) or ()):
            causes.extend(n.invalid(f"spec.names.{field}[{index}]", value, f) for f in n.label_1035_faults(value))
    causes += _versions(spec.get("versions") or [])
    if old is not None:
        before = old.get("spec") or {}
        established = any(
            c.get("type") == "Established" and c.get("status") == "True"
            for c in (old.get("status") or {}).get("conditions") or ()
        )
        if established and spec.get("scope") != before.get("scope"):
            causes.append(n.invalid("spec.scope", spec.get("scope"), "field is immutable"))
        if group != before.get("group"):
            causes.append(n.invalid("spec.group", group, "field is immutable"))
    return causes


def _protected(meta: Values, group: str, names: Values, old: Object | None) -> list[Cause]:
    """Kubernetes' own groups need a sign of approval, and what is built in cannot be declared a second time: its
    objects would be kept in the same place, under rules of the declarer's making.
    """
    from glebe.apiserver.types.registry import builtins  # late: it needs this module's room

    causes: list[Cause] = []
    own = group.endswith((".k8s.io", ".kubernetes.io")) or group in ("k8s.io", "kubernetes.io")
    if own and old is None and not (meta.get("annotations") or {}).get(_APPROVED):
        why = (
            f'protected groups must have approval annotation "{_APPROVED}", '
            "see https://github.com/kubernetes/enhancements/pull/1111"
        )
        causes.append(n.required(f"metadata.annotations[{_APPROVED}]", why))
    for field in ("plural", "kind"):
        name = names.get(field)
        if own and any(info.group == group and getattr(info, field) == name for info in builtins()):
            causes.append(n.invalid(f"spec.names.{field}", name, f"is built in: the group {group} has it already"))
    return causes


def _versions(versions: list[Values]) -> list[Cause]:
    causes: list[Cause] = []
    names = [v.get("name", "") for v in versions]
    stored = [v for v in versions if v.get("storage")]
    if not versions:
        causes.append(n.required("spec.versions"))
    elif len(stored) != 1:
        why = "must have exactly one version marked as storage version"
        causes.append(Cause("FieldValueInvalid", f"Invalid value: {n.show(versions)}: {why}", "spec.versions"))
    for index, version in enumerate(versions):
        where = f"spec.versions[{index}]"
        name = version.get("name", "")
        causes.extend(n.invalid(f"{where}.name", name, fault) for fault in n.label_1035_faults(name))
        if name in names[:index]:
            causes.append(n.duplicate(f"{where}.name", name))
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            causes.append(n.required(f"{where}.schema.openAPIV3Schema", "schemas are required"))
        else:
            path = f"{where}.schema.openAPIV3Schema"
            if schema.get("type") != "object" and "type" in schema:
                causes.append(n.invalid(f"{path}.type", schema["type"], "must be object at the root"))
            _structural(schema, path, causes)
        for position, column in enumerate(version.get("additionalPrinterColumns") or ()):
            column_path = f"{where}.additionalPrinterColumns[{position}]"
            causes.extend(n.required(f"{column_path}.{f}") for f in ("name", "type", "jsonPath") if not column.get(f))
    return causes


def _structural(schema: Any, path: str, causes: list[Cause]) -> None:
    """Every node has one type, unless it is int-or-string or keeps unknown fields; junctors only constrain."""
    if type(schema) is not dict:
        causes.append(n.invalid(path, schema, "must be an object"))
        return
    free = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    kind = schema.get("type")
    if kind is None:
        if not free:
            causes.append(n.required(f"{path}.type", "must not be empty for specified object fields"))
    elif kind not in _TYPES:
        causes.append(n.not_supported(f"{path}.type", kind, list(_TYPES)))
    if "$ref" in schema:
        causes.append(n.forbidden(f"{path}.$ref", "$ref is not supported"))
    if kind == "array" and "items" not in schema:
        causes.append(n.required(f"{path}.items", "must be specified"))
    if "properties" in schema and schema.get("additionalProperties") not in (None, False):
        why = "additionalProperties and properties are mutual exclusive"
        causes.append(n.forbidden(f"{path}.additionalProperties", why))
    keys = schema.get("x-kubernetes-list-map-keys")
    if schema.get("x-kubernetes-list-type") == "map":
        if not keys:
            why = "must not be empty if x-kubernetes-list-type is map"
            causes.append(n.required(f"{path}.x-kubernetes-list-map-keys", why))
        _map_keys(schema.get("items"), keys or [], path, causes)
    for name, child in (schema.get("properties") or {}).items():
        _structural(child, f"{path}.properties[{name}]", causes)
    if type(schema.get("additionalProperties")) is dict:
        _structural(schema["additionalProperties"], f"{path}.additionalProperties", causes)
    if type(schema.get("items")) is dict:
        _structural(schema["items"], f"{path}.items", causes)
    for junctor in ("allOf", "anyOf", "oneOf"):
        for index, branch in enumerate(schema.get(junctor) or ()):
            _branch(branch, bool(schema.get("x-kubernetes-int-or-string")), f"{path}.{junctor}[{index}]", causes)
    if type(schema.get("not")) is dict:
        _branch(schema["not"], False, f"{path}.not", causes)


def _map_keys(items: Any, keys: list[str], path: str, causes: list[Cause]) -> None:
    properties = (items or {}).get("properties") or {} if type(items) is dict else {}
    for index, key in enumerate(keys):
        if key not in properties:
            where = f"{path}.x-kubernetes-list-map-keys[{index}]"
            causes.append(n.invalid(where, key, "entries must all be names of item properties"))
        elif key not in (items.get("required") or ()) and "default" not in properties[key]:
            where = f"{path}.items.properties[{key}].default"
            causes.append(
                n.required(
                    where,
                    "this property is in x-kubernetes-list-map-keys, "
                    "so it must have a default or be a required property",
                )
            )


def _branch(branch: Any, allow_type: bool, path: str, causes: list[Cause]) -> None:
    if type(branch) is not dict:
        return
    causes.extend(
        n.forbidden(f"{path}.{key}", "must be empty to be structural")
        for key in _FORBIDDEN_IN_BRANCH
        if key in branch and not (key == "type" and allow_type)
    )
    for name, child in (branch.get("properties") or {}).items():
        _branch(child, False, f"{path}.properties[{name}]", causes)
    for junctor in ("allOf", "anyOf", "oneOf"):
        for index, child in enumerate(branch.get(junctor) or ()):
            _branch(child, allow_type, f"{path}.{junctor}[{index}]", causes)

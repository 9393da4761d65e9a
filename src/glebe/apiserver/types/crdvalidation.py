"""Rules of CustomResourceDefinitions: names, versions, conversion, columns, subresources, selectable fields.

Schemas have rules of their own (:mod:`.schemarules`, :mod:`.structuralrules`). What an earlier server let in is not
held against an update that leaves it as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from glebe.apiserver.types.conversionrules import conversion_faults
from glebe.apiserver.types.definitionfacts import APPROVED, approval_state, has_condition, is_protected
from glebe.apiserver.types.fieldpaths import find_field
from glebe.apiserver.types.schemarules import schema_faults
from glebe.kube import names as n
from glebe.kube.errors import Cause
from glebe.kube.objects import Object

Values = dict[str, Any]

_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_SELECTABLE = 8
_IMMUTABLE = "field is immutable"


def validate_crd(obj: Object, old: Object | None) -> list[Cause]:
    """A definition that the API server could serve."""
    spec = obj.get("spec") or {}
    before = (old or {}).get("spec") or {}
    group, names = spec.get("group", ""), spec.get("names") or {}
    causes: list[Cause] = []
    if obj["metadata"].get("name") != f"{names.get('plural', '')}.{group}" and old is None:
        why = 'must be spec.names.plural+"."+spec.group'
        causes.append(n.invalid("metadata.name", obj["metadata"].get("name", ""), why))
    causes += _group(group)
    causes += _protected(obj["metadata"], group, names, old)
    scope = spec.get("scope")
    if not scope:
        causes.append(n.required("spec.scope"))
    elif scope not in ("Cluster", "Namespaced"):
        causes.append(n.not_supported("spec.scope", scope, ["Cluster", "Namespaced"]))
    causes += _versions(spec.get("versions") or [], before.get("versions") or [])
    causes += [
        n.required(f"spec.names.{field}")
        for field in ("plural", "singular", "kind", "listKind")
        if not names.get(field)
    ]
    causes += name_faults(names, "spec.names")
    causes += conversion_faults(spec.get("conversion") or {}, spec.get("preserveUnknownFields"))
    if spec.get("preserveUnknownFields") and not before.get("preserveUnknownFields"):
        why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        causes.append(n.invalid("spec.preserveUnknownFields", True, why))
    if old is not None:
        causes += _update(obj, old)
    return causes + validate_status(obj) + stored_faults(obj)


def validate_status(obj: Object) -> list[Cause]:
    """The part of a definition's status that has rules: a write of the status is held to them alone."""
    return name_faults((obj.get("status") or {}).get("acceptedNames") or {}, "status.acceptedNames")


def stored_faults(obj: Object) -> list[Cause]:
    """``status.storedVersions`` must name the storage version, and nothing that the definition does not have."""
    versions = (obj.get("spec") or {}).get("versions") or []
    stored = list((obj.get("status") or {}).get("storedVersions") or ())
    path = "status.storedVersions"
    if not stored:
        return [n.invalid(path, None, "must have at least one stored version")]
    known = [v.get("name") for v in versions]
    causes = [
        n.invalid(path, stored, f"must have the storage version {v.get('name')}")
        for v in versions
        if v.get("storage") and v.get("name") not in stored
    ]
    for index, name in enumerate(stored):
        if name not in known:
            why = (
                f"missing from spec.versions; {name} was previously a storage version, and must remain in "
                f"spec.versions until a storage migration ensures no data remains persisted in {name} and removes "
                f"{name} from status.storedVersions"
            )
            causes.append(n.invalid(f"{path}[{index}]", name, why))
    return causes


def _group(group: str) -> list[Cause]:
    if not group:
        return [n.required("spec.group")]
    if faults := n.subdomain_faults(group):
        return [n.invalid("spec.group", group, ",".join(faults))]
    if "." not in group:
        return [n.invalid("spec.group", group, "should be a domain with at least one dot")]
    return []


def name_faults(names: Values, path: str) -> list[Cause]:
    """Syntax of ``spec.names`` and ``status.acceptedNames``; what is left out is not judged."""
    causes: list[Cause] = []

    def label(value: str, where: str, before: str = "") -> None:
        if value and (faults := n.label_1035_faults(value.lower() if before else value)):
            causes.append(n.invalid(f"{path}.{where}", value, before + ",".join(faults)))

    for field in ("plural", "singular"):
        label(names.get(field) or "", field)
    for field in ("kind", "listKind"):
        label(names.get(field) or "", field, "may have mixed case, but should otherwise match: ")
    for index, value in enumerate(names.get("shortNames") or ()):
        label(value, f"shortNames[{index}]")
    if names.get("kind") and names.get("kind") == names.get("listKind"):
        causes.append(n.invalid(f"{path}.listKind", names["listKind"], "kind and listKind may not be the same"))
    for index, value in enumerate(names.get("categories") or ()):
        label(value, f"categories[{index}]")
    return causes


def _protected(meta: Values, group: str, names: Values, old: Object | None) -> list[Cause]:
    """Kubernetes' own groups need a sign of approval, and what is built in cannot be declared a second time: its
    objects would be kept in the same place, under rules of the declarer's making.
    """
    from glebe.apiserver.types.registry import known  # late: it needs this module's room

    if not is_protected(group):
        return []
    causes: list[Cause] = []
    state, why = approval_state(meta.get("annotations"))
    if old is None or approval_state(old["metadata"].get("annotations"))[0] != state:
        path = f"metadata.annotations[{APPROVED}]"
        if state == "missing":
            causes.append(n.required(path, why))
        elif state == "invalid":
            causes.append(n.invalid(path, (meta.get("annotations") or {}).get(APPROVED), why))
    for field in ("plural", "kind"):
        name = names.get(field)
        if any(info.group == group and getattr(info, field) == name for info in known()):
            causes.append(n.invalid(f"spec.names.{field}", name, f"is built in: the group {group} has it already"))
    return causes


def _versions(versions: list[Values], before: list[Values]) -> list[Cause]:
    causes: list[Cause] = []
    path = "spec.versions"
    earlier = {v.get("name"): v for v in before}
    shared = _shared(versions)
    for index, version in enumerate(versions):
        where = f"{path}[{index}]"
        name = version.get("name", "")
        if faults := n.label_1035_faults(name):
            causes.append(n.invalid(f"{where}.name", name, ",".join(faults)))
        causes += _deprecation(version, where)
        for field, check in _PARTS.items():
            if field not in shared:
                causes += check(version, earlier.get(name) or {}, f"{where}.{field}")
    for field in shared:
        causes += _PARTS[field](versions[0], earlier.get(versions[0].get("name")) or {}, f"spec.{_AT_TOP[field]}")
    names = [v.get("name", "") for v in versions]
    if len(set(names)) != len(names):
        causes.append(n.invalid(path, versions, "must contain unique version names"))
    if sum(1 for v in versions if v.get("storage")) != 1:
        causes.append(n.invalid(path, versions, "must have exactly one version marked as storage version"))
    return causes


#: Parts of a version -> where upstream (which keeps what all versions share in one place) says that a fault is.
_AT_TOP = {
    "schema": "validation",
    "subresources": "subresources",
    "additionalPrinterColumns": "additionalPrinterColumns",
    "selectableFields": "selectableFields",
}


def _shared(versions: list[Values]) -> list[str]:
    """The parts that are the same in all versions."""
    return [f for f in _AT_TOP if versions and versions[0].get(f) and all(v.get(f) == versions[0][f] for v in versions)]


def _schema(version: Values, old: Values, path: str) -> list[Cause]:
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    where = f"{path}.openAPIV3Schema"
    if schema is None:
        return [n.required(where)]
    if not isinstance(schema, dict):
        return [n.invalid(where, schema, "must be an object")]
    has_status = "status" in (version.get("subresources") or {})
    if (old.get("schema"), "status" in (old.get("subresources") or {})) == (version.get("schema"), has_status):
        return []  # what was let in once may stay
    faults = schema_faults(schema, where, has_status=has_status)
    return faults or _rule_faults(schema, where, old.get("schema"))


def _subresources(version: Values, old: Values, path: str) -> list[Cause]:
    return _scale((version.get("subresources") or {}).get("scale"), path)


def _columns(version: Values, old: Values, path: str) -> list[Cause]:
    columns = version.get("additionalPrinterColumns") or ()
    return [cause for index, column in enumerate(columns) for cause in _column(column, f"{path}[{index}]")]


def _selectable_fields(version: Values, old: Values, path: str) -> list[Cause]:
    schema, fields = (version.get("schema") or {}).get("openAPIV3Schema"), version.get("selectableFields") or []
    if not isinstance(schema, dict) or not fields:
        return []
    return _selectable(fields, old.get("selectableFields"), schema, path)


_PARTS: dict[str, Callable[[Values, Values, str], list[Cause]]] = {
    "schema": _schema,
    "subresources": _subresources,
    "additionalPrinterColumns": _columns,
    "selectableFields": _selectable_fields,
}


def _rule_faults(schema: Values, path: str, old: Values | None) -> list[Cause]:
    """CEL rules that do not compile, or that would cost too much."""
    from glebe.apiserver.types import celrules  # late: only definitions with rules need an engine

    check = getattr(celrules, "definition_faults", None)
    if check is None or not _has_rules(schema):
        return []
    return list(check(schema, path, (old or {}).get("openAPIV3Schema")))


def _has_rules(node: Any) -> bool:
    if isinstance(node, dict):
        return "x-kubernetes-validations" in node or any(_has_rules(value) for value in node.values())
    return isinstance(node, list) and any(_has_rules(item) for item in node)


def _deprecation(version: Values, path: str) -> list[Cause]:
    warning = version.get("deprecationWarning")
    if warning is None:
        return []
    where, faults = f"{path}.deprecationWarning", []
    if not version.get("deprecated"):
        return [n.invalid(where, warning, "can only be set for deprecated versions")]
    if len(warning.encode()) > 256:
        faults.append("must be <= 256 characters long")
    if not warning:
        faults.append("must not be an empty string")
    strange = next((i for i, character in enumerate(warning) if not character.isprintable()), None)
    if strange is not None:
        offset = len(warning[:strange].encode())
        why = "must only contain printable UTF-8 characters; non-printable character found at index"
        faults.append(f"{why} {offset}")
    return [n.invalid(where, warning, fault) for fault in faults]


def _simple_path(value: str, path: str) -> list[Cause]:
    return [] if value.startswith(".") else [n.invalid(path, value, "must be a simple json path starting with .")]


def _scale(scale: Values | None, path: str) -> list[Cause]:
    if scale is None:
        return []
    causes: list[Cause] = []
    for field, roots, words in (
        ("specReplicasPath", (".spec.",), ".spec"),
        ("statusReplicasPath", (".status.",), ".status"),
        ("labelSelectorPath", (".spec.", ".status."), "either .spec or .status"),
    ):
        value, where = scale.get(field) or "", f"{path}.scale.{field}"
        if not value:
            if field != "labelSelectorPath":
                causes.append(n.required(where))
        elif faults := _simple_path(value, where):
            causes += faults
        elif not value.startswith(roots):
            causes.append(n.invalid(where, value, f"should be a json path under {words}"))
    return causes


def _column(column: Values, path: str) -> list[Cause]:
    causes: list[Cause] = []
    one_of = f"must be one of {','.join(_COLUMN_TYPES)}"
    kind, form, where = column.get("type") or "", column.get("format") or "", column.get("jsonPath") or ""
    if not column.get("name"):
        causes.append(n.required(f"{path}.name"))
    if not kind:
        causes.append(n.required(f"{path}.type", one_of))
    elif kind not in _COLUMN_TYPES:
        causes.append(n.invalid(f"{path}.type", kind, one_of))
    if form and form not in _COLUMN_FORMATS:
        causes.append(n.invalid(f"{path}.format", form, f"must be one of {','.join(_COLUMN_FORMATS)}"))
    if not where:
        causes.append(n.required(f"{path}.JSONPath"))
    return causes + (_simple_path(where, f"{path}.JSONPath") if where else [])


def _selectable(fields: list[Values], old: list[Values] | None, schema: Values, path: str) -> list[Cause]:
    causes: list[Cause] = []
    seen: set[str] = set()
    for index, field in enumerate(fields):
        where, name = f"{path}[{index}].jsonPath", field.get("jsonPath") or ""
        if not name:
            causes.append(n.required(where))
            continue
        found = find_field(schema, name, brackets=False)
        if isinstance(found, str):
            causes.append(n.invalid(where, name, f"is an invalid path: {found}"))
            continue
        if name.lstrip(".").partition(".")[0] == "metadata":
            causes.append(n.invalid(where, name, "must not point to fields in metadata"))
        if found.get("type") not in ("string", "boolean", "integer"):
            why = (
                "must point to a field of type string, boolean or integer. "
                "Enum string fields and strings with formats are allowed."
            )
            causes.append(n.invalid(where, name, why))
        if name in seen:
            causes.append(n.duplicate(where, name))
        seen.add(name)
    if len(seen) > _SELECTABLE and fields != old:
        why = f"Too many: {len(seen)}: must have at most {_SELECTABLE} items"
        causes.append(Cause("FieldValueTooMany", why, path))
    return causes


def _update(obj: Object, old: Object) -> list[Cause]:
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    names, earlier = spec.get("names") or {}, before.get("names") or {}
    causes: list[Cause] = []
    if has_condition(old, "Established"):
        if spec.get("scope") != before.get("scope"):
            causes.append(n.invalid("spec.scope", spec.get("scope"), _IMMUTABLE))
        if names.get("kind") != earlier.get("kind"):
            causes.append(n.invalid("spec.names.kind", names.get("kind"), _IMMUTABLE))
    if spec.get("group") != before.get("group"):
        causes.append(n.invalid("spec.group", spec.get("group"), _IMMUTABLE))
    if names.get("plural") != earlier.get("plural"):
        causes.append(n.invalid("spec.names.plural", names.get("plural"), _IMMUTABLE))
    return causes

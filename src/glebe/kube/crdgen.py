"""From typed structs to CustomResourceDefinitions.

A kind is a :class:`msgspec.Struct` whose fields become the properties of a structural schema: ``Literal`` is an enum,
a field without a default is required, a literal default is a default of the schema, ``Meta`` gives bounds and list
types, the string below a field its description, the class attribute ``validations`` its CEL rules.
"""

from __future__ import annotations

import ast
import copy
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
import yaml

from glebe.kube.resources import Resource

_JSON = dict[str, Any]
_BASIC: dict[type, _JSON] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
}
_INT_OR_STRING: _JSON = {
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "x-kubernetes-int-or-string": True,
    "pattern": r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$",
}


#: the same for amounts that cannot be below zero
_NOT_NEGATIVE: _JSON = {
    **_INT_OR_STRING,
    "pattern": str(_INT_OR_STRING["pattern"]).replace("[+-]", "[+]", 1),
    "minimum": 0,
}


@dataclass(frozen=True, slots=True)
class Rule:
    """A CEL rule over ``self`` (and ``oldSelf``), with what to say when it does not hold."""

    rule: str
    message: str


@dataclass(frozen=True, slots=True)
class Column:
    """A printer column of ``kubectl get``; ``priority`` above 0 shows with ``-o wide`` only."""

    name: str
    json_path: str
    type: str = "string"
    priority: int = 0
    description: str = ""


@dataclass(frozen=True, slots=True)
class OlderVersion:
    """A version that is served beside the stored one.

    :param schema: makes its schema out of the stored version's (which it may change in place).
    :param columns: printer columns where they differ.
    """

    name: str
    schema: Callable[[_JSON], _JSON]
    columns: tuple[Column, ...] | None = None
    warning: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """One custom kind: its address, its struct and how kubectl shows it.

    :param conversion: ``spec.conversion``, where objects differ between versions by more than their ``apiVersion``.
    """

    resource: Resource
    struct: type[msgspec.Struct]
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    singular: str = ""
    selectable: tuple[str, ...] = ()
    older: tuple[OlderVersion, ...] = ()
    conversion: Mapping[str, Any] | None = None


def custom_resource_definition(kind: Kind) -> _JSON:
    """The CRD object of ``kind``: its stored version, and those that are served beside it."""
    resource = kind.resource
    schema = schema_of(kind.struct)
    schema["properties"] = {
        "apiVersion": {"type": "string", "description": "Version of the schema of this object."},
        "kind": {"type": "string", "description": "Kind of this object."},
        "metadata": {"type": "object"},
        **schema["properties"],
    }
    versions = [_version(kind, resource.version, schema, kind.columns, stored=True)]
    for older in kind.older:
        columns = kind.columns if older.columns is None else older.columns
        made = _version(kind, older.name, older.schema(copy.deepcopy(schema)), columns, stored=False)
        versions.append(
            {**made, "deprecated": True, **({"deprecationWarning": older.warning} if older.warning else {})}
        )
    spec: _JSON = {
        "group": resource.group,
        "names": _names(kind),
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "versions": versions,
    }
    if kind.conversion is not None:
        spec["conversion"] = dict(kind.conversion)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": resource.group_resource},
        "spec": spec,
    }


def _version(kind: Kind, name: str, schema: _JSON, columns: tuple[Column, ...], *, stored: bool) -> _JSON:
    version: _JSON = {"name": name, "served": True, "storage": stored, "schema": {"openAPIV3Schema": schema}}
    if "status" in schema["properties"]:
        version["subresources"] = {"status": {}}
    if columns:
        version["additionalPrinterColumns"] = [_column(c) for c in columns]
    if kind.selectable and stored:  # upstream refuses a definition in which all versions have the same
        version["selectableFields"] = [{"jsonPath": path} for path in kind.selectable]
    return version


def _names(kind: Kind) -> _JSON:
    resource = kind.resource
    names: _JSON = {
        "kind": resource.kind,
        "listKind": resource.kind + "List",
        "plural": resource.plural,
        "singular": kind.singular or resource.kind.lower(),
    }
    if kind.short_names:
        names["shortNames"] = list(kind.short_names)
    if kind.categories:
        names["categories"] = list(kind.categories)
    return names


def to_yaml(objects: Sequence[_JSON]) -> str:
    """Objects as one YAML stream, keys in the given order."""
    header = "# Generated by tools/generate.py from the code; do not edit.\n"
    documents = [yaml.dump(o, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True) for o in objects]
    return header + "---\n".join(documents)


class _Dumper(yaml.SafeDumper):
    """No anchors: the same schema twice is written twice. Texts of several lines stay so."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _column(column: Column) -> _JSON:
    out: _JSON = {"name": column.name, "type": column.type, "jsonPath": column.json_path}
    if column.priority:
        out["priority"] = column.priority
    if column.description:
        out["description"] = column.description
    return out


def schema_of(struct: type[msgspec.Struct]) -> _JSON:
    """The structural schema of a struct.

    :raises TypeError: for a type that a structural schema cannot say.
    """
    hints = typing.get_type_hints(struct, include_extras=True)
    descriptions = _field_descriptions(struct)
    out: _JSON = {"type": "object", "description": inspect.cleandoc(struct.__doc__ or "").replace("\n", " ")}
    required: list[str] = []
    properties: _JSON = {}
    for field in msgspec.structs.fields(struct):
        schema = _schema(hints[field.name])
        if description := descriptions.get(field.name, ""):
            # what the field is for says more than what its struct is
            schema = {"description": description, **{k: v for k, v in schema.items() if k != "description"}}
        if field.required:
            required.append(field.encode_name)
        elif isinstance(field.default, str | int | float) and field.default != "":
            schema.setdefault("default", field.default)
        properties[field.encode_name] = schema
    out["properties"] = properties
    if required:
        out["required"] = required
    rules: tuple[Rule, ...] = getattr(struct, "validations", ())
    if rules:
        out["x-kubernetes-validations"] = [{"rule": r.rule, "message": r.message} for r in rules]
    return out


def _schema(hint: Any) -> _JSON:
    origin = get_origin(hint)
    if origin is Annotated:
        base, *metas = get_args(hint)
        extra = {k: v for m in metas if isinstance(m, msgspec.Meta) for k, v in (m.extra or {}).items()}
        if extra.get("quantity"):
            return dict(_INT_OR_STRING if extra["quantity"] is True else _NOT_NEGATIVE)
        return _with_metas(_schema(base), metas)
    if origin in (Union, types.UnionType):
        variants = [a for a in get_args(hint) if a is not type(None)]
        if len(variants) != 1:
            raise TypeError(f"a structural schema has no union: {hint}")
        return _schema(variants[0])
    if origin is Literal:
        return {"type": "string", "enum": list(get_args(hint))}
    if origin in (list, tuple):
        return {"type": "array", "items": _schema(get_args(hint)[0])}
    if origin is dict or hint is dict:
        values = get_args(hint)[1] if get_args(hint) else Any
        return {"type": "object"} if values is Any else {"type": "object", "additionalProperties": _schema(values)}
    if hint in _BASIC:
        return dict(_BASIC[hint])
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return schema_of(hint)
    raise TypeError(f"no schema for {hint!r}")


def _with_metas(schema: _JSON, metas: Sequence[Any]) -> _JSON:
    for meta in metas:
        if not isinstance(meta, msgspec.Meta):
            continue
        for name, value in _bounds(schema["type"], meta).items():
            schema[name] = value
        schema.update(meta.extra_json_schema or {})
        if "default" in (meta.extra or {}):
            schema["default"] = (meta.extra or {})["default"]
    return schema


_LENGTHS = {"string": "Length", "array": "Items", "object": "Properties"}


def _bounds(kind: str, meta: msgspec.Meta) -> _JSON:
    out: _JSON = {}
    if meta.ge is not None:
        out["minimum"] = meta.ge
    if meta.le is not None:
        out["maximum"] = meta.le
    if meta.min_length is not None:
        out["min" + _LENGTHS[kind]] = meta.min_length
    if meta.max_length is not None:
        out["max" + _LENGTHS[kind]] = meta.max_length
    if meta.pattern is not None:
        out["pattern"] = meta.pattern
    return out


@cache
def _field_descriptions(struct: type) -> dict[str, str]:
    """The strings below fields, which Python itself drops, by field name; base classes included."""
    out: dict[str, str] = {}
    for cls in reversed(struct.__mro__):
        if cls in (object, msgspec.Struct) or not issubclass(cls, msgspec.Struct):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
        except (OSError, TypeError):  # a class without source, e.g. made in a test
            continue
        body = typing.cast(ast.ClassDef, tree.body[0]).body
        for field, below in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
                value = below.value
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    out[field.target.id] = " ".join(value.value.split())
    return out

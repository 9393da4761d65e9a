"""Definitions of kinds: the built-in ones from data and its descriptions, custom ones from their own schemas."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from glebe.apiserver.types import release
from glebe.apiserver.types.registry import ResourceInfo
from glebe.apiserver.types.schema import package

META = "io.k8s.apimachinery.pkg.apis.meta.v1"
OBJECT_META = f"{META}.ObjectMeta"
LIST_META = f"{META}.ListMeta"
PREFIX_V2, PREFIX_V3 = "#/definitions/", "#/components/schemas/"

_CONVENTIONS = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md"
_API_VERSION = {
    "description": "APIVersion defines the versioned schema of this representation of an object. Servers should convert"
    " recognized schemas to the latest internal value, and may reject unrecognized values. More info: "
    f"{_CONVENTIONS}#resources",
    "type": "string",
}
_KIND = {
    "description": "Kind is a string value representing the REST resource this object represents. Servers may infer "
    "this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: "
    f"{_CONVENTIONS}#types-kinds",
    "type": "string",
}
_EMBEDDED_API_VERSION = (
    f"apiVersion defines the versioned schema of this representation of an object. More info: {_CONVENTIONS}#resources"
)
_EMBEDDED_KIND = (
    f"kind is a string value representing the type of this object. In CamelCase. More info: {_CONVENTIONS}#types-kinds"
)
_METADATA = f"Standard object's metadata. More info: {_CONVENTIONS}#metadata"
_LIST_METADATA = f"Standard list metadata. More info: {_CONVENTIONS}#types-kinds"

#: Values of several types, which OpenAPI v2 cannot say.
_ONE_OF = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": ("integer", "string"),
    "io.k8s.apimachinery.pkg.api.resource.Quantity": ("string", "number"),
}


@lru_cache(maxsize=2)
def _docs(name: str) -> dict[str, Any]:
    """Descriptions of a package's definitions: kind -> [text, {field: text}]."""
    return release.content(f"docs-{name}")


def references(node: Any) -> Iterator[str]:
    """The definitions that a definition refers to."""
    if type(node) is dict:
        if type(ref := node.get("$ref")) is str:
            yield ref
        for key, value in node.items():
            if key == "properties":
                for child in value.values():
                    yield from references(child)
            elif key in ("items", "additionalProperties"):
                yield from references(value)


def has(name: str) -> bool:
    """Is there such a built-in definition?"""
    module, _, kind = name.rpartition(".")
    try:
        return kind in package(module)
    except FileNotFoundError:
        return False


def _raw(name: str) -> dict[str, Any]:
    module, _, kind = name.rpartition(".")
    found: dict[str, Any] = package(module)[kind]
    return found


def reachable(names: Iterable[str]) -> list[str]:
    """``names`` and everything that they refer to, sorted."""
    seen: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo.extend(references(_raw(name)))
    return sorted(seen)


def builtin(name: str, prefix: str) -> dict[str, Any]:
    """One built-in definition with its descriptions. OpenAPI v3 allows nothing beside a ``$ref``."""
    refs_alone = prefix == PREFIX_V3
    module, _, kind = name.rpartition(".")
    text, fields = _docs(module).get(kind, ("", {}))
    out: dict[str, Any] = _node(_raw(name), prefix, refs_alone)
    if refs_alone and name in _ONE_OF:
        del out["type"]
        out["oneOf"] = [{"type": kind} for kind in _ONE_OF[name]]
    if text:
        out["description"] = text
    for field, description in fields.items():
        prop = out["properties"][field]
        if refs_alone and "$ref" in prop:
            prop = {"allOf": [{"$ref": prop["$ref"]}]}
        out["properties"][field] = {**prop, "description": description}
    return out


def _node(raw: Any, prefix: str, refs_alone: bool) -> Any:
    if type(raw) is not dict:
        return raw
    out: dict[str, Any] = {}
    for key, value in raw.items():
        if key == "$ref":
            out[key] = prefix + value
        elif key == "properties":
            out[key] = {name: _node(child, prefix, refs_alone) for name, child in value.items()}
        elif key in ("items", "additionalProperties"):
            out[key] = _node(value, prefix, refs_alone)
        else:
            out[key] = value
    if refs_alone and "$ref" in out and len(out) > 1:
        out["allOf"] = [{"$ref": out.pop("$ref")}]
    return out


# ------------------------------------------------------------------------------------------------------ custom kinds


def name_of(info: ResourceInfo, kind: str = "") -> str:
    """The full name of a kind's definition, e.g. ``com.example.v1.Foo``."""
    if not info.is_custom:
        return info.definition if not kind else f"{info.definition.rpartition('.')[0]}.{kind}"
    return f"{'.'.join(reversed(info.group.split('.')))}.{info.version}.{kind or info.kind}"


def custom(info: ResourceInfo, prefix: str) -> dict[str, Any]:
    """A custom resource's kind and its list, as upstream publishes them.

    OpenAPI v2 knows neither junctors nor nullable values, and kubectl's validation takes every field that is named for
    the whole truth: so a root that keeps unknown fields says nothing but that.
    """
    version2 = prefix == PREFIX_V2
    raw = info.raw_schema
    if raw is None or (version2 and raw.get("x-kubernetes-preserve-unknown-fields")):
        schema: dict[str, Any] = {"type": "object"}
    else:
        schema = _plain(raw) if version2 else _copied(raw)
        properties = schema.setdefault("properties", {})
        properties.update({"apiVersion": _API_VERSION, "kind": _KIND, "metadata": _described(prefix, OBJECT_META)})
        _embed(schema, prefix)
    gvk = {"group": info.group, "kind": info.kind, "version": info.version}
    schema["x-kubernetes-group-version-kind"] = [gvk]
    if info.selectable_fields:
        schema["x-kubernetes-selectable-fields"] = [{"fieldPath": path} for path in info.selectable_fields]
    return {name_of(info): schema, name_of(info, info.list_kind): _list(info, prefix)}


def _described(prefix: str, name: str, text: str = _METADATA) -> dict[str, Any]:
    ref = {"$ref": prefix + name}
    return {"description": text, **(ref if prefix == PREFIX_V2 else {"allOf": [ref]})}


def _list(info: ResourceInfo, prefix: str) -> dict[str, Any]:
    text = f"List of {info.plural}. More info: {_CONVENTIONS}"
    items = {"description": text, "type": "array", "items": {"$ref": prefix + name_of(info)}}
    gvk = {"group": info.group, "kind": info.list_kind, "version": info.version}
    return {
        "description": f"{info.list_kind} is a list of {info.kind}",
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": _API_VERSION,
            "items": items,
            "kind": _KIND,
            "metadata": _described(prefix, LIST_META, _LIST_METADATA),
        },
        "x-kubernetes-group-version-kind": [gvk],
    }


def _copied(raw: Any) -> Any:
    if isinstance(raw, dict):
        return {key: _copied(value) for key, value in raw.items()}
    return [_copied(item) for item in raw] if isinstance(raw, list) else raw


def _plain(raw: Any) -> dict[str, Any]:
    """A structural schema in the words of OpenAPI v2."""
    out = {key: value for key, value in raw.items() if key not in ("allOf", "oneOf", "anyOf", "not", "nullable")}
    free = out.get("x-kubernetes-preserve-unknown-fields")
    if raw.get("nullable") or free:
        out.pop("items", None)
        out.pop("properties", None)
        if raw.get("nullable") or out.get("type") == "object":
            out.pop("type", None)
    if out.get("type") == "array" and "items" not in out:
        out.pop("type")
    if "properties" in out:
        nullable = {name for name, child in raw["properties"].items() if child.get("nullable")}
        out["properties"] = {name: _plain(child) for name, child in out["properties"].items()}
        if nullable and "required" in out:
            out["required"] = [name for name in out["required"] if name not in nullable]
    if isinstance(out.get("additionalProperties"), dict):
        if out["additionalProperties"].get("nullable"):
            out.pop("required", None)
        out["additionalProperties"] = _plain(out["additionalProperties"])
    if isinstance(out.get("items"), dict):
        out["items"] = _plain(out["items"])
    if out.get("required") == []:
        del out["required"]
    return out


def _embed(schema: dict[str, Any], prefix: str) -> None:
    """Name the fields that every object has, wherever a schema says that a whole object stands."""
    for child in (schema.get("properties") or {}).values():
        if "$ref" not in child:
            _embed(child, prefix)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            _embed(schema[key], prefix)
    if prefix == PREFIX_V2 and schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    if schema.get("x-kubernetes-embedded-resource"):
        schema["properties"] = {
            **schema.get("properties", {}),
            "apiVersion": {"description": _EMBEDDED_API_VERSION, "type": "string"},
            "kind": {"description": _EMBEDDED_KIND, "type": "string"},
            "metadata": _described(prefix, OBJECT_META),
        }
        required = list(schema.get("required") or ())
        schema["required"] = required + [name for name in ("kind", "apiVersion") if name not in required]

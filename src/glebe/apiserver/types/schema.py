"""The schema of a kind: one tree of :class:`Schema` for built-in kinds (from data) and custom ones (from their CRD).

A node is parsed when it is first reached, so that a server which only stores pods never reads a Deployment's schema.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from glebe.apiserver.types import release

if TYPE_CHECKING:
    from glebe.apiserver.types.registry import ResourceInfo

_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
POD_SPEC = "io.k8s.api.core.v1.PodSpec"
_INT_OR_STRING = "int-or-string"
#: definitions that hold any JSON, whatever their own schema says
_ANY = frozenset(
    {
        "JSON",
        "JSONSchemaPropsOrArray",
        "JSONSchemaPropsOrBool",
        "JSONSchemaPropsOrStringArray",
        "RawExtension",
        "FieldsV1",
    }
)


class Schema:
    """One node: the type of a value and how it merges.

    ``kind`` is what a JSON value must be: ``object`` (named fields), ``map`` (any keys, one type), ``array``,
    ``string``, ``integer``, ``number``, ``boolean``, ``int-or-string``, ``quantity`` or ``any``.
    ``list_type`` is ``atomic``, ``set`` or ``map`` (with ``list_keys``); ``map_type`` ``granular`` or ``atomic``.
    """

    __slots__ = (
        "additional",
        "branches",
        "check",
        "custom",
        "default",
        "defaulted",
        "definition",
        "embedded",
        "enum",
        "fields",
        "format",
        "items",
        "kind",
        "list_keys",
        "list_type",
        "map_type",
        "nullable",
        "patch_merge_key",
        "patch_strategy",
        "preserve",
        "raw",
        "required",
        "root_rules",
        "ruled",
        "rules",
        "validator",
    )
    # parsed when first read, by __getattr__
    fields: dict[str, Schema]
    items: Schema | None
    additional: Schema | None
    check: Any  # glebe.apiserver.types.prune compiles it
    validator: Any  # glebe.apiserver.types.structural compiles it
    branches: dict[int, Schema]  # its junctors' branches, by the identity of their raw form; structural fills it
    defaulted: bool  # a default stands at or below this node of a custom resource's schema
    ruled: bool  # a CEL rule stands at or below this node; glebe.apiserver.types.celrules looks
    rules: Any  # its own CEL rules; celrules compiles them
    root_rules: Any  # the same when the node is the schema of whole objects

    def __init__(self, raw: dict[str, Any], *, custom: bool = False, definition: str = "") -> None:
        self.raw = raw
        self.custom = custom
        self.definition = definition
        self.format: str = raw.get("format", "")
        self.nullable: bool = raw.get("nullable", False)
        self.enum: tuple[Any, ...] | None = tuple(raw["enum"]) if "enum" in raw else None
        self.default: Any = raw.get("default")
        self.required: tuple[str, ...] = tuple(raw.get("required", ()))
        self.embedded: bool = raw.get("x-kubernetes-embedded-resource", False)
        if custom and self.embedded:
            self.required = (*self.required, *(n for n in ("apiVersion", "kind") if n not in self.required))
        self.preserve: bool = raw.get("x-kubernetes-preserve-unknown-fields", False)
        self.patch_merge_key: str = raw.get("x-kubernetes-patch-merge-key", "")
        self.patch_strategy: tuple[str, ...] = tuple(
            filter(None, raw.get("x-kubernetes-patch-strategy", "").split(","))
        )
        self.kind = self._kind()
        self.list_type, self.list_keys = self._list_type()
        self.map_type: str = raw.get("x-kubernetes-map-type", "granular")

    def _kind(self) -> str:
        raw = self.raw
        if raw.get("x-kubernetes-int-or-string") or self.format == _INT_OR_STRING:
            return _INT_OR_STRING
        if self.definition.rpartition(".")[2] in _ANY and not self.custom:
            return "any"
        kind: str = raw.get("type", "any")
        if kind == "string" and self.format == "quantity" and not self.custom:
            return "quantity"
        if kind == "object" and "properties" not in raw:
            if "additionalProperties" in raw:
                return "map" if isinstance(raw["additionalProperties"], dict) else "any"
            return "object" if not (self.preserve and not self.custom) else "any"
        return kind

    def _list_type(self) -> tuple[str, tuple[str, ...]]:
        raw = self.raw
        if self.kind != "array":
            return "", ()
        declared = raw.get("x-kubernetes-list-type")
        if declared:
            return declared, tuple(raw.get("x-kubernetes-list-map-keys", ()))
        # older fields say it only through their patch strategy
        if "merge" in self.patch_strategy:
            return ("map", (self.patch_merge_key,)) if self.patch_merge_key else ("set", ())
        return "atomic", ()

    def __getattr__(self, name: str) -> Any:
        """Parse children on first use (a slot that is not set lands here)."""
        value: Any
        if name == "fields":
            value = self._fields()
        elif name == "items":
            value = self._child(self.raw["items"]) if "items" in self.raw else None
        elif name == "additional":
            raw = self.raw.get("additionalProperties")
            value = self._child(raw) if isinstance(raw, dict) else None
        elif name == "check":
            from glebe.apiserver.types.prune import compile_check

            value = compile_check(self)
        elif name == "validator":
            from glebe.apiserver.types.structural import compile_validator

            value = compile_validator(self)
        elif name == "branches":
            value = {}
        elif name == "defaulted":
            value = self.custom and ("default" in self.raw or any(c.defaulted for c in self._children()))
        elif name == "ruled":
            from glebe.apiserver.types.celrules import look_for_rules

            value = look_for_rules(self)
        elif name in ("rules", "root_rules"):
            from glebe.apiserver.types.celrules import compile_root_rules, compile_rules

            value = (compile_rules if name == "rules" else compile_root_rules)(self)
        else:
            raise AttributeError(name)
        setattr(self, name, value)
        return value

    def _children(self) -> Iterator[Schema]:
        yield from self.fields.values()
        yield from (child for child in (self.items, self.additional) if child is not None)

    def _fields(self) -> dict[str, Schema]:
        fields = {name: self._child(raw) for name, raw in self.raw.get("properties", {}).items()}
        if self.custom and self.embedded:
            fields.setdefault("apiVersion", _STRING)
            fields.setdefault("kind", _STRING)
            fields["metadata"] = object_meta()
        return fields

    def _child(self, raw: dict[str, Any]) -> Schema:
        ref = raw.get("$ref")
        if ref is None:
            return Schema(raw, custom=self.custom)
        return definition(ref) if len(raw) == 1 else Schema({**_raw(ref), **raw}, definition=ref)

    def field(self, name: str) -> Schema | None:
        """The schema of a named field or map entry; None when it is not known."""
        if self.kind == "map":
            return self.additional
        found = self.fields.get(name)
        return found if found is not None else self.additional

    def walk(self, path: str = "") -> Iterator[tuple[str, Schema]]:
        """Every node of a finite schema, with its dotted path (``[]`` for items)."""
        yield path, self
        for name, child in self.fields.items():
            yield from child.walk(f"{path}.{name}" if path else name)
        if self.items is not None:
            yield from self.items.walk(f"{path}[]")
        if self.additional is not None:
            yield from self.additional.walk(f"{path}.*")


_STRING = Schema({"type": "string"})


@cache
def package(name: str) -> dict[str, Any]:
    """The raw definitions of one package, e.g. ``io.k8s.api.batch.v1``: kind -> schema."""
    return release.content(f"schema-{name}")


def _raw(name: str) -> dict[str, Any]:
    module, _, kind = name.rpartition(".")
    found: dict[str, Any] = package(module)[kind]
    return found


@cache
def definition(name: str) -> Schema:
    """A built-in definition by its full name, e.g. ``io.k8s.api.core.v1.PodSpec``."""
    return Schema(_raw(name), definition=name)


def object_meta() -> Schema:
    return definition(f"{_META}.ObjectMeta")


def load(info: ResourceInfo) -> Schema | None:
    """The schema of a resource's objects; None when it has none (it is then stored as it comes)."""
    if not info.is_custom:
        return definition(info.definition) if info.definition else None
    if info.raw_schema is None:
        return None
    schema = Schema({"type": "object", **info.raw_schema}, custom=True)
    schema.fields.update({"apiVersion": _STRING, "kind": _STRING, "metadata": object_meta()})
    return schema

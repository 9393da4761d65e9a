"""Objects as the table that ``kubectl get`` prints (``meta.k8s.io`` Table)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from glebe.apiserver.printers import PRINTERS, age, since
from glebe.apiserver.types.jsonpath import JsonPath, compile_path
from glebe.apiserver.types.registry import PrinterColumn, ResourceInfo
from glebe.kube.objects import Object

Cells = Callable[[Object, float], list[Any]]


class Column(NamedTuple):
    """One column: ``priority`` 0 is always shown, 1 only by ``-o wide``."""

    name: str
    type: str = "string"
    priority: int = 0
    format: str = ""
    description: str = ""

    def definition(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        }


_NAME = Column("Name", "string", 0, "name", "Name must be unique within a namespace.")
_AGE = Column("Age", "string", 0, "", "CreationTimestamp is the server time when this object was created.")
_CREATED = Column("Created At", "date", 0, "", "When this object was created.")


def to_table(
    info: ResourceInfo, items: list[Object], now: float, list_meta: dict[str, Any], include_object: str = "Metadata"
) -> dict[str, Any]:
    """A ``meta.k8s.io/v1`` Table of ``items``; ``now`` is in Unix seconds.

    ``include_object``: ``Metadata`` (each row carries its object's metadata), ``Object`` (all of it) or ``None``.
    """
    columns, cells = printer(info)
    rows: list[dict[str, Any]] = []
    for obj in items:
        row: dict[str, Any] = {"cells": cells(obj, now)}
        if (conditions := _row_conditions(info, obj)) is not None:
            row["conditions"] = conditions
        if include_object == "Metadata":
            meta = obj["metadata"]
            row["object"] = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
        elif include_object == "Object":
            row["object"] = {**obj, "kind": info.kind, "apiVersion": info.api_version}
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_meta,
        "columnDefinitions": [column.definition() for column in columns],
        "rows": rows,
    }


def printer(info: ResourceInfo) -> tuple[list[Column], Cells]:
    """The columns of a resource, and the function that fills them."""
    if info.is_custom:
        return _custom_printer(info.printer_columns)
    known = PRINTERS.get(info.group_resource)
    if known is None:
        return [_NAME, _CREATED], lambda obj, now: [obj["metadata"]["name"], obj["metadata"].get("creationTimestamp")]
    names, fill = known
    return [_named(name) for name in names], fill


@lru_cache(maxsize=512)
def _named(text: str) -> Column:
    """``NAME``, ``NAME:type``, ``NAME:type:format``; a leading ``+`` marks a wide column."""
    wide = text.startswith("+")
    name, _, rest = text.lstrip("+").partition(":")
    kind, _, form = rest.partition(":")
    if name == "Name":
        return Column(*_NAME[:2], 1 if wide else 0, *_NAME[3:])
    if name == "Age":
        return _AGE
    return Column(name, kind or "string", 1 if wide else 0, form)


def _row_conditions(info: ResourceInfo, obj: Object) -> list[dict[str, Any]] | None:
    """A finished pod's row says so: clients may hide it."""
    if info.group_resource != "pods":
        return None
    phase = (obj.get("status") or {}).get("phase")
    if phase not in ("Succeeded", "Failed"):
        return None
    message = "The pod has completed successfully." if phase == "Succeeded" else "The pod failed."
    return [{"type": "Completed", "status": "True", "reason": phase, "message": message}]


# -------------------------------------------------------------------------------------------------- custom resources


@lru_cache(maxsize=256)
def _custom_printer(declared: tuple[PrinterColumn, ...]) -> tuple[list[Column], Cells]:
    if not declared:
        return [_NAME, _AGE], lambda obj, now: [obj["metadata"]["name"], age(obj, now)]
    columns = [_NAME, *(Column(c.name, c.type, c.priority, c.format, c.description) for c in declared)]
    paths = [(compile_path(c.json_path), c.type) for c in declared]

    def cells(obj: Object, now: float) -> list[Any]:
        return [obj["metadata"]["name"], *(_cell(path, kind, obj, now) for path, kind in paths)]

    return columns, cells


def _cell(path: JsonPath, kind: str, obj: Object, now: float) -> Any:
    found = path(obj)
    if not found:
        return None
    value = found[0] if len(found) == 1 else found
    if kind == "date":
        return since(str(value), now)
    if kind == "integer":
        return value if type(value) is int else (int(value) if type(value) is float else None)
    if kind == "number":
        return value if type(value) in (int, float) else None
    if kind == "boolean":
        return value if type(value) is bool else None
    return _text(value)


def _text(value: Any) -> Any:
    if type(value) is str:
        return value
    if type(value) is bool:
        return "true" if value else "false"
    return orjson.dumps(value).decode()

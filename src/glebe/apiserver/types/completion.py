"""What a stored object has because upstream keeps it in a struct: zero values, and quantities in their canonical form.

Go writes a field without ``omitempty`` even when it was never set: ``status.replicas: 0`` in a new ReplicaSet. Which
fields these are is known from the same data as their numbers (:mod:`glebe.apiserver.protobuf.messages`, flag ``!``).
Nulls (zero times, missing lists) are left out: to every client they mean the same as nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

from glebe.apiserver.protobuf import messages
from glebe.apiserver.types.registry import ResourceInfo
from glebe.kube import quantity
from glebe.kube.objects import Object

Complete = Callable[[dict[str, Any]], None]

_ZEROS: dict[str, Any] = {"string": "", "int32": 0, "int64": 0, "bool": False, "double": 0}
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
#: Messages that are not walked: they have nothing to complete, or their JSON is not their fields.
_CLOSED = (
    "io.k8s.apiextensions-apiserver.",
    "io.k8s.apimachinery.pkg.runtime.",
    "io.k8s.apimachinery.pkg.util.",
    "io.k8s.apimachinery.pkg.apis.meta.v1.",
)
#: Fields that stay out all the same: a client's silence about them means something here.
_SILENT = frozenset({"name", "namespace"})


def complete(info: ResourceInfo, obj: Object) -> None:
    """Fill in, in place, what ``obj`` of a built-in kind has as a struct."""
    if info.is_custom or not info.definition:
        return
    if (walk := _walker(info.definition)) is not None:
        walk(obj)


def complete_all_but(info: ResourceInfo, obj: Object, name: str) -> None:
    """The same, with one field left as it is."""
    if (walk := _walker(info.definition)) is not None:
        rest = {key: value for key, value in obj.items() if key != name}
        walk(rest)
        for key, value in rest.items():
            obj.setdefault(key, value)


def blank(info: ResourceInfo) -> Object:
    """What an object of the kind has though nobody said anything (read only): nobody can be said to have added it."""
    if info.is_custom or not info.definition:
        return {}
    return _blank(info.definition)


@cache
def _blank(definition: str) -> Object:
    obj: Object = {}
    if (walk := _walker(definition)) is not None:
        walk(obj)
    return obj


@lru_cache(maxsize=8192)
def _canonical(text: str) -> str:
    try:
        return quantity.canonical(text)
    except ValueError:
        return text  # validation says so


@cache
def _walker(name: str) -> Complete | None:
    """The function that completes a message by its full name; None when there is nothing to do in it."""
    if name.startswith(_CLOSED) or name not in messages.names_set():
        return None
    zeros: dict[str, Any] = {}
    structs: list[str] = []
    children: dict[str, Complete] = {}
    _collect(name, zeros, structs, children)
    if not (zeros or structs or children):
        return None

    get = children.get

    def walk(value: dict[str, Any]) -> None:
        for key, zero in zeros.items():
            if key not in value:
                value[key] = zero
        for key in structs:
            if key not in value:
                value[key] = {}
        for key, item in value.items():
            step = get(key)
            if step is not None and item is not None:
                step(item if type(item) is not str else value)

    return walk


def _collect(name: str, zeros: dict[str, Any], structs: list[str], children: dict[str, Complete]) -> None:
    for field in messages.fields(name).values():
        if not field.name:
            if field.type in messages.SCALARS or field.shape:
                continue
            _collect(field.type, zeros, structs, children)  # its fields stand in the parent
            continue
        kind = field.type
        if kind in messages.SCALARS:
            if field.flag == messages.ALWAYS and not field.shape and field.name not in _SILENT and kind in _ZEROS:
                zeros[field.name] = _ZEROS[kind]
        elif kind == _QUANTITY:
            children[field.name] = _quantities(field.name, field.shape)
        else:
            below = _walker(kind)
            if field.flag == messages.ALWAYS and not field.shape and _is_struct(kind):
                structs.append(field.name)
            if below is not None:
                children[field.name] = _each(below, field.shape)


def _is_struct(kind: str) -> bool:
    if kind.endswith(".ObjectMeta"):
        return True
    return not kind.startswith(_CLOSED) and not kind.endswith((".Time", ".MicroTime", ".FieldsV1"))


def _each(below: Complete, shape: str) -> Complete:
    if not shape:
        return lambda item: below(item) if type(item) is dict else None
    if shape == "[]":

        def of_list(items: Any) -> None:
            for item in items:
                if type(item) is dict:
                    below(item)

        return of_list

    def of_map(items: Any) -> None:
        for item in items.values():
            if type(item) is dict:
                below(item)

    return of_map


def _quantities(name: str, shape: str) -> Complete:
    """For one quantity the parent is given, because a text cannot be changed in place."""
    if not shape:

        def one(parent: dict[str, Any]) -> None:
            if type(parent) is dict and type(parent.get(name)) is str:
                parent[name] = _canonical(parent[name])

        return one

    def of_map(items: Any) -> None:
        if type(items) is dict:
            for key, value in items.items():
                if type(value) is str:
                    items[key] = _canonical(value)

    return of_map

"""Label and field selectors of lists and watches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import orjson

from glebe.apiserver.store import Entry
from glebe.apiserver.types.registry import ResourceInfo
from glebe.kube.errors import bad_request
from glebe.kube.objects import Object
from glebe.kube.selectors import EXISTS, IN, FieldSelector, LabelSelector
from glebe.kube.transport import Request

#: Fields whose absence means something else than "".
_ABSENT = {"spec.unschedulable": "false", "spec.hostNetwork": "false", "status.successful": "0", "status.replicas": "0"}


def _event_source(obj: Object) -> str:
    return str((obj.get("source") or {}).get("component") or obj.get("reportingComponent") or "")


def _succeeded(obj: Object) -> str:
    return str((obj.get("status") or {}).get("succeeded") or 0)


def _addresses(obj: Object) -> str:
    return ",".join(str(a.get("ip", "")) for a in (obj.get("status") or {}).get("podIPs") or ())


#: Fields that are not a path in the object.
_COMPUTED: dict[str, Callable[[Object], str]] = {
    "source": _event_source,
    "status.successful": _succeeded,
    "status.podIPs": _addresses,
}


class Selection(Protocol):
    """Which objects a list or watch is about, beyond its namespace."""

    name: str
    """The only name that can match, or ""."""
    all: bool
    """Nothing is filtered (beyond :attr:`name`)."""

    def matches(self, entry: Entry) -> bool: ...


class _Everything:
    name = ""
    all = True

    def matches(self, entry: Entry) -> bool:
        return True


EVERYTHING = _Everything()


class _Selected:
    def __init__(self, labels: LabelSelector | None, fields: FieldSelector | None, name: str) -> None:
        self._labels = labels
        self._fields = fields
        self.name = name
        self.all = labels is None and fields is None

        self._needles = _needles(labels, fields)

    def matches(self, entry: Entry) -> bool:
        # Most objects are told apart by their bytes: decoding thousands of them would hold up everybody else.
        value = entry.value
        if any(needle not in value for needle in self._needles):
            return False
        obj = entry.view()
        if self._labels is not None and not self._labels.matches(obj["metadata"].get("labels") or {}):
            return False
        return self._fields is None or self._fields.matches(lambda path: field_of(obj, path))


def _needles(labels: LabelSelector | None, fields: FieldSelector | None) -> tuple[bytes, ...]:
    """What the stored JSON (compact, as our encoder writes it) of every matching object must contain."""
    found = []
    for requirement in labels.requirements if labels is not None else ():
        if requirement.operator == IN and len(requirement.values) == 1:
            found.append(orjson.dumps(requirement.key) + b":" + orjson.dumps(requirement.values[0]))
        elif requirement.operator in (IN, EXISTS):
            found.append(orjson.dumps(requirement.key) + b":")
    # Booleans and numbers stand without quotes, and an absent field matches "".
    found.extend(
        orjson.dumps(term.path.rpartition(".")[2]) + b":" + orjson.dumps(term.value)
        for term in (fields.terms if fields is not None else ())
        if term.equal
        and term.path not in _COMPUTED
        and term.value not in ("", "true", "false")
        and not term.value.lstrip("-")[:1].isdigit()
    )
    return tuple(found)


def field_of(obj: Object, path: str) -> str:
    """The text of a selectable field; "" when it is absent."""
    if (computed := _COMPUTED.get(path)) is not None:
        return computed(obj)
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
        if value is None:
            return _ABSENT.get(path, "")
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def parse(request: Request, info: ResourceInfo) -> Selection:
    """The request's selectors.

    :raises ApiError: 400 for bad syntax or a field that the kind cannot be selected by.
    """
    label_text, field_text = request.param("labelSelector"), request.param("fieldSelector")
    if not label_text and not field_text:
        return EVERYTHING
    labels = fields = None
    name = ""
    if label_text:
        try:
            labels = LabelSelector.parse(label_text)
        except ValueError as error:
            raise bad_request(str(error)) from None
    if field_text:
        try:
            fields = FieldSelector.parse(field_text)
        except ValueError as error:
            raise bad_request(f"invalid field selector: {error}") from None
        name = _check_fields(fields, info)
        if info.conversion is not None:
            fields = _stored_fields(fields, info.conversion.fields)
        if name and len(fields.terms) == 1:
            fields = None
    return _Selected(labels, fields, name)


def _unknown_field(path: str, info: ResourceInfo) -> str:
    """Upstream words it by who registered the kind's fields."""
    if info.group_resource == "resourceslices.resource.k8s.io":
        return f"field label not supported for {info.api_version}, Kind={info.kind}: {path}"
    if info.group_resource == "jobs.batch":
        return f'field label "{path}" not supported for Job'
    if info.selectable_fields or info.is_custom:
        return f"field label not supported: {path}"
    return f'"{path}" is not a known field selector: only "metadata.name", "metadata.namespace"'


def _stored_fields(fields: FieldSelector, names: Mapping[str, str]) -> FieldSelector:
    """The same selector for the form that is stored."""
    terms = tuple(replace(term, path=names.get(term.path, term.path)) for term in fields.terms)
    return replace(fields, terms=terms)


def _check_fields(fields: FieldSelector, info: ResourceInfo) -> str:
    """Refuse unknown fields; return the name when the selector pins it."""
    for term in fields.terms:
        if term.path not in ("metadata.name", "metadata.namespace") and term.path not in info.selectable_fields:
            raise bad_request(_unknown_field(term.path, info))
    return fields.required("metadata.name") or ""


def pinned_name(fields: str) -> str:
    """The only ``metadata.name`` that a field selector lets through; "" when it lets several (or is none)."""
    if "metadata.name" not in fields:
        return ""
    try:
        terms = FieldSelector.parse(fields).terms
    except ValueError:
        return ""  # said when the request is served
    return next((t.value for t in terms if t.equal and t.path == "metadata.name" and "/" not in t.value), "")

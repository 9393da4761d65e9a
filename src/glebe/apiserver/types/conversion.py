"""Built-in kinds that are served in several forms but stored in one.

``events`` and ``events.k8s.io/events`` are one collection in the store, as are the two versions of
HorizontalPodAutoscaler. Upstream's rules: ``conversion.go`` of ``pkg/apis/events/v1`` and ``pkg/apis/autoscaling/v1``.
A :class:`Conversion` belongs to the form that is *not* stored; the stored form costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from glebe.apiserver.types import hpaconversion
from glebe.kube.objects import Object


@dataclass(frozen=True, slots=True)
class Conversion:
    """How a served form is kept. Both functions take an object that they may change and give it back."""

    stored_as: str
    """The group resource under which objects are stored."""
    to_stored: Callable[[Object], Object]
    from_stored: Callable[[Object], Object]
    fields: Mapping[str, str] = field(default_factory=dict)
    """Selectable field of the served form -> the stored form's."""


#: events.k8s.io/v1 -> v1
_EVENT_NAMES = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
_EVENT_NAMES_BACK = {v: k for k, v in _EVENT_NAMES.items()}
_REFERENCE = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")


def _renamed(obj: Object, names: Mapping[str, str], version: str) -> Object:
    out = {names.get(key, key): value for key, value in obj.items()}
    out["apiVersion"] = version
    return out


def _event_to_stored(obj: Object) -> Object:
    return _renamed(obj, _EVENT_NAMES, "v1")


def _event_from_stored(obj: Object) -> Object:
    return _renamed(obj, _EVENT_NAMES_BACK, "events.k8s.io/v1")


_HPA = "horizontalpodautoscalers.autoscaling"

#: (group, version, plural) of the forms that are not stored
CONVERSIONS: dict[tuple[str, str, str], Conversion] = {
    ("events.k8s.io", "v1", "events"): Conversion(
        "events",
        _event_to_stored,
        _event_from_stored,
        {
            **{f"regarding.{name}": f"involvedObject.{name}" for name in _REFERENCE},
            "reportingController": "reportingComponent",
        },
    ),
    ("autoscaling", "v1", "horizontalpodautoscalers"): Conversion(_HPA, hpaconversion.to_v2, hpaconversion.to_v1),
}


def conversion_of(group: str, version: str, plural: str) -> Conversion | None:
    """The conversion of a built-in resource; None when it is stored as it is served."""
    return CONVERSIONS.get((group, version, plural))


def any_stored(info: Any, obj: Object) -> Object:
    """``obj`` in its stored form."""
    if info.conversion is not None:
        converted: Object = info.conversion.to_stored(dict(obj))
        return converted
    version = f"{info.group}/{info.storage_version}" if info.group else info.storage_version
    return {**obj, "apiVersion": version}


def any_served(info: Any, obj: Object) -> Object:
    """A stored object in the form in which ``info`` serves it; ``obj`` may be changed."""
    if info.conversion is not None:
        converted: Object = info.conversion.from_stored(obj)
        return converted
    obj["apiVersion"] = info.api_version
    return obj

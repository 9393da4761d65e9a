"""Pieces that several kinds share."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from glebe.kube.crdgen import Rule

Quantity = Annotated[int | str, Meta(extra={"quantity": True})]
Quota = Annotated[int | str, Meta(extra={"quantity": "not negative"})]
ObjectName = Annotated[
    str,
    Meta(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
]
ShortName = Annotated[str, Meta(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
ResourceName = Annotated[str, Meta(min_length=1, max_length=317)]
LabelKey = Annotated[str, Meta(min_length=1, max_length=317)]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
Count = Annotated[int, Meta(ge=0, extra_json_schema={"format": "int32"})]


def list_map(*keys: str) -> dict[str, Any]:
    """Schema extension of a list whose items are told apart by ``keys``."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


ATOMIC: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}
SET: dict[str, Any] = {"x-kubernetes-list-type": "set"}
#: A part that is stored as it comes, for schemas that belong to Kubernetes.
OPEN: dict[str, Any] = {"x-kubernetes-preserve-unknown-fields": True}


class Base(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Fields are camelCase in the API; a field at its default is left out."""

    validations: ClassVar[tuple[Rule, ...]] = ()


class Condition(Base):
    """One aspect of an object's state."""

    type: Annotated[str, Meta(max_length=316)]
    """Name of the aspect, in CamelCase."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Meta(min_length=1, max_length=1024)]
    """Machine-readable cause of the last change."""
    message: Annotated[str, Meta(max_length=32768)]
    """The cause in a sentence."""
    last_transition_time: Time
    """When the status last changed."""
    observed_generation: Annotated[int, Meta(ge=0, extra_json_schema={"format": "int64"})] | None = None
    """Generation of the object that the condition was computed from."""


Conditions = Annotated[list[Condition], Meta(max_length=16, extra_json_schema=list_map("type"))]


class LabelSelector(Base):
    """Labels that an object must carry; empty matches everything."""

    match_labels: dict[str, str] = {}
    """Label values, all of which must agree."""
    match_expressions: Annotated[list[LabelRequirement], Meta(extra_json_schema=ATOMIC)] = []
    """Requirements, all of which must hold."""


class LabelRequirement(Base):
    """One requirement on one label."""

    key: str
    """The label's key."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How key and values relate."""
    values: Annotated[list[str], Meta(extra_json_schema=ATOMIC)] = []
    """Values for In and NotIn; empty otherwise."""


class FairSharing(Base):
    """Weight against siblings when borrowable quota is short."""

    weight: Quota = "1"
    """Share relative to siblings; zero means that nothing is borrowed while anyone else wants it."""


StopPolicy = Literal["None", "Hold", "HoldAndDrain"]

"""Pieces that several kinds share."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from glebe.kube.crdgen import Rule

Quantity = Annotated[int | str, Meta(extra={"quantity": True})]
Quota = Annotated[int | str, Meta(extra={"quantity": "not negative"})]
_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
SUBDOMAIN_PATTERN = f"^{_SUBDOMAIN}$"
LABEL_PATTERN = rf"^({_SUBDOMAIN}/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"
ObjectName = Annotated[str, Meta(min_length=1, max_length=253, pattern=SUBDOMAIN_PATTERN)]
ShortName = Annotated[str, Meta(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
ResourceName = Annotated[str, Meta(min_length=1, max_length=317)]
CheckName = Annotated[str, Meta(min_length=1, max_length=316)]
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


class Taint(Base):
    """A mark that keeps pods away which do not tolerate it."""

    key: Annotated[str, Meta(min_length=1)]
    """The taint's key."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]
    """What happens to pods that do not tolerate it."""
    value: str = ""
    """The taint's value."""
    time_added: Time | None = None
    """When the taint was added."""


class Toleration(Base):
    """Lets a pod onto nodes with a matching taint."""

    key: str = ""
    """The taint's key; empty with operator Exists matches every taint."""
    operator: Literal["Exists", "Equal"] | None = None
    """How key and value are compared; Equal when missing."""
    value: str = ""
    """The taint's value for Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The effect that is tolerated; without it all."""
    toleration_seconds: Annotated[int, Meta(extra_json_schema={"format": "int64"})] | None = None
    """How long a NoExecute taint is tolerated."""

    validations: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.key) && self.key != '' ? true : has(self.operator) && self.operator == 'Exists'",
            "operator must be Exists when key is empty, which matches all keys and values",
        ),
        Rule(
            "!has(self.tolerationSeconds) || has(self.effect) && self.effect == 'NoExecute'",
            "effect must be NoExecute when tolerationSeconds is set",
        ),
        Rule(
            "!(has(self.operator) && self.operator == 'Exists' && has(self.value) && self.value != '')",
            "value must be empty when operator is Exists",
        ),
    )


Tolerations = Annotated[list[Toleration], Meta(max_length=8, extra_json_schema=ATOMIC)]


class FairSharing(Base):
    """Weight against siblings when borrowable quota is short."""

    weight: Quota = "1"
    """Share relative to siblings; zero means that nothing is borrowed while anyone else wants it."""


StopPolicy = Literal["None", "Hold", "HoldAndDrain"]

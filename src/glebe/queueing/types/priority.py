"""What users choose by name: WorkloadPriorityClass and WorkloadClass."""

# ruff: noqa: RUF012 - msgspec copies empty mutable defaults for every instance
from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from glebe.kube.crdgen import Rule
from glebe.queueing.types.common import SET, Base, CheckName, Conditions

Int32 = Annotated[int, Meta(extra_json_schema={"format": "int32"})]
Seconds = Annotated[int, Meta(ge=1, extra_json_schema={"format": "int64"})]


class WorkloadPriorityClass(Base):
    """A named priority in the queue, which does not touch the priority of pods."""

    value: Int32
    """Greater goes first."""
    description: Annotated[str, Meta(max_length=2048)] = ""
    """When to use it."""


class ExpectedRunTime(Base):
    """How long workloads of the class run."""

    p50_seconds: Seconds
    """Half of them end within this time."""
    p90_seconds: Seconds
    """Nine of ten end within this time."""

    validations: ClassVar[tuple[Rule, ...]] = (
        Rule("self.p50Seconds <= self.p90Seconds", "p50Seconds must be at most p90Seconds"),
    )


class WorkloadClassSpec(Base):
    """What a workload of the class is."""

    description: str = ""
    """When to use it."""
    priority: Int32 = 0
    """Priority in the queue; greater goes first."""
    expected_run_time: ExpectedRunTime | None = None
    """Run time that forecasts assume when a job says nothing itself."""
    admission_checks: Annotated[list[CheckName], Meta(max_length=64, extra_json_schema=SET)] = []
    """Admission checks that workloads of the class need, beside those of their queue."""


class WorkloadClassStatus(Base):
    """State of the class."""

    conditions: Conditions = []
    """Ready says whether the class can be used."""


class WorkloadClass(Base):
    """A kind of work, e.g. interactive, training, batch: chosen by the label glebe.dev/class."""

    spec: WorkloadClassSpec | None = None
    """What a workload of the class is."""
    status: WorkloadClassStatus | None = None
    """State of the class."""

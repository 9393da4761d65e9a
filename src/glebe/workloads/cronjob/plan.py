"""What the CronJob controller decided to do, in the order in which the shell does it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from glebe.kube.objects import Object

Event = tuple[str, str, str]
"""Type, reason, message."""


@dataclass(slots=True)
class Plan:
    """The shell carries out the fields from top to bottom; ``active`` and ``last_success`` become the status.

    What is created is added to the status after that, with ``scheduled`` as the time of the last schedule.
    """

    active: list[dict[str, Any]] = field(default_factory=list)
    last_success: str | None = None
    events: list[Event] = field(default_factory=list)
    remove: list[Object] = field(default_factory=list)  # finished jobs beyond the limits of history
    replace: list[dict[str, Any]] = field(default_factory=list)  # references of jobs that make way for the new one
    create: Object | None = None
    scheduled: float = 0.0  # when ``create`` was due
    requeue_after: float | None = None

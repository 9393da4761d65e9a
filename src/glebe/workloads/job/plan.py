"""What the Job controller decided to do, in the order in which the shell does it.

The order makes a crash at any line harmless: status first (a finished pod's uid stands in
``uncountedTerminatedPods`` before its finalizer goes), then finalizers, then deletions, then creations.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from glebe.kube.objects import Object


@dataclass(frozen=True, slots=True)
class Event:
    """An event to record about the Job. ``type``: Normal or Warning."""

    type: str
    reason: str
    message: str


@dataclass(slots=True)
class Plan:
    """The shell carries out the fields from top to bottom and stops at the first error."""

    status: Object | None = None  # the whole new status, when it differs
    release: list[Object] = field(default_factory=list)  # counted pods: remove the tracking finalizer
    discard: list[Object] = field(default_factory=list)  # pods that shall not count: remove the finalizer, then delete
    delete: list[Object] = field(default_factory=list)  # pods that shall count: delete only
    create: list[Object] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)  # recorded once the status is written
    delete_job: bool = False  # ttlSecondsAfterFinished has run out
    requeue_after: float | None = None

    def wake_after(self, seconds: float) -> None:
        """Look again in ``seconds``, or earlier if something else wants that."""
        seconds = max(seconds, 0.0)
        self.requeue_after = seconds if self.requeue_after is None else min(self.requeue_after, seconds)

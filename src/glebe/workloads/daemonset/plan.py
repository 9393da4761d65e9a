"""What the DaemonSet controller decided to do, in the order in which the shell does it."""

from __future__ import annotations

from dataclasses import dataclass, field

from glebe.kube.objects import Object


@dataclass(slots=True)
class Plan:
    """The shell carries out the fields from top to bottom and stops at the first error."""

    status: Object | None = None  # the whole new status, when it differs
    events: list[tuple[str, str, str]] = field(default_factory=list)  # type, reason, message
    failed: list[str] = field(default_factory=list)  # nodes whose failed pod is being replaced
    create: list[Object] = field(default_factory=list)
    delete: list[Object] = field(default_factory=list)
    requeue_after: float | None = None

    def wake_after(self, seconds: float) -> None:
        """Look again in ``seconds``, or earlier if something else wants that."""
        seconds = max(seconds, 0.0)
        self.requeue_after = seconds if self.requeue_after is None else min(self.requeue_after, seconds)

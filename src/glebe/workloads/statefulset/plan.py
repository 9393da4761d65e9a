"""What the StatefulSet controller decided to do, in the order in which the shell does it."""

from __future__ import annotations

from dataclasses import dataclass, field

from glebe.kube.objects import Object


@dataclass(slots=True)
class Plan:
    """The shell carries out the fields from top to bottom and stops at the first error."""

    status: Object | None = None  # the whole new status, when it differs
    conflicts: list[str] = field(default_factory=list)  # names of claims that something else controls
    claim_owners: list[tuple[Object, list[Object]]] = field(default_factory=list)  # claims and their new owners
    claims: list[tuple[str, Object]] = field(default_factory=list)  # name of a pod, a claim to create for it
    repair: list[Object] = field(default_factory=list)  # pods as they should be
    replace: list[Object] = field(default_factory=list)  # pods that ended: delete; the next round creates them anew
    refused: list[tuple[str, str]] = field(default_factory=list)  # pods that cannot be created now, and why
    create: list[Object] = field(default_factory=list)
    condemn: list[Object] = field(default_factory=list)  # pods beyond the set's range: delete
    update: list[Object] = field(default_factory=list)  # pods of an old revision: delete
    requeue_after: float | None = None

    def wake_after(self, seconds: float) -> None:
        """Look again in ``seconds``, or earlier if something else wants that."""
        seconds = max(seconds, 0.0)
        self.requeue_after = seconds if self.requeue_after is None else min(self.requeue_after, seconds)

    @property
    def acts(self) -> bool:
        """Whether any pod comes or goes."""
        return bool(self.replace or self.create or self.condemn or self.update)

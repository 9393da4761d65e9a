"""Images that take time to come, or do not come: the waiting reasons that a kubelet shows. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from glebe.node.status import Container

_FIRST, _LIMIT = 10.0, 300.0  # seconds between two attempts, doubling
_SHOWN = 1.0  # seconds for which an error is shown before the back-off is


class Pull:
    """The images of a pod's containers.

    :param unpullable: seconds, from the first attempt on, in which every attempt fails.
    :param takes: seconds that the attempt which succeeds takes.
    """

    def __init__(self, unpullable: float, takes: float) -> None:
        self._unpullable = unpullable
        self._takes = takes
        self._until: float | None = None
        self._wait = _FIRST
        self._failed = False
        self.done = not (unpullable or takes)

    def step(self, containers: Sequence[Container], at: float) -> float:
        """What happens at ``at``; when the next thing does. When :attr:`done`, containers can start then."""
        if self._until is None:
            self._until = at + self._unpullable
        if self._failed:
            self._failed = False
            self._back_off(containers)
            at, self._wait = at + self._wait - _SHOWN, min(self._wait * 2, _LIMIT)
            return at
        if at < self._until:
            self._failed = True
            for container in containers:
                text = f'failed to pull image "{container.image}": not found (simulated)'
                container.wait("ErrImagePull", text)
            return at + _SHOWN
        for container in containers:
            container.wait("ContainerCreating")
        self.done = True
        return at + self._takes

    def _back_off(self, containers: Sequence[Container]) -> None:
        for container in containers:
            name = container.image
            text = (
                f'Back-off pulling image "{name}": ErrImagePull: failed to pull image "{name}": not found (simulated)'
            )
            container.wait("ImagePullBackOff", text)

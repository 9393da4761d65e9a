"""Pods without a node: those to be tried, in order, and those for whom something has to happen first. Pure.

Order is priority, then age. A pod that was tried in vain before stands behind others for 1 s, 2 s, ... 10 s after the
attempt (upstream's back-off); when nobody else is there it need not wait.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from glebe.kube.objects import Object
from glebe.workloads.binder.needs import Needs

BACKOFF_FIRST, BACKOFF_MOST = 1.0, 10.0
AT_MOST = 300.0
"""Seconds after which a pod is tried again though nothing happened (upstream's
``podMaxInUnschedulablePodsDuration``)."""
Class = tuple[str, frozenset[str]]


@dataclass(slots=True)
class Waiting:
    """A pod without a node."""

    pod: Object
    needs: Needs
    attempts: int = 0
    tried_at: float = 0.0
    parked: Class | None = None
    queued: int = 0
    """Its number in the queue; an entry with another number is void."""
    message: str = ""
    """Why it waits."""
    told: str = ""
    told_at: float = 0.0

    @property
    def uid(self) -> str:
        return str(self.pod["metadata"]["uid"])

    def rank(self) -> tuple[int, str, str, str]:
        meta = self.pod["metadata"]
        return -self.needs.priority, meta.get("creationTimestamp", ""), meta.get("namespace", ""), meta["name"]

    def backs_off_until(self) -> float:
        if not self.attempts:
            return 0.0
        return self.tried_at + min(BACKOFF_MOST, BACKOFF_FIRST * 2.0 ** min(self.attempts - 1, 10))


@dataclass(slots=True)
class _Parked:
    needs: Needs
    plugins: frozenset[str]
    members: dict[str, Waiting] = field(default_factory=dict)


class WaitRoom:
    """All of them, by uid."""

    def __init__(self) -> None:
        self._all: dict[str, Waiting] = {}
        self._parked: dict[Class, _Parked] = {}
        self._active: list[tuple[tuple[int, str, str, str], int, Waiting]] = []
        self._backing: list[tuple[float, int, Waiting]] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._all)

    @property
    def ready(self) -> bool:
        """Whether somebody may be there to be tried."""
        return bool(self._active or self._backing)

    def get(self, uid: str) -> Waiting | None:
        return self._all.get(uid)

    def admit(self, waiting: Waiting, now: float) -> None:
        """To be tried; replaces what was known of the same pod."""
        self.remove(waiting.uid)
        self._all[waiting.uid] = waiting
        self._queue(waiting, now)

    def _queue(self, waiting: Waiting, now: float) -> None:
        self._serial += 1
        waiting.queued = self._serial
        until = waiting.backs_off_until()
        if until > now:
            heapq.heappush(self._backing, (until, self._serial, waiting))
        else:
            heapq.heappush(self._active, (waiting.rank(), self._serial, waiting))

    def pop(self, now: float) -> Waiting | None:
        """Who is tried next."""
        while self._backing and self._backing[0][0] <= now:
            _, serial, waiting = heapq.heappop(self._backing)
            if waiting.queued == serial:
                heapq.heappush(self._active, (waiting.rank(), serial, waiting))
        return _first(self._active) or _first(self._backing)

    def remove(self, uid: str) -> Waiting | None:
        waiting = self._all.pop(uid, None)
        if waiting is not None:
            waiting.queued = 0
            self._unpark(waiting)
        return waiting

    def park(self, waiting: Waiting, plugins: Iterable[str], now: float) -> None:
        """Tried in vain: ``plugins`` refused."""
        self._unpark(waiting)
        waiting.queued = 0
        waiting.attempts += 1
        waiting.tried_at = now
        refused = frozenset(plugins)
        key = waiting.needs.with_labels if "InterPodAffinity" in refused else waiting.needs.key
        waiting.parked = (key, refused)
        group = self._parked.get(waiting.parked)
        if group is None:
            group = self._parked[waiting.parked] = _Parked(waiting.needs, refused)
        group.members[waiting.uid] = waiting

    def is_parked(self, waiting: Waiting) -> bool:
        """Whether it still waits for something to happen."""
        return waiting.parked is not None and self._all.get(waiting.uid) is waiting

    def retry(self, waiting: Waiting, now: float) -> None:
        """Try again without anything having happened."""
        if self._all.get(waiting.uid) is waiting and not waiting.queued:
            self._unpark(waiting)
            self._queue(waiting, now)

    def wake(self, helps: Callable[[Needs, frozenset[str]], bool], now: float) -> bool:
        """Something happened that helps those for whom ``helps(needs, plugins)``; whether anybody."""
        if not self._parked:
            return False
        woken = [key for key, group in self._parked.items() if helps(group.needs, group.plugins)]
        for key in woken:
            for waiting in self._parked.pop(key).members.values():
                waiting.parked = None
                self._queue(waiting, now)
        return bool(woken)

    def _unpark(self, waiting: Waiting) -> None:
        if waiting.parked is None:
            return
        group = self._parked.get(waiting.parked)
        if group is not None:
            group.members.pop(waiting.uid, None)
            if not group.members:
                del self._parked[waiting.parked]
        waiting.parked = None

    @property
    def parked(self) -> bool:
        """Whether somebody waits for something to happen."""
        return bool(self._parked)

    def wake_overdue(self, now: float) -> None:
        """Try who has waited for :data:`AT_MOST`."""
        late = [w for g in self._parked.values() for w in g.members.values() if w.tried_at + AT_MOST <= now]
        for waiting in late:
            self.retry(waiting, now)


def _first(heap: list[Any]) -> Waiting | None:
    while heap:
        _, serial, waiting = heapq.heappop(heap)
        if waiting.queued == serial:
            waiting.queued = 0
            found: Waiting = waiting
            return found
    return None

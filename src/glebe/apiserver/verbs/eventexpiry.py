"""Events live for an hour (as upstream): swept when other events are written, so that no timer is needed."""

from __future__ import annotations

from collections import deque
from functools import partial

from glebe.apiserver.store import EVERY_CLUSTER, Event, Key, Make, Mismatch, Store
from glebe.kube.clock import Env, parse_time
from glebe.kube.objects import Object

#: Seconds that an event is kept after it was written first (repeats do not prolong its place in the queue by much).
TTL = 3600.0
#: Both kinds of events.
RESOURCES = ("events", "events.events.k8s.io")
_PER_SWEEP = 20


class EventExpiry:
    """Which events end when, oldest first."""

    def __init__(self, store: Store, env: Env) -> None:
        self._store = store
        self._env = env
        self._queue: deque[tuple[float, Key]] = deque()

    def load(self) -> None:
        """Take up what a store held at the start."""
        found = []
        for resource in RESOURCES:
            page = self._store.range(resource, EVERY_CLUSTER)
            for entry, cluster in zip(page.entries, page.clusters or (), strict=True):
                meta = entry.view()["metadata"]
                key = Key(resource, cluster, meta.get("namespace", ""), meta["name"])
                found.append((parse_time(meta["creationTimestamp"]) + TTL, key))
        self._queue = deque(sorted(found))
        if self._store.lags:
            for resource in RESOURCES:
                self._store.follow(resource, partial(self._note_others, resource))

    def note(self, key: Key) -> None:
        """An event was created."""
        self._queue.append((self._env.clock.now() + TTL, key))

    def _note_others(self, resource: str, event: Event) -> None:
        """Another replica may have created an event; should it be gone in an hour, somebody must remove it all the
        same.

        Who created it is first to do so: the others come a little later, each at another time.
        """
        if event.type == "ADDED":
            key = Key(resource, event.cluster, event.namespace, event.name)
            self._queue.append((self._env.clock.now() + TTL + 60.0 * (1.0 + self._env.rng.random()), key))

    async def sweep(self) -> None:
        """Remove a few of those whose time is over; later ones wait for the next call."""
        now = self._env.clock.now()
        for _ in range(_PER_SWEEP):
            if not self._queue or self._queue[0][0] > now:
                return
            _, key = self._queue.popleft()
            entry = self._store.get(key)
            if entry is None:
                continue
            end = _last_seen(entry.view()) + TTL
            if end > now:
                self._queue.append((end, key))
                continue
            try:
                await self._store.delete(key, _with_revision(entry.value, entry.revision), entry.revision)
            except Mismatch:
                self._queue.append((now + TTL, key))


def _last_seen(event: Object) -> float:
    """When it happened last; 0 when it does not say so (readably)."""
    last = (event.get("series") or {}).get("lastObservedTime")
    last = last or event.get("lastTimestamp") or event.get("deprecatedLastTimestamp")
    try:
        return parse_time(last) if last else 0.0
    except ValueError:
        return 0.0


def _with_revision(value: bytes, old: int) -> Make:
    before = b'"resourceVersion":"%d"' % old

    def make(revision: int) -> bytes:
        return value.replace(before, b'"resourceVersion":"%d"' % revision, 1)

    return make

"""Which Services a change of a pod concerns, and which of our own writes the caches do not show yet."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from glebe.kube.controller import Controller
from glebe.kube.errors import ApiError
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, cluster_of, key_of, labels_of
from glebe.kube.pods import BY_SPACE, space_of
from glebe.kube.resources import PODS, SERVICES
from glebe.kube.store import Store
from glebe.workloads.endpoints.backends import selects, view
from glebe.workloads.endpoints.kinds import has_endpoints

BY_SELECTOR: Final = "by-selector"
BATCH_PER_POD: Final = 0.0005
LONGEST_BATCH: Final = 1.0
"""Seconds for which changes are gathered, by the number of pods in the namespace: a reconciliation looks at all."""
PATIENCE: Final = 5.0
"""Seconds after which a write that no cache shows is no longer waited for: somebody has undone it."""


def selector_of(service: Object) -> list[str]:
    """One pair of the Service's selector (its first by name), as the indexer behind :data:`BY_SELECTOR` has it."""
    if not has_endpoints(service):
        return []
    name, value = min(service["spec"]["selector"].items())
    return [_pair(service, name, value)]


def _pair(obj: Object, name: str, value: str) -> str:
    return f"{cluster_of(obj)}/{obj['metadata']['namespace']}/{name}={value}"


class PodFeed:
    """Adds the Services behind which a pod stands (or stood) to the queues of controllers, when that matters."""

    def __init__(self, informers: Informers) -> None:
        self._pods = informers.get(PODS, indexers={BY_SPACE: space_of})
        self._services = informers.get(SERVICES, indexers={BY_SELECTOR: selector_of})
        self._controllers: list[Controller] = []
        self._pods.add_handler(self._observe)

    def feed(self, controller: Controller) -> None:
        controller.watch(self._pods, lambda _: ())  # ours is the one handler; this waits for the first list
        self._controllers.append(controller)

    def _observe(self, old: Object | None, new: Object | None) -> None:
        if old is not None and new is not None and view(old) == view(new):
            return
        keys = dict.fromkeys(key for pod in (old, new) if pod is not None for key in self.services_of(pod))
        if not keys:
            return
        crowd = self._pods.store.count(BY_SPACE, space_of(new or old or {})[0])
        delay = min(LONGEST_BATCH, crowd * BATCH_PER_POD)
        for controller in self._controllers:
            for key in keys:
                controller.queue.add_after(key, delay)

    def services_of(self, pod: Object) -> Iterable[ObjectKey]:
        for name, value in labels_of(pod).items():
            for service in self._services.store.by_index(BY_SELECTOR, _pair(pod, name, value)):
                if selects(service, pod):
                    yield key_of(service, self._services.cluster)


@dataclass(slots=True)
class _Write:
    version: int | None  # None: deleted
    uid: str
    at: float


class Written:
    """Writes per Service that the cache must show before the Service may be judged again.

    Versions are compared as numbers, as upstream's own clients have done since 1.35 (KEP-5504).
    """

    def __init__(self) -> None:
        self._writes: dict[ObjectKey, dict[str, _Write]] = {}

    def wrote(self, key: ObjectKey, obj: Object) -> None:
        """The server has stored ``obj``."""
        meta = obj["metadata"]
        self._note(key, meta["name"], _Write(int(meta["resourceVersion"]), meta["uid"], self._now()))

    def deleted(self, key: ObjectKey, obj: Object) -> None:
        """The server has deleted ``obj``, or is about to."""
        meta = obj["metadata"]
        self._note(key, meta["name"], _Write(None, meta["uid"], self._now()))

    def forget(self, key: ObjectKey) -> None:
        self._writes.pop(key, None)

    def is_behind(self, key: ObjectKey, store: Store) -> bool:
        """Whether the store does not show some write of ours yet."""
        writes = self._writes.get(key)
        if not writes:
            return False
        now = self._now()
        for name, write in list(writes.items()):
            if self._shown(write, store.get(key._replace(name=name))) or now - write.at > PATIENCE:
                del writes[name]
        if not writes:
            del self._writes[key]
        return bool(writes)

    @staticmethod
    def _shown(write: _Write, cached: Object | None) -> bool:
        if write.version is None:
            return cached is None or cached["metadata"]["uid"] != write.uid or "deletionTimestamp" in cached["metadata"]
        return cached is not None and int(cached["metadata"]["resourceVersion"]) >= write.version

    def is_ours(self, key: ObjectKey, obj: Object) -> bool:
        """Whether this state of an object is exactly what we wrote last: nothing new."""
        write = self._writes.get(key, {}).get(obj["metadata"]["name"])
        return write is not None and str(write.version) == obj["metadata"].get("resourceVersion")

    def _note(self, key: ObjectKey, name: str, write: _Write) -> None:
        self._writes.setdefault(key, {})[name] = write

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def in_ending_namespace(error: ApiError) -> bool:
    """Nothing can be created where the namespace is going: no reason to try again."""
    causes = error.details.get("causes") or ()
    return error.code == 403 and any(c.get("reason") == "NamespaceTerminating" for c in causes)

"""One binder for all logical clusters: pods of a cluster go to the nodes of the same cluster.

What is known of a cluster is made when its first pod comes and dropped some time after its last has gone, so that a
cluster without pods costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.events import EventRecorder
from glebe.kube.informer import Informer, Informers
from glebe.kube.objects import EVERY, Object, ObjectKey, cluster_of
from glebe.kube.resources import NAMESPACES, NODES, PODS, Resource
from glebe.workloads.binder import family
from glebe.workloads.binder.claims import Devices
from glebe.workloads.binder.cycle import BUDGETS, Cycle
from glebe.workloads.binder.plugins import Plugin
from glebe.workloads.binder.scene import Scene, concerns
from glebe.workloads.binder.view import View
from glebe.workloads.binder.volumes import Storage
from glebe.workloads.binder.writes import SCHEDULER

__all__ = ["BUDGETS", "PLUGINS", "Binder", "build"]

PLUGINS: tuple[type[Plugin], ...] = (Storage, Devices)
"""In the order in which they are asked."""
LINGER = 60.0
"""Seconds after its last pod for which a cluster is remembered."""
_WORKERS = 4


class Binder:
    """All pods and nodes of all clusters that ``informers`` cover."""

    def __init__(
        self, client: Client, informers: Informers, env: Env, plugins: Sequence[type[Plugin]] = PLUGINS
    ) -> None:
        self._client = client
        self._env = env
        self._plugins = plugins
        self._recorder = EventRecorder(client, env, SCHEDULER)
        self._cycles: dict[str, Cycle] = {}
        self._idle_since: dict[str, float] = {}
        self._controller = Controller("binder", self.cycle, env, workers=_WORKERS)
        # Pods come last: what they are judged by should be there.
        others = (NAMESPACES, BUDGETS, *family.WATCHES, *(r for kind in plugins for r in kind.watches), NODES)
        self._informers: dict[Resource, Informer] = {
            r: informers.get(r, indexers=family.INDEXERS.get(r)) for r in (*others, PODS)
        }

    def controller(self) -> Controller:
        for resource, informer in self._informers.items():
            self._controller.watch(informer, lambda _: (), when=self._taker(resource, informer))
        return self._controller

    @property
    def clusters(self) -> list[str]:
        """Those that are remembered now."""
        return list(self._cycles)

    def _taker(self, resource: Resource, informer: Informer) -> Callable[[Object | None, Object | None], bool]:
        own = None if informer.cluster == EVERY else informer.cluster

        def take(old: Object | None, new: Object | None) -> bool:
            cluster = own if own is not None else cluster_of(new or old or {})
            cycle = self._cycles.get(cluster)
            if cycle is not None:
                cycle.scene.take(resource, old, new)
            elif resource is PODS and new is not None and concerns(new):
                self._open(cluster)
            return False  # the scene says when there is something to do

        return take

    def _open(self, cluster: str) -> None:
        """Read what there is of a cluster, the pod that has just come included."""
        key = ObjectKey(cluster, "", "cycle")

        def wake() -> None:
            self._controller.queue.add(key)

        view, client = View(cluster, self._informers), self._client.at(cluster)
        scene = Scene(view, client, self._env, self._plugins, wake)
        self._cycles[cluster] = Cycle(scene, view, client, self._env, self._recorder, wake)

    async def cycle(self, key: ObjectKey) -> Result | None:
        """One look at one cluster."""
        cycle = self._cycles.get(key.cluster)
        if cycle is None:
            return None
        result = await cycle.run()
        if not cycle.scene.idle:
            self._idle_since.pop(key.cluster, None)
            return result
        since = self._idle_since.setdefault(key.cluster, self._env.clock.now())
        left = since + LINGER - self._env.clock.now()
        if left > 0:
            return Result(requeue_after=left)
        del self._cycles[key.cluster], self._idle_since[key.cluster]
        return None


def build(client: Client, informers: Informers, env: Env) -> Controller:
    """The binder of all logical clusters that ``client`` and ``informers`` cover."""
    return Binder(client, informers, env).controller()

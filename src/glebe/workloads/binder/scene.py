"""What the caches say, as the binder sees it: the fleet, who waits, and who can be tried again after each event."""

from __future__ import annotations

from collections.abc import Callable

from glebe.kube.clock import Env
from glebe.kube.informer import Informer, Informers
from glebe.kube.objects import Object, ObjectKey, get_condition, is_deleting, key_of, labels_of
from glebe.kube.pods import has_ended
from glebe.kube.resources import NAMESPACES, NODES, PODS, Resource
from glebe.workloads.binder import hints
from glebe.workloads.binder.fleet import Fleet
from glebe.workloads.binder.needs import Needs
from glebe.workloads.binder.volumes import Storage
from glebe.workloads.binder.waitroom import Waiting, WaitRoom
from glebe.workloads.binder.writes import SCHEDULER

CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
VOLUMES = Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
CLASSES = Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False)


class Scene:
    """One cluster's pods and nodes.

    :param wake: called when somebody can be tried.
    """

    def __init__(self, informers: Informers, env: Env, wake: Callable[[], None]) -> None:
        self._env = env
        self._wake = wake
        self._pods = informers.get(PODS)
        self._nodes = informers.get(NODES)
        self._namespaces = informers.get(NAMESPACES)
        self._claims, self._volumes = informers.get(CLAIMS), informers.get(VOLUMES)
        self._classes = informers.get(CLASSES)
        self.fleet = Fleet(Storage(_finder(self._claims), _finder(self._volumes), _finder(self._classes)))
        self.room = WaitRoom()
        self.gated: dict[str, Object] = {}
        """Pods with gates that have not been told."""
        self.doubtful: dict[str, Object] = {}
        """Bound or not? The answer was lost; the hold stays until we know."""
        self.untold: dict[str, Waiting] = {}
        """Their reason changed too soon after the last one."""
        self._keys: dict[str, ObjectKey] = {}  # of bound pods, by uid
        self._spaces: dict[str, dict[str, str]] = {}

    def follow(self) -> tuple[Informer, ...]:
        """Begin; what has to be listed first."""
        self._namespaces.add_handler(self._on_namespace)
        storage = (self._claims, self._volumes, self._classes)
        for informer in storage:
            informer.add_handler(self._on_storage)
        self._nodes.add_handler(self._on_node)
        self._pods.add_handler(self.on_pod)
        return self._nodes, self._pods, self._namespaces, *storage

    def bound(self, uid: str) -> Object | None:
        """The pod, if it is known to be bound."""
        key = self._keys.get(uid)
        return self._pods.store.get(key) if key is not None else None

    def _now(self) -> float:
        return self._env.clock.now()

    def _on_namespace(self, old: Object | None, new: Object | None) -> None:
        name = (new or old or {})["metadata"]["name"]
        labels = None if new is None else labels_of(new)
        if self._spaces.get(name) == labels:
            return
        if labels is None:
            self._spaces.pop(name, None)
        else:
            self._spaces[name] = labels
        self.fleet.crowd.set_namespaces(self._spaces)
        self._other(hints.Other.NAMESPACES)

    def _on_storage(self, _: Object | None, __: Object | None) -> None:
        self._other(hints.Other.STORAGE)

    def _other(self, what: hints.Other) -> None:
        if self.room.wake(lambda _, plugins: hints.other_helps(plugins, what), self._now()):
            self._wake()

    def _on_node(self, old: Object | None, new: Object | None) -> None:
        name = (new or old or {})["metadata"]["name"]
        if not (self.fleet.remove_node(name) if new is None else self.fleet.set_node(new)):
            return
        node = new
        if node is None or is_deleting(node):  # one domain less: others may be in the mean now
            found = self.room.wake(lambda _, plugins: "PodTopologySpread" in plugins, self._now())
        else:
            found = self.room.wake(lambda n, plugins: hints.node_helps(n, plugins, node), self._now())
        if found or self.untold:
            self._wake()

    def on_pod(self, old: Object | None, new: Object | None) -> None:
        pod = new or old or {}
        uid, spec = pod["metadata"]["uid"], pod.get("spec") or {}
        if new is None or has_ended(new):
            self.forget(uid)
        elif spec.get("nodeName"):
            self._on_bound(uid, old, new)
        elif is_deleting(pod):
            self._leave(uid)
        elif spec.get("schedulerName", SCHEDULER) != SCHEDULER:
            return
        elif (held := self.fleet.holder(uid)) is None:
            self._admit(uid, old, pod)
        elif old is not None and labels_of(old) != labels_of(pod):
            self.fleet.hold(uid, held.node, Needs.of(pod))  # decided, and not bound yet

    def _on_bound(self, uid: str, old: Object | None, new: Object) -> None:
        self.room.remove(uid)
        self.untold.pop(uid, None)
        self.doubtful.pop(uid, None)
        self._keys[uid] = key_of(new, self._pods.cluster)
        node, deleting = new["spec"]["nodeName"], is_deleting(new)
        held = self.fleet.holder(uid)
        if held is not None and old is not None and _same_needs(old, new):
            if held.node == node and held.deleting == deleting:
                self.unnominate(uid)
                return
            needs = held.needs
        else:
            needs = Needs.of(new)
        if self.fleet.hold(uid, node, needs, deleting=deleting):
            self.came(needs)
            if held is not None:
                self.gone(held.needs)
        self.unnominate(uid)

    def forget(self, uid: str) -> None:
        """The pod has nothing and wants nothing any more."""
        self.doubtful.pop(uid, None)
        self._keys.pop(uid, None)
        held = self.fleet.release(uid)
        if held is not None:
            self.gone(held.needs)
        self._leave(uid)

    def _leave(self, uid: str) -> None:
        self.room.remove(uid)
        self.gated.pop(uid, None)
        self.untold.pop(uid, None)
        self.unnominate(uid)

    def unnominate(self, uid: str) -> None:
        nominated = self.fleet.withdraw(uid)
        if nominated is not None:
            self.gone(nominated.needs)

    def gone(self, gone: Needs) -> None:
        if self.room.wake(lambda n, plugins: hints.pod_gone_helps(n, plugins, gone), self._now()):
            self._wake()

    def came(self, here: Needs) -> None:
        if self.room.wake(lambda n, plugins: hints.pod_here_helps(n, plugins, here), self._now()):
            self._wake()

    def _admit(self, uid: str, before: Object | None, pod: Object) -> None:
        if pod["spec"].get("schedulingGates"):
            if get_condition(pod, "PodScheduled") is None:
                self.gated[uid] = pod
                self._wake()
            return
        self.gated.pop(uid, None)
        old = self.room.get(uid)
        needs = Needs.of(pod)
        node = (pod.get("status") or {}).get("nominatedNodeName")
        if node:
            self.fleet.nominate(uid, node, needs)
        elif before is not None and (before.get("status") or {}).get("nominatedNodeName"):
            self.unnominate(uid)
        if old is not None and old.needs.with_labels == needs.with_labels:
            old.pod = pod
            return
        self.room.admit(Waiting(pod, needs), self._now())
        self._wake()


def _finder(informer: Informer) -> Callable[[str], Object | None]:
    """Looks up objects by ``name`` or ``namespace/name``."""

    def find(path: str) -> Object | None:
        namespace, _, name = path.rpartition("/")
        return informer.store.get(ObjectKey(informer.cluster, namespace, name))

    return find


def _same_needs(old: Object, new: Object) -> bool:
    before, after = old["metadata"], new["metadata"]
    return before.get("generation") == after.get("generation") and labels_of(old) == labels_of(new)

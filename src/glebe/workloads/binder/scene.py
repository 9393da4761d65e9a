"""What the caches say of one logical cluster, as the binder sees it: the fleet, who waits, and who can be tried again
after each event."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.objects import Object, ObjectKey, get_condition, is_deleting, labels_of
from glebe.kube.pods import has_ended
from glebe.kube.resources import NAMESPACES, NODES, PODS, Resource
from glebe.workloads.binder import hints
from glebe.workloads.binder.family import WATCHES, Families
from glebe.workloads.binder.fleet import Fleet
from glebe.workloads.binder.needs import Needs, allocated
from glebe.workloads.binder.plugins import Plugin, Surroundings
from glebe.workloads.binder.view import View
from glebe.workloads.binder.waitroom import Waiting, WaitRoom
from glebe.workloads.binder.writes import SCHEDULER


@dataclass(frozen=True, slots=True)
class Preparing:
    """A pod with a node that waits for its plug-ins (:meth:`.plugins.Plugin.prepare`)."""

    waiting: Waiting
    node: str
    since: float


def concerns(pod: Object) -> bool:
    """Whether a pod is, or will be, on a node."""
    return not has_ended(pod)


class Scene:
    """One cluster's pods and nodes. Whoever makes it hands it every change from then on (:meth:`take`).

    :param wake: called when somebody can be tried.
    """

    def __init__(
        self, view: View, client: Client, env: Env, kinds: Sequence[type[Plugin]], wake: Callable[[], None]
    ) -> None:
        self._env = env
        self._wake = wake
        self._view = view
        self._families = Families(view)
        self.fleet = Fleet()
        around = Surroundings(view.cluster, client, env, self.fleet, view.find, view.every)
        self.fleet.plugins = tuple(kind(around) for kind in kinds)
        self._watchers: dict[Resource, list[int]] = {}
        for number, kind in enumerate(kinds):
            for resource in kind.watches:
                self._watchers.setdefault(resource, []).append(number)
        self.room = WaitRoom()
        self.gated: dict[str, Object] = {}
        """Pods with gates that have not been told."""
        self.doubtful: dict[str, Object] = {}
        """Bound or not? The answer was lost; the hold stays until we know."""
        self.untold: dict[str, Waiting] = {}
        """Their reason changed too soon after the last one."""
        self.preparing: dict[str, Preparing] = {}
        self.happened = 0
        """Grows with everything that may let a pod fit that did not."""
        self._keys: dict[str, ObjectKey] = {}  # of bound pods, by uid
        self._spaces: dict[str, dict[str, str]] = {}
        self._take: dict[Resource, Callable[[Object | None, Object | None], None]] = {
            NAMESPACES: self._on_namespace,
            NODES: self._on_node,
            PODS: self.on_pod,
        }
        for resource, take in self._take.items():
            for obj in view.every(resource):
                take(None, obj)

    def take(self, resource: Resource, old: Object | None, new: Object | None) -> None:
        """Something has changed."""
        if (take := self._take.get(resource)) is not None:
            take(old, new)
        elif resource in WATCHES and _selector(old) != _selector(new):
            self._families.changed()
        for number in self._watchers.get(resource, ()):
            self._on_other(number, resource, old, new)

    @property
    def idle(self) -> bool:
        """Whether there is no pod to speak of."""
        return self.fleet.empty and not (len(self.room) or self.gated or self.doubtful or self.preparing)

    def bound(self, uid: str) -> Object | None:
        """The pod, if it is known to be bound."""
        key = self._keys.get(uid)
        return self._view.at(PODS, key) if key is not None else None

    def _now(self) -> float:
        return self._env.clock.now()

    # --- events

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
        self.happened += 1
        if self.room.wake(lambda _, plugins: "InterPodAffinity" in plugins, self._now()):
            self._wake()

    def _on_other(self, number: int, resource: Resource, old: Object | None, new: Object | None) -> None:
        plugin = self.fleet.plugins[number]
        plugin.changed(resource, old, new)
        self.happened += 1
        woken = self.room.wake(
            lambda needs, refused: plugin.name in refused and plugin.helps(needs, resource, old, new), self._now()
        )
        if woken or self.preparing:
            self._wake()

    def _on_node(self, old: Object | None, new: Object | None) -> None:
        name = (new or old or {})["metadata"]["name"]
        if not (self.fleet.remove_node(name) if new is None else self.fleet.set_node(new)):
            return
        self.happened += 1
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
        self.preparing.pop(uid, None)
        self._keys[uid] = self._view.key_of(new)
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

    # --- one pod

    def forget(self, uid: str) -> None:
        """The pod has nothing and wants nothing any more."""
        self.doubtful.pop(uid, None)
        self._keys.pop(uid, None)
        self.give_back(uid)
        self._leave(uid)

    def give_back(self, uid: str) -> None:
        """The pod has nothing (any more) on the node that was chosen for it."""
        held = self.fleet.release(uid)
        if held is None:
            return
        if held.needs.extras:
            for plugin in self.fleet.concerned(held.needs):
                plugin.unreserve(uid)
        self.gone(held.needs)

    def _leave(self, uid: str) -> None:
        self.room.remove(uid)
        self.gated.pop(uid, None)
        self.untold.pop(uid, None)
        if self.preparing.pop(uid, None) is not None:
            self.give_back(uid)
        self.unnominate(uid)
        if self.idle:
            self._wake()  # nobody is left: the cycle says so

    def unnominate(self, uid: str) -> None:
        nominated = self.fleet.withdraw(uid)
        if nominated is not None:
            self.gone(nominated.needs)

    def gone(self, gone: Needs) -> None:
        self.happened += 1
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
        needs = Needs.of(pod, self._families.spread_of(pod))
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


def _selector(obj: Object | None) -> object:
    return obj and (obj.get("spec") or {}).get("selector")


def _same_needs(old: Object, new: Object) -> bool:
    before, after = old["metadata"], new["metadata"]
    if before.get("generation") != after.get("generation") or labels_of(old) != labels_of(new):
        return False
    return allocated(old) == allocated(new)

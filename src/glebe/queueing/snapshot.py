"""The queue's picture of the world, kept up to date change by change; a snapshot rebuilds only what changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from glebe.kube import resources as r
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, annotations_of, is_deleting, key_of, labels_of
from glebe.kube.resources import Resource
from glebe.kube.selectors import LabelSelector
from glebe.queueing import convert, labels
from glebe.queueing.nodeuse import NodeUse
from glebe.scheduling import model as m

T = TypeVar("T")

#: Everything a decision may depend on.
WATCHED: tuple[Resource, ...] = (
    r.NAMESPACES,
    r.NODES,
    r.PODS,
    r.TOPOLOGIES,
    r.RESOURCE_FLAVORS,
    r.COHORTS,
    r.CLUSTER_QUEUES,
    r.LOCAL_QUEUES,
    r.WORKLOAD_CLASSES,
    r.WORKLOADS,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """What one workload is to the queue: waiting, holding, barred (with the decision that says why), or nothing."""

    pending: m.Pending | None = None
    admitted: m.Admitted | None = None
    barred: m.Decision | None = None


class _Table:
    """Objects of one small kind, converted when they change, in order of their names."""

    def __init__(self, convert_one: Callable[[Object], object]) -> None:
        self._convert = convert_one
        self._items: dict[str, object] = {}
        self._tuple: tuple[object, ...] | None = ()
        self.problems: dict[str, str] = {}

    def change(self, name: str, new: Object | None) -> None:
        self._tuple = None
        self._items.pop(name, None)
        self.problems.pop(name, None)
        if new is None:
            return
        try:
            self._items[name] = self._convert(new)
        except (ValueError, KeyError, TypeError) as error:
            self.problems[name] = f"{type(error).__name__}: {error}"

    def items(self) -> tuple[object, ...]:
        if self._tuple is None:
            self._tuple = tuple(item for _, item in sorted(self._items.items()))
        return self._tuple


class SnapshotBuilder:
    """Takes changes of objects (:meth:`change`) and gives snapshots.

    Workloads that this process has just admitted are overlaid (:meth:`assume`) until the watch shows them, so that no
    quota is given twice in between.
    """

    def __init__(self, cluster: str = "") -> None:
        self.cluster = cluster
        self.objects: dict[Resource, dict[ObjectKey, Object]] = {resource: {} for resource in WATCHED}
        self._tables = {
            r.TOPOLOGIES: _Table(convert.topology_levels),
            r.RESOURCE_FLAVORS: _Table(convert.flavor),
            r.COHORTS: _Table(convert.cohort),
            r.CLUSTER_QUEUES: _Table(convert.cluster_queue),
        }
        self._use = NodeUse()
        self._nodes: dict[str, m.Node] = {}
        self._node_tuple: tuple[m.Node, ...] = ()
        self._job_uids: dict[ObjectKey, str] = {}  # of placed workloads
        self._pending: dict[ObjectKey, m.Pending] = {}
        self._admitted: dict[ObjectKey, m.Admitted] = {}
        self._barred: dict[ObjectKey, m.Decision] = {}
        self._pending_tuple: tuple[m.Pending, ...] | None = ()
        self._admitted_tuple: tuple[m.Admitted, ...] | None = ()
        self._dirty: dict[ObjectKey, None] = {}
        self._assumed: dict[ObjectKey, Object] = {}
        self.fleet_version = 0  # moves with anything but workloads and pods
        self._detach: list[Callable[[], None]] = []

    def attach(self, informers: Informers) -> None:
        """Follow the shared informers."""
        for resource in WATCHED:
            informer = informers.get(resource)

            def handle(old: Object | None, new: Object | None, resource: Resource = resource) -> None:
                self.change(resource, old, new)

            informer.add_handler(handle)
            self._detach.append(lambda informer=informer, handle=handle: informer.remove_handler(handle))  # type: ignore[misc]

    def detach(self) -> None:
        for undo in self._detach:
            undo()
        self._detach.clear()

    def change(self, resource: Resource, old: Object | None, new: Object | None) -> None:
        """One object appeared (old None), changed, or vanished (new None)."""
        key = key_of(new or old or {}, self.cluster)
        known = self.objects[resource]
        if new is None:
            known.pop(key, None)
        else:
            known[key] = new
        if resource == r.WORKLOADS:
            self._workload_changed(key, new)
        elif resource == r.PODS:
            self._use.pod_changed(old, new)
        elif resource == r.NODES:
            if old is not None and new is not None and convert.node_facts(old) == convert.node_facts(new):
                return
            self._use.dirty[key.name] = None
            self.fleet_version += 1
        else:
            if old is not None and new is not None and _matters(old) == _matters(new):
                return  # a status: queues write theirs with every workload
            if resource in self._tables:
                self._tables[resource].change(key.name, new)
            if resource not in (r.TOPOLOGIES, r.RESOURCE_FLAVORS, r.COHORTS):
                self._dirty.update(dict.fromkeys(self.objects[r.WORKLOADS]))
            self.fleet_version += 1

    def assume(self, workload: Object) -> None:
        """Count ``workload`` as it stands here until the watch shows it at this revision or later."""
        key = key_of(workload, self.cluster)
        self._assumed[key] = workload
        self._dirty[key] = None

    def forget(self, key: ObjectKey) -> None:
        """Take an assumption back."""
        if self._assumed.pop(key, None) is not None:
            self._dirty[key] = None

    def workload(self, key: ObjectKey) -> Object | None:
        """The workload as it is known now, assumption included."""
        return self._assumed.get(key) or self.objects[r.WORKLOADS].get(key)

    def cluster_queue(self, workload: Object) -> str:
        """The ClusterQueue that the workload's LocalQueue leads to; empty when there is no such LocalQueue."""
        name = workload["spec"].get("queueName") or labels.DEFAULT_QUEUE
        local = self.objects[r.LOCAL_QUEUES].get(ObjectKey(self.cluster, workload["metadata"]["namespace"], name))
        return str(local["spec"]["clusterQueue"]) if local is not None else ""

    def _workload_changed(self, key: ObjectKey, new: Object | None) -> None:
        self._dirty[key] = None
        assumed = self._assumed.get(key)
        if assumed is not None and (new is None or _revision(new) >= _revision(assumed)):
            del self._assumed[key]

    def barred(self) -> dict[ObjectKey, m.Decision]:
        """Workloads that the core does not see, and why; valid after :meth:`snapshot`."""
        return self._barred

    def snapshot(self) -> m.Snapshot:
        """The world now. Equal parts of successive snapshots are the same objects."""
        self._refresh_workloads()
        self._refresh_nodes()
        if self._pending_tuple is None:
            self._pending_tuple = tuple(self._pending.values())
        if self._admitted_tuple is None:
            self._admitted_tuple = tuple(self._admitted.values())
        return m.Snapshot(
            nodes=self._node_tuple,
            topologies=self._tables[r.TOPOLOGIES].items(),  # type: ignore[arg-type]
            flavors=self._tables[r.RESOURCE_FLAVORS].items(),  # type: ignore[arg-type]
            queues=self._tables[r.CLUSTER_QUEUES].items(),  # type: ignore[arg-type]
            cohorts=self._tables[r.COHORTS].items(),  # type: ignore[arg-type]
            admitted=self._admitted_tuple,
            pending=self._pending_tuple,
        )

    def problems(self) -> dict[str, str]:
        """Objects that could not be understood, by ``kind/name``."""
        return {f"{res.kind}/{n}": why for res, t in self._tables.items() for n, why in sorted(t.problems.items())}

    def _refresh_nodes(self) -> None:
        dirty = list(self._use.take_dirty())
        if not dirty:
            return
        nodes = self.objects[r.NODES]
        members_changed = changed = False
        for name in dirty:
            obj = nodes.get(ObjectKey(self.cluster, "", name))
            if obj is None:
                members_changed |= self._nodes.pop(name, None) is not None
                continue
            node = convert.node(obj, self._use.other_use(name))
            known = self._nodes.get(name)
            members_changed |= known is None
            if node != known:  # pods of placed workloads come and go without changing what is left for others
                self._nodes[name] = node
                changed = True
        if members_changed:
            self._nodes = dict(sorted(self._nodes.items()))
        if members_changed or changed:
            self._node_tuple = tuple(self._nodes.values())

    def _refresh_workloads(self) -> None:
        if not self._dirty:
            return
        dirty, self._dirty = self._dirty, {}
        for key in dirty:
            workload = self.workload(key)
            entry = Entry() if workload is None else self.entry(key, workload)
            self._replace(key, entry)
            self._placed(key, workload, entry)

    def _placed(self, key: ObjectKey, workload: Object | None, entry: Entry) -> None:
        """Keep track of whose pods the core places."""
        before = self._job_uids.pop(key, "")
        after = ""
        if workload is not None and entry.admitted is not None and any(a.nodes for a in entry.admitted.assignments):
            after = self._job_uids[key] = labels_of(workload).get(labels.JOB_UID, "")
        if before != after:
            self._use.set_placed(before, False)
            self._use.set_placed(after, True)

    def _replace(self, key: ObjectKey, entry: Entry) -> None:
        if _swap(self._pending, key, entry.pending):
            self._pending_tuple = None
        if _swap(self._admitted, key, entry.admitted):
            self._admitted_tuple = None
        _swap(self._barred, key, entry.barred)

    def entry(self, key: ObjectKey, workload: Object) -> Entry:
        """What a workload is to the queue."""
        if convert.is_finished(workload):
            return Entry()
        if convert.holds_quota(workload):
            return Entry(admitted=convert.admitted(str(key), workload, self._class))
        if is_deleting(workload) or not convert.is_active(workload):
            return Entry()
        if missing := annotations_of(workload).get(labels.MISSING_CLASS):
            return Entry(barred=_without_class(str(key), missing))
        queue, why = self._cluster_queue_of(str(key), workload)
        if why is not None:
            return Entry(barred=why)
        try:
            return Entry(pending=convert.pending(str(key), workload, queue, self._class))
        except (ValueError, KeyError, TypeError) as error:
            message = f"the pod template cannot be understood: {error}"
            return Entry(barred=m.Decision(str(key), m.Outcome.NEVER, m.Reason.MISCONFIGURED, message))

    def _class(self, name: str) -> Object | None:
        return self.objects[r.WORKLOAD_CLASSES].get(ObjectKey(self.cluster, "", name))

    def _cluster_queue_of(self, key: str, workload: Object) -> tuple[str, m.Decision | None]:
        """The ClusterQueue that the workload's LocalQueue leads to, or why none takes it."""
        namespace = workload["metadata"]["namespace"]
        name = workload["spec"].get("queueName") or labels.DEFAULT_QUEUE
        local = self.objects[r.LOCAL_QUEUES].get(ObjectKey(self.cluster, namespace, name))
        if local is None or is_deleting(local):
            return "", m.Decision(
                key,
                m.Outcome.NEVER,
                m.Reason.QUEUE_NOT_FOUND,
                f'LocalQueue "{name}" does not exist in namespace "{namespace}"',
                f'create it, or submit to a queue of namespace "{namespace}" that exists',
            )
        if (local["spec"].get("stopPolicy") or "None") != "None":
            return "", m.Decision(
                key,
                m.Outcome.WAIT,
                m.Reason.QUEUE_STOPPED,
                f'LocalQueue "{name}" is stopped',
                "set its spec.stopPolicy to None",
            )
        queue = local["spec"]["clusterQueue"]
        obj = self.objects[r.CLUSTER_QUEUES].get(ObjectKey(self.cluster, "", queue))
        if obj is not None and is_deleting(obj):  # its finalizer waits for what runs: nothing may follow
            return "", m.Decision(
                key,
                m.Outcome.NEVER,
                m.Reason.QUEUE_NOT_FOUND,
                f'ClusterQueue "{queue}" is being deleted',
                "submit to another queue, or create it again when it is gone",
            )
        if obj is not None and not self._takes(obj, namespace):
            return "", m.Decision(
                key,
                m.Outcome.NEVER,
                m.Reason.MISCONFIGURED,
                f'ClusterQueue "{queue}" does not take workloads of namespace "{namespace}"',
                "make its spec.namespaceSelector match the namespace's labels; {} takes every namespace",
            )
        return queue, None

    def _takes(self, queue: Object, namespace: str) -> bool:
        selector = (queue.get("spec") or {}).get("namespaceSelector")
        if selector is None:
            return False
        if not selector:
            return True
        obj = self.objects[r.NAMESPACES].get(ObjectKey(self.cluster, "", namespace))
        return obj is not None and LabelSelector.from_object(selector).matches(labels_of(obj))


def _without_class(key: str, missing: str) -> m.Decision:
    remedy = "create it, or name one that exists in the job's labels"
    return m.Decision(key, m.Outcome.NEVER, m.Reason.MISCONFIGURED, f"{missing} does not exist", remedy)


def _swap(table: dict[ObjectKey, T], key: ObjectKey, value: T | None) -> bool:
    """Set or remove; whether anything changed."""
    if value is None:
        return table.pop(key, None) is not None
    if table.get(key) == value:
        return False
    table[key] = value
    return True


def _matters(obj: Object) -> tuple[object, ...]:
    """What of an object other than a workload, pod or node decides anything."""
    return obj["metadata"].get("uid"), labels_of(obj), is_deleting(obj), obj.get("spec")


def _revision(obj: Object) -> int:
    text = obj["metadata"].get("resourceVersion", "0")
    return int(text) if text.isdigit() else 0

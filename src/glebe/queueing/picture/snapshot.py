"""The queue's picture of the world, kept up to date change by change; a snapshot rebuilds only what changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from glebe.kube import resources as r
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, annotations_of, get_condition, is_deleting, key_of, labels_of
from glebe.kube.resources import Resource
from glebe.queueing import labels
from glebe.queueing.configuration import DEFAULT, Configuration
from glebe.queueing.jobs import doors
from glebe.queueing.life import barriers, checks
from glebe.queueing.life.steps import class_names
from glebe.queueing.picture import convert, fleetobjects, queueobjects
from glebe.queueing.picture.corepolicies import configured, policies
from glebe.queueing.picture.heads import Heads
from glebe.queueing.picture.machines import Machines
from glebe.queueing.picture.nodeuse import NodeUse, workload_owner
from glebe.queueing.picture.requests import Surroundings, summarize
from glebe.queueing.telling.localshares import PastUse
from glebe.queueing.tenants import tenancy
from glebe.scheduling import model as m

T = TypeVar("T")

_CLASS_KINDS = {found.kind: found for found in (r.WORKLOAD_CLASSES, r.WORKLOAD_PRIORITY_CLASSES)}

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
    r.ADMISSION_CHECKS,
    r.LIMIT_RANGES,
    r.RUNTIME_CLASSES,
    r.WORKLOAD_CLASSES,
    r.WORKLOAD_PRIORITY_CLASSES,
    r.WORKLOADS,
)

#: Those of them that only the host's cluster has for the queue.
_OF_THE_HOST = frozenset(
    {
        r.TOPOLOGIES,
        r.RESOURCE_FLAVORS,
        r.COHORTS,
        r.CLUSTER_QUEUES,
        r.ADMISSION_CHECKS,
        r.WORKLOAD_CLASSES,
        r.WORKLOAD_PRIORITY_CLASSES,
    }
)


@dataclass(frozen=True, slots=True)
class Entry:
    """What one workload is to the queue: waiting, holding, barred (with the decision that says why), or nothing."""

    pending: m.Pending | None = None
    admitted: m.Admitted | None = None
    barred: m.Decision | None = None


_NOTHING = Entry()


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

    :param serves: whether the workloads of a logical cluster are this queue's business.
    """

    def __init__(
        self, cluster: str = "", config: Configuration = DEFAULT, serves: Callable[[str], bool] = lambda cluster: True
    ) -> None:
        self._serves = serves
        self.cluster = cluster
        self.host = tenancy.host_of(cluster)
        self.config = config
        self._policies = policies(config)
        self.past = PastUse(config.admission_fair_sharing)
        self._surroundings: dict[tuple[str, str], Surroundings] = {}  # by cluster and namespace
        self.objects: dict[Resource, dict[ObjectKey, Object]] = {resource: {} for resource in WATCHED}
        self._tables = {
            r.TOPOLOGIES: _Table(fleetobjects.topology_levels),
            r.RESOURCE_FLAVORS: _Table(fleetobjects.flavor),
            r.COHORTS: _Table(queueobjects.cohort),
            r.CLUSTER_QUEUES: _Table(queueobjects.cluster_queue),
        }
        self._use = NodeUse()
        self._machines = Machines(self.host, self._use)
        self._owners: dict[ObjectKey, tuple[str, ...]] = {}  # of placed workloads: whose pods are theirs
        self._pending: dict[ObjectKey, m.Pending] = {}
        self._admitted: dict[ObjectKey, m.Admitted] = {}
        self._barred: dict[ObjectKey, m.Decision] = {}
        self._queue_tuple: tuple[m.ClusterQueue, ...] | None = None
        self._pending_tuple: tuple[m.Pending, ...] | None = ()
        self._admitted_tuple: tuple[m.Admitted, ...] | None = ()
        self._heads = Heads()
        self.strangers: dict[ObjectKey, None] = {}  # those of other clusters than the host
        self.keys: dict[str, ObjectKey] = {}  # of what waits, runs or is barred, by the core's names
        self._dirty: dict[ObjectKey, None] = {}
        self._assumed: dict[ObjectKey, Object] = {}
        self.fleet_version = 0  # moves with anything but workloads and pods
        self._detach: list[Callable[[], None]] = []

    def attach(self, informers: Informers, without: frozenset[Resource] = frozenset()) -> None:
        """Follow the shared informers; ``without`` are kinds that the cluster does not have."""
        for resource in WATCHED:
            if resource in without:
                continue
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
        if resource in _OF_THE_HOST and key.cluster != self.host:
            return  # a kind of that name in another cluster is that cluster's own business
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
            if old is not None and new is not None and fleetobjects.node_facts(old) == fleetobjects.node_facts(new):
                return
            self._machines.change(key, new)
            self.fleet_version += 1
        else:
            if resource == r.LOCAL_QUEUES:
                self.past.touch()
            if old is not None and new is not None and _matters(old) == _matters(new):
                return  # a status: queues write theirs with every workload
            if resource in self._tables:
                self._tables[resource].change(key.name, new)
            if resource in (r.CLUSTER_QUEUES, r.ADMISSION_CHECKS):
                self._queue_tuple = None
            if resource in (r.LIMIT_RANGES, r.RUNTIME_CLASSES):
                self._surroundings.clear()
            if resource not in (r.TOPOLOGIES, r.RESOURCE_FLAVORS, r.COHORTS):
                self._dirty.update(dict.fromkeys(self._concerned(resource, key)))
            self.fleet_version += 1

    def _concerned(self, resource: Resource, key: ObjectKey) -> Iterable[ObjectKey]:
        """The workloads that a change of something beside them may concern."""
        everything = self.objects[r.WORKLOADS]
        if resource in _OF_THE_HOST:
            return everything
        space = key.name if resource == r.NAMESPACES else key.namespace  # of RuntimeClasses: none
        return [w for w in everything if w.cluster == key.cluster and space in ("", w.namespace)]

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
        local = doors.local_queue(self.objects, key_of(workload, self.cluster), workload)
        return str(local["spec"]["clusterQueue"]) if local is not None else ""

    def declares_run_time(self, workload: Object) -> bool:
        """Does its annotation or its class say how long it runs?"""
        return convert.declares_run_time(workload, self._class)

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
        if self._pending_tuple is None:
            self._pending_tuple = tuple(self._pending.values())
        return self._with(self._pending_tuple)

    def heads(self, more: int = 1) -> tuple[m.Snapshot, frozenset[str]]:
        """The world now with the first few (``more`` times) of every class of equals; as :meth:`Heads.first`."""
        self._refresh_workloads()
        pending, last = self._heads.first(self._heads.few() * more)
        return self._with(pending), last

    @property
    def waiting(self) -> int:
        """How many wait; valid after :meth:`snapshot` or :meth:`heads`."""
        return len(self._pending)

    def _with(self, pending: tuple[m.Pending, ...]) -> m.Snapshot:
        if self._admitted_tuple is None:
            self._admitted_tuple = tuple(self._admitted.values())
        return m.Snapshot(
            nodes=self._machines.nodes(),
            topologies=self._tables[r.TOPOLOGIES].items(),  # type: ignore[arg-type]
            flavors=self._tables[r.RESOURCE_FLAVORS].items(),  # type: ignore[arg-type]
            queues=self._queues(),
            cohorts=self._tables[r.COHORTS].items(),  # type: ignore[arg-type]
            admitted=self._admitted_tuple,
            pending=pending,
            afs=self.past.afs(self.objects[r.LOCAL_QUEUES].values),
            **self._policies,
        )

    def _queues(self) -> tuple[m.ClusterQueue, ...]:
        """Queues whose checks are not all there and active take nothing; flavors that a check provisions come late."""
        if self._queue_tuple is None:
            found = self._tables[r.CLUSTER_QUEUES].items()
            all_checks = {key.name: check for key, check in self.objects[r.ADMISSION_CHECKS].items()}
            self._queue_tuple = tuple(configured(queue, all_checks, self.config) for queue in found)  # type: ignore[arg-type]
        return self._queue_tuple

    def problems(self) -> dict[str, str]:
        """Objects that could not be understood, by ``kind/name``."""
        return {f"{res.kind}/{n}": why for res, t in self._tables.items() for n, why in sorted(t.problems.items())}

    def _refresh_workloads(self) -> None:
        if not self._dirty:
            return
        dirty, self._dirty = self._dirty, {}
        for key in dirty:
            workload = self.workload(key)
            self.past.see(key, workload)
            entry = Entry() if workload is None else self.entry(key, workload)
            self._replace(key, entry)
            self._placed(key, workload, entry)

    def _placed(self, key: ObjectKey, workload: Object | None, entry: Entry) -> None:
        """Keep track of whose pods the core places."""
        before = self._owners.pop(key, ())
        after: tuple[str, ...] = ()
        if workload is not None and entry.admitted is not None and any(a.nodes for a in entry.admitted.assignments):
            uid = labels_of(workload).get(labels.JOB_UID, "")
            after = self._owners[key] = (uid, workload_owner(workload, workload["metadata"]["name"]))
        if before != after:
            for owner in before:
                self._use.set_placed(owner, False)
            for owner in after:
                self._use.set_placed(owner, True)

    def _replace(self, key: ObjectKey, entry: Entry) -> None:
        before = self._pending.get(key)
        if _swap(self._pending, key, entry.pending):
            self._pending_tuple = None
            self._heads.change(before, entry.pending)
        if _swap(self._admitted, key, entry.admitted):
            self._admitted_tuple = None
        _swap(self._barred, key, entry.barred)
        if entry == _NOTHING:
            self.keys.pop(tenancy.named(key), None)
            self.strangers.pop(key, None)
        else:
            self.keys[tenancy.named(key)] = key
            if tenancy.is_foreign(key.cluster):
                self.strangers[key] = None

    def entry(self, key: ObjectKey, workload: Object) -> Entry:
        """What a workload is to the queue."""
        if convert.is_finished(workload) or not self._serves(key.cluster):
            return Entry()
        around, name = self.surroundings(key.cluster, key.namespace), tenancy.named(key)
        if convert.holds_quota(workload):
            holder = convert.admitted(name, workload, self._class, self.config, around)
            return Entry(admitted=tenancy.at_home(holder, key.cluster))
        if is_deleting(workload) or not convert.is_active(workload) or convert.is_on_hold(workload):
            return Entry()
        if (outside := barriers.kept_out(name, workload)) is not None:
            return Entry(barred=outside)
        if missing := annotations_of(workload).get(labels.MISSING_CLASS):
            return Entry(barred=_without_class(name, missing))
        queue, why = doors.cluster_queue(self.objects, self.host, key, workload)
        if why is not None:
            return Entry(barred=why)
        try:
            found = tenancy.at_home(
                convert.pending(name, workload, queue, self._class, self.config, around), key.cluster
            )
        except (ValueError, KeyError, TypeError) as error:
            message = f"the pod template cannot be understood: {error}"
            return Entry(barred=m.Decision(name, m.Outcome.NEVER, m.Reason.MISCONFIGURED, message))
        return Entry(barred=barriers.invalid(found)) if found.invalid else Entry(pending=found)

    def surroundings(self, cluster: str, namespace: str) -> Surroundings:
        """What of a namespace matters to what its pods ask for."""
        place = (cluster, namespace)
        if place not in self._surroundings:
            ranges = [o for key, o in self.objects[r.LIMIT_RANGES].items() if key[:2] == place]

            def overhead(name: str) -> dict[str, Any]:
                found = self.objects[r.RUNTIME_CLASSES].get(ObjectKey(cluster, "", name)) or {}
                return (found.get("overhead") or {}).get("podFixed") or {}

            self._surroundings[place] = Surroundings(
                summarize(ranges, "Container"), summarize(ranges, "Pod"), overhead, self.config.resources
            )
        return self._surroundings[place]

    def checks_of(self, workload: Object, decision: m.Decision) -> tuple[str, ...]:
        """The admission checks that ``workload`` needs with what ``decision`` gives it."""
        queue = ObjectKey(self.host, "", self.cluster_queue(workload))
        classes = (
            self.objects[_CLASS_KINDS[kind]].get(ObjectKey(self.host, "", name)) for kind, name in class_names(workload)
        )
        given = [{"flavors": a.flavors} for a in decision.assignments]
        return checks.required(self.objects[r.CLUSTER_QUEUES].get(queue), classes, given)

    def _class(self, name: str) -> Object | None:
        return self.objects[r.WORKLOAD_CLASSES].get(ObjectKey(self.host, "", name))


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
    meta, active = obj["metadata"], get_condition(obj, "Active") if obj.get("kind") == "AdmissionCheck" else None
    told = {k: v for k, v in annotations_of(obj).items() if k.startswith("glebe.dev/")}
    body = obj.get("spec"), obj.get("overhead"), (active or {}).get("status")
    return meta.get("uid"), labels_of(obj), told, is_deleting(obj), *body


def _revision(obj: Object) -> int:
    text = obj["metadata"].get("resourceVersion", "0")
    return int(text) if text.isdigit() else 0

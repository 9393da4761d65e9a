"""Brings each workload to its next state: what the :mod:`.steps` say is written here."""

from __future__ import annotations

from collections.abc import Iterable

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import is_not_found
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, cluster_of, controller_of, is_deleting, key_of
from glebe.queueing import labels
from glebe.queueing.configuration import DEFAULT, Configuration
from glebe.queueing.jobs.integrations import JobKinds
from glebe.queueing.life.nodehealth import NODE_INDEX, NodeHealth, leaves, node_index
from glebe.queueing.life.steps import Facts, Step, class_names, next_step
from glebe.queueing.picture import convert, fleetobjects
from glebe.queueing.round.notices import Notices
from glebe.queueing.tenants import tenancy

QUEUE_INDEX = "queueing/local-queue"
RESERVED_INDEX = "queueing/reserved-in"
CLASS_INDEX = "queueing/class"


def queue_index(workload: Object) -> Iterable[str]:
    return (convert.local_queue(workload),)


def reserved_index(workload: Object) -> Iterable[str]:
    return (workload["status"]["admission"]["clusterQueue"],) if convert.holds_quota(workload) else ()


def class_index(workload: Object) -> Iterable[str]:
    return [f"{kind}/{name}" for kind, name in class_names(workload)]


class Lifecycle:
    """One reconcile, one write."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        env: Env,
        notices: Notices,
        config: Configuration = DEFAULT,
        kinds: JobKinds | None = None,
    ) -> None:
        self._client = client
        self._env = env
        self._notices = notices
        self._config = config
        self._kinds = kinds or JobKinds()
        self._cluster = client.cluster
        self._host = tenancy.host_of(client.cluster)
        indexers = {
            NODE_INDEX: node_index,
            QUEUE_INDEX: queue_index,
            RESERVED_INDEX: reserved_index,
            CLASS_INDEX: class_index,
        }
        self._workloads = informers.get(r.WORKLOADS, indexers=indexers).store
        self.health = NodeHealth(informers, client.cluster, config)
        self._local = informers.get(r.LOCAL_QUEUES).store
        self._cluster_queues = informers.get(r.CLUSTER_QUEUES).store
        self._classes = {
            resource.kind: informers.get(resource).store
            for resource in (r.WORKLOAD_CLASSES, r.WORKLOAD_PRIORITY_CLASSES)
        }

    async def reconcile(self, key: ObjectKey) -> Result | None:
        workload = self._workloads.get(key)
        if workload is None or is_deleting(workload):
            return None
        step = next_step(workload, self._facts(workload))
        written = await self._do(workload, step)
        for event in step.events if written is not None else ():
            self._notices.say(written or workload, *event)
        return Result(requeue_after=step.after) if step.after is not None else None

    def _facts(self, workload: Object) -> Facts:
        now = self._env.clock.now()
        name = workload["spec"].get("queueName") or labels.DEFAULT_QUEUE
        local = self._local.get(key_of(workload, self._cluster)._replace(name=name))
        reserved = next(iter(reserved_index(workload)), "")
        queue = reserved or (local["spec"]["clusterQueue"] if local is not None else "")
        failed, again = self.health.failed(workload, now)
        return Facts(
            now=now,
            config=self._config,
            local=local,
            queue=self._cluster_queues.get(ObjectKey(self._host, "", queue)),
            classes=tuple(
                self._classes[kind].get(ObjectKey(self._host, "", called)) for kind, called in class_names(workload)
            ),
            failed=failed,
            look_again=again,
        )

    async def _do(self, workload: Object, step: Step) -> Object | None:
        """The object as it was written; ``None`` when nothing was."""
        meta = workload["metadata"]
        if step.status is not None:
            return await self._client.update_status(r.WORKLOADS, step.status)
        if step.spec:
            patch = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "spec": dict(step.spec)}
            written = await self._at(workload).patch(r.WORKLOADS, meta["name"], patch, meta["namespace"])
            return tenancy.beside(workload, written)
        if step.delete:
            try:
                await self._at(workload).delete(r.WORKLOADS, meta["name"], meta["namespace"], uid=meta["uid"])
            except Exception as error:
                if not is_not_found(error):
                    raise
            return workload
        if step.delete_owner:
            return await self._delete_owner(workload)
        return None

    async def _delete_owner(self, workload: Object) -> Object | None:
        """Remove the job, and so the workload; a kind that is not known here stays."""
        owner = controller_of(workload)
        kind = self._kinds.for_kind(owner["apiVersion"], owner["kind"]) if owner is not None else None
        if owner is None or kind is None:
            return None
        at, namespace = self._at(workload), workload["metadata"]["namespace"]
        try:
            await at.delete(kind.resource, owner["name"], namespace, uid=owner["uid"], propagation="Background")
        except Exception as error:
            if not is_not_found(error):
                raise
        return workload

    def _at(self, workload: Object) -> Client:
        return self._client.at(cluster_of(workload))


def build(
    client: Client,
    informers: Informers,
    env: Env,
    notices: Notices,
    config: Configuration = DEFAULT,
    kinds: JobKinds | None = None,
) -> Controller:
    """Woken by workloads, their nodes, their queues and their classes."""
    lifecycle = Lifecycle(client, informers, env, notices, config, kinds)
    controller = Controller("queue-lifecycle", lifecycle.reconcile, env, workers=8)
    store = informers.get(r.WORKLOADS).store

    def keys(index: str, value: str) -> list[ObjectKey]:
        return [key_of(w, client.cluster) for w in store.by_index(index, value)]

    def of_pod(pod: Object) -> list[ObjectKey]:
        return lifecycle.health.left_by(pod, client.cluster)

    def of_local_queue(queue: Object) -> list[ObjectKey]:
        return keys(QUEUE_INDEX, tenancy.door(queue, queue["metadata"]["name"]))

    def of_cluster_queue(queue: Object) -> list[ObjectKey]:
        """Those that hold its quota, and those that wait for it."""
        name = queue["metadata"]["name"]
        found = dict.fromkeys(keys(RESERVED_INDEX, name))
        for local in informers.get(r.LOCAL_QUEUES).store.values():
            if local["spec"].get("clusterQueue") == name:
                found.update(dict.fromkeys(of_local_queue(local)))
        return list(found)

    controller.watch(informers.get(r.WORKLOADS))
    controller.watch(informers.get(r.NODES), lambda n: keys(NODE_INDEX, fleetobjects.host_of(n)), when=_node_matters)
    controller.watch(informers.get(r.PODS), of_pod, when=leaves)
    controller.watch(informers.get(r.LOCAL_QUEUES), of_local_queue, when=_spec_changed)
    controller.watch(informers.get(r.CLUSTER_QUEUES), of_cluster_queue, when=_spec_changed)
    for resource in (r.WORKLOAD_CLASSES, r.WORKLOAD_PRIORITY_CLASSES):

        def of_class(found: Object, kind: str = resource.kind) -> list[ObjectKey]:
            return keys(CLASS_INDEX, f"{kind}/{found['metadata']['name']}")

        controller.watch(informers.get(resource), of_class)
    return controller


def _node_matters(old: Object | None, new: Object | None) -> bool:
    return old is None or new is None or fleetobjects.node_facts(old) != fleetobjects.node_facts(new)


def _spec_changed(old: Object | None, new: Object | None) -> bool:
    return old is None or new is None or old.get("spec") != new.get("spec") or is_deleting(old) != is_deleting(new)

"""Status of ClusterQueues and LocalQueues: what waits, what runs, what is used; and who may not be deleted yet."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time
from glebe.kube.controller import Controller, Result
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, cluster_of, is_deleting, key_of, set_condition
from glebe.kube.quantity import from_int, to_int
from glebe.queueing import labels
from glebe.queueing.configuration import DEFAULT, Configuration
from glebe.queueing.jobs.integrations import read
from glebe.queueing.notactedon import findings
from glebe.queueing.picture.corepolicies import broken
from glebe.queueing.picture.tallies import Tallies, Usage, holds_in
from glebe.queueing.telling import shares
from glebe.queueing.telling.localshares import PastUse
from glebe.queueing.telling.shares import Shares, spec_differs
from glebe.queueing.tenants import tenancy

#: Changes that come this close together are counted together.
_DEBOUNCE = 0.2
#: Condition of a queue whose spec asks for something that has no effect yet.
NOT_ACTED_ON = "NotActedOn"
_MESSAGE_LIMIT = 32000


def flavor_usage(groups: list[dict[str, Any]], usage: Usage, *, borrowed: bool) -> list[dict[str, Any]]:
    """One entry per flavor of the spec, in its order."""
    out: list[dict[str, Any]] = []
    for group in groups:
        for flavor in group["flavors"]:
            rows: list[dict[str, Any]] = []
            for quota in flavor["resources"]:
                resource = quota["name"]
                total = usage.get(flavor["name"], {}).get(resource, 0)
                row = {"name": resource, "total": from_int(total, resource)}
                if borrowed:
                    above = max(0, total - to_int(quota["nominalQuota"], resource))
                    row["borrowed"] = from_int(above, resource)
                rows.append(row)
            out.append({"name": flavor["name"], "resources": rows})
    return out


class QueueStatus:
    """Writes the status of one ClusterQueue or LocalQueue when it differs."""

    def __init__(self, client: Client, informers: Informers, env: Env, config: Configuration = DEFAULT) -> None:
        self._client = client
        self._env = env
        self._cluster = client.cluster
        self._host = tenancy.host_of(client.cluster)
        self.past = PastUse(config.admission_fair_sharing)
        self.tallies = Tallies(self._cluster)
        self.shares = Shares(informers, self.tallies)
        self._local = informers.get(r.LOCAL_QUEUES).store
        self._queues = informers.get(r.CLUSTER_QUEUES).store
        self._flavors = informers.get(r.RESOURCE_FLAVORS).store
        self._topologies = informers.get(r.TOPOLOGIES).store
        self._checks = informers.get(r.ADMISSION_CHECKS).store

    async def reconcile(self, key: ObjectKey) -> Result | None:
        await asyncio.sleep(_DEBOUNCE)
        if key.namespace:
            queue = self._local.get(key)
            if queue is not None:
                await self._write(r.LOCAL_QUEUES, queue, self.local_queue(queue))
                return self._until_sample(queue)
        elif key.cluster == self._host:
            queue = await self._guarded(self._queues.get(key))
            if queue is not None:
                await self._write(r.CLUSTER_QUEUES, queue, self.cluster_queue(queue))
        return None

    def _until_sample(self, queue: Object) -> Result | None:
        """When the past use of a LocalQueue is to be looked at next, if it matters."""
        due = self.past.due_in(queue, self._env.clock.now())
        return None if due is None else Result(requeue_after=due or self.past.sampling)

    def seen(self, old: Object | None, new: Object | None) -> bool:
        """A workload appeared, changed or vanished; whether that changes what queues tell."""
        self.past.see(key_of(new or old or {}, self._cluster), new)
        return self.tallies.change(old, new)

    async def _guarded(self, queue: Object | None) -> Object | None:
        """The ClusterQueue with the finalizer that it should have; ``None`` when it was let go.

        Every ClusterQueue has it from the start: set only once something holds quota, it could come too late.
        """
        if queue is None:
            return None
        meta = queue["metadata"]
        present: list[str] = meta.get("finalizers") or []
        deleting = is_deleting(queue)
        if deleting is not (labels.IN_USE in present) or (deleting and self.tallies.in_use(meta["name"])):
            return queue
        wanted = [name for name in present if name != labels.IN_USE] if deleting else [*present, labels.IN_USE]
        change = {"metadata": {"finalizers": wanted, "resourceVersion": meta["resourceVersion"]}}
        changed = await self._client.at(self._host).patch(r.CLUSTER_QUEUES, meta["name"], change)
        if not wanted:
            return None
        return {**queue, **changed, "metadata": {**meta, **changed["metadata"]}}  # it stays where it was read

    async def _write(self, resource: r.Resource, queue: Object, status: dict[str, Any]) -> None:
        if (queue.get("status") or {}) != status:
            await self._client.update_status(resource, {**queue, "status": status})

    def _members(self, queue: str) -> list[str]:
        """The LocalQueues that lead to a ClusterQueue."""
        found = (local for local in self._local.values() if local["spec"]["clusterQueue"] == queue)
        target = self._queues.get(ObjectKey(self._host, "", queue))
        return [_index_of(local) for local in found if target is None or tenancy.may_use(target, cluster_of(local))]

    def cluster_queue(self, queue: Object) -> dict[str, Any]:
        """Its status as it should be."""
        tally = self.tallies.total(self._members(queue["metadata"]["name"]))
        groups = read(queue, ("spec", "resourceGroups"), [])
        active, reason, message = self._activity(queue)
        status = {
            **(queue.get("status") or {}),
            "pendingWorkloads": tally.pending,
            "reservingWorkloads": tally.reserving,
            "admittedWorkloads": tally.admitted,
            "flavorsReservation": flavor_usage(groups, tally.reserved, borrowed=True),
            "flavorsUsage": flavor_usage(groups, tally.used, borrowed=True),
        }
        weighted = self.shares.of_queue(queue["metadata"]["name"])
        status.pop("fairSharing", None)
        if weighted is not None:
            status["fairSharing"] = {"weightedShare": weighted}
        status["conditions"] = self._conditions(queue, r.CLUSTER_QUEUES.kind, active, reason, message)
        return status

    def local_queue(self, queue: Object) -> dict[str, Any]:
        """Its status as it should be."""
        tally = self.tallies.total([_index_of(queue)])
        name = queue["spec"]["clusterQueue"]
        target = self._queues.get(ObjectKey(self._host, "", name))
        if target is not None and not tenancy.may_use(target, cluster_of(queue)):
            target = None  # what is not open to a cluster does not exist there
        groups = read(target, ("spec", "resourceGroups"), [])
        if target is None:
            state = False, "ClusterQueueDoesNotExist", f'ClusterQueue "{name}" does not exist'
        elif (queue["spec"].get("stopPolicy") or "None") != "None":
            state = False, "LocalQueueStopped", "the queue is stopped (spec.stopPolicy)"
        elif not self._activity(target)[0]:
            state = False, "ClusterQueueIsInactive", f'ClusterQueue "{name}" cannot admit: {self._activity(target)[2]}'
        else:
            state = True, "Ready", "workloads of this queue can be admitted"
        status = {
            **(queue.get("status") or {}),
            "pendingWorkloads": tally.pending,
            "reservingWorkloads": tally.reserving,
            "admittedWorkloads": tally.admitted,
            "flavorsReservation": flavor_usage(groups, tally.reserved, borrowed=False),
            "flavorsUsage": flavor_usage(groups, tally.used, borrowed=False),
        }
        if (sampled := self.past.sample(queue, self._env.clock.now())) is not None:
            status["fairSharing"] = sampled
        status["conditions"] = self._conditions(queue, r.LOCAL_QUEUES.kind, *state)
        return status

    def _activity(self, queue: Object) -> tuple[bool, str, str]:
        """Whether a ClusterQueue admits, and why not."""
        if is_deleting(queue):
            return False, "Terminating", "the queue is being deleted"
        if (read(queue, ("spec", "stopPolicy"), "None")) != "None":
            return False, "Stopped", "the queue is stopped (spec.stopPolicy)"
        for group in read(queue, ("spec", "resourceGroups"), []):
            for flavor in group["flavors"]:
                found = self._flavors.get(ObjectKey(self._host, "", flavor["name"]))
                if found is None:
                    return False, "FlavorNotFound", f'ResourceFlavor "{flavor["name"]}" does not exist'
                name = read(found, ("spec", "topologyName"))
                if name and self._topologies.get(ObjectKey(self._host, "", name)) is None:
                    why = f'Topology "{name}" of ResourceFlavor "{flavor["name"]}" does not exist'
                    return False, "TopologyNotFound", why
        reason, why = broken(queue, lambda name: self._checks.get(ObjectKey(self._host, "", name)))
        if reason:
            return False, reason, why
        return True, "Ready", "workloads can be admitted"

    def _conditions(self, queue: Object, kind: str, active: bool, reason: str, message: str) -> list[dict[str, Any]]:
        """``Active``, and ``NotActedOn`` where the spec asks for something in vain."""
        now, generation = format_time(self._env.clock.now()), queue["metadata"].get("generation")
        state = "True" if active else "False"
        known = read(queue, ("status", "conditions"), [])
        listed = set_condition(known, "Active", state, reason, message, now, generation)
        if unused := findings(kind, queue):
            text = "; ".join(unused)[:_MESSAGE_LIMIT]
            return set_condition(listed, NOT_ACTED_ON, "True", "FieldsNotActedOn", text, now, generation)
        return [condition for condition in listed if condition["type"] != NOT_ACTED_ON]


def _index_of(local_queue: Object) -> str:
    return tenancy.door(local_queue, local_queue["metadata"]["name"])


def build(client: Client, informers: Informers, env: Env, config: Configuration = DEFAULT) -> list[Controller]:
    """Woken by workloads, queues, flavors, topologies and cohorts; and the one that tells the cohorts' own status."""
    status = QueueStatus(client, informers, env, config)
    controller = Controller("queue-status", status.reconcile, env, workers=4)
    local_queues, cluster_queues = informers.get(r.LOCAL_QUEUES), informers.get(r.CLUSTER_QUEUES)
    cluster, host = client.cluster, tenancy.host_of(client.cluster)

    def of_workload(workload: Object) -> Iterable[ObjectKey]:
        name = workload["spec"].get("queueName") or labels.DEFAULT_QUEUE
        key = key_of(workload, cluster)._replace(name=name)
        yield key
        local = local_queues.store.get(key)
        if local is not None:
            yield ObjectKey(host, "", local["spec"]["clusterQueue"])
        if holder := holds_in(workload):
            yield ObjectKey(host, "", holder)

    def of_local(local: Object) -> Iterable[ObjectKey]:
        return key_of(local, cluster), ObjectKey(host, "", local["spec"]["clusterQueue"])

    def of_cluster_queue(queue: Object) -> Iterable[ObjectKey]:
        yield key_of(queue, cluster)
        for local in local_queues.store.values():
            if local["spec"]["clusterQueue"] == queue["metadata"]["name"]:
                yield key_of(local, cluster)

    def cohort(queue: Object) -> Iterable[ObjectKey]:
        name = read(queue, ("spec", "cohortName"), "")
        return (ObjectKey(host, "", name),) if name else ()

    async def mates(key: ObjectKey) -> None:
        await asyncio.sleep(_DEBOUNCE)  # a thousand queues that come together are gone through once
        for name in status.shares.queues_around(key.name):
            controller.queue.add(ObjectKey(host, "", name))

    def everything(_: Object) -> Iterable[ObjectKey]:
        return [*cluster_queues.store.keys(), *local_queues.store.keys()]

    controller.watch(informers.get(r.WORKLOADS), of_workload, when=status.seen)  # counts, too
    controller.watch(local_queues, of_local)
    controller.watch(cluster_queues, of_cluster_queue)
    controller.watch(informers.get(r.RESOURCE_FLAVORS), everything)
    controller.watch(informers.get(r.TOPOLOGIES), everything)
    controller.watch(informers.get(r.ADMISSION_CHECKS), everything)
    controller.watch(informers.get(r.COHORTS), everything, when=spec_differs)
    lending = Controller("queue-shares", mates, env)
    lending.watch(cluster_queues, cohort, when=spec_differs)  # what the others can borrow has changed
    return [controller, lending, shares.build(client, informers, env, status.shares)]

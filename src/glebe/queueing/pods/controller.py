"""The controllers of pods that are queued themselves."""

from __future__ import annotations

from collections.abc import Iterable

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, annotations_of, cluster_of, controller_of, key_of
from glebe.queueing import labels
from glebe.queueing.jobkinds.model import JobKind
from glebe.queueing.jobs.integrations import JobKinds, is_queued
from glebe.queueing.jobs.jobindex import watch_classes
from glebe.queueing.jobs.jobs import Grace, no_grace
from glebe.queueing.pods.holding import is_managed
from glebe.queueing.pods.lookup import Lookup
from glebe.queueing.pods.reconcile import PodReconciler
from glebe.queueing.round.notices import Notices


def build(
    kind: JobKind,
    client: Client,
    informers: Informers,
    env: Env,
    notices: Notices,
    kinds: JobKinds,
    grace: Grace = no_grace,
) -> list[Controller]:
    """For pods: that of single ones and groups. For StatefulSets and LeaderWorkerSets: theirs, which follows them.

    Deployments need none: each of their pods stands for itself.
    """
    if kind.resource != r.PODS and kind.held_by_pods not in ("set", "groups"):
        return []
    lookup = Lookup(client, informers, kinds)
    reconciler = PodReconciler(client, informers, env, notices, kinds, grace)
    controller = Controller(f"queue-{kind.resource.plural}", reconciler.reconcile, env, workers=4)
    words = ("pod/", "group/") if kind.resource == r.PODS else (f"{kind.held_by_pods}/",)

    def mine(keys: Iterable[ObjectKey]) -> Iterable[ObjectKey]:
        return (key for key in keys if key.name.startswith(words))

    def of_workload(workload: Object) -> Iterable[ObjectKey]:
        return mine(lookup.keys_of_workload(workload))

    controller.watch(informers.get(r.PODS), lambda pod: mine(lookup.keys_of_pod(pod)), when=_managed)
    controller.watch(informers.get(r.WORKLOADS), of_workload)
    watch_classes(controller, informers, of_workload)
    if kind.resource != r.PODS:
        controller.watch(
            informers.get(kind.resource),
            lambda owner: lookup.keys_of_owner(kind, owner),
            when=lambda old, new: any(o is not None and is_queued(o, kind) for o in (old, new)),
        )
        if kind.held_by_pods == "groups":
            return [controller, _surplus_groups(kind, client, informers, env)]
    return [controller]


def _managed(old: Object | None, new: Object | None) -> bool:
    return any(pod is not None and is_managed(pod) for pod in (old, new))


def _surplus_groups(kind: JobKind, client: Client, informers: Informers, env: Env) -> Controller:
    """Workloads of groups that a LeaderWorkerSet does not have any more go."""
    workloads = informers.get(r.WORKLOADS)
    owners = informers.get(kind.resource).store

    async def reconcile(key: ObjectKey) -> None:
        workload = workloads.store.get(key)
        ref = controller_of(workload) if workload is not None else None
        if workload is None or ref is None or ref["kind"] != kind.resource.kind:
            return
        owner = owners.get(key._replace(name=ref["name"]))
        index = annotations_of(workload).get(labels.COMPONENT_INDEX, "0")
        if owner is None or (index.isdigit() and int(index) < Lookup.groups(owner)):
            return
        meta = workload["metadata"]
        await client.at(cluster_of(workload)).delete(r.WORKLOADS, meta["name"], meta["namespace"], uid=meta["uid"])

    def of_owner(owner: Object) -> Iterable[ObjectKey]:
        for workload in workloads.store.values():
            ref = controller_of(workload)
            if ref is not None and ref["uid"] == owner["metadata"]["uid"]:
                yield key_of(workload, client.cluster)

    controller = Controller(f"queue-{kind.resource.plural}-surplus", reconcile, env)
    controller.watch(workloads)
    controller.watch(informers.get(kind.resource), of_owner)
    return controller

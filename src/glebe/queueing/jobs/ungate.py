"""Releases the pods of an admitted workload: all of a gang at once, each rank onto its node.

Pods are created with a scheduling gate. When as many exist as the gang needs, they get their node and lose the gate.
Pods that replace others of a running gang are released at once, onto the node of their rank or a freed one. Kinds whose
operators make pods one after the other get them released as they come: their places are kept for them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import is_conflict, is_not_found
from glebe.kube.informer import Informers
from glebe.kube.objects import (
    Object,
    ObjectKey,
    annotations_of,
    cluster_of,
    condition_is_true,
    controller_of,
    is_deleting,
    key_of,
    labels_of,
)
from glebe.kube.pods import has_ended
from glebe.kube.store import Store
from glebe.queueing import labels
from glebe.queueing.jobs import integrations
from glebe.queueing.jobs.integrations import Integration, JobKinds
from glebe.queueing.jobs.jobs import job_of
from glebe.queueing.jobs.podsetinfo import CannotStart, FlavorGone, PodSetInfo, infos
from glebe.queueing.life import transitions
from glebe.queueing.picture import convert, topology
from glebe.queueing.picture.hosts import Nodes
from glebe.queueing.picture.world import World
from glebe.scheduling.model import PodSetAssignment

POD_INDEX = "queueing/pod-owner"
WORKLOAD_INDEX = "queueing/pod-workload"
_PARALLEL_WRITES = 32
_RETRY = 0.2
_ASK_AGAIN = 5.0


def pod_owner_index(pod: Object) -> Iterable[str]:
    owner = controller_of(pod)
    return (str(owner["uid"]),) if owner and labels.POD_SET in labels_of(pod) else ()


def pod_workload_index(pod: Object) -> Iterable[str]:
    """The workload that a pod says it belongs to: in its template since the start of its job, or since its release."""
    name = annotations_of(pod).get(labels.WORKLOAD)
    return (f"{cluster_of(pod)}/{pod['metadata']['namespace']}/{name}",) if name else ()


INDEXERS = {POD_INDEX: pod_owner_index, WORKLOAD_INDEX: pod_workload_index}


def pods_of(store: Store, workload: Object) -> list[Object]:
    """All pods of a workload, whatever its kind; ``store`` has :data:`INDEXERS`."""
    meta = workload["metadata"]
    found = store.by_index(WORKLOAD_INDEX, f"{cluster_of(workload)}/{meta['namespace']}/{meta['name']}")
    uid = labels_of(workload).get(labels.JOB_UID, "")
    more = store.by_index(POD_INDEX, uid) if uid else []
    known = {pod["metadata"]["uid"] for pod in found}
    return [*found, *(pod for pod in more if pod["metadata"]["uid"] not in known)]


@dataclass(frozen=True, slots=True)
class Release:
    """One pod to release; ``node`` is None when its flavor has no topology."""

    pod: Object
    node: str | None


def is_gated(pod: Object) -> bool:
    """Whether the pod waits for its place (and not still for its admission)."""
    gates = {g.get("name") for g in pod["spec"].get("schedulingGates") or ()}
    return labels.GATE in gates and labels.ADMISSION_GATE not in gates


def is_live(pod: Object) -> bool:
    return not has_ended(pod)


def plan(
    assignment: PodSetAssignment,
    pods: list[Object],
    expected: int,
    sent: dict[str, str | None],
    request: Mapping[str, Any] | None = None,
) -> list[Release]:
    """Which pods to release now, and whereto: pure.

    :param pods: all pods of the pod set.
    :param expected: how many the job keeps running now; 0 for pods that are released as they come.
    :param sent: by pod uid, releases that the pods do not show yet.
    :param request: the pod set's ``topologyRequest``: which labels of pods tell their rank.
    """
    live = [p for p in pods if is_live(p)]
    released = [p for p in live if not _waits(p) or p["metadata"]["uid"] in sent]
    gated = [p for p in live if is_gated(p) and p["metadata"]["uid"] not in sent and not is_deleting(p)]
    if not gated:
        return []
    started = [p for p in released if not is_deleting(p)]
    if not started and len(gated) < min(expected, assignment.count):
        return []  # the gang is not whole yet
    slots = topology.ranks(assignment.nodes)

    def order(pod: Object) -> tuple[int, str, str]:
        index, meta = rank_of(pod, request or {}, assignment.count), pod["metadata"]
        return (index if index is not None else 1 << 30), meta.get("creationTimestamp", ""), meta["name"]

    if not slots:
        return [Release(p, None) for p in sorted(gated, key=order)]
    free: Counter[str | None] = Counter(slots)
    free.subtract(_node(p, sent) for p in released)
    out: list[Release] = []
    for pod in sorted(gated, key=order):
        rank = order(pod)[0]
        own = slots[rank] if rank < len(slots) else None
        node = own if own is not None and free[own] > 0 else next((n for n in slots if free[n] > 0), None)
        if node is None:
            continue  # every slot is taken: one becomes free when a pod ends
        free[node] -= 1
        out.append(Release(pod, node))
    return out


def _waits(pod: Object) -> bool:
    names = {g.get("name") for g in pod["spec"].get("schedulingGates") or ()}
    return bool(names & {labels.GATE, labels.ADMISSION_GATE})


def _node(pod: Object, sent: dict[str, str | None]) -> str | None:
    known = (pod["spec"].get("nodeSelector") or {}).get(labels.HOSTNAME)  # its node's name may be another
    return known or pod["spec"].get("nodeName") or sent.get(pod["metadata"]["uid"])


def rank_of(pod: Object, request: Mapping[str, Any], count: int) -> int | None:
    """The pod's place in the pod set, by the labels that the request names; None when it has no such label.

    Sources: kueue:pkg/controller/tas/topology_ungater.go.
    """
    index = _number(pod, request.get("podIndexLabel") or labels.COMPLETION_INDEX)
    if index is None:
        return None
    index -= _number(pod, labels.POD_INDEX_OFFSET) or 0
    groups = int(request.get("subGroupCount") or 0)
    if groups and (group_label := request.get("subGroupIndexLabel")):
        group, size = _number(pod, group_label), count // groups
        if group is None or index >= size or group >= groups:
            return None
        return group * size + index
    return index if index >= 0 else None


def _number(pod: Object, name: str) -> int | None:
    text = annotations_of(pod).get(name) or labels_of(pod).get(name) or ""
    return int(text) if text.isdigit() else None


class Ungater:
    """Plans and writes releases, workload by workload."""

    def __init__(self, client: Client, informers: Informers, env: Env, kinds: JobKinds | None = None) -> None:
        self._client = client
        self._informers = informers
        self._cluster = client.cluster
        self._kinds = kinds or JobKinds()
        self._world = World(client, informers, self._kinds)
        self._workloads = informers.get(r.WORKLOADS).store
        self._pods = informers.get(r.PODS, indexers=INDEXERS).store
        self._nodes = Nodes(informers, client.cluster)
        self._gate = asyncio.Semaphore(_PARALLEL_WRITES)
        self._sent: dict[ObjectKey, dict[str, str | None]] = {}

    async def reconcile(self, key: ObjectKey) -> Result | None:
        workload = self._workloads.get(key)
        if workload is None or not may_run(workload):
            self._sent.pop(key, None)
            return None
        pods = pods_of(self._pods, workload)
        sent = self._settled(key, pods)
        if not any(is_gated(p) for p in pods):
            return None
        found = job_of(workload, self._informers, self._cluster, self._kinds)
        if found is None and controller_of(workload) is not None:
            return None
        try:
            added = {info.name: info for info in infos(workload, self._world.flavor)}
        except (FlavorGone, CannotStart):
            return Result(requeue_after=_ASK_AGAIN)  # who starts the job says why
        releases, held_back = self._planned(workload, found, pods, sent)
        # All are awaited before the key may be worked on again: a release that fails late must find `sent` as it is.
        writes = (self._release(rel, added[labels_of(rel.pod)[labels.POD_SET]], sent) for rel in releases)
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        if not all(outcomes):
            return Result(requeue_after=_RETRY)
        return Result(requeue_after=_ASK_AGAIN) if held_back else None

    def _planned(
        self,
        workload: Object,
        found: tuple[Integration, Object] | None,
        pods: list[Object],
        sent: dict[str, str | None],
    ) -> tuple[list[Release], bool]:
        """Releases, and whether some are held back because their node is down: another one may replace it."""
        requests = {
            p.get("name", labels.DEFAULT_POD_SET): p.get("topologyRequest") for p in workload["spec"]["podSets"]
        }
        releases: list[Release] = []
        held_back = False
        for assignment in convert.assignments(workload):
            mine = [p for p in pods if labels_of(p).get(labels.POD_SET) == assignment.pod_set]
            expected = 0
            if found is not None and found[0].together:
                expected = integrations.expected_pods(*found) if found[0].gated else assignment.count
            for release in plan(assignment, mine, expected, sent, requests.get(assignment.pod_set)):
                if release.node is not None and self._nodes.is_down(release.node):
                    held_back = True
                    continue
                sent[release.pod["metadata"]["uid"]] = release.node
                releases.append(release)
        return releases, held_back

    def _settled(self, key: ObjectKey, pods: list[Object]) -> dict[str, str | None]:
        """Releases sent that the store does not show yet."""
        sent = self._sent.setdefault(key, {})
        waiting = {p["metadata"]["uid"] for p in pods if is_gated(p)}
        for uid in [uid for uid in sent if uid not in waiting]:
            del sent[uid]
        return sent

    async def _release(self, release: Release, info: PodSetInfo, sent: dict[str, str | None]) -> bool:
        """Write one release; False when the pod was changed or removed meanwhile."""
        pod = release.pod
        meta = pod["metadata"]
        async with self._gate:
            try:
                patch = release_patch(pod, info, release.node)
                await self._client.at(cluster_of(pod)).patch(r.PODS, meta["name"], patch, meta["namespace"])
            except Exception as error:
                sent.pop(meta["uid"], None)  # the store will tell whether it happened
                if not is_not_found(error) and not is_conflict(error):
                    raise
                return False
        return True


def release_patch(
    pod: Object, info: PodSetInfo, node: str | None, gates: tuple[str, ...] = (labels.GATE,)
) -> dict[str, Any]:
    """The merge patch that takes ``gates`` off a pod and puts in what its admission adds and it does not have yet."""
    spec, meta = pod["spec"], pod["metadata"]
    selector = info.node_selector if node is None else {**info.node_selector, labels.HOSTNAME: node}
    left = [g for g in spec.get("schedulingGates") or () if g.get("name") not in gates]
    change: dict[str, Any] = {"schedulingGates": left or None}
    have = spec.get("nodeSelector") or {}
    if wanted := {k: v for k, v in selector.items() if have.get(k) != v}:
        change["nodeSelector"] = wanted
    missing = [t for t in info.tolerations if t not in (spec.get("tolerations") or ())]
    if missing:
        change["tolerations"] = [*(spec.get("tolerations") or ()), *missing]
    notes: dict[str, Any] = {"resourceVersion": meta["resourceVersion"]}
    for name, values in (("labels", info.labels), ("annotations", info.annotations)):
        known = meta.get(name) or {}
        if new := {k: v for k, v in values.items() if known.get(k) != v}:
            notes[name] = new
    return {"metadata": notes, "spec": change}


def may_run(workload: Object) -> bool:
    """Whether pods of the workload may be released now."""
    return (
        convert.holds_quota(workload)
        and condition_is_true(workload, labels.ADMITTED)
        and convert.is_active(workload)
        and not transitions.is_evicted(workload)
        and not is_deleting(workload)
    )


def build(client: Client, informers: Informers, env: Env, kinds: JobKinds | None = None) -> Controller:
    """Woken by workloads, by queued batch Jobs and by pods."""
    ungater = Ungater(client, informers, env, kinds)
    controller = Controller("queue-ungate", ungater.reconcile, env, workers=16)
    workloads = informers.get(r.WORKLOADS)
    pods = informers.get(r.PODS)
    by_job: dict[str, ObjectKey] = {}

    def own(workload: Object) -> Iterable[ObjectKey]:
        key = key_of(workload, client.cluster)
        if (
            may_run(workload) or labels_of(workload).get(labels.JOB_UID, "") not in by_job
        ):  # of slices, the one that runs
            by_job[labels_of(workload).get(labels.JOB_UID, "")] = key
        return (key,)

    def of_pod(pod: Object) -> Iterable[ObjectKey]:
        if name := annotations_of(pod).get(labels.WORKLOAD):
            return (key_of(pod, client.cluster)._replace(name=name),)
        owner = controller_of(pod)
        key = by_job.get(str(owner["uid"])) if owner else None
        return (key,) if key is not None else ()

    def forget(old: Object | None, new: Object | None) -> None:
        if new is None and old is not None:
            by_job.pop(labels_of(old).get(labels.JOB_UID, ""), None)

    def of_job(job: Object) -> Iterable[ObjectKey]:
        key = by_job.get(job["metadata"]["uid"])
        return (key,) if key is not None else ()

    controller.watch(workloads, own)
    workloads.add_handler(forget)
    controller.watch(pods, of_pod, when=_pod_matters)
    controller.watch(informers.get(r.RESOURCE_FLAVORS), lambda _: ())
    controller.watch(informers.get(r.JOBS), of_job)
    return controller


def _pod_matters(old: Object | None, new: Object | None) -> bool:
    """A gated pod, or one that frees its slot."""
    if any(labels.POD_SET in labels_of(p) for p in (old, new) if p is not None):
        if new is None:
            return True
        return is_gated(new) or not is_live(new)
    return False

"""Keeps workloads of held pods in step with the pods, and lets pods go when theirs is admitted.

Keys are ``WORD/NAME`` in a namespace: ``pod/NAME``, ``group/NAME``, ``set/NAME`` (a StatefulSet),
``groups/NAME/NUMBER`` (a LeaderWorkerSet's group).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env, format_micro_time, format_time
from glebe.kube.controller import Result
from glebe.kube.errors import is_already_exists, is_conflict, is_not_found
from glebe.kube.informer import Informers
from glebe.kube.objects import (
    Object,
    ObjectKey,
    annotations_of,
    cluster_of,
    condition_is_true,
    get_condition,
    is_deleting,
    key_of,
    labels_of,
    owner_reference,
    set_condition,
)
from glebe.kube.pods import has_ended
from glebe.queueing import labels
from glebe.queueing.jobs import construct, onhold
from glebe.queueing.jobs.construct import Priority
from glebe.queueing.jobs.integrations import JobKinds, read
from glebe.queueing.jobs.jobs import FAILED_TO_START, Grace, no_grace
from glebe.queueing.jobs.podsetinfo import CannotStart, FlavorGone, PodSetInfo, infos
from glebe.queueing.jobs.ungate import may_run, release_patch
from glebe.queueing.life import transitions
from glebe.queueing.picture import convert
from glebe.queueing.picture.world import World
from glebe.queueing.pods import gathering
from glebe.queueing.pods.gathering import Hold
from glebe.queueing.pods.holding import is_held, role_of
from glebe.queueing.pods.lookup import Lookup
from glebe.queueing.round.notices import Notices

_RETRY = 5.0
_PARALLEL = 16


class PodReconciler:
    """One for all pods that are queued themselves."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        env: Env,
        notices: Notices,
        kinds: JobKinds,
        grace: Grace = no_grace,
    ) -> None:
        self._client = client
        self._env = env
        self._notices = notices
        self._grace = grace
        self._copied_labels = kinds.copied_labels
        self._world = World(client, informers, kinds)
        self._lookup = Lookup(client, informers, kinds)
        self._workloads = informers.get(r.WORKLOADS).store
        self._said: dict[ObjectKey, str] = {}

    async def reconcile(self, key: ObjectKey) -> Result | None:
        found = self._lookup.gather(key)
        if found is None:
            self._said.pop(key, None)
            return None
        name, hold = found
        workload = self._workloads.get(ObjectKey(key.cluster, key.namespace, name))
        if workload is not None and not self._is_ours(workload, hold):
            self._say(key, hold, f'a Workload "{name}" exists already and is not of these pods')
            return None
        # 1. all of them are being deleted, and no others come in their place
        if not hold.serving and all(map(is_deleting, hold.pods)) and not (hold.group and _awaits_others(workload)):
            return await self._let_all_go(hold, workload)
        # 2. the end
        if workload is not None and is_deleting(workload):
            await self._stop(hold, "WorkloadDeleted", "the workload was deleted", held_too=hold.group)
            return None
        if workload is not None and convert.is_finished(workload):
            await self._forget(hold.pods)
            return None
        if (end := gathering.ended(hold)) is not None:
            if workload is not None:
                await self._finish(workload, *end)
            await self._forget(hold.pods)
            return None
        # 3. one workload for all of them
        if workload is None:
            await self._compose(key, name, hold)
            return None
        return await self._accompany(key, hold, workload)

    async def _accompany(self, key: ObjectKey, hold: Hold, workload: Object) -> Result | None:
        now = self._env.clock.now()
        extra = gathering.surplus(hold, workload["spec"]["podSets"])
        if extra.stranger and not convert.holds_quota(workload):
            await self._recompose(key, hold, workload)
            return None
        if not hold.serving and await self._own(hold, workload):
            return None
        if hold.group and not hold.serving:
            await self._thin(hold, extra)
            if await self._say_absent(hold, workload, extra.absent, now):
                return None
        if hold.serving and await self._follow(hold, workload, now):
            return None
        if not convert.holds_quota(workload):
            await self._stop(hold, "NotAdmitted", "the workload is not admitted")
            return None
        if transitions.is_evicted(workload):
            return await self._evicted(hold, workload, now)
        if await self._report(hold, workload, now):
            return None
        if may_run(workload):
            return await self._start(hold, workload)
        return None

    def _is_ours(self, workload: Object, hold: Hold) -> bool:
        owned = {ref.get("uid") for ref in workload["metadata"].get("ownerReferences") or ()}
        if hold.group and not hold.serving:
            return annotations_of(workload).get(labels.GROUP_WORKLOAD) == "true"
        return bool(owned & {o["metadata"]["uid"] for o in hold.owners})

    # --- the workload

    async def _compose(self, key: ObjectKey, name: str, hold: Hold) -> None:
        if hold.idle:
            return
        if hold.why or not hold.sets:
            self._say(key, hold, hold.why or "there is nothing to ask for")
            return
        self._said.pop(key, None)
        try:
            await self._client.at(cluster_of(hold.about)).create(r.WORKLOADS, self._desired(name, hold))
        except Exception as error:
            if not is_already_exists(error):
                raise

    def _desired(self, name: str, hold: Hold) -> Object:
        about = hold.about
        spec: dict[str, Any] = {
            "podSets": [construct.pod_set(view) for view in hold.sets],
            "queueName": labels_of(about).get(labels.QUEUE_NAME) or labels.DEFAULT_QUEUE,
            "active": True,
        }
        find = self._world.finder(about)
        priority = construct.priority_of_pods(about, hold.sets, find)
        missing = construct.missing_class_of(about, find) or priority.missing
        if missing:
            priority = Priority(0, missing=missing)
        spec["priority"] = priority.value
        workload = construct.workload_of(about, name, spec, priority, self._copied_labels)
        meta = workload["metadata"]
        if hold.group and not hold.serving:
            meta["labels"].pop(labels.JOB_UID, None)
            meta["ownerReferences"] = [_reference(pod) for pod in hold.owners]
        notes = meta.setdefault("annotations", {})
        if hold.group:
            notes[labels.GROUP_WORKLOAD] = "true"
        if hold.serving:
            notes[labels.OWNER_KIND] = f"{about['apiVersion']}, Kind={about['kind']}"
            notes[labels.OWNER_NAME] = about["metadata"]["name"]
        if hold.index:
            notes[labels.COMPONENT_INDEX] = hold.index
        notes[labels.SUBMITTED_AT] = format_micro_time(self._env.clock.now())
        return workload

    async def _recompose(self, key: ObjectKey, hold: Hold, workload: Object) -> None:
        """Roles came that the waiting workload does not know."""
        if hold.why or not hold.sets:
            self._say(key, hold, hold.why)
            return
        sets = self._desired(workload["metadata"]["name"], hold)["spec"]["podSets"]
        if sets != workload["spec"]["podSets"]:
            await self._client.update(r.WORKLOADS, {**workload, "spec": {**workload["spec"], "podSets": sets}})

    async def _own(self, hold: Hold, workload: Object) -> bool:
        """The workload belongs to every pod of the group; whether that had to be written."""
        meta = workload["metadata"]
        known = {ref.get("uid") for ref in meta.get("ownerReferences") or ()}
        new = [_reference(o) for o in hold.owners if o["metadata"]["uid"] not in known and not is_deleting(o)]
        if not hold.group or not new:
            return False
        owners = [*(meta.get("ownerReferences") or ()), *new]
        await self._client.update(r.WORKLOADS, {**workload, "metadata": {**meta, "ownerReferences": owners}})
        return True

    async def _follow(self, hold: Hold, workload: Object, now: float) -> bool:
        """A serving workload follows its owner: another queue, scaled to nothing and back; whether it was written."""
        if hold.idle:
            return await self._put_on_hold(hold, workload, now)
        if convert.holds_quota(workload):
            return False
        if convert.is_on_hold(workload):  # it joins the line anew
            waiting = onhold.resume(workload, "scaled up from zero", now)
            workload = onhold.rejoined(await self._client.update_status(r.WORKLOADS, waiting), now)
        elif hold.why:
            return False
        desired = self._desired(workload["metadata"]["name"], hold)["spec"]
        spec = {**workload["spec"], **{name: desired[name] for name in ("podSets", "queueName")}}
        known = self._workloads.get(key_of(workload, self._client.cluster))
        if known is not None and spec == known["spec"] and annotations_of(known) == annotations_of(workload):
            return False
        await self._client.update(r.WORKLOADS, {**workload, "spec": spec})
        return True

    async def _put_on_hold(self, hold: Hold, workload: Object, now: float) -> bool:
        if convert.is_on_hold(workload) or gathering.is_active(hold, now):
            return False
        await self._client.update_status(r.WORKLOADS, onhold.put(workload, "scaled to zero", now))
        return True

    async def _finish(self, workload: Object, reason: str, message: str) -> None:
        done = transitions.finish(workload, reason, message, self._env.clock.now())
        await self._client.update_status(r.WORKLOADS, done)
        self._notices.say(workload, "Normal", "Finished", message)

    async def _report(self, hold: Hold, workload: Object, now: float) -> bool:
        """What the pods tell: succeeded for good, ready; whether that had to be written."""
        done = gathering.done(hold)
        if done and done != read(workload, ("status", "reclaimablePods"), []):
            await self._client.update_status(r.WORKLOADS, transitions.with_status(workload, now, reclaimablePods=done))
            return True
        if not condition_is_true(workload, labels.ADMITTED):
            return False
        ready = gathering.all_ready(hold)
        known = get_condition(workload, labels.PODS_READY)
        if known is None or (known["status"] == "True") != ready:
            await self._client.update_status(r.WORKLOADS, transitions.pods_ready(workload, ready, now))
            return True
        return False

    async def _say_absent(self, hold: Hold, workload: Object, absent: int, now: float) -> bool:
        """The condition WaitingForReplacementPods; whether it had to be written."""
        known = get_condition(workload, labels.WAITING_FOR_REPLACEMENT)
        if known is None and not absent:
            return False
        if not absent:
            wanted = ("False", labels.PODS_READY, "no pods need replacement")
        elif (evicted := get_condition(workload, labels.EVICTED) or {}).get("status") == "True":
            wanted = ("True", evicted["reason"], evicted["message"])
        else:
            wanted = ("True", "PodsFailed", "failed pods need a replacement")
        have = (known or {}).get("status"), (known or {}).get("reason"), (known or {}).get("message")
        if have == wanted or (have[0] == wanted[0] == "True" and wanted[1] == "PodsFailed"):
            return False
        kind = labels.WAITING_FOR_REPLACEMENT
        told = transitions.with_status(workload, now, (kind, wanted[0] == "True", wanted[1], wanted[2]))
        await self._client.update_status(r.WORKLOADS, told)
        return True

    # --- the pods

    async def _start(self, hold: Hold, workload: Object) -> Result | None:
        held = [p for p in hold.pods if is_held(p) and not is_deleting(p)]
        if not held:
            return None
        try:
            added = {info.name: info for info in infos(workload, self._world.flavor)}
        except FlavorGone:
            return Result(requeue_after=_RETRY)
        except CannotStart as why:
            await self._finish(workload, FAILED_TO_START, str(why))
            return None
        gate = asyncio.Semaphore(_PARALLEL)

        async def release(pod: Object) -> None:
            info = added.get(hold.roles[pod["metadata"]["uid"]])
            async with gate:
                if info is not None:
                    await self._release(pod, info)

        await asyncio.gather(*(release(pod) for pod in held))
        return None

    async def _release(self, pod: Object, info: PodSetInfo) -> None:
        """Off with the gate of admission; that of topology stays where a place is assigned."""
        placed = any(g["name"] == labels.GATE for g in info.gates)
        gates = (labels.ADMISSION_GATE,) if placed else (labels.ADMISSION_GATE, labels.GATE)
        meta = pod["metadata"]
        try:
            patch = release_patch(pod, info, None, gates)
            if labels.ROLE_HASH not in annotations_of(pod):  # what is added now must not change its role
                patch["metadata"].setdefault("annotations", {})[labels.ROLE_HASH] = role_of(pod)
            await self._client.at(cluster_of(pod)).patch(r.PODS, meta["name"], patch, meta["namespace"])
        except Exception as error:
            if not is_not_found(error) and not is_conflict(error):
                raise  # a conflict: the newer pod comes back here

    async def _evicted(self, hold: Hold, workload: Object, now: float) -> Result | None:
        if (left := self._grace(workload, hold.about, now)) > 0:
            return Result(requeue_after=left)
        why = (get_condition(workload, labels.EVICTED) or {}).get("message", "")
        stopped = await self._stop(hold, "WorkloadEvicted", why)
        if stopped:
            return None
        if gathering.is_active(hold, now):
            return Result(requeue_after=_RETRY)  # one that never goes counts until its grace is over
        await self._client.update_status(r.WORKLOADS, transitions.release(workload, now))
        return None

    async def _stop(self, hold: Hold, reason: str, message: str, *, held_too: bool = False) -> int:
        """Delete what runs; how many were."""
        running = [p for p in hold.pods if not is_deleting(p) and not has_ended(p) and (held_too or not is_held(p))]
        await asyncio.gather(*(self._delete(pod, reason, message) for pod in running))
        if held_too:
            await self._forget(hold.pods)
        return len(running)

    async def _delete(self, pod: Object, reason: str, message: str) -> None:
        meta = pod["metadata"]
        client = self._client.at(cluster_of(pod))
        now = format_time(self._env.clock.now())
        status = dict(pod.get("status") or {})
        status["conditions"] = set_condition(
            list(status.get("conditions") or []), labels.TERMINATION_TARGET, "True", reason, message, now
        )
        try:
            await client.update_status(r.PODS, {**pod, "status": status})
            await client.delete(r.PODS, meta["name"], meta["namespace"], uid=meta["uid"])
        except Exception as error:
            if not is_not_found(error):
                raise

    async def _thin(self, hold: Hold, extra: gathering.Surplus) -> None:
        """Pods that are too many go; those that were replaced need not be kept any more."""
        for pod in extra.excess:
            self._notices.say_of(pod, "Normal", "ExcessPodDeleted", "the pod's group has all of its pods")
            await self._forget((pod,))
            await self._delete_now(pod)
        await self._forget(extra.replaced)

    async def _delete_now(self, pod: Object) -> None:
        meta = pod["metadata"]
        try:
            await self._client.at(cluster_of(pod)).delete(r.PODS, meta["name"], meta["namespace"], uid=meta["uid"])
        except Exception as error:
            if not is_not_found(error):
                raise

    async def _let_all_go(self, hold: Hold, workload: Object | None) -> Result | None:
        """All were deleted, and not by an eviction: when they have ended, nothing of them stays."""
        if gathering.is_active(hold, self._env.clock.now()):
            return Result(requeue_after=_RETRY)
        if workload is not None and not is_deleting(workload) and not convert.is_finished(workload):
            meta = workload["metadata"]
            try:
                client = self._client.at(cluster_of(workload))
                await client.delete(r.WORKLOADS, meta["name"], meta["namespace"], uid=meta["uid"])
            except Exception as error:
                if not is_not_found(error):
                    raise
        await self._forget(hold.pods)
        return None

    async def _forget(self, pods: Iterable[Object]) -> None:
        """Take the queue's finalizer off."""
        kept = [p for p in pods if labels.MANAGED_FINALIZER in (p["metadata"].get("finalizers") or ())]
        await asyncio.gather(*(self._unpin(pod) for pod in kept))

    async def _unpin(self, pod: Object) -> None:
        meta = pod["metadata"]
        left = [f for f in meta["finalizers"] if f != labels.MANAGED_FINALIZER]
        patch = {"metadata": {"finalizers": left or None, "uid": meta["uid"]}}
        try:
            await self._client.at(cluster_of(pod)).patch(r.PODS, meta["name"], patch, meta["namespace"])
        except Exception as error:
            if not is_not_found(error) and not is_conflict(error):
                raise

    def _say(self, key: ObjectKey, hold: Hold, why: str) -> None:
        """Once per cause."""
        if self._said.get(key) != why:
            self._said[key] = why
            self._notices.say_of(hold.about, "Warning", "ErrWorkloadCompose", f"{why}: nothing is asked for yet")


def _reference(obj: Object) -> dict[str, Any]:
    reference = owner_reference(obj, block_deletion=False)
    del reference["controller"], reference["blockOwnerDeletion"]
    return reference


def _awaits_others(workload: Object | None) -> bool:
    """Whether pods are gone because the workload was stopped: others may come in their place."""
    return workload is not None and not convert.is_finished(workload) and transitions.is_evicted(workload)

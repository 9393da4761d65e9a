"""Time to save one's work before a preemption stops it: how long, how it is told, how it ends early.

An evicted workload is stopped at once, as in Kueue, unless its job asks for a grace (annotation
``glebe.dev/checkpoint-grace``) or the configuration gives one. Then its job, and each of its running pods, gets the
annotation ``glebe.dev/stop-at`` with the time at which it will be stopped; a pod reads its own by a downward API
volume. Whoever is done earlier copies that value into ``glebe.dev/checkpoint-saved`` of the job.

Nothing is remembered: the time follows from the condition ``Evicted`` and the annotation, so every controller that asks
gets the same answer, after a crash, too.
"""

from __future__ import annotations

from typing import Any

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time, parse_time
from glebe.kube.controller import Controller, Result
from glebe.kube.duration import format_duration, parse_duration
from glebe.kube.errors import is_conflict, is_not_found
from glebe.kube.informer import Informers
from glebe.kube.objects import (
    Object,
    ObjectKey,
    annotations_of,
    condition_is_true,
    get_condition,
    is_deleting,
    labels_of,
)
from glebe.kube.pods import has_ended
from glebe.kube.resources import Resource
from glebe.queueing import convert, evictions, labels, transitions
from glebe.queueing.configuration import DEFAULT, Configuration
from glebe.queueing.jobs import job_of
from glebe.queueing.notices import Notices
from glebe.queueing.ungate import POD_INDEX, is_gated, pod_owner_index

#: Evictions that may wait; any other has a cause that does not.
GRACEFUL = (
    evictions.PREEMPTED,
    evictions.FLAVOR_MIGRATION,
    evictions.CLUSTER_QUEUE_STOPPED,
    evictions.LOCAL_QUEUE_STOPPED,
)
REASON = "CheckpointRequested"


def seconds(workload: Object, config: Configuration = DEFAULT) -> float:
    """How long the workload may go on once it is evicted: what it asks for, within the configuration's bounds."""
    given = config.glebe.checkpoint_grace
    most = parse_duration(given.maximum)
    text = annotations_of(workload).get(labels.CHECKPOINT_GRACE)
    try:
        wanted = parse_duration(text) if text else parse_duration(given.default)
    except ValueError:
        wanted = parse_duration(given.default)
    return max(0.0, min(wanted, most))


def stop_at(workload: Object, config: Configuration = DEFAULT) -> float | None:
    """When an evicted workload is to be stopped; ``None``: at once. One whose pods never ran has nothing to save."""
    condition = get_condition(workload, labels.EVICTED)
    if condition is None or condition["status"] != "True" or condition["reason"] not in GRACEFUL:
        return None
    if not condition_is_true(workload, labels.PODS_READY):
        return None
    grace = seconds(workload, config)
    return parse_time(condition["lastTransitionTime"]) + grace if grace else None


def left(workload: Object, job: Object, config: Configuration, now: float) -> float:
    """Seconds until the job of an evicted workload is to be stopped; 0: now."""
    end = stop_at(workload, config)
    if end is None or end <= now:
        return 0.0
    saved = annotations_of(job).get(labels.CHECKPOINT_SAVED)
    return 0.0 if saved == format_time(end) else end - now


class CheckpointNotice:
    """Tells jobs and pods when they will be stopped."""

    def __init__(
        self, client: Client, informers: Informers, env: Env, notices: Notices, config: Configuration = DEFAULT
    ) -> None:
        self._client = client
        self._informers = informers
        self._env = env
        self._notices = notices
        self._config = config
        self._workloads = informers.get(r.WORKLOADS).store
        self._pods = informers.get(r.PODS, indexers={POD_INDEX: pod_owner_index}).store

    async def reconcile(self, key: ObjectKey) -> Result | None:
        workload = self._workloads.get(key)
        found = job_of(workload, self._informers, self._client.cluster) if workload is not None else None
        if workload is None or found is None:
            return None
        integration, job = found
        end = stop_at(workload, self._config) if convert.holds_quota(workload) else None
        if end is None or end <= self._env.clock.now():
            if labels.STOP_AT in annotations_of(job) and not transitions.is_evicted(workload):
                await self._note(integration.resource, job, None)
            return None
        text = format_time(end)
        uid = job["metadata"]["uid"]
        for pod in self._pods.by_index(POD_INDEX, uid):
            told = annotations_of(pod).get(labels.STOP_AT) == text
            if not told and not has_ended(pod) and not is_gated(pod) and not is_deleting(pod):
                await self._note(r.PODS, pod, text)
        if annotations_of(job).get(labels.STOP_AT) != text and await self._note(integration.resource, job, text):
            grace = format_duration(seconds(workload, self._config))
            why = (get_condition(workload, labels.EVICTED) or {}).get("message", "")
            self._notices.say(workload, "Warning", REASON, f"Save your work: it is stopped at {text} ({grace}). {why}")
        return None

    async def _note(self, resource: Resource, obj: Object, value: str | None) -> bool:
        """Set the annotation, or remove it and its answer."""
        notes: dict[str, Any] = {labels.STOP_AT: value}
        if value is None:
            notes[labels.CHECKPOINT_SAVED] = None
        meta = obj["metadata"]
        patch = {"metadata": {"annotations": notes, "uid": meta["uid"]}}
        try:
            await self._client.patch(resource, meta["name"], patch, meta["namespace"])
        except Exception as error:
            if is_not_found(error) or is_conflict(error):  # gone, or another one of its name
                return False
            raise
        return True


def build(
    client: Client, informers: Informers, env: Env, notices: Notices, config: Configuration = DEFAULT
) -> Controller:
    """Woken by workloads that are evicted, or admitted again."""
    notice = CheckpointNotice(client, informers, env, notices, config)
    controller = Controller("queue-checkpoint", notice.reconcile, env, workers=2)
    controller.watch(informers.get(r.WORKLOADS), when=_matters)
    return controller


def _matters(old: Object | None, new: Object | None) -> bool:
    if new is None or labels.JOB_UID not in labels_of(new):
        return False
    return old is None or transitions.is_evicted(old) != transitions.is_evicted(new)

"""Tells jobs and their pods when they will be stopped, while there is still time to save their work.

The job of an evicted workload and each of its running pods get the annotation ``glebe.dev/stop-at`` with that time; a
pod reads its own by a downward API volume. Whoever is done earlier copies the value into ``glebe.dev/checkpoint-saved``
of the job.
"""

from __future__ import annotations

from typing import Any

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time
from glebe.kube.controller import Controller, Result
from glebe.kube.duration import format_duration
from glebe.kube.errors import is_conflict, is_not_found
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, annotations_of, cluster_of, get_condition, is_deleting, labels_of
from glebe.kube.pods import has_ended
from glebe.kube.resources import Resource
from glebe.queueing import labels
from glebe.queueing.configuration import DEFAULT, Configuration
from glebe.queueing.jobs.integrations import JobKind, JobKinds
from glebe.queueing.jobs.jobs import job_of
from glebe.queueing.jobs.ungate import INDEXERS, is_gated, pods_of
from glebe.queueing.life import transitions
from glebe.queueing.life.grace import seconds, stop_at
from glebe.queueing.picture import convert
from glebe.queueing.round.notices import Notices

REASON = "CheckpointRequested"


class CheckpointNotice:
    """Tells jobs and pods when they will be stopped."""

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
        self._informers = informers
        self._env = env
        self._notices = notices
        self._config = config
        self._kinds = kinds
        self._workloads = informers.get(r.WORKLOADS).store
        self._pods = informers.get(r.PODS, indexers=INDEXERS).store

    async def reconcile(self, key: ObjectKey) -> Result | None:
        workload = self._workloads.get(key)
        found = self._job_of(workload)
        if workload is None or found is None:
            return None
        integration, job = found
        end = stop_at(workload, self._config) if convert.holds_quota(workload) else None
        if end is None or end <= self._env.clock.now():
            if labels.STOP_AT in annotations_of(job) and not transitions.is_evicted(workload):
                await self._note(integration.resource, job, None)
            return None
        text = format_time(end)
        for pod in pods_of(self._pods, workload):
            told = annotations_of(pod).get(labels.STOP_AT) == text
            if not told and not has_ended(pod) and not is_gated(pod) and not is_deleting(pod):
                await self._note(r.PODS, pod, text)
        if annotations_of(job).get(labels.STOP_AT) != text and await self._note(integration.resource, job, text):
            grace = format_duration(seconds(workload, self._config))
            why = (get_condition(workload, labels.EVICTED) or {}).get("message", "")
            self._notices.say(workload, "Warning", REASON, f"Save your work: it is stopped at {text} ({grace}). {why}")
        return None

    def _job_of(self, workload: Object | None) -> tuple[JobKind, Object] | None:
        if workload is None:
            return None
        return job_of(workload, self._informers, self._client.cluster, self._kinds)

    async def _note(self, resource: Resource, obj: Object, value: str | None) -> bool:
        """Set the annotation, or remove it and its answer."""
        notes: dict[str, Any] = {labels.STOP_AT: value}
        if value is None:
            notes[labels.CHECKPOINT_SAVED] = None
        meta = obj["metadata"]
        patch = {"metadata": {"annotations": notes, "uid": meta["uid"]}}
        try:
            await self._client.at(cluster_of(obj)).patch(resource, meta["name"], patch, meta["namespace"])
        except Exception as error:
            if is_not_found(error) or is_conflict(error):  # gone, or another one of its name
                return False
            raise
        return True


def build(
    client: Client,
    informers: Informers,
    env: Env,
    notices: Notices,
    config: Configuration = DEFAULT,
    kinds: JobKinds | None = None,
) -> Controller:
    """Woken by workloads that are evicted, or admitted again."""
    notice = CheckpointNotice(client, informers, env, notices, config, kinds)
    controller = Controller("queue-checkpoint", notice.reconcile, env, workers=2)
    controller.watch(informers.get(r.WORKLOADS), when=_matters)
    return controller


def _matters(old: Object | None, new: Object | None) -> bool:
    if new is None or labels.JOB_UID not in labels_of(new):
        return False
    return old is None or transitions.is_evicted(old) != transitions.is_evicted(new)

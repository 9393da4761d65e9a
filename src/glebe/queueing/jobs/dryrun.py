"""What would happen to a job if it were submitted now: the same core, the same snapshot, nothing written."""

from __future__ import annotations

import asyncio
import copy
from dataclasses import dataclass

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env, format_micro_time, format_time
from glebe.kube.errors import bad_request, invalid
from glebe.kube.objects import Object, ObjectKey
from glebe.queueing import labels
from glebe.queueing.gatekeeping.jobadmission import check, suspend_and_gate
from glebe.queueing.jobkinds.shapes import Unreadable
from glebe.queueing.jobs import integrations
from glebe.queueing.jobs.construct import priority_of, workload_for
from glebe.queueing.picture.snapshot import WATCHED, SnapshotBuilder
from glebe.scheduling import decide, forecast
from glebe.scheduling.model import Decision, Forecast, Snapshot

_CLASSES = (r.WORKLOAD_PRIORITY_CLASSES, r.PRIORITY_CLASSES)


@dataclass(frozen=True, slots=True)
class DryRunAnswer:
    """The verdict on the job and, when it would not start at once, its forecast."""

    decision: Decision
    forecast: Forecast | None
    queue: str
    cluster_queue: str


async def evaluate(client: Client, env: Env, job: Object) -> DryRunAnswer:
    """Ask what would happen to ``job``.

    :raises ApiError: when the API cannot be read, or when the job would be refused.
    """
    lists = await asyncio.gather(*(client.list_all(resource) for resource in (*WATCHED, *_CLASSES)))
    builder = SnapshotBuilder(client.cluster)
    for resource, found in zip(WATCHED, lists, strict=False):
        for item in found.items:
            builder.change(resource, None, item)
    classes = {
        (resource, item["metadata"]["name"]): item
        for resource, found in zip((*WATCHED, *_CLASSES), lists, strict=True)
        if resource in (r.WORKLOAD_CLASSES, *_CLASSES)
        for item in found.items
    }
    return answer(builder, job, env.clock.now(), lambda resource, name, _namespace="": classes.get((resource, name)))


def answer(builder: SnapshotBuilder, job: Object, now: float, find: integrations.Find) -> DryRunAnswer:
    """The same from a snapshot that is already there: adds the job to it, decides, and takes it out again."""
    workload = hypothetical(job, now, find)
    builder.change(r.WORKLOADS, None, workload)
    key = ObjectKey(builder.cluster, workload["metadata"]["namespace"], workload["metadata"]["name"])
    try:
        snapshot = builder.snapshot()
        barred = builder.barred().get(key)
        queue = workload["spec"]["queueName"]
        if barred is not None:
            return DryRunAnswer(barred, None, queue, "")
        mine = next((p for p in snapshot.pending if p.key == str(key)), None)
        target = mine.queue if mine is not None else ""
        decision, predicted = dry_run(snapshot, str(key), now)
        return DryRunAnswer(decision, predicted, queue, target)
    finally:
        builder.change(r.WORKLOADS, workload, None)


def hypothetical(job: Object, now: float, find: integrations.Find) -> Object:
    """The workload that ``job`` would get.

    :raises ApiError: as the API would, were the job submitted.
    """
    integration = integrations.for_kind(job.get("apiVersion", ""), job.get("kind", ""))
    if integration is None or not integration.suspend:
        raise bad_request(f"{job.get('apiVersion')} {job.get('kind')} is not a kind of job that queues know")
    job = copy.deepcopy(job)
    meta = job["metadata"]
    meta.setdefault("namespace", "default")
    meta.setdefault("name", "dry-run")
    meta.setdefault("uid", "dry-run")
    if not integrations.is_queued(job):
        meta.setdefault("labels", {})[labels.QUEUE_NAME] = labels.DEFAULT_QUEUE
    if causes := check(integration, job, find):
        raise invalid(integration.resource.group, integration.resource.kind, meta["name"], causes)
    suspend_and_gate(integration, job)
    try:
        workload = workload_for(integration, job, priority_of(integration, job, find), find)
    except Unreadable as why:
        raise bad_request(f"the job's pods cannot be told: {why}") from None
    workload["metadata"].update(creationTimestamp=format_time(now), uid="dry-run", resourceVersion="0")
    workload["metadata"].setdefault("annotations", {})[labels.SUBMITTED_AT] = format_micro_time(now)
    return workload


def dry_run(snapshot: Snapshot, key: str, now: float) -> tuple[Decision, Forecast | None]:
    """The core's decision on the pending workload ``key``, and its forecast unless it starts now."""
    decision = next(d for d in decide(snapshot, now) if d.key == key)
    if decision.assignments:
        return decision, None
    return decision, next((f for f in forecast(snapshot, now) if f.key == key), None)

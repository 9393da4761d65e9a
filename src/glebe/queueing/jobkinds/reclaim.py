"""Pods that are done and will not come again, while the rest of their job goes on: their quota may go. Pure.

Sources: kueue:pkg/controller/jobs/job/job_controller.go, jobset_controller.go, trainjob_controller.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from glebe.kube.objects import Object
from glebe.kube.resources import JOBS
from glebe.queueing.jobkinds.model import JobKind, PodSetView
from glebe.queueing.jobkinds.paths import number, read

_STATUS = {
    ("jobset.x-k8s.io", "JobSet"): ("status", "replicatedJobsStatus"),
    ("trainer.kubeflow.org", "TrainJob"): ("status", "jobsStatus"),
}


def reclaimable(kind: JobKind, job: Object, views: Sequence[PodSetView]) -> list[dict[str, Any]]:
    """``status.reclaimablePods`` of the job's workload."""
    address = kind.resource.group, kind.resource.kind
    if address == (JOBS.group, JOBS.kind):
        done = _of_job(job)
        return [{"name": views[0].name, "count": done}] if done else []
    items = read(job, _STATUS.get(address, ("status", "-")), ())
    succeeded = {item.get("name"): number(item.get("succeeded")) or 0 for item in items}
    out = []
    for view in views:
        groups, done = view.groups or 0, succeeded.get(view.name, 0)
        if 0 < done <= groups:
            out.append({"name": view.name, "count": done * (view.count // groups)})
    return out


def _of_job(job: Object) -> int:
    spec, status = job.get("spec") or {}, job.get("status") or {}
    parallelism = number(spec.get("parallelism"))
    parallelism = 1 if parallelism is None else parallelism
    completions = number(spec.get("completions"))
    completions = parallelism if completions is None else completions
    ended = number(status.get("succeeded")) or 0
    if spec.get("completionMode") == "Indexed":
        spans = (*_spans(status.get("completedIndexes")), *_spans(status.get("failedIndexes")))
        ended = len({n for first, last in spans for n in range(first, min(last, completions - 1) + 1)})
    if parallelism <= 1 or not ended:
        return 0
    return max(0, parallelism - max(completions - ended, 0))


def _spans(text: Any) -> Iterator[tuple[int, int]]:
    """``0-3,7`` as pairs of first and last; what cannot be read is left out."""
    for part in text.split(",") if isinstance(text, str) else ():
        first, _, last = part.partition("-")
        if first.isdecimal() and (not last or last.isdecimal()):
            yield int(first), int(last or first)

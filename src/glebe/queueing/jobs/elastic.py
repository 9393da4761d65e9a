"""Jobs whose number of pods changes while they run: one Workload after the other, each a *slice* (KEP-77). Pure.

More pods: a new slice asks for the whole new size and names the one that it replaces; the job runs on with its old size
until the new slice is admitted, which ends the old one in the same step. Fewer pods: the slice shrinks where it stands.
At any time there is at most one slice that holds quota and one that waits to replace it; whatever else is there, after
a crash or a race, is finished.

Source: kueue:pkg/workloadslicing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from glebe.kube.objects import Object, annotations_of
from glebe.queueing import labels
from glebe.queueing.jobs.integrations import JobKind
from glebe.queueing.life import transitions
from glebe.queueing.picture import convert

REPLACED = "WorkloadSliceReplaced"
OUT_OF_SYNC = "OutOfSync"


def is_elastic(kind: JobKind, job: Object) -> bool:
    return kind.elastic and annotations_of(job).get(labels.ELASTIC_JOB) == "true"


@dataclass(frozen=True, slots=True)
class Slices:
    """The slices of a job that are not finished: who holds quota, who follows, what is too many, and why."""

    holder: Object | None
    follower: Object | None  # waits: to replace the holder, or because nobody holds quota
    surplus: tuple[tuple[Object, str, str], ...] = ()

    @property
    def current(self) -> Object | None:
        """The one whose size should be the job's."""
        return self.follower or self.holder


def sorted_out(owned: Iterable[Object]) -> Slices:
    """What each of a job's workloads is."""
    live = sorted(
        (w for w in owned if not convert.is_finished(w)),
        key=lambda w: (w["metadata"].get("creationTimestamp", ""), str(w["metadata"].get("uid", ""))),
    )
    replacing = {replaced: w for w in live if (replaced := _replaced(w)) and not transitions.is_evicted(w)}
    holding = [w for w in live if convert.holds_quota(w)]
    leaving = [w for w in holding if transitions.is_evicted(w)]
    heads = [w for w in holding if not transitions.is_evicted(w) and not _is_replaced(w, replacing)]
    holder = heads[-1] if heads else (leaving[-1] if leaving else None)
    waiting = [w for w in live if not convert.holds_quota(w)]
    if holder is not None and not transitions.is_evicted(holder):
        follower = replacing.get(_name(holder))
        follower = follower if follower is not None and not convert.holds_quota(follower) else None
    else:
        follower = waiting[-1] if waiting else None
    surplus = []
    for workload in live:
        if workload is holder or workload is follower:
            continue
        if _name(workload) in replacing:
            surplus.append((workload, REPLACED, "Replaced to accommodate a new workload slice"))
        else:
            surplus.append((workload, OUT_OF_SYNC, "The workload slice is out of sync with its parent job"))
    return Slices(holder, follower, tuple(surplus))


def _is_replaced(workload: Object, replacing: Mapping[str, Object]) -> bool:
    by = replacing.get(_name(workload))
    return by is not None and convert.holds_quota(by)


def _name(workload: Object) -> str:
    return str(workload["metadata"]["name"])


def _replaced(workload: Object) -> str:
    return annotations_of(workload).get(labels.REPLACEMENT_FOR, "").rpartition("/")[2]


def counts(workload: Object) -> dict[str, int]:
    return {p.get("name", labels.DEFAULT_POD_SET): int(p.get("count", 1)) for p in workload["spec"]["podSets"]}


def is_compatible(workload: Object, desired: Object) -> bool:
    """Whether the job differs from its slice in nothing but numbers of pods."""
    if (
        set(counts(workload)) != set(counts(desired))
        or workload["spec"].get("queueName") != desired["spec"]["queueName"]
    ):
        return False
    pairs = zip(workload["spec"]["podSets"], desired["spec"]["podSets"], strict=True)
    return all(_containers(old) == _containers(new) for old, new in pairs)


def _containers(pod_set: Mapping[str, Any]) -> list[Any]:
    spec = (pod_set.get("template") or {}).get("spec") or {}
    return [spec.get(kind) or [] for kind in ("initContainers", "containers")]


def grows(workload: Object, desired: Object) -> bool:
    """Whether a set has more pods than before."""
    have = counts(workload)
    return any(count > have.get(name, 0) for name, count in counts(desired).items())


def resized(workload: Object, desired: Object) -> Object:
    """The slice with the numbers of the job."""
    want = counts(desired)
    sets = [{**p, "count": want[p.get("name", labels.DEFAULT_POD_SET)]} for p in workload["spec"]["podSets"]]
    return {**workload, "spec": {**workload["spec"], "podSets": sets}}


def replacement(holder: Object, desired: Object, job: Object) -> Object:
    """The slice that is to replace ``holder``; its name differs with the job's generation."""
    meta = desired["metadata"]
    seed = f"{meta['name']}/{job['metadata'].get('generation', 0)}/{_name(holder)}"
    suffix = hashlib.sha1(seed.encode(), usedforsecurity=False).hexdigest()[:5]
    first = annotations_of(holder).get(labels.SLICE_NAME) or _name(holder)
    notes = {
        **annotations_of(desired),
        labels.ELASTIC_JOB: "true",
        labels.REPLACEMENT_FOR: f"{meta['namespace']}/{_name(holder)}",
        labels.SLICE_NAME: first,
    }
    return {**desired, "metadata": {**meta, "name": f"{meta['name'][:247]}-{suffix}", "annotations": notes}}


def first(desired: Object) -> Object:
    """The slice with which an elastic job begins."""
    meta = desired["metadata"]
    return {**desired, "metadata": {**meta, "annotations": {**annotations_of(desired), labels.ELASTIC_JOB: "true"}}}

"""How workloads are found by the job that they stand for and by the class that they wait for; whether both agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from glebe.kube import resources as r
from glebe.kube.controller import Controller
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, annotations_of, cluster_of, controller_of, is_deleting, labels_of
from glebe.queueing import labels
from glebe.queueing.jobs.construct import class_text
from glebe.queueing.picture import convert
from glebe.queueing.picture.world import CLASSES

OWNER_INDEX = "queueing/owner"
MISSING_INDEX = "queueing/missing-class"


def owner_index(workload: Object) -> Iterable[str]:
    owner = controller_of(workload)
    if not owner:
        return ()
    return (f"{cluster_of(workload)}/{owner['kind']}/{workload['metadata']['namespace']}/{owner['name']}",)


def missing_index(workload: Object) -> Iterable[str]:
    """The class that it waits for."""
    name = annotations_of(workload).get(labels.MISSING_CLASS)
    return (name,) if name else ()


def known_classes(workload: Object) -> set[str]:
    """The classes that a workload names, if they were there when it began to."""
    if labels.MISSING_CLASS in annotations_of(workload):
        return set()
    ref, name = workload["spec"].get("priorityClassRef"), labels_of(workload).get(labels.CLASS)
    known = {class_text(ref["kind"], ref["name"])} if ref else set()
    return known | ({class_text(r.WORKLOAD_CLASSES.kind, name)} if name else set())


def watch_classes(
    controller: Controller, informers: Informers, to_keys: Callable[[Object], Iterable[ObjectKey]]
) -> None:
    """Wake those who wait for a class when it appears; also: classes are in sync before the first workload is made."""
    workloads = informers.get(r.WORKLOADS, indexers={MISSING_INDEX: missing_index}).store
    for resource in CLASSES:

        def waiting_for(found: Object, kind: str = resource.kind) -> Iterable[ObjectKey]:
            for workload in workloads.by_index(MISSING_INDEX, class_text(kind, found["metadata"]["name"])):
                yield from to_keys(workload)

        controller.watch(informers.get(resource), waiting_for)


#: All of a job and its workload that decides whether one says what the other says.
Agreement = tuple[Any, ...]


def agreement(job: Object, workload: Object) -> Agreement | None:
    """None while it depends on more than the two: on a class that is missing."""
    mine, its = job["metadata"], workload["metadata"]
    notes = its.get("annotations") or {}
    if is_deleting(workload) or convert.is_finished(workload) or labels.MISSING_CLASS in notes:
        return None
    if "generation" not in mine or "generation" not in its:
        return None
    own = mine["uid"], mine["generation"], mine.get("labels"), mine.get("annotations")
    return *own, its["uid"], its["generation"], notes, convert.holds_quota(workload)

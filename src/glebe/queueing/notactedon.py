"""What manifests written for Kueue may say and nothing here acts on yet: one table for the code, its warnings and docs.

A field is spoken of only where its value asks for something else than what happens anyway.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from glebe.kube.objects import Object, annotations_of, labels_of
from glebe.queueing.jobkinds.paths import path_text
from glebe.queueing.jobs.integrations import Integration, pod_sets, read


@dataclass(frozen=True, slots=True)
class Unused:
    """A field, everything below it included.

    :param path: from the object's root; ``[]`` stands for the items of a list.
    :param leaves: fields below it that ask for something, with the values that ask for what happens anyway; without
        any, the field itself asks for something.
    :param acted_on: fields directly below it that are acted on nevertheless.
    """

    path: str
    leaves: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    acted_on: tuple[str, ...] = ()


#: By kind. Fields of a status are only documented: nobody but controllers writes them.
NOT_ACTED_ON: dict[str, tuple[Unused, ...]] = {
    "ClusterQueue": (Unused("spec.concurrentAdmissionPolicy"),),
    "Workload": (
        Unused("status.nominatedClusterNames"),
        Unused("status.clusterName"),
    ),
    "WorkloadClass": (Unused("status"),),
}

#: Labels of Kueue on jobs, with what they would do.
JOB_LABELS: dict[str, str] = {
    "kueue.x-k8s.io/prebuilt-workload-name": "The job takes a Workload that somebody else made",
}
#: The same with annotations.
JOB_ANNOTATIONS: dict[str, str] = {
    "kueue.x-k8s.io/job-completions-equal-parallelism": "Completions follow the parallelism",
}
#: The same on pod templates.
POD_ANNOTATIONS: dict[str, str] = {}


def findings(kind: str, obj: Object) -> list[str]:
    """What the spec of ``obj`` asks for in vain, one sentence each."""
    return [_sentence(path, value) for unused in NOT_ACTED_ON.get(kind, ()) for path, value in _asked(unused, obj)]


def job_findings(integration: Integration, job: Object) -> list[str]:
    """What a queued job asks for in vain by labels and annotations, one sentence each."""
    out = list(_named("metadata.labels", labels_of(job), JOB_LABELS))
    out.extend(_named("metadata.annotations", annotations_of(job), JOB_ANNOTATIONS))
    for view in pod_sets(integration, job) if POD_ANNOTATIONS and integration.pod_sets else ():
        notes = read(view.template, ("metadata", "annotations"), {})
        out.extend(_named(path_text((*view.place, "metadata", "annotations")), notes, POD_ANNOTATIONS))
    return out


def _named(where: str, given: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[str]:
    for name in names:
        if given.get(name) not in (None, "", "false"):
            yield _sentence(f"{where}[{name}]", given[name])


def _asked(unused: Unused, obj: Object) -> Iterator[tuple[str, Any]]:
    if unused.path.startswith("status"):
        return
    for leaf, means in unused.leaves.items() or (("", ()),):
        path = f"{unused.path}.{leaf}" if leaf else unused.path
        for value in _values(obj, path.split(".")):
            if value not in (None, "", [], {}) and value not in means:
                yield path, value


def _values(value: Any, path: list[str]) -> Iterator[Any]:
    if not path:
        yield value
    elif isinstance(value, dict):
        child = value.get(path[0].removesuffix("[]"))
        for item in child if path[0].endswith("[]") and isinstance(child, list) else (child,):
            yield from _values(item, path[1:])


def _sentence(path: str, value: Any) -> str:
    if isinstance(value, list):
        value = ", ".join(str(v.get("name", "")) if isinstance(v, dict) else str(v) for v in value)
    what = path if isinstance(value, dict) else f"{path}: {value}"
    return f"{what} is accepted but not acted on yet"

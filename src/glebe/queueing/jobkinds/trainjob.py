"""TrainJob (Kubeflow Trainer v2): its pods stand in a TrainingRuntime, changed by what the job says. Pure.

Sources: kueue:pkg/controller/jobs/trainjob; kubeflow/trainer pkg/runtime (jobset, plainml, torch, mpi). A runtime is a
JobSet's template; the trainer's replicated job gets ``spec.trainer.numNodes`` and its resources. What an admission adds
goes into ``spec.runtimePatches`` under a manager of the queue's own, as with Kueue.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from glebe.kube.objects import Object
from glebe.kube.resources import Resource
from glebe.queueing.jobkinds.model import JobKind, PodSetView
from glebe.queueing.jobkinds.paths import number, read
from glebe.queueing.jobkinds.shapes import Before, Find, Templates, Unreadable
from glebe.queueing.jobs.podsetinfo import CannotStart, PodSetInfo

_GROUP, _VERSION = "trainer.kubeflow.org", "v1alpha1"
CLUSTER_RUNTIMES = Resource(_GROUP, _VERSION, "clustertrainingruntimes", "ClusterTrainingRuntime", namespaced=False)
RUNTIMES = Resource(_GROUP, _VERSION, "trainingruntimes", "TrainingRuntime")
MANAGER = "kueue.x-k8s.io/manager"
_STEP = "trainer.kubeflow.org/trainjob-ancestor-step"
_POD_INDEX, _GROUP_INDEX = "batch.kubernetes.io/job-completion-index", "jobset.sigs.k8s.io/job-index"
_PATCHED = ("trainingRuntimeSpec", "template", "spec", "replicatedJobs")


class TrainJob(Templates):
    """One pod set for each replicated job of the runtime."""

    restores_late = True

    def is_changed(self, job: Object) -> bool:
        return any(p.get("manager") == MANAGER for p in job["spec"].get("runtimePatches") or ())

    def pod_sets(self, kind: JobKind, job: Object, find: Find | None) -> list[PodSetView]:
        runtime = _runtime(job, find)
        out = []
        for replicated in read(runtime, ("spec", "template", "spec", "replicatedJobs"), ()):
            template = copy.deepcopy(read(replicated, ("template", "spec", "template"), {}))
            replicas = number(replicated.get("replicas"))
            replicas = 1 if replicas is None else replicas
            per = _per_replica(replicated, job, runtime)
            if _step(replicated) == "trainer":
                _override(template, read(job, ("spec", "trainer"), {}))
            _patch(template, str(replicated.get("name", "")), job)
            view = PodSetView(
                str(replicated.get("name", "")),
                replicas * per,
                template,
                (),
                pod_index=_POD_INDEX,
                group_index=_GROUP_INDEX,
                groups=replicas,
            )
            out.append(view)
        return out

    def start(self, kind: JobKind, job: Object, infos: Sequence[PodSetInfo], find: Find | None) -> Before:
        names = [view.name for view in self.pod_sets(kind, job, find)]
        if names != [info.name for info in infos]:
            admitted = ", ".join(info.name for info in infos)
            raise CannotStart(f"the runtime has the pod sets {', '.join(names)}, and was admitted with {admitted}")
        patch = {"manager": MANAGER, "trainingRuntimeSpec": {"template": {"spec": {}}}}
        patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"] = [_said(info) for info in infos]  # type: ignore[index]
        others = [p for p in job["spec"].get("runtimePatches") or () if p.get("manager") != MANAGER]
        job["spec"]["runtimePatches"] = [*others, patch]
        return {}

    def stop(self, kind: JobKind, job: Object, before: Mapping[str, Any], find: Find | None) -> None:
        others = [p for p in job["spec"].get("runtimePatches") or () if p.get("manager") != MANAGER]
        if others:
            job["spec"]["runtimePatches"] = others
        else:
            job["spec"].pop("runtimePatches", None)


def _said(info: PodSetInfo) -> dict[str, Any]:
    said = {
        "nodeSelector": info.node_selector,
        "tolerations": info.tolerations,
        "schedulingGates": info.gates,
    }
    template = {
        "metadata": {"labels": info.labels, "annotations": info.annotations},
        "spec": {field: value for field, value in said.items() if value},
    }
    return {"name": info.name, "template": {"spec": {"template": template}}}


def _runtime(job: Object, find: Find | None) -> Object:
    ref = read(job, ("spec", "runtimeRef"), {})
    kind, name = ref.get("kind") or CLUSTER_RUNTIMES.kind, ref.get("name", "")
    found = None
    if find is not None and kind == CLUSTER_RUNTIMES.kind:
        found = find(CLUSTER_RUNTIMES, name)
    elif find is not None and kind == RUNTIMES.kind:
        found = find(RUNTIMES, name, job["metadata"].get("namespace", ""))
    if found is None:
        raise Unreadable(f'{kind} "{name}" does not exist')
    return found


def _step(replicated: Mapping[str, Any]) -> str:
    return str(read(replicated, ("template", "metadata", "labels", _STEP), ""))


def _per_replica(replicated: Mapping[str, Any], job: Object, runtime: Object) -> int:
    """Pods of one replica; the trainer's are the job's nodes, less the launcher where that is one of them."""
    spec = read(replicated, ("template", "spec"), {})
    per = number(spec.get("parallelism"))
    per = 1 if per is None else per
    completions = number(spec.get("completions"))
    nodes = number(read(job, ("spec", "trainer", "numNodes"))) or number(
        read(runtime, ("spec", "mlPolicy", "numNodes"))
    )
    mpi = read(runtime, ("spec", "mlPolicy", "mpi")) is not None
    name = replicated.get("name")
    trains = _step(replicated) == "trainer" if not mpi else name == "node"
    if trains and nodes is not None:
        as_node = mpi and bool(read(runtime, ("spec", "mlPolicy", "mpi", "runLauncherAsNode")))
        return max(0, nodes - 1) if as_node else nodes
    return per if completions is None else min(per, completions)


def _override(template: dict[str, Any], trainer: Mapping[str, Any]) -> None:
    containers = read(template, ("spec", "containers"), [])
    main = next((c for c in containers if c.get("name") == "node"), containers[0] if containers else None)
    if main is None:
        return
    if trainer.get("resourcesPerNode"):
        main["resources"] = copy.deepcopy(trainer["resourcesPerNode"])
    if trainer.get("image"):
        main["image"] = trainer["image"]


def _patch(template: dict[str, Any], name: str, job: Object) -> None:
    """What others than the queue patch of a replicated job's pods: where they may run."""
    for patch in read(job, ("spec", "runtimePatches"), ()):
        if patch.get("manager") == MANAGER:
            continue
        for replicated in read(patch, _PATCHED, ()):
            if replicated.get("name") != name:
                continue
            more = read(replicated, ("template", "spec", "template"), {})
            for part, fields in (("metadata", ("labels", "annotations")), ("spec", ("nodeSelector",))):
                for field in fields:
                    if values := read(more, (part, field)):
                        held = template.setdefault(part, {})
                        held[field] = {**(held.get(field) or {}), **values}
            if tolerations := read(more, ("spec", "tolerations")):
                spec = template.setdefault("spec", {})
                spec["tolerations"] = [*(spec.get("tolerations") or ()), *tolerations]

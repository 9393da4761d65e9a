"""How pods are told, and how what an admission adds reaches them, by shape of a kind. Pure.

Most kinds hold pod templates: :class:`Templates`. The others have code: Ray adds containers and a submitter to what its
templates say (:class:`Ray`); TrainJob, AppWrapper and SparkApplication are in modules of their own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from glebe.kube.objects import Object, annotations_of
from glebe.kube.quantity import to_int
from glebe.queueing.jobkinds.model import JobKind, PodSetRule, PodSetView, any_holds
from glebe.queueing.jobkinds.paths import Place, put, read
from glebe.queueing.jobs.podsetinfo import CannotStart, PodSetInfo, merge, originals, restore

Find = Callable[..., Object | None]
#: What a job said before it was started, by pod set: goes into an annotation of the job.
Before = dict[str, dict[str, Any]]
_COUNT = "count"


class Unreadable(Exception):
    """The job's pods cannot be told yet: what is missing."""


class Templates:
    """Pod templates at known places.

    ``restores_late``: what a start put in may be taken out only when the job's pods are gone.
    """

    restores_late = False

    def is_changed(self, job: Object) -> bool:
        """Whether what a start put in can be seen, besides the job's own note of it."""
        return False

    def pod_sets(self, kind: JobKind, job: Object, find: Find | None) -> list[PodSetView]:
        """The job's pod sets in the order of the table.

        :raises Unreadable: another object that says it is missing.
        """
        out: list[PodSetView] = []
        for rule in kind.pod_sets:
            if rule.when and not any_holds(rule.when, job):
                continue
            out.extend(self.view(rule, job, name, place) for name, place in rule.places(job))
        return out

    def view(self, rule: PodSetRule, job: Object, name: str, place: Place) -> PodSetView:
        item = read(job, place, {}) if place else job
        count, least = rule.count.of(item), rule.min_count.of(item) if rule.min_count is not None else None
        count = 1 if count is None else count
        template = read(item, rule.template, {})
        return PodSetView(
            name=name,
            count=count,
            template=template if isinstance(template, dict) else {},
            place=(*place, *rule.template),
            min_count=least if least is not None and 0 < least < count else None,
            scale=(*place, *rule.scale) if rule.scale else (),
            pod_index=rule.pod_index,
            group_index=rule.group_index,
            groups=rule.groups.of(item) if rule.groups is not None else None,
        )

    def start(self, kind: JobKind, job: Object, infos: Sequence[PodSetInfo], find: Find | None) -> Before:
        """Put what was admitted into ``job``, in place; gives what was there before.

        :raises CannotStart: the job says something else, or has other pod sets.
        """
        views = {view.name: view for view in self.pod_sets(kind, job, find)}
        if len(views) != len(infos) or any(info.name not in views for info in infos):
            have, want = ", ".join(views), ", ".join(info.name for info in infos)
            raise CannotStart(f"the job has the pod sets {have}, and was admitted with {want}")
        before: Before = {}
        for info in infos:
            view = views[info.name]
            noted: dict[str, Any] = {}
            if view.scale and info.count != view.count:
                noted[_COUNT] = read(job, view.scale)
                put(job, view.scale, info.count)
            if not kind.gated:
                noted |= self.inject(job, view, info)
            before[info.name] = noted
        return before

    def inject(self, job: Object, view: PodSetView, info: PodSetInfo) -> dict[str, Any]:
        """Into one pod set; gives what was there before."""
        template = read(job, view.place)
        if not isinstance(template, dict):
            template = copy.deepcopy(view.template)  # derived: from now on it stands in the job
            put(job, view.place, template)
        noted = originals(template)
        merge(template, info)
        return noted

    def stop(self, kind: JobKind, job: Object, before: Mapping[str, Any], find: Find | None) -> None:
        """Put back what was there, in place."""
        for view in self.pod_sets(kind, job, find):
            noted = before.get(view.name)
            if noted is None:
                continue
            if view.scale and _COUNT in noted:
                put(job, view.scale, noted[_COUNT])
            template = read(job, view.place)
            if not kind.gated and isinstance(template, dict):
                restore(template, noted)


class Ray(Templates):
    """RayCluster, RayJob, RayService: what KubeRay adds to the pods counts as well.

    Source: kueue:pkg/controller/jobs/raycluster/common.go, rayjob_controller.go.
    """

    SUBMITTER: ClassVar[dict[str, dict[str, str]]] = {
        "limits": {"cpu": "1", "memory": "1Gi"},
        "requests": {"cpu": "500m", "memory": "200Mi"},
    }
    AUTOSCALER: ClassVar[dict[str, dict[str, str]]] = {
        "limits": {"cpu": "500m", "memory": "512Mi"},
        "requests": {"cpu": "500m", "memory": "512Mi"},
    }
    CLEANUP: ClassVar[dict[str, str]] = {"cpu": "200m", "memory": "256Mi"}

    def view(self, rule: PodSetRule, job: Object, name: str, place: Place) -> PodSetView:
        view = super().view(rule, job, name, place)
        spec = read(job, rule.template[:-2] if name == "head" else (), {})
        if name == "head":
            return _with(view, self._head(job, spec, view.template))
        if name == "submitter" and not view.template:
            return _with(view, self._submitter(job))
        return view

    def _head(self, job: Object, cluster: Mapping[str, Any], template: dict[str, Any]) -> dict[str, Any]:
        more: list[dict[str, Any]] = []
        if cluster.get("enableInTreeAutoscaling"):
            asked = read(cluster, ("autoscalerOptions", "resources")) or self.AUTOSCALER
            more.append({"name": "autoscaler", "resources": asked})
        if read(job, ("spec", "submissionMode")) == "SidecarMode":
            more.append({"name": "ray-job-submitter", "resources": self.SUBMITTER})
        cleanup = "gcsFaultToleranceOptions" in cluster or annotations_of(job).get("ray.io/ft-enabled") == "true"
        if not more and not cleanup:
            return template
        out = copy.deepcopy(template)
        containers = out.setdefault("spec", {}).setdefault("containers", [])
        if cleanup and containers:
            requests = containers[0].setdefault("resources", {}).setdefault("requests", {})
            for name, amount in self.CLEANUP.items():
                if name not in requests or to_int(requests[name], name) < to_int(amount, name):
                    requests[name] = amount
        containers.extend(copy.deepcopy(more))
        return out

    def _submitter(self, job: Object) -> dict[str, Any]:
        head = read(job, ("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "containers"), [])
        container: dict[str, Any] = {"name": "ray-job-submitter", "resources": copy.deepcopy(self.SUBMITTER)}
        if head and head[0].get("image"):
            container["image"] = head[0]["image"]
        return {"spec": {"containers": [container], "restartPolicy": "Never"}}


def _with(view: PodSetView, template: dict[str, Any]) -> PodSetView:
    if template is view.template:
        return view
    return PodSetView(view.name, view.count, template, view.place, view.min_count, view.scale)


def shape_of(kind: JobKind) -> Templates:
    """The code for a kind's pods."""
    if not kind.shape:
        return _TEMPLATES
    if kind.shape not in _SHAPES:
        from glebe.queueing.jobkinds import appwrapper, spark, trainjob

        _SHAPES.update(appwrapper=appwrapper.AppWrapper(), spark=spark.Spark(), trainjob=trainjob.TrainJob())
    return _SHAPES[kind.shape]


_TEMPLATES = Templates()
_SHAPES: dict[str, Templates] = {"ray": Ray()}


def pod_sets(kind: JobKind, job: Object, find: Find | None = None) -> list[PodSetView]:
    """See :meth:`Templates.pod_sets`."""
    return shape_of(kind).pod_sets(kind, job, find)

"""AppWrapper: components that hold other objects, whose pods stand at paths that the wrapper names. Pure.

Sources: kueue:pkg/controller/jobs/appwrapper; project-codeflare/appwrapper api/v1beta2 and pkg/utils. Where a component
names no pod sets, they are told by the table's row for the object in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from glebe.kube.objects import Object
from glebe.queueing.jobkinds import registry
from glebe.queueing.jobkinds.model import JobKind, PodSetView
from glebe.queueing.jobkinds.paths import number, parse_path, read
from glebe.queueing.jobkinds.shapes import Before, Find, Templates, Unreadable, shape_of
from glebe.queueing.jobs.podsetinfo import CannotStart, PodSetInfo

_POD_INDEX = "workload.codeflare.dev.appwrapper/tas-pod-index-label"
_GROUP_INDEX = "workload.codeflare.dev.appwrapper/tas-sub-group-index-label"
_GROUPS = "workload.codeflare.dev.appwrapper/tas-sub-group-count"


class AppWrapper(Templates):
    """One pod set for each that the components name, called ``NAME-NUMBER``."""

    def is_changed(self, job: Object) -> bool:
        return any(c.get("podSetInfos") for c in read(job, ("spec", "components"), ()))

    def pod_sets(self, kind: JobKind, job: Object, find: Find | None) -> list[PodSetView]:
        name = job["metadata"].get("name", "")
        return [
            PodSetView(
                f"{name}-{index}"[:63],
                count,
                template,
                (),
                pod_index=notes.get(_POD_INDEX, ""),
                group_index=notes.get(_GROUP_INDEX, ""),
                groups=number(notes.get(_GROUPS)),
            )
            for index, (_, template, count, notes) in enumerate(_members(job, find))
        ]

    def start(self, kind: JobKind, job: Object, infos: Sequence[PodSetInfo], find: Find | None) -> Before:
        members = list(_members(job, find))
        if len(members) != len(infos):
            raise CannotStart(f"the wrapper has {len(members)} pod sets, and was admitted with {len(infos)}")
        for component in job["spec"].get("components") or ():
            component["podSetInfos"] = []
        for (at, *_), info in zip(members, infos, strict=True):
            said = {
                "labels": info.labels,
                "annotations": info.annotations,
                "nodeSelector": info.node_selector,
                "tolerations": info.tolerations,
                "schedulingGates": info.gates,
            }
            told = {field: value for field, value in said.items() if value}
            job["spec"]["components"][at]["podSetInfos"].append(told)
        return {}

    def stop(self, kind: JobKind, job: Object, before: Mapping[str, Any], find: Find | None) -> None:
        for component in job["spec"].get("components") or ():
            component.pop("podSetInfos", None)


def _members(job: Object, find: Find | None) -> Iterator[tuple[int, dict[str, Any], int, Mapping[str, str]]]:
    """(number of the component, pod template, count, the pod set's annotations) of all pod sets."""
    for at, component in enumerate(read(job, ("spec", "components"), ())):
        declared = component.get("podSets")
        if declared:
            for pod_set in declared:
                template = _template(component, str(pod_set.get("path", "")))
                count = number(pod_set.get("replicas"))
                yield at, template, 1 if count is None else count, pod_set.get("annotations") or {}
            continue
        wrapped = component.get("template") or {}
        if wrapped.get("apiVersion") == "v1" and wrapped.get("kind") == "Pod":
            yield at, {"metadata": wrapped.get("metadata") or {}, "spec": wrapped.get("spec") or {}}, 1, {}
            continue
        inner = next((k for k in registry.shipped() if _is(k, wrapped)), None)
        if inner is not None and inner.shape != "appwrapper":
            inside = {"metadata": {}, **wrapped}
            for view in shape_of(inner).pod_sets(inner, inside, find):
                notes = {_POD_INDEX: view.pod_index, _GROUP_INDEX: view.group_index}
                notes[_GROUPS] = str(view.groups) if view.groups is not None else ""
                yield at, view.template, view.count, {k: v for k, v in notes.items() if v}


def _template(component: Mapping[str, Any], path: str) -> dict[str, Any]:
    try:
        found = read(component, _with_numbers(path))
    except ValueError as error:
        raise Unreadable(f"components[].podSets[].path: {error}") from None
    if not isinstance(found, dict) or "spec" not in found:
        raise Unreadable(f'components[].podSets[].path: "{path}" leads to no pod template')
    return {"metadata": found.get("metadata") or {}, "spec": found["spec"]}


def _with_numbers(path: str) -> tuple[str | int, ...]:
    return tuple(int(part) if part.isdecimal() else part for part in parse_path(path))


def _is(kind: JobKind, obj: Mapping[str, Any]) -> bool:
    return (obj.get("apiVersion"), obj.get("kind")) == (kind.resource.api_version, kind.resource.kind)

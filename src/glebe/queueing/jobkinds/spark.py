"""SparkApplication: pods are described by roles (driver, executor) with fields of their own. Pure.

Sources: kueue:pkg/controller/jobs/sparkapplication; kubeflow/spark-operator api/v1beta2. What Spark itself adds to a
pod's memory (overhead factors) is not counted, as in Kueue.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

from glebe.kube.objects import Object
from glebe.queueing.jobkinds.model import JobKind, PodSetView
from glebe.queueing.jobkinds.paths import number, put, read
from glebe.queueing.jobkinds.shapes import Find, Templates
from glebe.queueing.jobs.podsetinfo import PodSetInfo, merge

_ROLES = (("driver", "spark-kubernetes-driver"), ("executor", "spark-kubernetes-executor"))
_JAVA = {
    "k": "Ki",
    "kb": "Ki",
    "m": "Mi",
    "mb": "Mi",
    "g": "Gi",
    "gb": "Gi",
    "t": "Ti",
    "tb": "Ti",
    "p": "Pi",
    "pb": "Pi",
}
_MEMORY = re.compile(r"([0-9]+)([a-zA-Z]*)")
_SAME = ("tolerations", "affinity", "nodeSelector", "priorityClassName")


class Spark(Templates):
    """Two pod sets: one driver, ``spec.executor.instances`` executors."""

    def pod_sets(self, kind: JobKind, job: Object, find: Find | None) -> list[PodSetView]:
        instances = number(read(job, ("spec", "executor", "instances"))) or 0
        return [
            PodSetView(role, 1 if role == "driver" else instances, _template(job, role, container), ())
            for role, container in _ROLES
        ]

    def inject(self, job: Object, view: PodSetView, info: PodSetInfo) -> dict[str, Any]:
        role = _child(job["spec"], view.name)
        noted: dict[str, Any] = {
            "role": copy.deepcopy({k: role[k] for k in (*_META, "nodeSelector", "tolerations") if k in role})
        }
        gates = read(role, ("template", "spec", "schedulingGates"))
        noted["gates"] = copy.deepcopy(gates)
        noted["template"] = "template" in role
        everywhere = job["spec"].get("nodeSelector")
        if everywhere:  # of the application: the operator refuses both
            noted["nodeSelector"] = copy.deepcopy(everywhere)
            role["nodeSelector"] = {**everywhere}
        pod = {
            "metadata": {name: dict(role[name]) for name in _META if role.get(name)},
            "spec": {
                **{name: copy.deepcopy(role[name]) for name in ("nodeSelector", "tolerations") if role.get(name)},
                **({"schedulingGates": list(gates)} if gates else {}),
            },
        }
        merge(pod, info)
        role.update(pod["metadata"])
        role.update({name: pod["spec"][name] for name in ("nodeSelector", "tolerations") if name in pod["spec"]})
        if pod["spec"].get("schedulingGates"):
            container = dict(_ROLES)[view.name]
            template = role.setdefault("template", {"spec": {"containers": [{"name": container}]}})
            put(template, ("spec", "schedulingGates"), pod["spec"]["schedulingGates"])
        return noted

    def start(self, kind: JobKind, job: Object, infos: Any, find: Find | None) -> dict[str, dict[str, Any]]:
        before = super().start(kind, job, infos, find)
        if read(job, ("spec", "nodeSelector")):
            job["spec"].pop("nodeSelector")
        return before

    def stop(self, kind: JobKind, job: Object, before: Mapping[str, Any], find: Find | None) -> None:
        for name, _ in _ROLES:
            noted = before.get(name)
            if noted is None:
                continue
            role = _child(job["spec"], name)
            for field in (*_META, "nodeSelector", "tolerations"):
                role.pop(field, None)
            role.update(copy.deepcopy(noted.get("role") or {}))
            if not noted.get("template"):
                role.pop("template", None)
            elif isinstance(spec := read(role, ("template", "spec")), dict):
                spec.pop("schedulingGates", None)
                if noted.get("gates"):
                    spec["schedulingGates"] = noted["gates"]
            if noted.get("nodeSelector"):
                job["spec"]["nodeSelector"] = noted["nodeSelector"]


_META = ("labels", "annotations")


def _template(job: Object, name: str, container_name: str) -> dict[str, Any]:
    role = read(job, ("spec", name), {})
    base = copy.deepcopy(role.get("template") or {})
    spec: dict[str, Any] = base.get("spec") or {}
    meta: dict[str, Any] = {
        field: {**(read(base, ("metadata", field)) or {}), **(role.get(field) or {})}
        for field in _META
        if read(base, ("metadata", field)) or role.get(field)
    }
    containers = [copy.deepcopy(c) for c in spec.get("containers") or ()]
    main = next((c for c in containers if c.get("name") == container_name), None)
    if main is None:
        main = {"name": container_name}
        containers.insert(0, main)
    main["resources"] = _resources(role)
    spec["containers"] = [*containers, *copy.deepcopy(role.get("sidecars") or [])]
    if role.get("initContainers"):
        spec["initContainers"] = copy.deepcopy(role["initContainers"])
    for field in _SAME:
        if role.get(field):
            spec[field] = copy.deepcopy(role[field])
    if selector := read(job, ("spec", "nodeSelector")):
        spec["nodeSelector"] = {**selector, **(role.get("nodeSelector") or {})}
    return {"metadata": meta, "spec": spec}


def _resources(role: Mapping[str, Any]) -> dict[str, Any]:
    requests: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    cores = role.get("coreRequest") or role.get("cores")
    for into, field, value in (
        (requests, "cpu", cores),
        (limits, "cpu", role.get("coreLimit")),
        (requests, "memory", _memory(role.get("memory"))),
        (limits, "memory", _memory(role.get("memoryLimit"))),
    ):
        if value is not None:
            into[field] = str(value)
    gpu = role.get("gpu") or {}
    if gpu.get("name") and (number(gpu.get("quantity")) or 0) > 0:
        limits[gpu["name"]] = str(gpu["quantity"])
    return {**({"requests": requests} if requests else {}), **({"limits": limits} if limits else {})}


def _memory(text: Any) -> str | None:
    """Java's ``512m`` as Kubernetes' ``512Mi``."""
    found = _MEMORY.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return text if isinstance(text, str) else None
    return found[1] + _JAVA.get(found[2].lower(), found[2])


def _child(obj: dict[str, Any], name: str) -> dict[str, Any]:
    value = obj.get(name)
    if not isinstance(value, dict):
        value = obj[name] = {}
    return value

"""ProvisioningRequests (``autoscaling.x-k8s.io``) as data: which one a workload needs, and what its state means. Pure.

Source: kueue:pkg/controller/admissionchecks/provisioning and KEP-1136.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from glebe.kube.objects import Object, annotations_of, condition_is_true, get_condition, owner_reference
from glebe.kube.resources import Resource
from glebe.queueing import labels
from glebe.queueing.jobs.integrations import read
from glebe.queueing.jobs.podsetinfo import FlavorOf, infos, merge
from glebe.queueing.life import checks

REQUESTS = Resource("autoscaling.x-k8s.io", "v1", "provisioningrequests", "ProvisioningRequest")
POD_TEMPLATES = Resource("", "v1", "podtemplates", "PodTemplate")
CONSUME = "autoscaling.x-k8s.io/consume-provisioning-request"
CLASS_NAME = "autoscaling.x-k8s.io/provisioning-class-name"
NOT_NEEDED = "the provisioning request is not needed"
INACTIVE = "the check is not active"
_LONGEST = 247
#: Fields of a pod's spec by which an autoscaler tells pods apart.
_SCHEDULING = ("nodeSelector", "affinity", "tolerations", "schedulerName", "priorityClassName", "runtimeClassName")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the check."""

    state: str
    message: str
    retry: bool = False
    updates: tuple[dict[str, Any], ...] | None = None


def limited(name: str) -> str:
    """A name that fits; a long one ends with its hash."""
    if len(name) <= _LONGEST:
        return name
    return f"{name[:_LONGEST]}-{hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()[:5]}"


def request_name(workload: str, check: str, attempt: int) -> str:
    return limited(f"{workload}-{check}-{attempt}")


def template_name(request: str, pod_set: str) -> str:
    return limited(f"ppt-{request}-{pod_set}")


def attempt_of(request: Object, workload: str, check: str) -> int | None:
    """Which attempt a request is for this workload and check; ``None``: it is for another one."""
    pattern = rf"{re.escape(limited(f'{workload}-{check}-'))}([0-9]+)"
    found = re.fullmatch(pattern, request["metadata"]["name"])
    return int(found[1]) if found else None


def latest(requests: Iterable[Object], workload: str, check: str, config: Object) -> tuple[Object, int] | None:
    """The request of the last attempt that says what the configuration says."""
    spec = config.get("spec") or {}
    wanted = {str(k): str(v) for k, v in (spec.get("parameters") or {}).items()}
    best: tuple[Object, int] | None = None
    for request in requests:
        attempt = attempt_of(request, workload, check)
        given = read(request, ("spec", "parameters"), {})
        same = read(request, ("spec", "provisioningClassName")) == spec.get("provisioningClassName")
        if attempt is None or not same or not wanted.items() <= given.items():
            continue
        if best is None or attempt > best[1]:
            best = request, attempt
    return best


def is_needed(workload: Object, config: Object) -> bool:
    """Whether a pod set with pods asks for a resource that the autoscaler manages."""
    return bool(_pod_sets(workload, config))


def _pod_sets(workload: Object, config: Object) -> list[tuple[dict[str, Any], int]]:
    """Pod sets that need nodes, with the numbers of pods admitted; equal ones as one, as the configuration says."""
    managed = set(read(config, ("spec", "managedResources"), ()))
    policy = read(config, ("spec", "podSetMergePolicy"))
    given = {a["name"]: a.get("count") for a in read(workload, ("status", "admission", "podSetAssignments"), ())}
    out: list[tuple[dict[str, Any], int]] = []
    for pod_set in workload["spec"]["podSets"]:
        spec = read(pod_set, ("template", "spec"), {})
        admitted = given.get(pod_set["name"])
        count = int(pod_set.get("count", 1) if admitted is None else admitted)
        if count <= 0 or (managed and not managed & _resources(spec)):
            continue
        for at, (other, so_far) in enumerate(out):
            if policy and _equal(other, pod_set, policy):
                out[at] = other, so_far + count
                break
        else:
            out.append((pod_set, count))
    return out


def _resources(spec: Mapping[str, Any]) -> set[str]:
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    given = [c.get("resources") or {} for c in containers]
    return {name for g in given for kind in ("requests", "limits") for name in g.get(kind) or {}}


def _equal(one: Mapping[str, Any], other: Mapping[str, Any], policy: str) -> bool:
    if policy == "IdenticalPodTemplates":
        return bool(one.get("template") == other.get("template"))
    first, second = (read(p, ("template", "spec"), {}) for p in (one, other))
    if any(first.get(name) != second.get(name) for name in _SCHEDULING):
        return False
    return _asked(first) == _asked(second)


def _asked(spec: Mapping[str, Any]) -> list[Any]:
    return [[c.get("resources") for c in spec.get(kind) or ()] for kind in ("initContainers", "containers")]


def made(
    workload: Object, check: str, attempt: int, config: Object, flavor_of: FlavorOf
) -> tuple[Object, list[Object]]:
    """The request, and the pod templates that it names; both belong to the workload.

    :raises glebe.queueing.jobs.podsetinfo.CannotStart: the admission contradicts a template.
    """
    meta, spec = workload["metadata"], config.get("spec") or {}
    name = request_name(meta["name"], check, attempt)
    common = {
        "namespace": meta["namespace"],
        "labels": {labels.MANAGED: "true"},
        "ownerReferences": [owner_reference(workload)],
    }
    parameters = {str(k): str(v) for k, v in (spec.get("parameters") or {}).items()}
    for key, value in annotations_of(workload).items():
        if key.startswith(labels.PROVISIONING_PREFIX):
            parameters[key.removeprefix(labels.PROVISIONING_PREFIX)] = value
    added = {info.name: info for info in infos(workload, flavor_of)}
    templates, sets = [], []
    for pod_set, count in _pod_sets(workload, config):
        called = template_name(name, pod_set["name"])
        body = copy.deepcopy(pod_set.get("template") or {})
        if (info := added.get(pod_set["name"])) is not None:
            merge(body, info, gates=False)
        _limits_count(body.get("spec") or {})
        templates.append(
            {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {**common, "name": called}, "template": body}
        )
        sets.append({"podTemplateRef": {"name": called}, "count": count})
    request: Object = {
        "apiVersion": REQUESTS.api_version,
        "kind": REQUESTS.kind,
        "metadata": {**common, "name": name},
        "spec": {
            "provisioningClassName": spec["provisioningClassName"],
            **({"parameters": parameters} if parameters else {}),
            "podSets": sets,
        },
    }
    return request, templates


def _limits_count(spec: dict[str, Any]) -> None:
    """A limit is a request where none is given: autoscalers look at requests."""
    for kind in ("initContainers", "containers"):
        for container in spec.get(kind) or ():
            given = container.get("resources") or {}
            if limits := given.get("limits"):
                container["resources"] = {**given, "requests": {**limits, **(given.get("requests") or {})}}


def judged(
    request: Object, attempt: int, workload: Object, check: Mapping[str, Any], config: Object, *, admitted: bool
) -> Verdict | None:
    """What the state of a request means for the check; ``None``: nothing new."""
    limit = int(read(config, ("spec", "retryStrategy", "backoffLimitCount"), 3))
    if condition_is_true(request, "Failed"):
        return _failed(attempt, limit, check, "failure", _message(request, "Failed"))
    if condition_is_true(request, "CapacityRevoked"):
        return Verdict(checks.REJECTED, _message(request, "CapacityRevoked"))
    if condition_is_true(request, "BookingExpired"):
        if admitted:
            return None
        return _failed(attempt, limit, check, "booking expired", _message(request, "BookingExpired"))
    if condition_is_true(request, "Provisioned"):
        if check.get("state") == checks.READY:
            return None
        return Verdict(checks.READY, _message(request, "Provisioned"), updates=_updates(request, workload, config))
    if condition_is_true(request, "Accepted"):
        return Verdict(checks.PENDING, _message(request, "Provisioned"))  # there an autoscaler says when
    return Verdict(checks.PENDING, "")


def _failed(attempt: int, limit: int, check: Mapping[str, Any], what: str, why: str) -> Verdict | None:
    if attempt > limit:
        return Verdict(checks.REJECTED, why)
    if attempt <= int(check.get("retryCount") or 0):
        return None  # of an attempt that was counted already
    return Verdict(checks.RETRY, f"Retrying after {what}: {why}", retry=True)


def _message(request: Object, kind: str) -> str:
    return str((get_condition(request, kind) or {}).get("message", ""))


def _updates(request: Object, workload: Object, config: Object) -> tuple[dict[str, Any], ...]:
    """What the pods need to land on the nodes that were brought."""
    name = request["metadata"]["name"]
    details = read(request, ("status", "provisioningClassDetails"), {})
    selector = {
        item["key"]: details[item["valueFromProvisioningClassDetail"]]
        for item in read(config, ("spec", "podSetUpdates", "nodeSelector"), ())
        if item["valueFromProvisioningClassDetail"] in details
    }
    notes = {CONSUME: name, CLASS_NAME: request["spec"]["provisioningClassName"]}
    named = {s["podTemplateRef"]["name"] for s in request["spec"].get("podSets") or ()}
    policy = read(config, ("spec", "podSetMergePolicy"))
    out = []
    for pod_set in workload["spec"]["podSets"]:
        if template_name(name, pod_set["name"]) in named or (
            policy and _merged(pod_set, workload, config, name, named)
        ):
            update: dict[str, Any] = {"name": pod_set["name"], "annotations": dict(notes)}
            if selector:
                update["nodeSelector"] = dict(selector)
            out.append(update)
    return tuple(out)


def _merged(pod_set: Mapping[str, Any], workload: Object, config: Object, name: str, named: set[str]) -> bool:
    """Whether the pod set stands in the request as a part of an equal one."""
    policy = read(config, ("spec", "podSetMergePolicy"))
    others = (p for p in workload["spec"]["podSets"] if template_name(name, p["name"]) in named)
    return any(_equal(other, pod_set, policy) for other in others)

"""Admission of jobs into the queue, inside the embedded server and as a webhook.

:class:`QueueAdmission` is a plugin of the embedded API server; :func:`review` answers an AdmissionReview for servers
that call a webhook. A server with MutatingAdmissionPolicy needs neither: see ``manifests/``.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable
from typing import Any

import orjson

from glebe.apiserver.admission.base import AdmissionAttributes
from glebe.kube.errors import ApiError, Cause, invalid
from glebe.kube.objects import Object, labels_of
from glebe.kube.resources import LOCAL_QUEUES, WORKLOAD_CLASSES, WORKLOADS, Resource
from glebe.queueing import integrations, labels
from glebe.queueing.integrations import Integration
from glebe.queueing.jobadmission import check, suspend_and_gate
from glebe.queueing.notactedon import findings, job_findings
from glebe.queueing.notices import in_full
from glebe.scheduling.model import Decision

#: API groups of the queue's own kinds.
QUEUE_GROUPS = (WORKLOADS.group, WORKLOAD_CLASSES.group)
#: (cluster, resource name like "jobs.batch", namespace, name) -> object; namespace "" for cluster-scoped kinds.
Read = Callable[[str, str, str, str], Object | None]
#: (cluster, job) -> the core's verdict on the job alone on an empty fleet; None when it cannot tell.
Oracle = Callable[[str, Object], Decision | None]


class QueueAdmission:
    """Suspends and gates jobs with a queue name when they are created, refuses what cannot be meant.

    :param read: reads the server's own store.
    :param oracle: asked whether the job could ever start; its answer becomes a warning. May be set later.
    """

    def __init__(self, read: Read | None = None, oracle: Oracle | None = None) -> None:
        self.read = read
        self.oracle = oracle

    async def admit(self, a: AdmissionAttributes) -> None:
        if a.info.group in QUEUE_GROUPS:
            _warn_of_unused(a)
            return
        integration = integrations.for_resource(a.info.group, a.info.plural)
        if integration is None or a.subresource or a.obj is None:
            return
        read = self.read

        def find(resource: Resource, name: str) -> Object | None:
            return None if read is None else read(a.cluster, resource.group_resource, "", name)

        def queue(name: str) -> Object | None:
            return None if read is None else read(a.cluster, LOCAL_QUEUES.group_resource, a.namespace, name)

        if a.operation == "UPDATE" and a.old is not None:
            _refuse_moving(integration, a.old, a.obj)
        if a.operation != "CREATE":
            return
        if not integrations.is_queued(a.obj):
            if queue(labels.DEFAULT_QUEUE) is None:
                return
            a.obj["metadata"].setdefault("labels", {})[labels.QUEUE_NAME] = labels.DEFAULT_QUEUE
        if read is not None and (causes := check(integration, a.obj, find)):
            raise invalid(integration.resource.group, integration.resource.kind, a.name, causes)
        suspend_and_gate(integration, a.obj, a.user.name)
        for text in job_findings(integration, a.obj):
            a.warn(text)
        self._warn(a, queue)

    def _warn(self, a: AdmissionAttributes, queue: Callable[[str], Object | None]) -> None:
        name = labels_of(a.obj or {}).get(labels.QUEUE_NAME, "")
        if self.read is not None and queue(name) is None:
            a.warn(
                f'there is no LocalQueue "{name}" in namespace "{a.namespace}": the job will wait until it is created '
                "(see kubectl get localqueues)"
            )
            return
        decision = self.oracle(a.cluster, a.obj) if self.oracle is not None and a.obj is not None else None
        if decision is not None:
            a.warn(f"the job will never start as things are: {in_full(decision)}")


def _warn_of_unused(a: AdmissionAttributes) -> None:
    """Say what a queue's manifest asks for in vain, when it is new or its spec has changed."""
    if a.subresource or a.obj is None or (a.old is not None and a.old.get("spec") == a.obj.get("spec")):
        return
    for text in findings(a.info.kind, a.obj):
        a.warn(text)


def _refuse_moving(integration: Integration, old: Object, new: Object) -> None:
    """The queue of a job may change only while it is suspended."""
    before, after = labels_of(old).get(labels.QUEUE_NAME), labels_of(new).get(labels.QUEUE_NAME)
    if before == after or integrations.is_suspended(integration, old):
        return
    cause = Cause(
        "FieldValueInvalid",
        f'Invalid value: "{after or ""}": the queue of a running job cannot change; it runs in "{before or ""}"',
        f"metadata.labels[{labels.QUEUE_NAME}]",
    )
    raise invalid(integration.resource.group, integration.resource.kind, new["metadata"]["name"], [cause])


def review(body: dict[str, Any], find: Callable[[Resource, str], Object | None]) -> dict[str, Any]:
    """Answer an ``admission.k8s.io/v1`` AdmissionReview: pure, no side effects.

    :param find: finds WorkloadClasses and priority classes by name.
    """
    request = body["request"]
    kind = request["kind"]
    api_version = f"{kind['group']}/{kind['version']}" if kind.get("group") else kind["version"]
    integration = integrations.for_kind(api_version, kind["kind"])
    answer: dict[str, Any] = {"uid": request["uid"], "allowed": True}
    job = request.get("object")
    if integration is not None and job and request.get("operation") == "CREATE" and integrations.is_queued(job):
        try:
            changed = _admitted(integration, job, (request.get("userInfo") or {}).get("username", ""), find)
        except ApiError as error:
            answer.update(allowed=False, status={"code": error.code, "message": error.message, "reason": error.reason})
        else:
            answer["patchType"] = "JSONPatch"
            answer["patch"] = base64.b64encode(orjson.dumps(json_patch(job, changed))).decode()
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}


def _admitted(
    integration: Integration, job: Object, user: str, find: Callable[[Resource, str], Object | None]
) -> Object:
    if causes := check(integration, job, find):
        name = job["metadata"].get("name", "")
        raise invalid(integration.resource.group, integration.resource.kind, name, causes)
    changed = copy.deepcopy(job)
    suspend_and_gate(integration, changed, user)
    return changed


def json_patch(old: Any, new: Any, path: str = "") -> list[dict[str, Any]]:
    """Operations (RFC 6902) that turn ``old`` into ``new``; lists are replaced whole."""
    if old == new:
        return []
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [{"op": "replace", "path": path, "value": new}]
    out: list[dict[str, Any]] = []
    for name in sorted({*old, *new}):
        at = f"{path}/{name.replace('~', '~0').replace('/', '~1')}"
        if name not in new:
            out.append({"op": "remove", "path": at})
        elif name not in old:
            out.append({"op": "add", "path": at, "value": new[name]})
        else:
            out.extend(json_patch(old[name], new[name], at))
    return out

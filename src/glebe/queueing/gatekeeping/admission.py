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
from glebe.apiserver.request.routing import ROOT
from glebe.kube.errors import ApiError, Cause, invalid
from glebe.kube.objects import Object, controller_of, labels_of
from glebe.kube.resources import CONFIGMAPS, LOCAL_QUEUES, PODS, WORKLOAD_CLASSES, WORKLOADS, Resource
from glebe.queueing import labels
from glebe.queueing.gatekeeping.jobadmission import check, suspend_and_gate
from glebe.queueing.jobkinds import declared
from glebe.queueing.jobs import foreign, integrations
from glebe.queueing.jobs.integrations import Integration, JobKinds
from glebe.queueing.notactedon import findings, job_findings
from glebe.queueing.picture.world import CLASSES
from glebe.queueing.pods import holding
from glebe.queueing.round.notices import in_full
from glebe.queueing.tenants import tenancy
from glebe.scheduling.model import Decision

#: Owners of owners that are followed.
_DEPTH = 10
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
        self.serves: Callable[[str], bool] = lambda cluster: not tenancy.is_foreign(cluster)
        """The logical clusters whose jobs are the queue's business."""
        self._declared = JobKinds()
        self._version = ""

    async def admit(self, a: AdmissionAttributes) -> None:
        if a.info.group in QUEUE_GROUPS:
            _warn_of_unused(a)
            return
        if a.subresource or a.obj is None:
            return
        if a.info.plural == CONFIGMAPS.plural and not a.info.group:
            _check_declaration(a)
            return
        kind = self._kind(a)
        if kind is None or not self.serves(a.cluster):
            return
        if kind.resource == PODS:
            self._pod(kind, a, a.obj)
        elif kind.held_by_pods:
            self._serving(kind, a, a.obj)
        else:
            self._job(kind, a, a.obj)

    def _kind(self, a: AdmissionAttributes) -> Integration | None:
        """The row of the table for what is written."""
        known = integrations.for_resource(a.info.group, a.info.plural)
        if known is not None or not _may_be_declared(a.info.group):
            return known
        return self._own_kinds().for_resource(a.info.group, a.info.plural)

    def _own_kinds(self) -> JobKinds:
        """With those of the ConfigMap, as it is now."""
        if self.read is not None:
            found = self.read(ROOT, CONFIGMAPS.group_resource, declared.NAMESPACE, declared.NAME)
            version = str((found or {"metadata": {}})["metadata"].get("resourceVersion", ""))
            if version != self._version:
                self._declared = JobKinds(declared.declared(found)[0])
                self._version = version
        return self._declared

    def _find(self, a: AdmissionAttributes) -> integrations.Find:
        read = self.read

        def find(resource: Resource, name: str, namespace: str = "") -> Object | None:
            cluster = ROOT if resource in CLASSES else a.cluster
            found = None if read is None else read(cluster, resource.group_resource, namespace, name)
            return found if found is None or cluster == a.cluster or tenancy.may_use(found, a.cluster) else None

        return find

    def _job(self, kind: Integration, a: AdmissionAttributes, obj: Object) -> None:
        if a.operation == "UPDATE" and a.old is not None:
            _refuse_moving(kind, a.old, obj)
        if a.operation != "CREATE" or self._queued_owner(a, obj) is not None or integrations.is_skipped(kind, obj):
            return
        if not integrations.is_queued(obj, kind):
            if self._queue(a, labels.DEFAULT_QUEUE) is None:
                return
            obj["metadata"].setdefault("labels", {})[labels.QUEUE_NAME] = labels.DEFAULT_QUEUE
        if self.read is not None and (causes := check(kind, obj, self._find(a))):
            raise invalid(kind.resource.group, kind.resource.kind, a.name, causes)
        suspend_and_gate(kind, obj, a.user.name)
        for text in job_findings(kind, obj):
            a.warn(text)
        self._warn(a, integrations.queue_of(kind, obj))

    def _pod(self, kind: Integration, a: AdmissionAttributes, pod: Object) -> None:
        if a.operation == "UPDATE" and a.old is not None and holding.is_managed(a.old):
            if causes := holding.check_change(a.old, pod):
                raise invalid("", kind.resource.kind, a.name, causes)
            return
        if a.operation != "CREATE" or pod["spec"].get("nodeName"):
            return
        parent = holding.parent_of(pod)
        if not parent:
            if foreign.concerns(pod):
                foreign.translate(pod, lambda r, name: self._find(a)(r, name, a.namespace))
            _own_scheduler(a, pod)
            if labels.QUEUE_NAME not in labels_of(pod) or self._queued_owner(a, pod) is not None:
                return
        if causes := holding.check(pod):
            raise invalid("", kind.resource.kind, a.name, causes)
        holding.hold(pod, a.user.name)
        if not parent:
            self._warn(a, labels_of(pod)[labels.QUEUE_NAME])

    def _serving(self, kind: Integration, a: AdmissionAttributes, obj: Object) -> None:
        if a.operation not in ("CREATE", "UPDATE") or self._queued_owner(a, obj) is not None:
            return
        if a.old is not None and holding.moved(a.old, obj):
            where = f"metadata.labels[{labels.QUEUE_NAME}]"
            why = "Invalid value: the queue cannot change while pods are ready"
            raise invalid(kind.resource.group, kind.resource.kind, a.name, [Cause("FieldValueInvalid", why, where)])
        if not integrations.is_queued(obj, kind):
            return
        if a.old is not None and (causes := holding.check_serving(kind, a.old, obj)):
            raise invalid(kind.resource.group, kind.resource.kind, a.name, causes)
        holding.mark(kind, obj)
        if a.operation == "CREATE":
            self._warn(a, integrations.queue_of(kind, obj), judged=False)

    def _queued_owner(self, a: AdmissionAttributes, obj: Object) -> Object | None:
        """The queued object that ``obj`` is a part of: where nothing can be looked up, any of a known kind."""
        for _ in range(_DEPTH):
            ref = controller_of(obj)
            kind = integrations.for_kind(ref["apiVersion"], ref["kind"]) if ref else None
            if ref is not None and kind is None and _may_be_declared(ref["apiVersion"].rpartition("/")[0]):
                kind = self._own_kinds().for_kind(ref["apiVersion"], ref["kind"])
            if ref is None or kind is None:
                return None
            if self.read is None:
                return ref
            found = self.read(a.cluster, kind.resource.group_resource, a.namespace, ref["name"])
            if found is None or found["metadata"].get("uid") != ref.get("uid"):
                return None
            if integrations.is_queued(found, kind):
                return found
            obj = found
        return None

    def _queue(self, a: AdmissionAttributes, name: str) -> Object | None:
        return None if self.read is None else self.read(a.cluster, LOCAL_QUEUES.group_resource, a.namespace, name)

    def _warn(self, a: AdmissionAttributes, name: str, *, judged: bool = True) -> None:
        if self.read is not None and self._queue(a, name) is None:
            a.warn(
                f'there is no LocalQueue "{name}" in namespace "{a.namespace}": the job will wait until it is created '
                "(see kubectl get localqueues)"
            )
            return
        if not judged or self.oracle is None or a.obj is None:
            return
        decision = self.oracle(a.cluster, a.obj)
        if decision is not None:
            a.warn(f"the job will never start as things are: {in_full(decision)}")


def _warn_of_unused(a: AdmissionAttributes) -> None:
    """Say what a queue's manifest asks for in vain, when it is new or its spec has changed."""
    if a.subresource or a.obj is None or (a.old is not None and a.old.get("spec") == a.obj.get("spec")):
        return
    for text in findings(a.info.kind, a.obj):
        a.warn(text)


def _may_be_declared(group: str) -> bool:
    """Kinds of Kubernetes itself are known, or none."""
    return "." in group and not group.endswith(".k8s.io")


def _check_declaration(a: AdmissionAttributes) -> None:
    """A ConfigMap that declares kinds of jobs must be right when it is written."""
    if a.obj is None or a.operation not in ("CREATE", "UPDATE") or not declared.is_declaration(a.obj):
        return
    _, faults = declared.declared(a.obj)
    causes = []
    for fault in faults:
        key, _, why = fault.partition(": ")
        causes.append(Cause("FieldValueInvalid", f"Invalid value: {why}", f"data[{key}]"))
    if causes:
        raise invalid("", "ConfigMap", a.name, causes)


def _own_scheduler(a: AdmissionAttributes, pod: Object) -> None:
    """Pods for a scheduler that is not there are bound by the one that is."""
    name = pod["spec"].get("schedulerName")
    if name in foreign.OTHER_SCHEDULERS and labels.QUEUE_NAME in labels_of(pod):
        pod["spec"]["schedulerName"] = "default-scheduler"
        a.warn(f"spec.schedulerName: {name} is not here; the pod is queued and bound by this cluster")


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


def review(body: dict[str, Any], find: integrations.Find) -> dict[str, Any]:
    """Answer an ``admission.k8s.io/v1`` AdmissionReview: pure, no side effects.

    :param find: finds WorkloadClasses and priority classes by name.
    """
    request = body["request"]
    kind = request["kind"]
    api_version = f"{kind['group']}/{kind['version']}" if kind.get("group") else kind["version"]
    integration = integrations.for_kind(api_version, kind["kind"])
    answer: dict[str, Any] = {"uid": request["uid"], "allowed": True}
    job = request.get("object")
    if integration is not None and job and not _is_part(job):
        user = (request.get("userInfo") or {}).get("username", "")
        try:
            changed = _admitted(integration, job, user, find, str(request.get("operation")))
        except ApiError as error:
            answer.update(allowed=False, status={"code": error.code, "message": error.message, "reason": error.reason})
            changed = job
        if changed != job:
            answer["patchType"] = "JSONPatch"
            answer["patch"] = base64.b64encode(orjson.dumps(json_patch(job, changed))).decode()
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}


def _is_part(job: Object) -> bool:
    """Whether an object of a known kind controls it (a pod that says who had it queued is looked at all the same)."""
    ref = controller_of(job)
    known = ref is not None and integrations.for_kind(ref["apiVersion"], ref["kind"]) is not None
    return known and not holding.parent_of(job)


def _admitted(kind: Integration, obj: Object, user: str, find: integrations.Find, operation: str) -> Object:
    """What becomes of an object, where nothing but classes can be looked up.

    :raises ApiError: it cannot be meant.
    """
    changed = copy.deepcopy(obj)
    causes: list[Cause] = []
    if kind.resource == PODS:
        if foreign.concerns(changed) and operation == "CREATE":
            foreign.translate(changed, lambda _resource, _name: None)
        wanted = labels.QUEUE_NAME in labels_of(changed) or holding.parent_of(changed)
        if operation == "CREATE" and wanted and not changed["spec"].get("nodeName"):
            causes = holding.check(changed)
            holding.hold(changed, user)
    elif not integrations.is_queued(obj, kind):
        return obj
    elif kind.held_by_pods:
        holding.mark(kind, changed)
    elif operation == "CREATE":
        causes = check(kind, obj, find)
        suspend_and_gate(kind, changed, user)
    if causes:
        raise invalid(kind.resource.group, kind.resource.kind, obj["metadata"].get("name", ""), causes)
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

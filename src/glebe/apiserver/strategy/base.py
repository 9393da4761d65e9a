"""What a kind does to its objects when they are written: the part that schemas cannot say.

One :class:`Strategy` serves most kinds; kinds with rules of their own override a method.
"""

from __future__ import annotations

from typing import Any

from glebe.apiserver.types.registry import ResourceInfo
from glebe.kube.errors import Cause
from glebe.kube.objects import Object

#: Built-in kinds whose ``metadata.generation`` counts changes; all custom kinds do.
_WITH_GENERATION = frozenset(
    {
        "pods",
        "podtemplates",
        "replicationcontrollers",
        "deployments.apps",
        "statefulsets.apps",
        "daemonsets.apps",
        "replicasets.apps",
        "jobs.batch",
        "priorityclasses.scheduling.k8s.io",
        "cronjobs.batch",
        "poddisruptionbudgets.policy",
        "ingresses.networking.k8s.io",
        "networkpolicies.networking.k8s.io",
        "ingressclasses.networking.k8s.io",
        "flowschemas.flowcontrol.apiserver.k8s.io",
        "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
        "customresourcedefinitions.apiextensions.k8s.io",
        "validatingwebhookconfigurations.admissionregistration.k8s.io",
        "mutatingwebhookconfigurations.admissionregistration.k8s.io",
        "validatingadmissionpolicies.admissionregistration.k8s.io",
        "validatingadmissionpolicybindings.admissionregistration.k8s.io",
        "mutatingadmissionpolicies.admissionregistration.k8s.io",
        "mutatingadmissionpolicybindings.admissionregistration.k8s.io",
        "endpointslices.discovery.k8s.io",
        "deviceclasses.resource.k8s.io",
        "resourceslices.resource.k8s.io",
    }
)

#: Built-in kinds that a PUT may create.
_CREATE_ON_UPDATE = frozenset(
    {
        "endpoints",
        "events",
        "events.events.k8s.io",
        "leases.coordination.k8s.io",
        "limitranges",
        "replicationcontrollers",
        "resourcequotas",
        "services",
        "roles.rbac.authorization.k8s.io",
        "rolebindings.rbac.authorization.k8s.io",
        "clusterroles.rbac.authorization.k8s.io",
        "clusterrolebindings.rbac.authorization.k8s.io",
    }
)
_LOCK_REQUIRED = frozenset({"leases.coordination.k8s.io", "customresourcedefinitions.apiextensions.k8s.io"})
_PLAIN_DELETION = frozenset({"namespaces", "customresourcedefinitions.apiextensions.k8s.io"})
_BODY = ("metadata", "status", "apiVersion", "kind")


def immutable(path: str, value: Any, why: str = "field is immutable") -> Cause:
    """The usual complaint about a change."""
    return Cause("FieldValueInvalid", f"Invalid value: {_quote(value)}: {why}", path)


def forbidden(path: str, why: str) -> Cause:
    return Cause("FieldValueForbidden", f"Forbidden: {why}", path)


def _quote(value: Any) -> str:
    import orjson

    return orjson.dumps(value).decode()


class Strategy:
    """The rules of most kinds."""

    def __init__(self, info: ResourceInfo) -> None:
        self.info = info
        self.counts_generation = info.is_custom or info.group_resource in _WITH_GENERATION
        self.create_on_update = info.group_resource in _CREATE_ON_UPDATE
        self.needs_lock = info.is_custom or info.group_resource in _LOCK_REQUIRED
        self.default_orphans = False
        """Without a propagation policy dependents are orphaned (batch/v1 Job, ReplicationController)."""
        self.counts_deletion = info.group_resource not in _PLAIN_DELETION
        """A marked object says its ``deletionGracePeriodSeconds``, and its generation counts the deletion."""

    def prepare_create(self, obj: Object, now: str) -> None:
        """Reset what a client may not set at creation."""
        if self.info.is_custom:
            if self.info.has_status:
                obj.pop("status", None)
        elif self.info.has_status:
            obj["status"] = {}

    def prepare_update(self, obj: Object, old: Object, now: str) -> None:
        """Keep what an update of the main resource may not change; count the generation."""
        if self.info.has_status:
            _carry(obj, old, "status")
        if self.counts_generation:
            meta, generation = obj["metadata"], old["metadata"].get("generation", 0)
            meta["generation"] = generation + 1 if self.spec_changed(obj, old) else generation

    def after_defaults(self, obj: Object, now: str) -> None:
        """Complete the object once its defaults are filled in (create and update of the main resource)."""

    def admitted(self, obj: Object) -> None:
        """A new object has passed mutating admission: complete what depends on what that changed."""

    def spec_changed(self, obj: Object, old: Object) -> bool:
        """Does the change count for the generation? Anything but metadata (and status) does."""
        if "spec" in obj and "spec" in old and len(obj) <= 5 and obj["spec"] != old["spec"]:
            return True
        skip = _BODY if self.info.has_status else ("metadata", "apiVersion", "kind")
        keys = [k for k in {**obj, **old} if k not in skip]
        return any(obj.get(k) != old.get(k) for k in keys)

    def confine(self, obj: Object, old: Object, subresource: str) -> None:
        """A write to a subresource other than ``status``: undo what it may not touch."""

    def prepare_status(self, obj: Object, old: Object, now: str) -> None:
        """A write to ``status``: everything else stays as it was (metadata too, for custom kinds)."""
        if self.info.is_custom:
            managed = obj["metadata"].get("managedFields")
            obj["metadata"] = {**old["metadata"]}
            if managed is not None:
                obj["metadata"]["managedFields"] = managed
        else:
            for name in ("generation", "ownerReferences"):
                _carry(obj["metadata"], old["metadata"], name)
        for name in {**obj, **old}:
            if name not in _BODY:
                _carry(obj, old, name)

    def validate_create(self, obj: Object) -> list[Cause]:
        return []

    def validate_update(self, obj: Object, old: Object, subresource: str) -> list[Cause]:
        """What must not change."""
        return []

    def grace_period(self, obj: Object, asked: int | None) -> int | None:
        """Seconds between the deletion and the object's end; None when the kind is deleted at once."""
        return None

    def before_delete(self, obj: Object) -> None:
        """A deletion was asked for: what must hold the object (finalizers) can be added."""

    def on_delete(self, obj: Object, now: str) -> None:
        """The object was marked for deletion (``deletionTimestamp`` is set)."""

    def may_vanish(self, obj: Object) -> bool:
        """May a marked object without finalizers be removed?"""
        return True


def _carry(obj: Object, old: Object, name: str) -> None:
    if name in old:
        obj[name] = old[name]
    else:
        obj.pop(name, None)

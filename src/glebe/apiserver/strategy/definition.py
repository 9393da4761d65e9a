"""CustomResourceDefinition: what its writers may not set, and what holds it until its objects are gone."""

from __future__ import annotations

from typing import Any

from glebe.apiserver.strategy.base import Strategy
from glebe.kube.errors import Cause
from glebe.kube.objects import Object, set_condition

#: The finalizer by which a definition waits for its objects.
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"


class DefinitionStrategy(Strategy):
    """Its names are accepted, and it is served, by :mod:`glebe.apiserver.custom.naming` after the write."""

    def prepare_create(self, obj: Object, now: str) -> None:
        obj["status"] = {}

    def after_defaults(self, obj: Object, now: str) -> None:
        """The versions in which objects may be stored only grow here; migration tools shrink them through status."""
        spec, status = obj.get("spec") or {}, obj.setdefault("status", {})
        stored = list(status.get("storedVersions") or ())
        stored += [v["name"] for v in _versions(spec) if v.get("storage") and v.get("name") not in stored][:1]
        status["storedVersions"] = stored

    def validate_create(self, obj: Object) -> list[Cause]:
        return []

    def before_delete(self, obj: Object) -> None:
        meta = obj["metadata"]
        if "deletionTimestamp" not in meta:
            meta["finalizers"] = [*(f for f in meta.get("finalizers") or () if f != CLEANUP), CLEANUP]

    def on_delete(self, obj: Object, now: str) -> None:
        status = obj.setdefault("status", {})
        why = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"
        status["conditions"] = set_condition(
            list(status.get("conditions") or ()), "Terminating", "True", "InstanceDeletionPending", why, now
        )


def _versions(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [v for v in spec.get("versions") or () if isinstance(v, dict) and isinstance(v.get("name"), str)]

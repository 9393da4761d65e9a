"""The ConfigMaps and Secrets that a pod's environment refers to. Pure."""

from __future__ import annotations

from typing import Any

from glebe.kube.objects import Object


def references(pod: Object) -> list[tuple[str, str]]:
    """(kind, name) of every ConfigMap ("configmap") and Secret ("secret") that environments name, once each."""
    found: dict[tuple[str, str], None] = {}
    spec = pod["spec"]
    for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
        for item in container.get("envFrom") or ():
            _add(found, item, "Ref")
        for item in container.get("env") or ():
            _add(found, item.get("valueFrom") or {}, "KeyRef")
    return list(found)


def _add(found: dict[tuple[str, str], None], item: dict[str, Any], suffix: str) -> None:
    for kind in ("configMap", "secret"):
        reference = item.get(kind + suffix)
        if isinstance(reference, dict):
            found[kind.lower(), reference.get("name") or ""] = None

"""An operator for `kopf run`: copies a Memo's text into a ConfigMap, reports in its status, tidies up at its end."""

from __future__ import annotations

from typing import Any

import kopf
import kubernetes


def core() -> Any:
    kubernetes.config.load_kube_config()
    return kubernetes.client.CoreV1Api()


@kopf.on.create("memos.kopf.example.org")
def created(spec: Any, name: str, namespace: str, body: Any, **_: Any) -> dict[str, Any]:
    copy = {"metadata": {"name": f"{name}-copy"}, "data": {"text": spec["text"]}}
    kopf.adopt(copy, owner=body)
    core().create_namespaced_config_map(namespace, copy)
    return {"copied": spec["text"]}


@kopf.on.update("memos.kopf.example.org", field="spec.text")
def updated(new: str, name: str, namespace: str, patch: Any, **_: Any) -> None:
    core().patch_namespaced_config_map(f"{name}-copy", namespace, {"data": {"text": new}})
    patch.status["seen"] = new


@kopf.on.delete("memos.kopf.example.org")
def deleted(name: str, namespace: str, **_: Any) -> None:
    core().create_namespaced_config_map(namespace, {"metadata": {"name": f"{name}-gone"}})

"""Builds a Job's pods."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

from glebe.kube.objects import Object, owner_reference
from glebe.workloads.job.pods import FAILURE_COUNT, FINALIZER, INDEX, uid_of

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # as upstream: no vowels, so no words
_MAX_NAME = 63


def suffix(*parts: str) -> str:
    """Five characters that depend on ``parts`` only."""
    number = int.from_bytes(hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest(), "big")
    out = ""
    for _ in range(5):
        number, digit = divmod(number, len(_ALPHABET))
        out += _ALPHABET[digit]
    return out


def build_pod(job: Object, *, salt: str, index: int | None = None, failures: int | None = None) -> Object:
    """A pod of ``job``, named ``JOB-xxxxx`` or ``JOB-INDEX-xxxxx``; the x's are a function of the Job and ``salt``.

    A creation that is repeated after a crash or a lost answer therefore meets the first one's name instead of making
    a second pod. ``failures`` is the index's failure count (``backoffLimitPerIndex`` only).
    """
    meta, template = job["metadata"], job["spec"]["template"]
    tail = "" if index is None else f"-{index}"
    end = f"{tail}-{suffix(uid_of(job), tail, salt)}"
    pod: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": copy.deepcopy(template.get("metadata") or {}),
        "spec": copy.deepcopy(template["spec"]),
    }
    out = pod["metadata"]
    for gone in ("creationTimestamp", "uid", "resourceVersion", "generateName"):
        out.pop(gone, None)
    out["name"] = meta["name"][: _MAX_NAME - len(end)] + end
    out["generateName"] = out["name"][: -len(end)] + f"{tail}-"
    out["namespace"] = meta["namespace"]
    out["labels"] = {**(out.get("labels") or {}), **_labels(job)}
    out["finalizers"] = [*(out.get("finalizers") or ()), FINALIZER]
    out["ownerReferences"] = [owner_reference({"apiVersion": "batch/v1", "kind": "Job", **job})]
    if index is not None:
        _set_index(pod, meta["name"], index, failures)
    return pod


def _labels(job: Object) -> dict[str, str]:
    name, uid = job["metadata"]["name"], uid_of(job)
    return {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
        "controller-uid": uid,
        "job-name": name,
    }


def _set_index(pod: Object, job_name: str, index: int, failures: int | None) -> None:
    meta, spec = pod["metadata"], pod["spec"]
    meta["labels"][INDEX] = str(index)
    annotations = meta["annotations"] = {**(meta.get("annotations") or {}), INDEX: str(index)}
    if failures is not None:
        annotations[FAILURE_COUNT] = str(failures)
    spec["hostname"] = f"{job_name}-{index}"
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        env: list[dict[str, Any]] = container.setdefault("env", [])
        if not any(e.get("name") == "JOB_COMPLETION_INDEX" for e in env):
            reference = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{INDEX}']"}}
            env.append({"name": "JOB_COMPLETION_INDEX", "valueFrom": reference})

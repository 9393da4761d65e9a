"""Builds a DaemonSet's pods."""

from __future__ import annotations

import copy

from glebe.kube.objects import Object, annotations_of, owner_reference
from glebe.kube.resources import DAEMON_SETS
from glebe.workloads.daemonset.placing import pinned, tolerations_of
from glebe.workloads.job.template import suffix

HASH = "controller-revision-hash"
GENERATION = "pod-template-generation"
_GENERATION_OF = "deprecated.daemonset.template.generation"
_MAX_NAME = 63


def generation_of(owner: Object) -> str:
    """The template generation that very old clients go by; empty when there is none."""
    text = annotations_of(owner).get(_GENERATION_OF, "")
    return text if text.lstrip("-").isdigit() else ""


def build_pod(owner: Object, node: str, revision: str, salt: str) -> Object:
    """The pod of the set for ``node``, of the revision with this hash.

    Its name is a function of all these; ``salt`` tells it from pods of that revision that were on the node before.
    """
    meta, template = owner["metadata"], owner["spec"]["template"]
    given = template.get("metadata") or {}
    end = f"-{suffix(str(meta['uid']), node, revision, salt)}"
    stem = meta["name"][: _MAX_NAME - len(end)]
    spec = copy.deepcopy(template.get("spec") or {})
    spec["tolerations"] = tolerations_of(spec)
    spec["affinity"] = pinned(spec.get("affinity"), node)
    labels = {**(given.get("labels") or {}), HASH: revision}
    if generation := generation_of(owner):
        labels[GENERATION] = generation
    out: Object = {
        "name": stem + end,
        "generateName": f"{stem}-",
        "namespace": meta["namespace"],
        "labels": labels,
        "annotations": dict(given.get("annotations") or {}),
        "ownerReferences": [
            owner_reference({**owner, "apiVersion": DAEMON_SETS.api_version, "kind": DAEMON_SETS.kind})
        ],
    }
    if given.get("finalizers"):
        out["finalizers"] = list(given["finalizers"])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": out, "spec": spec}

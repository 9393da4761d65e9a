"""Builds pods from a template."""

from __future__ import annotations

import random

from glebe.kube.objects import Object, owner_reference
from glebe.workloads.replicas.kinds import Kind

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # as upstream: no vowels, so no words
_MAX_BASE = 58  # characters of a name before the random ones


def build_pod(kind: Kind, obj: Object, rng: random.Random) -> Object:
    """A pod of ``obj``. It shares the template's parts with ``obj``: for sending, not for changing.

    The name is chosen here, not by the server, so that after a lost answer one can ask whether the pod exists.
    """
    template, owner = obj["spec"]["template"], obj["metadata"]
    own = template.get("metadata") or {}
    prefix = f"{owner['name']}-"
    meta: Object = {
        "name": prefix[:_MAX_BASE] + "".join(rng.choice(_ALPHABET) for _ in range(5)),
        "generateName": prefix,
        "namespace": owner["namespace"],
    }
    meta.update({part: own[part] for part in ("labels", "annotations", "finalizers") if own.get(part)})
    resource = kind.resource
    meta["ownerReferences"] = [
        owner_reference({"apiVersion": resource.api_version, "kind": resource.kind, "metadata": owner})
    ]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}

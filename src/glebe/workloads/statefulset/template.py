"""Builds a StatefulSet's pods and claims."""

from __future__ import annotations

import copy

from glebe.kube.objects import Object, owner_reference
from glebe.kube.resources import PERSISTENT_VOLUME_CLAIMS, STATEFUL_SETS
from glebe.workloads.statefulset.pods import POD_INDEX, POD_NAME, REVISION, claim_name, ordinal_of


def reference_to(owner: Object) -> Object:
    """A controller reference to the set."""
    return owner_reference({**owner, "apiVersion": STATEFUL_SETS.api_version, "kind": STATEFUL_SETS.kind})


def build_pod(owner: Object, template: Object, revision: str, ordinal: int) -> Object:
    """Pod ``ordinal`` of the set, from ``template``, which is that of ``revision``."""
    meta = owner["metadata"]
    given = template.get("metadata") or {}
    name = f"{meta['name']}-{ordinal}"
    pod: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "generateName": f"{meta['name']}-",
            "namespace": meta["namespace"],
            "labels": {**(given.get("labels") or {}), REVISION: revision},
            "annotations": dict(given.get("annotations") or {}),
            "ownerReferences": [reference_to(owner)],
        },
        "spec": copy.deepcopy(template.get("spec") or {}),
    }
    if given.get("finalizers"):
        pod["metadata"]["finalizers"] = list(given["finalizers"])
    pod["spec"]["hostname"] = name
    pod["spec"]["subdomain"] = owner["spec"].get("serviceName") or ""
    return repaired(pod, owner)


def repaired(pod: Object, owner: Object) -> Object:
    """The pod with the labels and volumes that its place in the set gives it."""
    ordinal, name = ordinal_of(pod), pod["metadata"]["name"]
    labels = {**(pod["metadata"].get("labels") or {}), POD_NAME: name, POD_INDEX: str(ordinal)}
    templates = owner["spec"].get("volumeClaimTemplates") or ()
    volumes = [
        {
            "name": t["metadata"]["name"],
            "persistentVolumeClaim": {"claimName": claim_name(t, owner["metadata"]["name"], ordinal)},
        }
        for t in templates
    ]
    taken = {v["name"] for v in volumes}
    volumes += [v for v in pod["spec"].get("volumes") or () if v["name"] not in taken]
    spec = {**pod["spec"], "volumes": volumes} if volumes else pod["spec"]
    return {**pod, "metadata": {**pod["metadata"], "labels": labels}, "spec": spec}


def build_claims(owner: Object, ordinal: int) -> list[Object]:
    """The claims of pod ``ordinal``, one for each of the set's templates."""
    labels = (owner["spec"].get("selector") or {}).get("matchLabels") or {}
    out: list[Object] = []
    for template in owner["spec"].get("volumeClaimTemplates") or ():
        given = template["metadata"]
        meta: Object = {
            "name": claim_name(template, owner["metadata"]["name"], ordinal),
            "namespace": owner["metadata"]["namespace"],
            "labels": {**(given.get("labels") or {}), **labels},
        }
        for field in ("annotations", "finalizers"):
            if given.get(field):
                meta[field] = copy.deepcopy(given[field])
        out.append({
            "apiVersion": PERSISTENT_VOLUME_CLAIMS.api_version,
            "kind": PERSISTENT_VOLUME_CLAIMS.kind,
            "metadata": meta,
            "spec": copy.deepcopy(template.get("spec") or {}),
        })  # fmt: skip
    return out

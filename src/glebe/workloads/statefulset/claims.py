"""Who owns a pod's claims, by ``persistentVolumeClaimRetentionPolicy``.

A claim that shall go with the set is owned by the set; one that shall go when the set is scaled down is owned by its
pod, once the pod is beyond the set's range. The garbage collector does the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glebe.kube.objects import Object, owner_reference
from glebe.kube.resources import PODS, STATEFUL_SETS, Resource
from glebe.workloads.statefulset.template import reference_to

DELETE = "Delete"


def policy_of(owner: Object) -> tuple[bool, bool]:
    """Whether claims go when the set is deleted, and when it is scaled down."""
    policy = owner["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    return policy.get("whenDeleted") == DELETE, policy.get("whenScaled") == DELETE


def wanted_owners(claim: Object, owner: Object, pod: Object, *, in_range: bool) -> list[Object] | None:
    """The owner references that the claim should have; ``None`` when it has them (or is not ours to touch)."""
    have = _references(claim)
    if is_stale(claim, owner, STATEFUL_SETS) or is_stale(claim, pod, PODS):
        return None  # it belongs to an earlier set or pod of that name: the garbage collector's
    ours = {_uid(owner), _uid(pod)}
    if has_stranger(claim, owner, pod):
        if not any(r.get("uid") in ours for r in have):
            return None
        return [r for r in have if not _names(r, owner, STATEFUL_SETS) and not _names(r, pod, PODS)]
    when_deleted, when_scaled = policy_of(owner)
    by_set = when_deleted and (in_range or not when_scaled)
    by_pod = when_scaled and not in_range
    half = any(r.get("uid") in ours and not r.get("controller") for r in have)
    if not half and _owned(have, owner) == by_set and _owned(have, pod) == by_pod:
        return None
    rest = [r for r in have if not _names(r, owner, STATEFUL_SETS) and not _names(r, pod, PODS)]
    if by_set:
        rest.append(reference_to(owner))
    if by_pod:
        rest.append(owner_reference({**pod, "apiVersion": PODS.api_version, "kind": PODS.kind}))
    return rest


def is_stale(claim: Object, obj: Object, kind: Resource) -> bool:
    """Whether the claim names ``obj`` as an owner, but means an earlier one of that name."""
    named = next((r for r in _references(claim) if _names(r, obj, kind)), None)
    return named is not None and named.get("uid") != _uid(obj)


def has_stranger(claim: Object, owner: Object, pod: Object) -> bool:
    """Whether something else controls the claim while the policy says that we should."""
    if not any(policy_of(owner)):
        return False
    for ref in _references(claim):
        if _names(ref, owner, STATEFUL_SETS):
            if ref.get("uid") != _uid(owner):
                return True
        elif _names(ref, pod, PODS):
            if ref.get("uid") != _uid(pod):
                return True
        elif ref.get("controller"):
            return True
    return False


def _references(claim: Object) -> list[Object]:
    return list(claim["metadata"].get("ownerReferences") or ())


def _uid(obj: Object) -> str:
    return str(obj["metadata"].get("uid", ""))


def _owned(references: list[Object], obj: Object) -> bool:
    return any(r.get("uid") == _uid(obj) for r in references)


def _names(ref: Mapping[str, Any], obj: Object, kind: Resource) -> bool:
    return (ref.get("apiVersion"), ref.get("kind"), ref.get("name")) == (
        kind.api_version,
        kind.kind,
        obj["metadata"]["name"],
    )

"""One reconciliation of one StatefulSet: facts in, plan out. Pure; the steps run in the order of ``STEPS``.

In order (``OrderedReady``) a step that has to wait ends the reconciliation; in parallel everything that can be done is
done at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from glebe.kube.objects import Object, is_deleting
from glebe.kube.pods import has_ended, phase_of
from glebe.kube.resources import PODS
from glebe.workloads.availability import is_running_and_ready, next_available
from glebe.workloads.statefulset import claims
from glebe.workloads.statefulset.facts import Facts
from glebe.workloads.statefulset.plan import Plan
from glebe.workloads.statefulset.pods import identity_matches, ordinal_of, revision_of, storage_matches
from glebe.workloads.statefulset.template import build_claims, reference_to, repaired

CLAIM_PATIENCE = 30.0
"""Seconds before a claim that is being deleted is looked at again, should its end not be told."""


@dataclass
class Work:
    """One reconciliation under way."""

    f: Facts
    plan: Plan = field(default_factory=Plan)


def reconcile(f: Facts) -> Plan:
    """What to do for the set now."""
    w = Work(f)
    if not f.deleting:
        for step in STEPS:
            if step(w):
                break
    if f.min_ready_seconds and (left := next_available(f.pods, f.min_ready_seconds, f.now)) is not None:
        w.plan.wake_after(left)
    _write_status(w)
    return w.plan


# --- steps: each says whether the next ones must wait


def keep_members(w: Work) -> bool:
    """Every ordinal has its pod, as it should be."""
    return any(_keep(w, ordinal) and w.f.in_order for ordinal in w.f.ordinals)


def _keep(w: Work, ordinal: int) -> bool:
    """Whether those after this one have to wait."""
    f, pod = w.f, w.f.members.get(ordinal)
    if pod is None:
        return _create(w, ordinal)
    if has_ended(pod):
        if not is_deleting(pod):
            w.plan.replace.append(pod)
        return True
    if phase_of(pod) == "Pending":
        w.plan.claims += [(pod["metadata"]["name"], c) for c in _missing_claims(f, ordinal)]
    if f.in_order and (is_deleting(pod) or not is_running_and_ready(pod) or not f.available(pod)):
        _fix_claims(w, pod, in_range=True)
        return True
    _fix_claims(w, pod, in_range=True)
    if not identity_matches(pod) or not storage_matches(pod, f.owner):
        w.plan.claims += [(pod["metadata"]["name"], c) for c in _missing_claims(f, ordinal)]
        w.plan.repair.append(repaired(pod, f.owner))
    return False


def _create(w: Work, ordinal: int) -> bool:
    f, pod = w.f, w.f.new_pod(ordinal)
    name = pod["metadata"]["name"]
    known = [c for wanted in build_claims(f.owner, ordinal) if (c := f.claim(wanted["metadata"]["name"]))]
    when_scaled = claims.policy_of(f.owner)[1]
    if when_scaled and any(claims.is_stale(c, pod, PODS) for c in known):
        w.plan.wake_after(CLAIM_PATIENCE)
        return True  # the claim goes with the pod that was scaled away: wait for its end
    if going := [c for c in known if is_deleting(c)]:
        w.plan.refused.append((name, f"pvc {going[0]['metadata']['name']} is being deleted"))
        w.plan.wake_after(CLAIM_PATIENCE)
        return True
    w.plan.claims += [(name, c) for c in _missing_claims(f, ordinal)]
    w.plan.create.append(pod)
    return True


def _missing_claims(f: Facts, ordinal: int) -> list[Object]:
    """Claims to create, owned from the beginning as the policy says."""
    missing = [c for c in build_claims(f.owner, ordinal) if f.claim(c["metadata"]["name"]) is None]
    if claims.policy_of(f.owner)[0]:
        for claim in missing:
            claim["metadata"]["ownerReferences"] = [reference_to(f.owner)]
    return missing


def _fix_claims(w: Work, pod: Object, *, in_range: bool) -> None:
    for wanted in build_claims(w.f.owner, ordinal_of(pod)):
        claim = w.f.claim(wanted["metadata"]["name"])
        if claim is None:
            continue
        owners = claims.wanted_owners(claim, w.f.owner, pod, in_range=in_range)
        if owners is None:
            continue
        if claims.has_stranger(claim, w.f.owner, pod):
            w.plan.conflicts.append(claim["metadata"]["name"])
        w.plan.claim_owners.append((claim, owners))


def hand_over_claims(w: Work) -> bool:
    """Claims of pods beyond the range go with them, if that is the policy."""
    for pod in w.f.condemned:
        _fix_claims(w, pod, in_range=False)
    return False


def condemn(w: Work) -> bool:
    """Pods beyond the range go; in order, the highest first, and no healthy one while another is not."""
    f = w.f
    for pod in f.condemned:
        if is_deleting(pod):
            if f.in_order:
                return True
            continue
        healthy = is_running_and_ready(pod) and f.available(pod)
        if f.in_order and not healthy and pod is not f.first_unavailable:
            return True
        w.plan.condemn.append(pod)
        if f.in_order:
            return True
    return False


def update(w: Work) -> bool:
    """Pods of an old revision go, the highest ordinal first; the next rounds create them anew."""
    f = w.f
    if not f.rolling:
        return True
    targets = [(o, f.members.get(o)) for o in reversed(f.ordinals) if o >= f.start + f.partition]
    if f.max_unavailable is None:
        _update_one(w, targets)
    else:
        _update_some(w, targets, f.max_unavailable)
    return False


def _is_old(f: Facts, pod: Object) -> bool:
    return revision_of(pod) != f.update_name and not is_deleting(pod)


def _update_one(w: Work, targets: list[tuple[int, Object | None]]) -> None:
    for _, pod in targets:
        if pod is not None and _is_old(w.f, pod):
            if pod not in w.plan.replace:
                w.plan.update.append(pod)
            return
        if w.f.unavailable(pod):
            return


def _update_some(w: Work, targets: list[tuple[int, Object | None]], limit: int) -> None:
    f = w.f
    room = limit - sum(1 for o in f.ordinals if f.unavailable(f.members.get(o)))
    old = [pod for _, pod in targets if pod is not None and _is_old(f, pod) and pod not in w.plan.replace]
    w.plan.update += old[: max(0, room)]


STEPS: tuple[Callable[[Work], bool], ...] = (keep_members, hand_over_claims, condemn, update)


# --- status


def _write_status(w: Work) -> None:
    """The whole status, if anything in it changed."""
    f = w.f
    pods = [*f.members.values(), *f.condemned]
    ready = [p for p in pods if is_running_and_ready(p)]
    staying = [p for p in pods if not is_deleting(p)]
    counts = {
        "replicas": len(pods),
        "readyReplicas": len(ready),
        "availableReplicas": sum(1 for p in ready if f.available(p)),
        "currentReplicas": sum(1 for p in staying if revision_of(p) == f.current_name),
        "updatedReplicas": sum(1 for p in staying if revision_of(p) == f.update_name),
    }
    counts["currentReplicas"] = max(0, counts["currentReplicas"] - len(w.plan.update))
    current = f.current_name
    whole = (counts["replicas"], counts["readyReplicas"], counts["updatedReplicas"])
    if f.rolling and whole == (f.replicas,) * 3:
        current, counts["currentReplicas"] = f.update_name, counts["updatedReplicas"]
    status: Object = {k: v for k, v in f.status.items() if k not in _WRITTEN}
    status |= {
        "observedGeneration": int(f.owner["metadata"].get("generation") or 0),
        "currentRevision": current,
        "updateRevision": f.update_name,
        "collisionCount": f.collisions,
    }
    status |= {k: v for k, v in counts.items() if v or k in ("replicas", "availableReplicas")}
    if status != dict(f.status):
        w.plan.status = status


_WRITTEN = frozenset({
    "observedGeneration", "currentRevision", "updateRevision", "collisionCount", "replicas", "readyReplicas",
    "availableReplicas", "currentReplicas", "updatedReplicas",
})  # fmt: skip

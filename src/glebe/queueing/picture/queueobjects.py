"""ClusterQueues and Cohorts as what the scheduling core sees: pure, one object at a time."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from glebe.kube.duration import parse_duration
from glebe.kube.objects import Object, annotations_of
from glebe.kube.quantity import parse, to_int
from glebe.queueing import labels
from glebe.queueing.life import checks
from glebe.scheduling import model as m


def resource_groups(items: list[dict[str, Any]] | None) -> tuple[m.ResourceGroup, ...]:
    return tuple(
        m.ResourceGroup(
            tuple(group["coveredResources"]),
            tuple(m.FlavorQuotas(f["name"], {r["name"]: _quota(r) for r in f["resources"]}) for f in group["flavors"]),
        )
        for group in items or ()
    )


def _quota(item: dict[str, Any]) -> m.Quota:
    def limit(name: str) -> int | None:
        return None if item.get(name) is None else to_int(item[name], item["name"])

    return m.Quota(to_int(item["nominalQuota"], item["name"]), limit("borrowingLimit"), limit("lendingLimit"))


def cluster_queue(obj: Object) -> m.ClusterQueue:
    spec = obj.get("spec") or {}
    return m.ClusterQueue(
        name=obj["metadata"]["name"],
        resource_groups=resource_groups(spec.get("resourceGroups")),
        cohort=spec.get("cohortName"),
        strategy=m.Strategy(spec.get("queueingStrategy") or "BestEffortFIFO"),
        stopped=(spec.get("stopPolicy") or "None") != "None" or "deletionTimestamp" in obj["metadata"],
        weight=_weight(spec),
        preemption=preemption(spec.get("preemption")),
        fungibility=fungibility(spec.get("flavorFungibility")),
        min_run_time=_seconds(annotations_of(obj).get(labels.MINIMUM_RUN_TIME)),
        checks=tuple(sorted(checks.of_queue(obj).items())),
        afs=(spec.get("admissionScope") or {}).get("admissionMode") == "UsageBasedAdmissionFairSharing",
        backfill=_backfill(annotations_of(obj).get(labels.BACKFILL)),
    )


def _backfill(text: str | None) -> m.Backfill:
    """What is not understood counts as missing."""
    known = {str(mode): mode for mode in m.Backfill}
    return known.get(text or "", m.Backfill.GREEDY)


def _seconds(text: str | None) -> float:
    """A duration in an annotation.

    :raises ValueError: when it is none.
    """
    return max(0.0, parse_duration(text)) if text else 0.0


def preemption(spec: Mapping[str, Any] | None) -> m.Preemption:
    """``spec.preemption`` of a ClusterQueue; what is missing is Never."""
    given = spec or {}
    borrowing = given.get("borrowWithinCohort") or {}
    return m.Preemption(
        within=m.PreemptionPolicy(given.get("withinClusterQueue") or "Never"),
        reclaim=m.PreemptionPolicy(given.get("reclaimWithinCohort") or "Never"),
        borrow_within=m.PreemptionPolicy(borrowing.get("policy") or "Never"),
        max_priority=borrowing.get("maxPriorityThreshold"),
    )


def fungibility(spec: Mapping[str, Any] | None) -> m.Fungibility:
    """``spec.flavorFungibility`` of a ClusterQueue. v1beta1's names of the first choice are understood, too."""
    given = spec or {}
    return m.Fungibility(
        when_can_borrow=m.TryNext.NEXT if given.get("whenCanBorrow") == "TryNextFlavor" else m.TryNext.STOP,
        when_can_preempt=m.TryNext.NEXT
        if given.get("whenCanPreempt", "TryNextFlavor") == "TryNextFlavor"
        else m.TryNext.STOP,
        preference=m.Preference(given.get("preference") or "BorrowingOverPreemption"),
    )


_SWITCH = {"Enabled": True, "Disabled": False}


def cohort(obj: Object) -> m.Cohort:
    spec = obj.get("spec") or {}
    groups = resource_groups(spec.get("resourceGroups"))
    switch = _SWITCH.get(annotations_of(obj).get(labels.FAIR_SHARING, ""))
    return m.Cohort(obj["metadata"]["name"], spec.get("parentName"), groups, _weight(spec), switch)


def _weight(spec: Mapping[str, Any]) -> Fraction:
    weight = (spec.get("fairSharing") or {}).get("weight")
    return m.EVEN if weight is None else parse(weight)

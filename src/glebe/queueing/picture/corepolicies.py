"""What the configuration and the admission checks mean to the scheduling core."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from glebe.kube.duration import parse_duration
from glebe.kube.objects import Object, condition_is_true, get_condition, is_deleting
from glebe.queueing.configuration import Configuration
from glebe.queueing.life import checks
from glebe.scheduling import model as m

#: Controller of checks that bring nodes: only when they are there can pods be placed on them.
PROVISIONING = "kueue.x-k8s.io/provisioning-request"

#: Kueue's feature gates by the core's names.
_GATES = {
    "concurrent_admission": "ConcurrentAdmission",
    "elastic_with_topology": "ElasticJobsViaWorkloadSlicesWithTAS",
    "orchestrated_preemption": "MultiKueueOrchestratedPreemption",
    "recompute_overlapping": "RecomputeAssignmentUponPreemptionTargetsOverlap",
    "skip_reassignment_of_pods": "SkipReassignmentForPodOwnedWorkloads",
    "balanced_placement": "TASBalancedPlacement",
    "fail_fast": "TASFailedNodeReplacementFailFast",
    "recompute_placement": "TASRecomputeAssignmentWithinSchedulingCycle",
    "preferred_affinity": "TASRespectNodeAffinityPreferred",
    "profile_mixed": "TASProfileMixed",
    "topology_aware": "TopologyAwareScheduling",
}


def policies(config: Configuration) -> dict[str, Any]:
    """Fields of the Snapshot that the configuration decides."""
    shares = config.fair_sharing
    fair = None
    if shares is not None and shares.enable:
        fair = m.FairSharing(tuple(m.FairStrategy(s) for s in shares.preemption_strategies))
    defaults = m.DEFAULT_GATES
    gates = replace(defaults, **{ours: config.gate(theirs, getattr(defaults, ours)) for ours, theirs in _GATES.items()})
    return {
        "fair_sharing": fair,
        "least_lost": config.glebe.victims == "LeastLostWork",
        "quota_check": m.QuotaCheck(config.resources.quota_check_strategy),
        "gates": gates,
    }


def configured(queue: m.ClusterQueue, found: Mapping[str, Object], config: Configuration) -> m.ClusterQueue:
    """A queue one of whose checks is not there, or not active, takes nothing. Flavors of a check that brings nodes
    are placed in a second pass, when it has passed."""
    if not queue.min_run_time and (shield := parse_duration(config.glebe.minimum_run_time)):
        queue = replace(queue, min_run_time=shield)
    if not queue.checks:
        return queue
    dead = any(not usable(found.get(name)) for name, _ in queue.checks)
    every = tuple(dict.fromkeys(f.flavor for group in queue.resource_groups for f in group.flavors))
    late: dict[str, None] = {}
    for name, flavors in queue.checks:
        if ((found.get(name) or {}).get("spec") or {}).get("controllerName") == PROVISIONING:
            late.update(dict.fromkeys(flavors or every))
    return replace(queue, stopped=queue.stopped or dead, delays_topology=tuple(late))


def broken(queue: Object, found: Callable[[str], Object | None]) -> tuple[str, str]:
    """(reason, sentence) of a check of the queue that nobody works on, so that nothing is admitted; empty: none."""
    for name in checks.of_queue(queue):
        check = found(name)
        if check is None or is_deleting(check):
            return "AdmissionCheckNotFound", f'AdmissionCheck "{name}" does not exist'
        if not usable(check):
            said = (get_condition(check, "Active") or {}).get("message")
            why = said or "its controller has not said that it is"
            return "AdmissionCheckInactive", f'AdmissionCheck "{name}" is not active: {why}'
    return "", ""


def usable(check: Object | None) -> bool:
    """Whether somebody works on this check."""
    return check is not None and not is_deleting(check) and condition_is_true(check, "Active")

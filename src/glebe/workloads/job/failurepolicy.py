"""``spec.podFailurePolicy`` and ``spec.successPolicy``: what one failed pod, or a set of indexes, means for its Job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from glebe.kube.objects import Object
from glebe.kube.pods import phase_of
from glebe.workloads.job.indexes import parse_indexes
from glebe.workloads.job.pods import name_of


@dataclass(frozen=True, slots=True)
class Match:
    """The first rule that a failed pod meets. ``action``: FailJob, FailIndex, Ignore or Count."""

    action: str
    message: str


def match(policy: Mapping[str, Any] | None, pod: Object) -> Match | None:
    """The verdict of ``policy`` on ``pod``; ``None`` when no rule speaks of it (it then counts as usual)."""
    if not policy or phase_of(pod) != "Failed":
        return None
    where = f"{pod['metadata'].get('namespace', '')}/{name_of(pod)}"
    for number, rule in enumerate(policy.get("rules") or ()):
        action = str(rule.get("action", "Count"))
        if "onExitCodes" in rule:
            hit = _exit_code(rule["onExitCodes"] or {}, pod)
            if hit is not None:
                container, code = hit
                text = f"Container {container} for pod {where} failed with exit code {code}"
                return Match(action, f"{text} matching {action} rule at index {number}")
        for wanted in rule.get("onPodConditions") or ():
            if _has_condition(pod, wanted):
                text = f"Pod {where} has condition {wanted.get('type')}"
                return Match(action, f"{text} matching {action} rule at index {number}")
    return None


def _exit_code(requirement: Mapping[str, Any], pod: Object) -> tuple[str, int] | None:
    status = pod.get("status") or {}
    only = requirement.get("containerName")
    values = requirement.get("values") or ()
    negate = requirement.get("operator") == "NotIn"
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        terminated = (container.get("state") or {}).get("terminated")
        if not terminated or (only and container.get("name") != only):
            continue
        code = int(terminated.get("exitCode", 0))
        if code != 0 and (code in values) != negate:
            return str(container.get("name")), code
    return None


def _has_condition(pod: Object, wanted: Mapping[str, Any]) -> bool:
    return any(
        c.get("type") == wanted.get("type") and c.get("status") == wanted.get("status", "True")
        for c in (pod.get("status") or {}).get("conditions") or ()
    )


def success_rule(policy: Mapping[str, Any] | None, succeeded: set[int]) -> str | None:
    """The message of the first success-policy rule that ``succeeded`` indexes meet."""
    for number, rule in enumerate((policy or {}).get("rules") or ()):
        counted = succeeded
        if rule.get("succeededIndexes") is not None:
            wanted = parse_indexes(rule["succeededIndexes"])
            counted = succeeded & wanted
            if rule.get("succeededCount") is None and counted != wanted:
                continue
        if rule.get("succeededCount") is not None and len(counted) < int(rule["succeededCount"]):
            continue
        return f"Matched rules at index {number}"
    return None

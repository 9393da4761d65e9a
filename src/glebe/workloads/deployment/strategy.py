"""The amounts that a Deployment's spec gives."""

from __future__ import annotations

from glebe.kube.objects import Object
from glebe.workloads.intorpercent import scaled

NO_LIMIT = 2**31 - 1
"""The value of a deadline or a history limit that means none."""


def wanted(deployment: Object) -> int:
    value = deployment["spec"].get("replicas")
    return 1 if value is None else int(value)


def is_rolling(deployment: Object) -> bool:
    return str((deployment["spec"].get("strategy") or {}).get("type", "RollingUpdate")) == "RollingUpdate"


def _amount(deployment: Object, name: str, *, up: bool) -> int:
    rolling = (deployment["spec"].get("strategy") or {}).get("rollingUpdate") or {}
    return scaled(rolling.get(name) or 0, wanted(deployment), up=up)


def max_surge(deployment: Object) -> int:
    """Pods above the wanted number during a rollout."""
    return _amount(deployment, "maxSurge", up=True) if is_rolling(deployment) else 0


def max_unavailable(deployment: Object) -> int:
    """Pods that may be unavailable during a rollout; 1 when both amounts come to 0, or nothing would ever move."""
    if not is_rolling(deployment) or wanted(deployment) == 0:
        return 0
    amount = _amount(deployment, "maxUnavailable", up=False)
    if amount == 0 and max_surge(deployment) == 0:
        amount = 1
    return min(amount, wanted(deployment))


def deadline(deployment: Object) -> int | None:
    """Seconds without progress after which a rollout has failed."""
    value = deployment["spec"].get("progressDeadlineSeconds")
    return None if value is None or value == NO_LIMIT else int(value)


def history_limit(deployment: Object) -> int | None:
    """Old ReplicaSets to keep."""
    value = deployment["spec"].get("revisionHistoryLimit")
    return None if value is None or value == NO_LIMIT else int(value)

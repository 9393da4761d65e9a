"""What stands in annotations: revisions, and the sizes by which scaling is told from rolling out."""

from __future__ import annotations

from collections.abc import Mapping

from glebe.kube.objects import Object, annotations_of
from glebe.workloads.deployment.strategy import max_surge, wanted

REVISION = "deployment.kubernetes.io/revision"
HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAX = "deployment.kubernetes.io/max-replicas"
ROLLBACK = "deprecated.deployment.rollback.to"
NOT_COPIED = frozenset({"kubectl.kubernetes.io/last-applied-configuration", REVISION, HISTORY, DESIRED, MAX, ROLLBACK})
"""Annotations that a Deployment and its ReplicaSets do not share."""
_LONGEST_HISTORY = 2000  # characters


def number(text: str | None) -> int | None:
    """A count from an annotation; ``None`` when there is none, or it cannot be read."""
    if text is None or not text.isascii() or not text.isdigit():
        return None
    value = int(text)
    return value if value < 2**31 else None


def revision(obj: Object) -> int:
    """0 when the object has none."""
    text = annotations_of(obj).get(REVISION, "")
    return int(text) if text.isascii() and text.isdigit() else 0


def desired(replica_set: Object) -> int | None:
    """The Deployment's size when this set was last sized."""
    return number(annotations_of(replica_set).get(DESIRED))


def sizes(deployment: Object) -> dict[str, str]:
    """The annotations that tell a ReplicaSet its Deployment's size."""
    count = wanted(deployment)
    return {DESIRED: str(count), MAX: str(count + max_surge(deployment))}


def for_new_set(deployment: Object, before: Mapping[str, str], newest_old: int) -> dict[str, str]:
    """Annotations of the ReplicaSet of the present version.

    :param before: those that it has.
    :param newest_old: the highest revision of any other set.
    """
    out = dict(before)
    out.update({k: v for k, v in annotations_of(deployment).items() if k not in NOT_COPIED})
    known = before.get(REVISION, "")
    if known and not (known.isascii() and known.isdigit()):
        return out
    if int(known or 0) < newest_old + 1:
        out[REVISION] = str(newest_old + 1)
        if known:  # it served before: a rollback
            out[HISTORY] = _longer(before.get(HISTORY, ""), known)
    return out


def _longer(history: str, more: str) -> str:
    """The list with ``more`` appended; the oldest entries go when it becomes too long."""
    entries = history.split(",") if history else []
    while entries and len(",".join([*entries, more])) > _LONGEST_HISTORY:
        entries.pop(0)
    return ",".join([*entries, more])


def after_rollback(deployment: Object, to: Object) -> dict[str, str]:
    """Annotations of a Deployment that goes back to the version of ``to``: they come back with it."""
    own = {k: v for k, v in annotations_of(deployment).items() if k in NOT_COPIED and k != ROLLBACK}
    return own | {k: v for k, v in annotations_of(to).items() if k not in NOT_COPIED}

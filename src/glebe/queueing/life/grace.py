"""Time to save one's work before a preemption stops it: how long, and how it ends early. Pure.

An evicted workload is stopped at once, as in Kueue, unless its job asks for a grace (annotation
``glebe.dev/checkpoint-grace``) or the configuration gives one. Nothing is remembered: the time follows from the
condition ``Evicted`` and the annotation, so every controller that asks gets the same answer, after a crash, too.
:mod:`.checkpoints` tells jobs and pods of it.
"""

from __future__ import annotations

from glebe.kube.clock import format_time, parse_time
from glebe.kube.duration import parse_duration
from glebe.kube.objects import Object, annotations_of, condition_is_true, get_condition
from glebe.queueing import labels
from glebe.queueing.configuration import DEFAULT, Configuration
from glebe.queueing.life import evictions

#: Evictions that may wait; any other has a cause that does not.
GRACEFUL = (
    evictions.PREEMPTED,
    evictions.FLAVOR_MIGRATION,
    evictions.CLUSTER_QUEUE_STOPPED,
    evictions.LOCAL_QUEUE_STOPPED,
)


def seconds(workload: Object, config: Configuration = DEFAULT) -> float:
    """How long the workload may go on once it is evicted: what it asks for, within the configuration's bounds."""
    given = config.glebe.checkpoint_grace
    most = parse_duration(given.maximum)
    text = annotations_of(workload).get(labels.CHECKPOINT_GRACE)
    try:
        wanted = parse_duration(text) if text else parse_duration(given.default)
    except ValueError:
        wanted = parse_duration(given.default)
    return max(0.0, min(wanted, most))


def stop_at(workload: Object, config: Configuration = DEFAULT) -> float | None:
    """When an evicted workload is to be stopped; ``None``: at once. One whose pods never ran has nothing to save."""
    condition = get_condition(workload, labels.EVICTED)
    if condition is None or condition["status"] != "True" or condition["reason"] not in GRACEFUL:
        return None
    if not condition_is_true(workload, labels.PODS_READY):
        return None
    grace = seconds(workload, config)
    return parse_time(condition["lastTransitionTime"]) + grace if grace else None


def left(workload: Object, job: Object, config: Configuration, now: float) -> float:
    """Seconds until the job of an evicted workload is to be stopped; 0: now."""
    end = stop_at(workload, config)
    if end is None or end <= now:
        return 0.0
    saved = annotations_of(job).get(labels.CHECKPOINT_SAVED)
    return 0.0 if saved == format_time(end) else end - now

"""What a job looks like when it is started and when it is stopped, and how that is written. Pure."""

from __future__ import annotations

import copy
import json
from typing import Any

from glebe.kube.objects import Object, annotations_of
from glebe.queueing import labels
from glebe.queueing.jobkinds.paths import put, read
from glebe.queueing.jobkinds.shapes import shape_of
from glebe.queueing.jobs import integrations
from glebe.queueing.jobs.integrations import Find, Integration
from glebe.queueing.jobs.podsetinfo import FlavorOf, infos, originals


def started(kind: Integration, job: Object, workload: Object, flavor_of: FlavorOf, find: Find | None = None) -> Object:
    """The job with its switch on, and with what its workload's admission adds to its pods.

    :raises CannotStart: the job contradicts it. :raises FlavorGone: a flavor is not there.
    """
    out = copy.deepcopy(job)
    if is_changed(kind, job):  # somebody suspended it by hand, and what the last start put in is still there
        shape_of(kind).stop(kind, out, _before(kind, job, workload), find)
        (out["metadata"].get("annotations") or {}).pop(labels.BEFORE_START, None)
    before = shape_of(kind).start(kind, out, infos(workload, flavor_of), find)
    if any(before.values()):
        out["metadata"].setdefault("annotations", {})[labels.BEFORE_START] = json.dumps(before, sort_keys=True)
    put(out, kind.suspend, False)
    return out


def is_changed(kind: Integration, job: Object) -> bool:
    """Whether what a start put into the job may still be in it."""
    return labels.BEFORE_START in annotations_of(job) or shape_of(kind).is_changed(job)


def stopped(kind: Integration, job: Object, workload: Object | None, find: Find | None = None) -> Object:
    """The job with its switch off, and as it was before it was started.

    A kind that must not be changed while pods of it run is put back when they are gone.
    """
    out = copy.deepcopy(job)
    shape = shape_of(kind)
    if not integrations.is_suspended(kind, job):
        put(out, kind.suspend, True)
        if shape.restores_late:
            return out
    if shape.restores_late and integrations.is_active(kind, job):
        return out
    shape.stop(kind, out, _before(kind, job, workload), find)
    notes = out["metadata"].get("annotations") or {}
    notes.pop(labels.BEFORE_START, None)
    return out


def _before(kind: Integration, job: Object, workload: Object | None) -> dict[str, Any]:
    """What the job said: its own note of it; without one (Kueue started it) what its workload says."""
    note = annotations_of(job).get(labels.BEFORE_START)
    if note is not None:
        try:
            known = json.loads(note)
        except ValueError:
            known = None
        if isinstance(known, dict):
            return known
    if workload is None or kind.gated or integrations.is_suspended(kind, job):
        return {}
    return {p.get("name", labels.DEFAULT_POD_SET): originals(p.get("template") or {}) for p in _sets(workload)}


def _sets(workload: Object) -> list[dict[str, Any]]:
    return list(read(workload, ("spec", "podSets"), ()))


def difference(old: Any, new: Any) -> dict[str, Any]:
    """The JSON merge patch (RFC 7386) from one object to the other; lists are replaced whole."""
    out: dict[str, Any] = {}
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if name not in new:
            out[name] = None
        elif isinstance(before, dict) and isinstance(after, dict):
            if inner := difference(before, after):
                out[name] = inner
        elif before != after:
            out[name] = after
    return out

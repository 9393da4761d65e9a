"""One reconciliation of one Deployment: facts in, plan out. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from glebe.kube.objects import Object, annotations_of, is_deleting
from glebe.workloads.deployment import annotate, progress
from glebe.workloads.deployment.plan import Change, Event, Plan, scaled
from glebe.workloads.deployment.progress import Conditions
from glebe.workloads.deployment.proportions import proportional
from glebe.workloads.deployment.rollback import roll_back
from glebe.workloads.deployment.rolling import new_size, smaller
from glebe.workloads.deployment.sets import age_rank, counted, find_new, name_of, new_set, size
from glebe.workloads.deployment.strategy import deadline, history_limit, is_rolling, wanted


@dataclass
class Facts:
    """A Deployment, the ReplicaSets that are its own, and the time.

    :param running: whether a set has pods which may still run (also on their way out); asked only when recreating.
    """

    deployment: Object
    sets: list[Object]
    now: float
    running: Callable[[Object], bool] = field(default=lambda _: False)

    def __post_init__(self) -> None:
        self.sets = sorted(self.sets, key=age_rank)


class Work:
    """One reconciliation under way: sizes and annotations of sets, conditions, and the plan."""

    def __init__(self, f: Facts) -> None:
        self.f = f
        self.deployment = f.deployment
        self.new = find_new(f.deployment, f.sets)
        self.old = [s for s in f.sets if s is not self.new]
        self.plan = Plan()
        self.conditions = Conditions(f.deployment, f.now)
        self.revision = ""
        self._sizes = {name_of(s): size(s) for s in f.sets}
        self._notes = {name_of(s): annotations_of(s) for s in f.sets}

    @property
    def sets(self) -> list[Object]:
        """All, the new one last."""
        return [*self.old, *([self.new] if self.new is not None else ())]

    @property
    def active(self) -> list[Object]:
        return [s for s in self.sets if size(s) > 0]

    def resize(self, replica_set: Object, replicas: int, *, force: bool = False) -> bool:
        """Give a set another size; returns whether it is another. ``force``: renew its annotations in any case."""
        name = name_of(replica_set)
        if replicas == size(replica_set) and not force:
            return False
        self._sizes[name] = replicas
        self._notes[name] = {**self._notes[name], **annotate.sizes(self.deployment)}
        return replicas != size(replica_set)

    def renew(self) -> None:
        """The new set takes over the Deployment's annotations and ``minReadySeconds``; revisions go the other way."""
        if self.new is None:
            return
        newest_old = max((annotate.revision(s) for s in self.old), default=0)
        name = name_of(self.new)
        self._notes[name] = annotate.for_new_set(self.deployment, self._notes[name], newest_old)
        self.revision = self._notes[name].get(annotate.REVISION, "")
        if deadline(self.deployment) is not None and self.conditions.get(progress.PROGRESSING) is None:
            self.conditions.set(progress.PROGRESSING, "True", progress.FOUND, f'Found new replica set "{name}"')

    def create(self) -> None:
        """Plan the new set and go on as if it were there."""
        newest_old = max((annotate.revision(s) for s in self.old), default=0)
        replicas = new_size(self.deployment, 0, self.old)
        notes = annotate.for_new_set(self.deployment, {}, newest_old) | annotate.sizes(self.deployment)
        made = new_set(self.deployment, replicas, notes)
        name = name_of(made)
        text = f"Scaled up replica set {name} from 0 to {replicas}"
        self.plan.create = Change(made, Event("Normal", "ScalingReplicaSet", text) if replicas else None)
        self.new, self.revision = made, notes[annotate.REVISION]
        if deadline(self.deployment) is not None:
            self.conditions.set(progress.PROGRESSING, "True", progress.CREATED, f'Created new replica set "{name}"')

    def clean_up(self) -> None:
        """Delete the oldest of the sets that are empty, beyond the history's limit."""
        limit = history_limit(self.deployment)
        alive = [s for s in self.old if not is_deleting(s)]
        if limit is None or len(alive) <= limit:
            return
        alive.sort(key=lambda s: (annotate.revision(s), age_rank(s)))
        self.plan.delete = [s for s in alive[: len(alive) - limit] if _is_idle(s)]

    def finish(self, *, estimate: bool) -> Plan:
        """The changes of sets and the status. ``estimate``: look at progress and failures, too."""
        ready = int(self.deployment["spec"].get("minReadySeconds") or 0)
        for one in self.f.sets:
            name = name_of(one)
            renewed = one is self.new and int(one["spec"].get("minReadySeconds") or 0) != ready
            if (self._sizes[name], self._notes[name]) == (size(one), annotations_of(one)) and not renewed:
                continue
            change = scaled(one, size(one), self._sizes[name], self._notes[name])
            if renewed:
                change.replica_set["spec"]["minReadySeconds"] = ready
            self.plan.change.append(change)
        status = progress.totals(self.deployment, self.sets, self.new)
        progress.note_availability(self.deployment, status, self.conditions)
        if estimate:
            progress.note_progress(self.deployment, status, self.conditions, self.new, self.f.now)
            progress.note_failures(self.conditions, self.sets[::-1])
            self._watch_deadline(status)
        status["conditions"] = self.conditions.items
        meta = self.deployment["metadata"]
        if self.revision and annotations_of(self.deployment).get(annotate.REVISION) != self.revision:
            meta = {**meta, "annotations": {**annotations_of(self.deployment), annotate.REVISION: self.revision}}
        if meta is not self.deployment["metadata"] or status != self.deployment.get("status"):
            self.plan.status = {**self.deployment, "metadata": meta, "status": status}
        return self.plan

    def _watch_deadline(self, status: Object) -> None:
        left = progress.time_left(self.deployment, self.conditions, self.f.now)
        if left is not None and not progress.is_complete(self.deployment, status):
            self.plan.requeue_after = max(left, 0.0) + 1.0  # times have whole seconds


def _is_idle(replica_set: Object) -> bool:
    seen = counted(replica_set, "observedGeneration") >= int(replica_set["metadata"].get("generation", 0))
    return seen and size(replica_set) == 0 and counted(replica_set, "replicas") == 0


def reconcile(f: Facts) -> Plan:
    """What to do for the Deployment now."""
    w = Work(f)
    if is_deleting(f.deployment):
        return w.finish(estimate=False)
    progress.note_pause(f.deployment, w.conditions)
    paused = bool(f.deployment["spec"].get("paused"))
    asked = not paused and annotations_of(f.deployment).get(annotate.ROLLBACK)
    if asked and (plan := roll_back(f.deployment, w.sets)) is not None:
        return plan
    w.renew()
    if paused or _was_scaled(w):
        scale(w)
        if paused:
            w.clean_up()
        return w.finish(estimate=False)
    (roll if is_rolling(f.deployment) else recreate)(w)
    return w.finish(estimate=True)


def _was_scaled(w: Work) -> bool:
    """Whether the Deployment's size is another than when its sets were last sized."""
    known = (annotate.desired(s) for s in w.active)
    return any(count is not None and count != wanted(w.deployment) for count in known)


def scale(w: Work) -> None:
    """Bring the sum of all sets to the wanted number, without going on with a rollout."""
    count = wanted(w.deployment)
    if len(w.active) <= 1:
        target = w.active[0] if w.active else w.new or (w.old[-1] if w.old else None)
        if target is not None:
            w.resize(target, count)
        return
    if _is_saturated(w):
        for one in w.old:
            w.resize(one, 0)
    elif is_rolling(w.deployment):
        sizes = proportional(w.deployment, w.active)
        for one in w.active:
            w.resize(one, sizes[name_of(one)], force=True)


def _is_saturated(w: Work) -> bool:
    if w.new is None:
        return False
    numbers = (size(w.new), annotate.desired(w.new), counted(w.new, "availableReplicas"))
    return all(n == wanted(w.deployment) for n in numbers)


def roll(w: Work) -> None:
    """One step of a rolling update: up if there is room, else down if there is enough, else tidy up."""
    if w.new is None:
        w.create()
    elif w.resize(w.new, new_size(w.deployment, size(w.new), w.old)):
        return
    assert w.new is not None
    down = smaller(w.deployment, w.new, [s for s in w.old if size(s) > 0])
    for one in w.old:
        if name_of(one) in down:
            w.resize(one, down[name_of(one)])
    if not down and progress.is_complete(w.deployment, w.deployment.get("status") or {}):
        w.clean_up()


def recreate(w: Work) -> None:
    """All old pods go, and only when none is left come the new ones."""
    resized = [w.resize(one, 0) for one in w.old]
    if any(resized):
        return
    if any(counted(s, "replicas") or w.f.running(s) for s in w.old):
        return
    if w.new is None:
        w.create()
    else:
        w.resize(w.new, wanted(w.deployment))
    if progress.is_complete(w.deployment, w.deployment.get("status") or {}):
        w.clean_up()

"""Run times learned from Workloads: what ended teaches what waits and what runs. Nothing is stored beside the objects.

The core's history is a fold over starts and ends in the order of time. After a restart the Workloads that still exist
are folded again; so its memory is that of finished Workloads in the cluster.
Declared expectations (the annotation, or the class's) stand above what was learned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from glebe.kube.clock import Env, parse_time
from glebe.kube.objects import Object, annotations_of, condition_is_true, get_condition, key_of, labels_of
from glebe.kube.quantity import to_int
from glebe.queueing import labels
from glebe.queueing.jobs.integrations import read
from glebe.queueing.picture import convert
from glebe.queueing.picture.runtimes import UNKNOWN
from glebe.queueing.tenants import tenancy
from glebe.scheduling.foresight.calibration import Calibration
from glebe.scheduling.foresight.history import Facts, History
from glebe.scheduling.model import GPU, Admitted, Forecast, Outcome, Pending, RunTime, Snapshot

W = TypeVar("W", Pending, Admitted)

ENOUGH = 5  # runs must have ended before history says anything
_FRESH = 30.0  # seconds that a prediction for waiting work serves
_ARRIVED, _STARTED, _ENDED = range(3)
_Event = tuple[float, int, str, Facts | None, bool]  # when, what, whose, facts of an arrival, whether cut short


class Learning:
    """Hears of Workloads (:meth:`change`) and puts learned run times into snapshots, calibration into forecasts."""

    def __init__(self, cluster: str, env: Env) -> None:
        self._cluster, self._env = cluster, env
        self._history = History(UNKNOWN)
        self._calibration = Calibration()
        self._events: list[_Event] = []
        self._running: dict[str, bool] = {}  # known Workloads, by name: do they run?
        self._declared: dict[str, bool] = {}
        self._predicted: dict[str, tuple[float, RunTime]] = {}  # waiting work: when, what
        self._given: dict[str, tuple[object, object]] = {}  # by name: what the snapshot had, what it was given
        self.ended = 0

    def change(self, old: Object | None, new: Object | None) -> None:
        """One Workload appeared (old None), changed, or vanished (new None)."""
        workload = new if new is not None else old
        if workload is None:
            return
        name = tenancy.named(key_of(workload, self._cluster))
        self._declared.pop(name, None)
        ends = new is None or convert.is_finished(workload)
        if name not in self._running:
            if new is None or (ends and not _started(workload)):
                return
            self._running[name] = False
            self._events.append((_created(workload), _ARRIVED, name, facts(workload), False))
        runs = convert.holds_quota(workload) and not condition_is_true(workload, labels.EVICTED)
        if (runs or ends) and not self._running[name] and (at := _started(workload)):
            self._running[name] = True
            self._events.append((at, _STARTED, name, None, False))
        if ends:
            self._forget(name, workload, gone=new is None)
        elif self._running[name] and not runs:
            self._running[name] = False
            at = convert.since(workload, labels.EVICTED) or self._env.clock.now()
            self._events.append((at, _ENDED, name, None, True))
        if len(self._events) > 10_000:
            self.fold()

    def _forget(self, name: str, workload: Object, *, gone: bool) -> None:
        finished = get_condition(workload, labels.FINISHED) or {}
        natural = finished.get("status") == "True"
        at = parse_time(finished["lastTransitionTime"]) if natural else self._env.clock.now()
        self._events.append((at, _ENDED, name, None, not natural))
        self._running.pop(name, None)
        for memory in (self._declared, self._predicted, self._given):
            memory.pop(name, None)

    def fold(self) -> None:
        """Teach what was heard, in the order of time."""
        events, self._events = self._events, []
        history = self._history
        for at, what, name, known, cut in sorted(events, key=lambda e: e[:3]):
            if what == _ARRIVED:
                history.arrived(name, known or Facts(), at)
            elif what == _STARTED:
                history.started(name, at)
                self._calibration.started(name, at)
            else:
                again = cut and name in self._running
                history.ended(name, at, cut=cut, again=again)
                if not again:
                    self._calibration.gone(name)
                self.ended += not cut

    def applied(self, snapshot: Snapshot, now: float, declared: Callable[[str], bool]) -> Snapshot:
        """The snapshot with learned run times for all that nobody declared one for."""
        self.fold()
        if self.ended < ENOUGH:
            return snapshot
        self._history.settle(now)
        pending = tuple(self._learned(p, now, declared) for p in snapshot.pending)
        return replace(
            snapshot, pending=pending, admitted=tuple(self._learned(a, now, declared) for a in snapshot.admitted)
        )

    def _learned(self, work: W, now: float, declared: Callable[[str], bool]) -> W:
        name = work.key
        if name not in self._running or self._says(name, declared):
            return work
        known = self._predicted.get(name)
        serves = max(_FRESH, 0.1 * (now - work.started_at)) if isinstance(work, Admitted) else _FRESH
        if known is None or now - known[0] > serves:
            try:
                known = (now, self._history.predict(name, now))
            except KeyError:
                return work
            self._predicted[name] = known
        if work.run_time.bound is not None and known[1].bound is None:
            known = (known[0], replace(known[1], bound=work.run_time.bound))
        given = self._given.get(name)
        if given is not None and given[0] is work and given[1].run_time == known[1]:  # type: ignore[attr-defined]
            return given[1]  # type: ignore[return-value]
        found = replace(work, run_time=known[1])
        self._given[name] = (work, found)
        return found

    def _says(self, name: str, declared: Callable[[str], bool]) -> bool:
        said = self._declared.get(name)
        if said is None:
            said = self._declared[name] = declared(name)
        return said

    def calibrated(self, snapshot: Snapshot, forecasts: Sequence[Forecast], now: float) -> Sequence[Forecast]:
        """The forecasts as experience corrects them; what is told first is a promise."""
        if self.ended < ENOUGH:
            return forecasts
        queues = {p.key: p.queue for p in snapshot.pending}
        told = []
        for f in forecasts:
            queue = queues.get(f.key)
            if queue is not None and f.decision.outcome is Outcome.WAIT and f.start_p50 is not None:
                raw = f.start_p50, f.start_p90
                _, late = self._calibration.corrected(queue, now, raw)
                self._calibration.promised(f.key, queue, now, raw, late)
                if late != f.start_p90:
                    f = replace(f, start_p90=late)
            told.append(f)
        return told


def facts(workload: Object) -> Facts:
    """Who runs what: the group is the LocalQueue, the user who is named on the job, the image its first container's."""
    meta, spec = workload["metadata"], workload["spec"]
    gpus, image = 0, ""
    for pods in spec.get("podSets") or ():
        containers = read(pods, ("template", "spec", "containers"), ())
        image = image or next((str(c.get("image", "")) for c in containers), "")
        each = sum(to_int(read(c, ("resources", "requests"), {}).get(GPU, 0), GPU) for c in containers)
        gpus += each * int(pods.get("count") or 0)
    group = f"{meta.get('namespace', '')}/{spec.get('queueName', '')}"
    known = {**labels_of(workload), **annotations_of(workload)}
    user = next((known[name] for name in _USER if known.get(name)), "")
    limit = spec.get("maximumExecutionTimeSeconds")
    return Facts(group, user, image, gpus, float(limit) if limit else None)


_USER = (labels.SUBMITTED_BY, "glebe.dev/user")


def _started(workload: Object) -> float:
    """When it was admitted, or its pods were ready; 0 if it never was."""
    for kind in (labels.PODS_READY, labels.ADMITTED):
        condition = get_condition(workload, kind) or {}
        if condition.get("status") == "True":
            return parse_time(condition["lastTransitionTime"])
    return 0.0


def _created(workload: Object) -> float:
    text = workload["metadata"].get("creationTimestamp")
    return parse_time(text) if text else 0.0

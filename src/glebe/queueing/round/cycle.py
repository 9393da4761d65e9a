"""The admission cycle: one loop that looks at everything that waits and starts what may start.

All state is in API objects. Between a write and the moment the watch shows it, the written object is assumed
(:meth:`SnapshotBuilder.assume`); an assumption is taken back only when the write is known to have failed, so quota is
never given twice, whatever happens in between.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError
from glebe.kube.informer import Informers
from glebe.kube.objects import (
    CLUSTER,
    EVERY,
    Object,
    ObjectKey,
    condition_is_true,
    controller_of,
    get_condition,
    labels_of,
)
from glebe.kube.pods import has_ended
from glebe.kube.transport import ConnectionLost
from glebe.queueing import labels
from glebe.queueing.configuration import Configuration
from glebe.queueing.jobs import elastic
from glebe.queueing.life import pacing, transitions
from glebe.queueing.life.preempting import Preemptions
from glebe.queueing.life.steps import admitted_event
from glebe.queueing.picture import convert, fleetobjects
from glebe.queueing.picture.snapshot import WATCHED, SnapshotBuilder
from glebe.queueing.round.deciding import Deciding
from glebe.queueing.round.notices import Notices, in_full
from glebe.queueing.round.parallel import in_parallel
from glebe.queueing.round.planner import Planner
from glebe.queueing.tenants import tenancy
from glebe.scheduling.model import Admitted, Decision, Outcome, Pending

log = logging.getLogger("glebe.queueing.round.cycle")

#: Event of a workload other nodes of which took over from failed ones.
NODE_REPLACED = "NodeReplaced"
#: Changes that come this close together are decided together.
DEBOUNCE = 0.004
#: A cycle over many classes costs more: the next one waits for this part of the time that the last one thought.
_REST = 0.5
_MAX_DEBOUNCE = 1.0
_PARALLEL_WRITES = 16
_RETRY = 0.5


@dataclass(slots=True)
class Stats:
    """What the loop did since it started."""

    cycles: int = 0
    admitted: int = 0
    placed: int = 0
    rolled_back: int = 0
    last_pending: int = 0
    uncertain: int = field(default=0)


class AdmissionCycle:
    """One cycle per change (debounced). ``after`` is called when a cycle ends: the forecast's turn."""

    def __init__(
        self,
        client: Client,
        env: Env,
        planner: Planner,
        builder: SnapshotBuilder,
        notices: Notices,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._env = env
        self._deciding = Deciding(builder, planner)
        self._builder = builder
        self._notices = notices
        self._after = after
        self._uncertain: dict[ObjectKey, Object] = {}  # admissions whose write may or may not have happened
        self._placing: dict[ObjectKey, str] = {}  # second passes being written: what is said of a failed node
        self.preemptions = Preemptions(client, env, builder, notices)
        self._thought = 0.0  # seconds that the last cycle took to decide
        self.stats = Stats()

    @property
    def config(self) -> Configuration:
        return self._builder.config

    async def reconcile(self, key: ObjectKey) -> Result | None:
        """One cycle."""
        await asyncio.sleep(max(DEBOUNCE, min(_REST * self._thought, _MAX_DEBOUNCE)))
        # 1. settle: admissions of earlier cycles whose outcome is unknown
        await self._settle()
        # 2. snapshot, 3. decide
        now = self._env.clock.now()
        answer = await self._deciding.decide(now)
        snapshot, keys = answer.snapshot, self._builder.keys
        barred = dict(self._builder.barred())
        self._thought = self._env.clock.now() - now
        known = [d for d in answer.decisions if d.key in keys]
        asked = {p.key: p for p in snapshot.pending} if known else {}
        running = {a.key: a for a in snapshot.admitted if a.second_pass} if known else {}
        # 4. write admissions, evictions, and reasons that cannot wait for the forecast
        admit, held = pacing.one_by_one(self._builder, [d for d in known if d.outcome is Outcome.ADMIT])
        writes = chain(
            (self._admit(keys[d.key], asked[d.key], d) for d in admit if d.key in asked),
            (self._place(keys[d.key], running[d.key], d) for d in admit if d.key in running),
            (self.preemptions.evict(keys[d.key], d) for d in known if d.outcome is Outcome.EVICT),
        )
        done = await in_parallel(writes, _PARALLEL_WRITES)
        # 5. stop who must make room, when those who start are written: a crash here starts nobody in vain
        victims = {v.key: (d, v) for d in reversed(known) if d.key in asked for v in d.victims if v.key in keys}
        stops = (self.preemptions.issue(keys[k], keys[d.key], v) for k, (d, v) in sorted(victims.items()))
        done += await in_parallel(stops, _PARALLEL_WRITES)
        refusals = [(keys[d.key], d) for d in (*held, *known) if d.outcome is Outcome.NEVER or d.victims or d in held]
        refusals += list(barred.items())
        done += await in_parallel((self._refuse(k, d) for k, d in refusals), _PARALLEL_WRITES)
        # 6. requeue
        self.stats.cycles += 1
        self.stats.last_pending = self._builder.waiting - len(admit)
        self.stats.uncertain = len(self._uncertain)
        self._after()
        if not all(done) or self._uncertain:
            return Result(requeue_after=_RETRY)
        if answer.again:
            return Result(requeue_after=0.0)
        left = pacing.protection_ends(snapshot, now)
        return Result(requeue_after=left) if left is not None else None

    async def _admit(self, key: ObjectKey, asked: Pending, decision: Decision) -> bool:
        """Write one admission; whether it is known to be written."""
        workload = self._builder.objects[r.WORKLOADS].get(key)
        if workload is None or self._builder.entry(key, workload).pending != asked:
            return False  # changed while the core was thinking: the next cycle sees it
        needed = self._builder.checks_of(workload, decision)
        wanted = transitions.admit(workload, asked.queue, decision, self._env.clock.now(), needed)
        self._builder.assume(wanted)
        if not await self._write_admission(key, wanted):
            return False
        if decision.replaces:
            await self._replace(decision.replaces, wanted)
        return True

    async def _replace(self, key: str, by: Object) -> None:
        """End the slice that has just been replaced; where that fails, its job's reconciler does it."""
        old = self._builder.workload(self._builder.keys[key]) if key in self._builder.keys else None
        if old is None or convert.is_finished(old):
            return
        uid, job = by["metadata"].get("uid", ""), labels_of(by).get(labels.JOB_UID, "UNKNOWN")
        message = f"Replaced to accommodate a workload (UID: {uid}, JobUID: {job}) due to workload slice aggregation"
        ended = transitions.finish(old, elastic.REPLACED, message, self._env.clock.now())
        self._builder.assume(ended)
        try:
            await self._client.update_status(r.WORKLOADS, ended)
        except (ApiError, ConnectionLost) as error:
            log.debug("the end of slice %s was not written: %s", key, error)
            self._builder.forget(self._builder.keys[key])

    async def _place(self, key: ObjectKey, asked: Admitted, decision: Decision) -> bool:
        """Write the nodes of a workload that has its quota; whether they are known to be written."""
        workload = self._builder.workload(key)
        if workload is None or self._builder.entry(key, workload).admitted != asked:
            return False
        wanted = transitions.place(workload, decision, self._env.clock.now())
        self._builder.assume(wanted)
        self._placing[key] = decision.message if condition_is_true(workload, labels.ADMITTED) else ""
        if not await self._write_admission(key, wanted):
            return False
        self.stats.placed += 1
        return True

    async def _write_admission(self, key: ObjectKey, wanted: Object) -> bool:
        try:
            written = await self._client.update_status(r.WORKLOADS, wanted)
        except (ApiError, ConnectionLost) as error:
            if isinstance(error, ApiError) and error.code < 500 and error.code != 429:
                if key in self._uncertain and error.code == 409:
                    return await self._read_back(key, wanted)
                self._roll_back(key, error)
            else:
                self._uncertain[key] = wanted
            return False
        self._confirm(key, written)
        return True

    def _confirm(self, key: ObjectKey, written: Object) -> None:
        self._uncertain.pop(key, None)
        known = self._builder.objects[r.WORKLOADS].get(key)
        self._builder.forget(key)
        if known is not None and int(known["metadata"]["resourceVersion"]) < int(
            written["metadata"]["resourceVersion"]
        ):
            self._builder.assume(written)
        moved = self._placing.pop(key, None)
        if moved is None:
            self.stats.admitted += 1
            self._say_admitted(written)
        elif moved:
            self._notices.say(written, "Normal", NODE_REPLACED, moved)
        elif condition_is_true(written, labels.ADMITTED):
            self._notices.say(written, *admitted_event(written, self._env.clock.now()))

    def _say_admitted(self, written: Object) -> None:
        """Quota is reserved, and, without checks that are open, the workload may run: where, says the sentence."""
        now = self._env.clock.now()
        where = ((written.get("status") or {}).get("forecast") or {}).get("message", "")
        queue = written["status"]["admission"]["clusterQueue"]
        waited = max(0.0, now - convert.queued_since(written))
        text = f"Quota reserved in ClusterQueue {queue}, wait time since queued was {waited:.0f}s"
        self._notices.say(written, "Normal", "QuotaReserved", f"{text}; {where}" if where else text)
        if condition_is_true(written, labels.ADMITTED):
            kind, reason, text = admitted_event(written, now)
            self._notices.say(written, kind, reason, f"{text}; {where}" if where else text)

    def _roll_back(self, key: ObjectKey, error: Exception) -> None:
        log.debug("admission of %s was not written: %s", key, error)
        self._uncertain.pop(key, None)
        self._placing.pop(key, None)
        self._builder.forget(key)
        self.stats.rolled_back += 1

    async def _settle(self) -> None:
        """Repeat each uncertain write: it carries its resourceVersion, so it takes effect at most once."""
        for key, wanted in list(self._uncertain.items()):
            await self._write_admission(key, wanted)

    async def _read_back(self, key: ObjectKey, wanted: Object) -> bool:
        """The repeated write was refused: either the first one did take effect, or somebody else wrote."""
        try:
            found = await self._client.at(key.cluster).get(r.WORKLOADS, key.name, key.namespace)
        except ConnectionLost:
            return False
        except ApiError as error:
            if error.code == 404:
                self._roll_back(key, error)
            return False
        if self._client.cluster == EVERY:
            found["metadata"][CLUSTER] = key.cluster
        if found["metadata"]["uid"] == wanted["metadata"]["uid"] and (found.get("status") or {}).get("admission"):
            self._confirm(key, found)
            return True
        self._roll_back(key, ApiError(409, "Conflict", "somebody else wrote first"))
        return False

    async def _refuse(self, key: ObjectKey, decision: Decision) -> bool:
        """Say at once what will not start as things are (the rest is said with the forecast); whether it is said."""
        workload = self._builder.objects[r.WORKLOADS].get(key)
        if workload is None or convert.holds_quota(workload):
            return True
        if self._builder.strangers:
            decision = tenancy.told(decision, key, self._builder.keys)
        condition = get_condition(workload, labels.QUOTA_RESERVED) or {}
        same = condition.get("reason"), condition.get("message")
        if condition.get("status") == "False" and same == (str(decision.reason), decision.message):
            return True
        try:
            queue = self._builder.cluster_queue(workload)
            waiting = transitions.wait(workload, decision, None, self._env.clock.now(), queue)
            written = await self._client.update_status(r.WORKLOADS, waiting)
        except (ApiError, ConnectionLost) as error:
            log.debug("the reason of %s was not written: %s", key, error)
            return False
        hopeless = decision.outcome is Outcome.NEVER
        self._notices.say(
            written,
            "Warning" if hopeless else "Normal",
            str(decision.reason) if hopeless else "Pending",
            in_full(decision),
        )
        return True


def build(cycle: AdmissionCycle, informers: Informers, env: Env, cluster: str) -> Controller:
    """The cycle as a controller with a single key, triggered by every change that may matter."""
    key = ObjectKey(cluster, "", "cycle")
    marks = _MARKS | {labels.PODS_READY} if pacing.blocks(cycle.config) else _MARKS

    def workload_matters(old: Object | None, new: Object | None) -> bool:
        return old is None or new is None or _facts(old, marks) != _facts(new, marks)

    controller = Controller("admission-cycle", cycle.reconcile, env)
    for resource in WATCHED:
        when = workload_matters if resource == r.WORKLOADS else _WHEN.get(resource)
        controller.watch(informers.get(resource), lambda _: (key,), when=when)
    return controller


def _node_matters(old: Object | None, new: Object | None) -> bool:
    return old is None or new is None or fleetobjects.node_facts(old) != fleetobjects.node_facts(new)


def _pod_matters(old: Object | None, new: Object | None) -> bool:
    """Pods of queued jobs are counted by their workloads; of them only the end frees anything."""
    pod = new or old or {}
    if controller_of(pod) is not None and labels.POD_SET in (pod["metadata"].get("labels") or {}):
        return new is None or has_ended(new)
    return True


_MARKS = frozenset({labels.REQUEUED, labels.EVICTED, labels.ADMITTED})


def _facts(workload: Object, marks: frozenset[str]) -> tuple[object, ...]:
    meta, status = workload["metadata"], workload.get("status") or {}
    finished = convert.is_finished(workload)
    told = [(c["type"], c["status"]) for c in status.get("conditions") or () if c["type"] in marks]
    return (
        meta["uid"],
        meta.get("generation"),
        meta.get("labels"),
        meta.get("annotations"),
        "deletionTimestamp" in meta,
        bool(status.get("admission")),
        finished,
        told,
        (status.get("requeueState") or {}).get("requeueAt"),
        [(c["name"], c.get("state")) for c in status.get("admissionChecks") or ()],
        [(p["name"], p.get("count")) for p in status.get("reclaimablePods") or ()],
        status.get("unhealthyNodes"),
        status.get("preemptionGates"),
        workload["spec"] if "generation" not in meta else None,
    )


_WHEN = {r.NODES: _node_matters, r.PODS: _pod_matters}

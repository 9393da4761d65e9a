"""Makes the victims of a decision stop: one write each, said on both sides.

A victim is marked ``Evicted`` and ``Preempted`` in one write, and keeps its quota until its pods are gone. So the
preemptor starts when there is room, and a crash between two victims leaves nothing half done: the next cycle finds
those that are on their way out, and asks again for the others.
"""

from __future__ import annotations

import logging

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object, ObjectKey, cluster_of
from glebe.kube.transport import ConnectionLost
from glebe.queueing.life import evictions, transitions
from glebe.queueing.picture import convert
from glebe.queueing.picture.snapshot import SnapshotBuilder
from glebe.queueing.round.notices import Notices
from glebe.scheduling.model import Decision, Victim, VictimReason

log = logging.getLogger("glebe.queueing.life.preempting")

_DEEPEST = 64  # cohorts above each other; a cycle of parents ends here


class Preemptions:
    """Carries out what decisions ask for."""

    def __init__(self, client: Client, env: Env, builder: SnapshotBuilder, notices: Notices) -> None:
        self._client = client
        self._env = env
        self._builder = builder
        self._notices = notices
        self.issued = 0

    async def issue(self, key: ObjectKey, preemptor_key: ObjectKey, victim: Victim) -> bool:
        """Stop one victim; whether it is known to be stopped, or on its way out already."""
        preemptor = self._builder.workload(preemptor_key)
        workload = self._builder.workload(key)
        if workload is None or not convert.holds_quota(workload) or transitions.is_evicted(workload):
            return True
        if preemptor is None or convert.holds_quota(preemptor) or convert.is_finished(preemptor):
            return True  # changed while the core was thinking
        mine, theirs = self._builder.cluster_queue(preemptor), workload["status"]["admission"]["clusterQueue"]
        message = evictions.preemption_message(preemptor, victim.reason, self.path(mine), self.path(theirs))
        wanted = evictions.preempt(workload, victim.reason, message, self._env.clock.now())
        if not await self._write(key, wanted):
            return False
        self.issued += 1
        self._say(preemptor, wanted, victim.reason, message, theirs)
        return True

    async def evict(self, key: ObjectKey, decision: Decision) -> bool:
        """Stop a workload that can stay nowhere; whether it is known to be stopped."""
        workload = self._builder.workload(key)
        if workload is None or not convert.holds_quota(workload) or transitions.is_evicted(workload):
            return True
        reason = str(decision.reason)
        wanted = evictions.evict(workload, reason, decision.message, self._env.clock.now())
        if not await self._write(key, wanted):
            return False
        self._notices.say(wanted, "Normal", evictions.event_reason(reason), decision.message)
        return True

    async def _write(self, key: ObjectKey, wanted: Object) -> bool:
        """Counted as evicted from now on; taken back when the write fails, whatever became of it: the watch tells."""
        self._builder.assume(wanted)
        try:
            written = await self._client.update_status(r.WORKLOADS, wanted)
        except (ApiError, ConnectionLost) as error:
            log.debug("the eviction of %s was not written: %s", key, error)
            self._builder.forget(key)
            return False
        known = self._builder.objects[r.WORKLOADS].get(key)
        self._builder.forget(key)
        if known is not None and int(known["metadata"]["resourceVersion"]) < int(
            written["metadata"]["resourceVersion"]
        ):
            self._builder.assume(written)
        return True

    def _say(self, preemptor: Object, victim: Object, reason: VictimReason, message: str, queue: str) -> None:
        if reason is VictimReason.FLAVOR_MIGRATION:
            self._notices.say(victim, "Normal", evictions.event_reason(evictions.FLAVOR_MIGRATION), message)
            return
        ranks = f"preemptor {self._rank(preemptor)}; preemptee {self._rank(victim)}"
        meta = victim["metadata"]
        named = f"{meta['namespace']}/{meta['name']} (UID: {meta.get('uid', '')}) in ClusterQueue {queue}"
        if cluster_of(preemptor) != cluster_of(victim):
            named = f"(UID: {meta.get('uid', '')}) of another cluster in ClusterQueue {queue}"
        self._notices.say(victim, "Normal", evictions.event_reason(evictions.PREEMPTED), message)
        self._notices.say(victim, "Normal", "Preempted", f"{message}; {ranks}")
        self._notices.say(preemptor, "Normal", "PreemptedWorkload", f"Preempted workload {named}; {ranks}")

    def _rank(self, workload: Object) -> str:
        base = int(workload["spec"].get("priority") or 0)
        boost = convert.priority_boost(workload, self._builder.config)
        return f"effective priority: {base + boost} (base: {base}, boost: {boost})"

    def path(self, queue: str) -> str:
        """Where a ClusterQueue hangs in the tree of cohorts: ``/root/cohort/queue``."""
        cluster = self._builder.host
        obj = self._builder.objects[r.CLUSTER_QUEUES].get(ObjectKey(cluster, "", queue))
        names = [queue]
        cohort = ((obj or {}).get("spec") or {}).get("cohortName")
        while cohort and len(names) < _DEEPEST:
            names.append(cohort)
            found = self._builder.objects[r.COHORTS].get(ObjectKey(cluster, "", cohort))
            cohort = ((found or {}).get("spec") or {}).get("parentName")
        return "/" + "/".join(reversed(names))

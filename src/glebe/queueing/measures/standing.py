"""How the queues stand, read from the caches when somebody scrapes: pending, active, usage, quotas, shares.

Source: kueue:pkg/metrics. Quantities are in the API's units (cores, bytes, devices).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from glebe.apiserver.metrics.families import Families, Values
from glebe.kube import resources as r
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, cluster_of, get_condition
from glebe.kube.quantity import parse
from glebe.kube.resources import Resource
from glebe.queueing import labels
from glebe.queueing.picture import convert
from glebe.queueing.telling.localshares import PastUse

#: LocalQueues beyond this many have no metrics of their own: a series lives for ever in Prometheus.
MOST_LOCAL_QUEUES = 1000
_QUOTA = ("cohort", "cluster_queue", "flavor", "resource", "replica_role")
_LOCAL = ("name", "namespace", "replica_role")
_LOCAL_USE = ("name", "namespace", "flavor", "resource", "replica_role")
#: Above this Kueue's API means that there is no share to speak of.
_NO_SHARE = 2**63 - 1
Rows = Iterator[tuple[tuple[str, ...], float]]
#: name without prefix, help, label names, what reads it
Metric = tuple[str, str, tuple[str, ...], Callable[[], Rows]]


class Standing:
    """Reads queues and workloads of the host from ``informers``; tenants' LocalQueues are left out."""

    def __init__(
        self, families: Families, informers: Informers, role: str, host: str, past: PastUse | None = None
    ) -> None:
        self._informers = informers
        self._past = past
        self._role = role
        self._host = host
        put = families.reading
        for name, text, marks, read in (
            *self._counted(),
            *self._stated(),
            *self._quotas(),
            *self._shared(),
            *self._placed(),
        ):
            put(f"kueue_{name}", text, marks, _reading(read))

    def _counted(self) -> tuple[Metric, ...]:
        """Workloads."""
        queue = ("cluster_queue", "replica_role")
        return (
            (
                "pending_workloads",
                "Workloads that wait: active ones are looked at next, inadmissible ones when something changed.",
                ("cluster_queue", "status", "replica_role"),
                self._pending,
            ),
            (
                "local_queue_pending_workloads",
                "The same by LocalQueue.",
                ("name", "namespace", "status", "replica_role"),
                self._local_pending,
            ),
            ("reserving_active_workloads", "Workloads that hold quota.", queue, self._counts("reservingWorkloads")),
            ("admitted_active_workloads", "Admitted workloads.", queue, self._counts("admittedWorkloads")),
            (
                "local_queue_reserving_active_workloads",
                "Workloads that hold quota, by LocalQueue.",
                _LOCAL,
                self._local_counts("reservingWorkloads"),
            ),
            (
                "local_queue_admitted_active_workloads",
                "Admitted workloads, by LocalQueue.",
                _LOCAL,
                self._local_counts("admittedWorkloads"),
            ),
        )

    def _stated(self) -> tuple[Metric, ...]:
        """States of queues."""
        return (
            (
                "cluster_queue_status",
                "1 for the state that the queue is in: pending, active or terminated.",
                ("cluster_queue", "status", "replica_role"),
                self._states,
            ),
            (
                "local_queue_status",
                "1 for the state of the condition Active.",
                ("name", "namespace", "active", "replica_role"),
                self._local_states,
            ),
        )

    def _quotas(self) -> tuple[Metric, ...]:
        """What is given, held and used."""
        return (
            ("cluster_queue_resource_reservation", "Quota held.", _QUOTA, self._use("flavorsReservation")),
            ("cluster_queue_resource_usage", "Quota used by admitted workloads.", _QUOTA, self._use("flavorsUsage")),
            ("local_queue_resource_reservation", "Quota held.", _LOCAL_USE, self._local_use("flavorsReservation")),
            ("local_queue_resource_usage", "Quota used.", _LOCAL_USE, self._local_use("flavorsUsage")),
            ("cluster_queue_nominal_quota", "Nominal quota.", _QUOTA, self._quota("nominalQuota")),
            (
                "cluster_queue_borrowing_limit",
                "The most that is borrowed; +Inf without.",
                _QUOTA,
                self._quota("borrowingLimit"),
            ),
            (
                "cluster_queue_lending_limit",
                "The most that is lent; +Inf without.",
                _QUOTA,
                self._quota("lendingLimit"),
            ),
        )

    def _shared(self) -> tuple[Metric, ...]:
        """Shares."""
        own = self._own
        return (
            (
                "cluster_queue_weighted_share",
                "Share in the cohort, in thousandths; NaN for a borrower of weight 0.",
                ("cluster_queue", "cohort", "replica_role"),
                lambda: (((_name(q), _cohort(q), self._role), s) for q, s in _shares(own(r.CLUSTER_QUEUES))),
            ),
            (
                "local_queue_admission_fair_sharing_usage",
                "What the LocalQueue has used, weighed: who has used less goes first.",
                ("name", "namespace", "cluster_queue", "replica_role"),
                self._turns,
            ),
            (
                "cohort_weighted_share",
                "Share in the parent cohort, in thousandths.",
                ("cohort", "replica_role"),
                lambda: (((_name(c), self._role), s) for c, s in _shares(own(r.COHORTS))),
            ),
        )

    def _placed(self) -> tuple[Metric, ...]:
        """Places in the tree of cohorts."""
        own = self._own
        return (
            (
                "cluster_queue_info",
                "1, with the queue's place in the cohorts.",
                ("cluster_queue", "parent_cohort", "root_cohort", "replica_role"),
                lambda: (
                    ((_name(q), _cohort(q), self._root(_cohort(q)), self._role), 1.0) for q in own(r.CLUSTER_QUEUES)
                ),
            ),
            (
                "cohort_info",
                "1, with the cohort's place among cohorts.",
                ("cohort", "parent_cohort", "root_cohort", "replica_role"),
                lambda: (((_name(c), _parent(c), self._root(_name(c)), self._role), 1.0) for c in own(r.COHORTS)),
            ),
        )

    # --- whom to read

    def _own(self, resource: Resource) -> list[Object]:
        """Objects of the host's own cluster."""
        found = self._informers.get(resource).store.values()
        return [obj for obj in found if cluster_of(obj) in ("", self._host)]

    def _locals(self) -> list[Object]:
        return self._own(r.LOCAL_QUEUES)[:MOST_LOCAL_QUEUES]

    def _root(self, cohort: str) -> str:
        parents = {_name(c): _parent(c) for c in self._own(r.COHORTS)}
        seen: set[str] = set()
        while parents.get(cohort) and cohort not in seen:
            seen.add(cohort)
            cohort = parents[cohort]
        return cohort

    # --- what to read

    def _pending(self) -> Rows:
        targets = {
            (cluster_of(q), q["metadata"]["namespace"], _name(q)): str(q["spec"]["clusterQueue"])
            for q in self._informers.get(r.LOCAL_QUEUES).store.values()
        }
        known = {_name(q) for q in self._own(r.CLUSTER_QUEUES)}
        counts = {(name, status): 0 for name in known for status in ("active", "inadmissible")}
        for door, status in self._waiting():
            if (name := targets.get(door, "")) in known:
                counts[name, status] += 1
        for (name, status), many in counts.items():
            yield (name, status, self._role), float(many)

    def _local_pending(self) -> Rows:
        doors = [(cluster_of(q), q["metadata"]["namespace"], _name(q)) for q in self._locals()]
        counts = {(door, status): 0 for door in doors for status in ("active", "inadmissible")}
        for door, status in self._waiting():
            if (door, status) in counts:
                counts[door, status] += 1
        for ((_, namespace, name), status), many in counts.items():
            yield (name, namespace, status, self._role), float(many)

    def _waiting(self) -> Iterator[tuple[tuple[str, str, str], str]]:
        for workload in self._informers.get(r.WORKLOADS).store.values():
            if convert.is_finished(workload) or convert.holds_quota(workload) or not convert.is_active(workload):
                continue
            told = get_condition(workload, labels.QUOTA_RESERVED)
            tried = told is not None and told.get("reason") not in ("PendingEvaluation", "Pending")
            name = workload["spec"].get("queueName") or labels.DEFAULT_QUEUE
            door = (cluster_of(workload), workload["metadata"]["namespace"], name)
            yield door, "inadmissible" if tried else "active"

    def _counts(self, field: str) -> Callable[[], Rows]:
        return lambda: (((_name(q), self._role), _number(q, field)) for q in self._own(r.CLUSTER_QUEUES))

    def _local_counts(self, field: str) -> Callable[[], Rows]:
        return lambda: (((_name(q), q["metadata"]["namespace"], self._role), _number(q, field)) for q in self._locals())

    def _states(self) -> Rows:
        for queue in self._own(r.CLUSTER_QUEUES):
            told = get_condition(queue, "Active") or {}
            terminated = told.get("reason") == "Terminating"
            state = "terminated" if terminated else "active" if told.get("status") == "True" else "pending"
            for each in ("pending", "active", "terminated"):
                yield (_name(queue), each, self._role), float(each == state)

    def _local_states(self) -> Rows:
        for queue in self._locals():
            state = (get_condition(queue, "Active") or {}).get("status", "Unknown")
            for each in ("True", "False", "Unknown"):
                yield (_name(queue), queue["metadata"]["namespace"], each, self._role), float(each == state)

    def _turns(self) -> Rows:
        if self._past is None or not self._past.on:
            return
        for queue in self._locals():
            marks = (_name(queue), queue["metadata"]["namespace"], queue["spec"]["clusterQueue"], self._role)
            yield marks, self._past.figure(queue)

    def _use(self, field: str) -> Callable[[], Rows]:
        def read() -> Rows:
            for queue in self._own(r.CLUSTER_QUEUES):
                for flavor, resource, total in _usage(queue, field):
                    yield (_cohort(queue), _name(queue), flavor, resource, self._role), total

        return read

    def _local_use(self, field: str) -> Callable[[], Rows]:
        def read() -> Rows:
            for queue in self._locals():
                for flavor, resource, total in _usage(queue, field):
                    yield (_name(queue), queue["metadata"]["namespace"], flavor, resource, self._role), total

        return read

    def _quota(self, field: str) -> Callable[[], Rows]:
        def read() -> Rows:
            for queue in self._own(r.CLUSTER_QUEUES):
                for group in (queue.get("spec") or {}).get("resourceGroups") or ():
                    for flavor in group["flavors"]:
                        for quota in flavor["resources"]:
                            marks = (_cohort(queue), _name(queue), flavor["name"], quota["name"], self._role)
                            yield marks, math.inf if quota.get(field) is None else float(parse(quota[field]))

        return read


def _reading(read: Callable[[], Rows]) -> Callable[[], Values]:
    return lambda: dict(read())


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def _cohort(queue: Object) -> str:
    return str((queue.get("spec") or {}).get("cohortName") or "")


def _parent(cohort: Object) -> str:
    return str((cohort.get("spec") or {}).get("parentName") or "")


def _number(obj: Object, field: str) -> float:
    return float((obj.get("status") or {}).get(field) or 0)


def _shares(objects: list[Object]) -> Iterator[tuple[Object, float]]:
    for obj in objects:
        share: Any = ((obj.get("status") or {}).get("fairSharing") or {}).get("weightedShare")
        if share is not None:
            yield obj, math.nan if share >= _NO_SHARE else float(share)


def _usage(queue: Object, field: str) -> Iterator[tuple[str, str, float]]:
    for flavor in (queue.get("status") or {}).get(field) or ():
        for resource in flavor.get("resources") or ():
            yield flavor["name"], resource["name"], float(parse(resource.get("total") or 0))

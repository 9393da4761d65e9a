"""A person says yes or no: the controller of checks whose ``controllerName`` is ``glebe.dev/approval``.

Whoever may write ``workloads/status`` decides, by ``glebe approve`` and ``glebe deny`` or by any other client that sets
the check's state to Ready or Rejected. What was approved stays approved: the answer is kept in the annotation
``glebe.dev/approvals``, and an eviction, which resets every check, does not make the person be asked again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, annotations_of, cluster_of, is_deleting, key_of
from glebe.queueing import labels
from glebe.queueing.admissionchecks.activity import APPROVAL, controller_name
from glebe.queueing.life import checks, transitions
from glebe.queueing.picture import convert
from glebe.queueing.round.notices import Notices
from glebe.queueing.tenants import tenancy

#: What an open check says.
ASKED = "waits for a person's approval: glebe approve, or glebe deny"
CHECK_INDEX = "queueing/check"


def check_index(workload: Object) -> Iterable[str]:
    return [str(c["name"]) for c in checks.listed(workload)]


def approved(workload: Object) -> dict[str, str]:
    """What a person has approved, and in which words, by check."""
    try:
        known = json.loads(annotations_of(workload).get(labels.APPROVALS, "{}"))
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in known.items()} if isinstance(known, dict) else {}


def undecided(workload: Object, asked_of_people: Iterable[str]) -> list[str]:
    """Checks of the workload that wait for a person, by name."""
    of_people = set(asked_of_people)
    return [c["name"] for c in checks.in_state(workload, checks.PENDING) if c["name"] in of_people]


def decided(workload: Object, names: Iterable[str], yes: bool, who: str, words: str, now: float) -> Object:
    """The workload with a person's answer to some of its checks. Pure."""
    answer = f"{'approved' if yes else 'denied'} by {who}{f': {words}' if words else ''}"
    listed = checks.listed(workload)
    for name in names:
        listed = checks.with_state(listed, name, checks.READY if yes else checks.REJECTED, answer, now)
    return transitions.with_status(workload, now, admissionChecks=listed)


class Approvals:
    """Asks, and remembers what was approved."""

    def __init__(self, client: Client, informers: Informers, env: Env, notices: Notices) -> None:
        self._client = client
        self._env = env
        self._notices = notices
        self._workloads = informers.get(r.WORKLOADS, indexers={CHECK_INDEX: check_index}).store
        self._checks = informers.get(r.ADMISSION_CHECKS).store
        self._host = tenancy.host_of(client.cluster)

    async def reconcile(self, key: ObjectKey) -> Result | None:
        workload = self._workloads.get(key)
        if workload is None or is_deleting(workload) or convert.is_finished(workload):
            return None
        mine = {c["name"]: c for c in checks.listed(workload) if self._is_mine(c["name"])}
        if not mine:
            return None
        known = approved(workload)
        fresh = {n: c.get("message") or "approved" for n, c in mine.items() if c.get("state") == checks.READY}
        if not fresh.items() <= known.items():
            await self._remember(workload, {**known, **fresh})
            return None
        await self._ask(workload, mine, known)
        return None

    def _is_mine(self, name: str) -> bool:
        return controller_name(self._checks.get(ObjectKey(self._host, "", name))) == APPROVAL

    async def _remember(self, workload: Object, known: Mapping[str, str]) -> None:
        meta = workload["metadata"]
        notes = {labels.APPROVALS: json.dumps(known, sort_keys=True)}
        patch = {"metadata": {"annotations": notes, "resourceVersion": meta["resourceVersion"]}}
        await self._at(workload).patch(r.WORKLOADS, meta["name"], patch, meta["namespace"])

    async def _ask(self, workload: Object, mine: Mapping[str, Mapping[str, Any]], known: Mapping[str, str]) -> None:
        """Open checks say what they wait for; those that were approved before are so again."""
        now = self._env.clock.now()
        listed = checks.listed(workload)
        asked = False
        for name, check in mine.items():
            if check.get("state") != checks.PENDING:
                continue
            if name in known:
                listed = checks.with_state(listed, name, checks.READY, known[name], now)
            elif check.get("message") != ASKED:
                listed = checks.with_state(listed, name, checks.PENDING, ASKED, now)
                asked = True
        if listed == checks.listed(workload):
            return
        written = transitions.with_status(workload, now, admissionChecks=listed)
        await self._at(workload).update_status(r.WORKLOADS, written)
        if asked:
            self._notices.say(workload, "Normal", "ApprovalRequested", f"it {ASKED}")

    def _at(self, obj: Object) -> Client:
        return self._client.at(cluster_of(obj))


def build(client: Client, informers: Informers, env: Env, notices: Notices) -> Controller:
    """Woken by workloads whose checks change, and by checks."""
    approvals = Approvals(client, informers, env, notices)
    controller = Controller("queue-approvals", approvals.reconcile, env)
    store = informers.get(r.WORKLOADS).store

    def of_check(check: Object) -> list[ObjectKey]:
        return [key_of(w, client.cluster) for w in store.by_index(CHECK_INDEX, check["metadata"]["name"])]

    controller.watch(informers.get(r.WORKLOADS), when=_matters)
    controller.watch(informers.get(r.ADMISSION_CHECKS), of_check)
    return controller


def _matters(old: Object | None, new: Object | None) -> bool:
    if new is None or not (now := checks.listed(new)):
        return False
    return old is None or checks.listed(old) != now or approved(old) != approved(new)

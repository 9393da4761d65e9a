"""What must hold after every committed write, whatever has failed in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from glebe.kube.objects import Object, annotations_of, condition_is_true
from glebe.kube.quantity import parse
from glebe.kube.storage import BIND_COMPLETED, affine
from glebe.platform.simulation import appchecks, contest, promises
from glebe.platform.simulation import world as w
from glebe.platform.simulation.world import World


class Violation(AssertionError):
    """An invariant does not hold; the message says which, where and when."""


@dataclass(frozen=True, slots=True)
class Vanished:
    """A pod that held GPUs and is no longer in the API."""

    uid: str
    gpus: int
    bound_at: float
    ended_at: float  # when its end was written; its removal, if there was no other
    removed_at: float

    @property
    def visible(self) -> float:
        """Seconds between its binding and its removal."""
        return self.removed_at - self.bound_at

    @property
    def held(self) -> float:
        """Seconds for which it held its GPUs."""
        return self.ended_at - self.bound_at


class Checker:
    """Feeds every write to the invariants that concern its kind."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.world = World()
        self.writes = 0
        self._now = now
        self._revision = 0
        self._gpu_seconds = 0.0
        self._held = 0
        self.gpu_changes = 0  # GPUs that changed hands, summed: what whole-second times may be off by
        self._held_since = now()
        self._bound_at: dict[str, float] = {}
        self._ended_at: dict[str, float] = {}
        self.vanished: list[Vanished] = []

    def observe(self, group_resource: str, namespace: str, name: str, new: Object | None, revision: int) -> None:
        """One committed write, in commit order; ``new`` is ``None`` for a removal.

        :raises Violation: when an invariant is broken by it.
        """
        self.writes += 1
        if revision <= self._revision:
            raise Violation(f"revision {revision} after {self._revision}: revisions must grow")
        self._revision = revision
        old = self.world.apply(group_resource, namespace, name, new)
        for check in _CHECKS.get(group_resource, ()):
            problem = check(self.world, old, new)
            if problem:
                at = f"{self._now():.3f}"
                raise Violation(f"t={at} rev={revision} {group_resource} {namespace}/{name}: {problem}")
        if group_resource in ("pods", "nodes"):
            self._account()
        if group_resource == "pods":
            self._follow_binding(old, new)
            if new is not None:
                self._allow_for_late_news(old, new)

    def allocated_gpu_seconds(self) -> float:
        """GPU-seconds held by bound, unfinished pods on ready nodes so far: the ledger must agree."""
        return self._gpu_seconds + self._held * (self._now() - self._held_since)

    def _account(self) -> None:
        now = self._now()
        self._gpu_seconds += self._held * (now - self._held_since)
        self._held_since = now
        before = self._held
        ready = {n["metadata"]["name"] for n in self.world.all("nodes") if _is_ready(n)}
        pods = self.world.all("pods")
        self._held = sum(w.gpus(p) for p in pods if p["spec"].get("nodeName") in ready and w.phase(p) not in w.TERMINAL)
        self.gpu_changes += abs(self._held - before)

    def _follow_binding(self, old: Object | None, new: Object | None) -> None:
        if new is not None and new["spec"].get("nodeName"):
            self._bound_at.setdefault(new["metadata"]["uid"], self._now())
            if w.phase(new) in w.TERMINAL:
                self._ended_at.setdefault(new["metadata"]["uid"], self._now())
        elif new is None and old is not None:
            uid = old["metadata"]["uid"]
            bound_at, ended_at = self._bound_at.pop(uid, None), self._ended_at.pop(uid, self._now())
            if bound_at is not None:
                self.vanished.append(Vanished(uid, w.gpus(old), bound_at, ended_at, self._now()))

    def _allow_for_late_news(self, old: Object | None, new: Object) -> None:
        """A node that was cut off may say later that a container ended long ago; the ledger then corrects itself."""
        if w.phase(new) in w.TERMINAL and (old is None or w.phase(old) not in w.TERMINAL):
            ended = w.finished_at(new)
            if ended is not None:
                self.gpu_changes += int(w.gpus(new) * (self._now() - ended))


def _is_ready(node: Object) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


Check = Callable[[World, Object | None, Object | None], str]


def no_node_is_overcommitted(world: World, old: Object | None, new: Object | None) -> str:
    """No GPU, CPU or byte of a node is given twice."""
    node_name = new["spec"].get("nodeName") if new else None
    if not node_name or (old is not None and old["spec"].get("nodeName") == node_name):
        return ""
    node = world.get("nodes", "", node_name)
    if node is None:
        return f"bound to node {node_name}, which does not exist"
    total: dict[str, Fraction] = {}
    for pod in world.pods_on(node_name):
        for resource, amount in w.requests(pod).items():
            total[resource] = total.get(resource, Fraction(0)) + amount
    allocatable = node["status"]["allocatable"]
    for resource, amount in sorted(total.items()):
        if amount > Fraction(parse(allocatable.get(resource, "0"))):
            return f"node {node_name}: {resource} {amount} given, {allocatable.get(resource, 0)} there"
    return ""


def binding_never_changes(world: World, old: Object | None, new: Object | None) -> str:
    if old and new and old["metadata"]["uid"] == new["metadata"]["uid"]:
        before, after = old["spec"].get("nodeName"), new["spec"].get("nodeName")
        if before and before != after:
            return f"moved from node {before} to {after}"
        if w.phase(old) in w.TERMINAL and w.phase(new) != w.phase(old):
            return f"went from {w.phase(old)} back to {w.phase(new)}"
    return ""


def gangs_are_released_whole(world: World, old: Object | None, new: Object | None) -> str:
    """A queued pod loses its gate only when its workload holds quota and every pod of the gang exists."""
    if new is None or not w.is_queued(new) or w.is_gated(new) or (old is not None and not w.is_gated(old)):
        return ""
    if old is None:
        return "a queued pod was created without a scheduling gate"
    job_uid = w.owner_uid(new)
    workload = world.workload_of_job(job_uid)
    if workload is None or not w.holds_quota(workload):
        return "released, but its workload holds no quota"
    if not condition_is_true(workload, "Admitted"):
        return "released before its workload was admitted"
    count = sum(p["count"] for p in workload["status"]["admission"]["podSetAssignments"])
    pods = list(world.pods_of_job(job_uid))
    indexes = {annotations_of(p).get("batch.kubernetes.io/job-completion-index") for p in pods}
    done = _completed_indexes(world, job_uid)
    if len(indexes | done) < count:
        return f"released with {len(indexes | done)} of {count} pods of its gang"
    return ""


def _completed_indexes(world: World, job_uid: str) -> set[str | None]:
    for job in world.all("jobs.batch"):
        if job["metadata"]["uid"] == job_uid:
            done: set[str | None] = set()
            for part in filter(None, str((job.get("status") or {}).get("completedIndexes", "")).split(",")):
                first, _, last = part.partition("-")
                done.update(str(i) for i in range(int(first), int(last or first) + 1))
            return done
    return set()


def one_live_pod_per_index(world: World, old: Object | None, new: Object | None) -> str:
    if new is None or old is not None or not w.owner_uid(new):
        return ""
    index = annotations_of(new).get("batch.kubernetes.io/job-completion-index")
    if index is None:
        return ""
    twins = [
        p["metadata"]["name"]
        for p in world.pods_of_job(w.owner_uid(new))
        if annotations_of(p).get("batch.kubernetes.io/job-completion-index") == index
        and w.phase(p) not in w.TERMINAL
        and not w.is_deleting(p)
    ]
    return f"index {index} runs twice: {', '.join(sorted(twins))}" if len(twins) > 1 else ""


def quota_is_kept(world: World, old: Object | None, new: Object | None) -> str:
    """Per queue: nominal plus borrowing limit; per cohort: the sum of nominal quotas."""
    if new is None or not w.holds_quota(new):
        return ""
    used = _usage_by_queue(world)
    total_nominal = total_used = 0
    for queue in world.all("clusterqueues.kueue.x-k8s.io"):
        quota = queue["spec"]["resourceGroups"][0]["flavors"][0]["resources"][0]
        nominal, mine = int(parse(quota["nominalQuota"])), used.get(queue["metadata"]["name"], 0)
        if queue["spec"].get("cohortName"):
            total_nominal += nominal
            total_used += mine
        limit = quota.get("borrowingLimit")
        if limit is not None and mine > nominal + int(parse(limit)):
            return f"queue {queue['metadata']['name']} uses {mine} of {nominal}+{limit} GPUs"
    if total_used > total_nominal:
        return f"the cohort uses {total_used} of {total_nominal} GPUs"
    return ""


def _usage_by_queue(world: World) -> dict[str, int]:
    used: dict[str, int] = {}
    for workload in world.all("workloads.kueue.x-k8s.io"):
        if not w.holds_quota(workload):
            continue
        admission = workload["status"]["admission"]
        done = {p["name"]: int(p["count"]) for p in workload["status"].get("reclaimablePods") or ()}
        for assignment in admission["podSetAssignments"]:
            amount = int(parse(assignment["resourceUsage"].get(w.GPU, "0")))
            count = int(assignment.get("count") or 1)
            amount = amount // count * max(0, count - done.get(assignment.get("name", "main"), 0))
            used[admission["clusterQueue"]] = used.get(admission["clusterQueue"], 0) + amount
    return used


def jobs_only_move_forward(world: World, old: Object | None, new: Object | None) -> str:
    if not old or not new or old["metadata"]["uid"] != new["metadata"]["uid"]:
        return ""
    before, after = old.get("status") or {}, new.get("status") or {}
    for count in ("succeeded", "failed"):
        if after.get(count, 0) < before.get(count, 0):
            return f"status.{count} went from {before.get(count)} to {after.get(count, 0)}"
    if w.is_finished(old) and not w.is_finished(new):
        return "was finished and is not any more"
    completions = new["spec"].get("completions")
    if completions is not None and after.get("succeeded", 0) > completions:
        return f"{after['succeeded']} pods succeeded of {completions}"
    return ""


def volumes_have_one_claim(world: World, old: Object | None, new: Object | None) -> str:
    """A claim that is bound has a volume that is reserved for it, and no other claim has it."""
    if new is None or BIND_COMPLETED not in annotations_of(new):
        return ""
    uid, name = new["metadata"]["uid"], new["spec"].get("volumeName")
    if old is not None and BIND_COMPLETED in annotations_of(old) and old["spec"].get("volumeName") != name:
        return f"was bound to {old['spec'].get('volumeName')} and now is to {name}"
    volume = world.get("persistentvolumes", "", str(name))
    if volume is not None and (volume["spec"].get("claimRef") or {}).get("uid") != uid:
        return f"is bound to {name}, which is another claim's"
    return ""


def pods_are_where_their_volumes_are(world: World, old: Object | None, new: Object | None) -> str:
    """A pod is bound only when all its claims are, and to a node that can have their volumes."""
    if new is None or not new["spec"].get("nodeName") or (old and old["spec"].get("nodeName")):
        return ""
    meta, where = new["metadata"], new["spec"]["nodeName"]
    for volume in new["spec"].get("volumes") or ():
        if "ephemeral" not in volume:
            continue
        name = f"{meta['name']}-{volume['name']}"
        claim = world.get("persistentvolumeclaims", meta["namespace"], name)
        if claim is None or BIND_COMPLETED not in annotations_of(claim):
            return f"bound to {where} before its claim {name}"
        made = world.get("persistentvolumes", "", claim["spec"]["volumeName"])
        node = world.get("nodes", "", where)
        if made is not None and node is not None and not affine(made, node):
            return f"bound to {where}, where volume {claim['spec']['volumeName']} cannot be had"
    return ""


_CHECKS: dict[str, tuple[Check, ...]] = {
    "pods": (
        no_node_is_overcommitted,
        binding_never_changes,
        gangs_are_released_whole,
        one_live_pod_per_index,
        pods_are_where_their_volumes_are,
        appchecks.sets_have_no_more_pods_than_asked_for,
        appchecks.members_have_their_disk_first,
        appchecks.one_daemon_on_each_node,
    ),
    "persistentvolumeclaims": (volumes_have_one_claim, appchecks.disks_stay),
    "workloads.kueue.x-k8s.io": (
        quota_is_kept,
        contest.quota_returns_when_the_pods_are_gone,
        contest.nobody_runs_before_all_checks_have_passed,
        contest.nobody_takes_turns,
        promises.no_node_is_promised_twice,
    ),
    "jobs.batch": (jobs_only_move_forward, appchecks.forbidden_jobs_do_not_overlap),
    "deployments.apps": (appchecks.remember_replicas, appchecks.scale_stays_in_the_autoscalers_range),
    "replicasets.apps": (appchecks.remember_replicas, appchecks.roll_outs_keep_their_surge),
}

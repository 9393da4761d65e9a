"""The checker itself: each invariant fires on the write that breaks it, and on no other."""

from __future__ import annotations

from typing import Any

import pytest

from glebe.kube.objects import Object
from glebe.platform.simulation.invariants import Checker, Violation


def make_checker() -> Checker:
    return Checker(lambda: 0.0)


class Writes:
    """Commits writes to a checker with growing revisions."""

    def __init__(self) -> None:
        self.checker = make_checker()
        self.revision = 0

    def put(self, group_resource: str, obj: Object) -> None:
        self.revision += 1
        meta = obj["metadata"]
        self.checker.observe(group_resource, meta.get("namespace", ""), meta["name"], obj, self.revision)


def node(name: str, gpus: int) -> Object:
    return {
        "metadata": {"name": name},
        "status": {
            "allocatable": {"nvidia.com/gpu": str(gpus)},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def pod(
    name: str, gpus: int, on: str = "", *, index: int | None = None, gated: bool = False, queued: bool = False
) -> Object:
    meta: dict[str, Any] = {"name": name, "namespace": "a", "uid": f"uid-{name}"}
    meta["ownerReferences"] = [{"uid": "job-uid", "controller": True}]
    if index is not None:
        meta["annotations"] = {"batch.kubernetes.io/job-completion-index": str(index)}
    if queued:
        meta["labels"] = {"kueue.x-k8s.io/queue-name": "main"}
    spec: dict[str, Any] = {"containers": [{"resources": {"requests": {"nvidia.com/gpu": str(gpus)}}}]}
    if on:
        spec["nodeName"] = on
    if gated:
        spec["schedulingGates"] = [{"name": "kueue.x-k8s.io/topology"}]
    return {"metadata": meta, "spec": spec, "status": {"phase": "Running" if on else "Pending"}}


def workload(count: int, gpus: int, queue: str = "q") -> Object:
    return {
        "metadata": {
            "name": f"w-{queue}-{gpus}",
            "namespace": "a",
            "ownerReferences": [{"uid": "job-uid", "controller": True}],
        },
        "spec": {"podSets": [{"name": "main", "count": count, "template": {"spec": {"containers": []}}}]},
        "status": {
            "conditions": [{"type": kind, "status": "True"} for kind in ("QuotaReserved", "Admitted")],
            "admission": {
                "clusterQueue": queue,
                "podSetAssignments": [{"name": "main", "count": count, "resourceUsage": {"nvidia.com/gpu": str(gpus)}}],
            },
        },
    }


def queue(name: str, nominal: int, borrowing: int | None = None) -> Object:
    quota: dict[str, Any] = {"name": "nvidia.com/gpu", "nominalQuota": nominal}
    if borrowing is not None:
        quota["borrowingLimit"] = borrowing
    return {
        "metadata": {"name": name},
        "spec": {"cohortName": "all", "resourceGroups": [{"flavors": [{"resources": [quota]}]}]},
    }


def test_a_gpu_given_twice_is_seen() -> None:
    writes = Writes()
    writes.put("nodes", node("n1", 8))
    writes.put("pods", pod("p1", 4, "n1"))
    writes.put("pods", pod("p2", 4, "n1"))
    with pytest.raises(Violation, match=r"node n1: nvidia.com/gpu 9 given, 8 there"):
        writes.put("pods", pod("p3", 1, "n1"))


def test_a_finished_pod_gives_its_gpus_back() -> None:
    writes = Writes()
    writes.put("nodes", node("n1", 8))
    done = pod("p1", 8, "n1")
    writes.put("pods", done)
    writes.put("pods", {**done, "status": {"phase": "Succeeded"}})
    writes.put("pods", pod("p2", 8, "n1"))


def test_a_pod_that_moves_is_seen() -> None:
    writes = Writes()
    writes.put("nodes", node("n1", 8))
    writes.put("nodes", node("n2", 8))
    writes.put("pods", pod("p1", 4, "n1"))
    with pytest.raises(Violation, match="moved from node n1 to n2"):
        writes.put("pods", pod("p1", 4, "n2"))


def test_a_partly_released_gang_is_seen() -> None:
    writes = Writes()
    writes.put("workloads.kueue.x-k8s.io", workload(2, 8))
    writes.put("pods", pod("p0", 4, index=0, gated=True, queued=True))
    with pytest.raises(Violation, match="released with 1 of 2 pods"):
        writes.put("pods", pod("p0", 4, index=0, queued=True))


def test_a_release_without_quota_is_seen() -> None:
    writes = Writes()
    writes.put("pods", pod("p0", 4, index=0, gated=True, queued=True))
    with pytest.raises(Violation, match="holds no quota"):
        writes.put("pods", pod("p0", 4, index=0, queued=True))


def test_a_whole_gang_may_go() -> None:
    writes = Writes()
    writes.put("workloads.kueue.x-k8s.io", workload(2, 8))
    for index in (0, 1):
        writes.put("pods", pod(f"p{index}", 4, index=index, gated=True, queued=True))
    for index in (0, 1):
        writes.put("pods", pod(f"p{index}", 4, index=index, queued=True))


def test_two_pods_of_one_index_are_seen() -> None:
    writes = Writes()
    writes.put("pods", pod("p0", 1, index=0))
    with pytest.raises(Violation, match="index 0 runs twice"):
        writes.put("pods", pod("p0b", 1, index=0))


@pytest.mark.parametrize(
    ("queues", "workloads", "problem"),
    [
        ([queue("a", 8), queue("b", 8)], [workload(1, 16, "a"), workload(1, 1, "b")], "the cohort uses 17 of 16"),
        ([queue("a", 8, 2), queue("b", 8)], [workload(1, 11, "a")], r"queue a uses 11 of 8\+2"),
    ],
)
def test_quota_given_twice_is_seen(queues: list[Object], workloads: list[Object], problem: str) -> None:
    writes = Writes()
    for obj in queues:
        writes.put("clusterqueues.kueue.x-k8s.io", obj)
    for obj in workloads[:-1]:
        writes.put("workloads.kueue.x-k8s.io", obj)
    with pytest.raises(Violation, match=problem):
        writes.put("workloads.kueue.x-k8s.io", workloads[-1])


def test_a_job_that_goes_backwards_is_seen() -> None:
    writes = Writes()
    job: Object = {"metadata": {"name": "j", "namespace": "a", "uid": "u"}, "spec": {}, "status": {"succeeded": 2}}
    writes.put("jobs.batch", job)
    with pytest.raises(Violation, match=r"status.succeeded went from 2 to 1"):
        writes.put("jobs.batch", {**job, "status": {"succeeded": 1}})


def test_revisions_must_grow() -> None:
    checker = make_checker()
    checker.observe("nodes", "", "n1", node("n1", 8), 5)
    with pytest.raises(Violation, match="revision 5 after 5"):
        checker.observe("nodes", "", "n1", node("n1", 8), 5)


def test_held_gpu_seconds_are_integrated_independently() -> None:
    now = 0.0
    checker = Checker(lambda: now)
    checker.observe("nodes", "", "n1", node("n1", 8), 1)
    checker.observe("pods", "a", "p1", pod("p1", 4, "n1"), 2)
    now = 10.0
    assert checker.allocated_gpu_seconds() == 40
    checker.observe("pods", "a", "p1", None, 3)
    now = 20.0
    assert checker.allocated_gpu_seconds() == 40


def claim(uid: str, volume: str) -> Object:
    meta = {"name": f"c-{uid}", "namespace": "a", "uid": uid, "annotations": {"pv.kubernetes.io/bind-completed": "yes"}}
    return {"metadata": meta, "spec": {"volumeName": volume}}


def volume(uid: str, host: str) -> Object:
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]}
    affinity = {"required": {"nodeSelectorTerms": [term]}}
    return {"metadata": {"name": "v"}, "spec": {"claimRef": {"uid": uid}, "nodeAffinity": affinity}}


def test_a_volume_has_one_claim() -> None:
    writes = Writes()
    writes.put("persistentvolumes", volume("one", "n"))
    writes.put("persistentvolumeclaims", claim("one", "v"))
    with pytest.raises(Violation, match="which is another claim's"):
        writes.put("persistentvolumeclaims", claim("two", "v"))
    with pytest.raises(Violation, match="was bound to v and now is to w"):
        writes.put("persistentvolumeclaims", claim("one", "w"))


def test_a_pod_goes_where_its_volumes_are() -> None:
    def with_volume(on: str) -> Object:
        made = pod("p", 0, on)
        made["spec"]["volumes"] = [{"name": "scratch", "ephemeral": {}}]
        return made

    writes = Writes()
    there, elsewhere = node("n", 8), node("m", 8)
    there["metadata"]["labels"] = {"kubernetes.io/hostname": "n"}
    for each in (there, elsewhere):
        writes.put("nodes", each)
    with pytest.raises(Violation, match="before its claim p-scratch"):
        writes.put("pods", with_volume("n"))
    writes = Writes()
    for each in (there, elsewhere):
        writes.put("nodes", each)
    writes.put("persistentvolumes", volume("one", "n"))
    body = claim("one", "v")
    body["metadata"]["name"] = "p-scratch"
    writes.put("persistentvolumeclaims", body)
    writes.put("pods", with_volume("n"))
    writes = Writes()
    for each in (there, elsewhere):
        writes.put("nodes", each)
    writes.put("persistentvolumes", volume("one", "n"))
    writes.put("persistentvolumeclaims", body)
    with pytest.raises(Violation, match="where volume v cannot be had"):
        writes.put("pods", with_volume("m"))


def evicted(uid: str, by: str, **status: Any) -> Object:
    found = workload(1, 4)
    found["metadata"].update(name=f"w-{uid}", uid=uid)
    message = f"Preempted to accommodate a workload (UID: {by}, JobUID: j) due to prioritization"
    condition = {"type": "Preempted", "status": "True", "reason": "InClusterQueue", "message": message}
    found["status"]["conditions"] = [condition, *status.pop("conditions", ())]
    found["status"].update(status)
    return found


def test_workloads_that_preempt_each_other_are_seen() -> None:
    writes = Writes()
    writes.put("workloads.kueue.x-k8s.io", evicted("a", "b"))
    with pytest.raises(Violation, match="preempted by a, which it had preempted before"):
        writes.put("workloads.kueue.x-k8s.io", evicted("b", "a"))


def test_quota_that_returns_while_a_pod_runs_is_seen() -> None:
    writes = Writes()
    writes.put("nodes", node("n1", 8))
    writes.put("workloads.kueue.x-k8s.io", workload(1, 4))
    writes.put("pods", pod("p0", 4, "n1"))
    freed = workload(1, 4)
    freed["status"] = {"conditions": [{"type": "QuotaReserved", "status": "False"}]}
    with pytest.raises(Violation, match="gave its quota back while p0 runs"):
        writes.put("workloads.kueue.x-k8s.io", freed)


def test_an_admission_before_all_checks_have_passed_is_seen() -> None:
    writes = Writes()
    early = workload(1, 4)
    early["status"]["admissionChecks"] = [{"name": "boss", "state": "Pending"}]
    with pytest.raises(Violation, match="admitted though boss did not pass"):
        writes.put("workloads.kueue.x-k8s.io", early)


def test_pods_that_are_done_give_their_quota_back() -> None:
    writes = Writes()
    for each in (queue("a", 8), queue("b", 8)):
        writes.put("clusterqueues.kueue.x-k8s.io", each)
    half = workload(2, 16, "a")
    half["status"]["reclaimablePods"] = [{"name": "main", "count": 1}]
    writes.put("workloads.kueue.x-k8s.io", half)
    writes.put("workloads.kueue.x-k8s.io", workload(1, 8, "b"))

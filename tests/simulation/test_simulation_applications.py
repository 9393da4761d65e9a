"""What the simulation asks of applications: each invariant fires on the write that breaks it; the undone is named."""

from __future__ import annotations

from typing import Any

import pytest

from glebe.kube.objects import Object
from glebe.platform.simulation import appchecks
from glebe.platform.simulation.applications import applications
from glebe.platform.simulation.faults import FaultRates
from glebe.platform.simulation.harness import APPLICATIONS, simulate
from glebe.platform.simulation.invariants import Checker, Violation


class Writes:
    """Commits writes to a checker with growing revisions."""

    def __init__(self) -> None:
        self.checker = Checker(lambda: 0.0)
        self.revision = 0

    def put(self, group_resource: str, name: str, owner: str = "", kind: str = "X", **more: Any) -> None:
        self._commit(group_resource, name, made(name, owner, kind, **more))

    def drop(self, group_resource: str, name: str) -> None:
        self._commit(group_resource, name, None)

    def _commit(self, group_resource: str, name: str, obj: Object | None) -> None:
        self.revision += 1
        self.checker.observe(group_resource, "apps", name, obj, self.revision)

    def left(self) -> list[str]:
        return list(appchecks.unfinished(self.checker.world))


def made(name: str, owner: str = "", kind: str = "X", **more: Any) -> Object:
    meta: Object = {"name": name, "namespace": "apps", "uid": f"uid-{name}", "generation": 1}
    if owner:
        meta["ownerReferences"] = [{"uid": f"uid-{owner}", "controller": True, "kind": kind}]
    return {"metadata": meta, **more}


def pod(phase: str = "Running", node: str = "", **spec: Any) -> Object:
    ready = [{"type": "Ready", "status": "True"}] if phase == "Running" else []
    body: Object = {"containers": [{"name": "main", "image": "i"}], **spec}
    if node:
        terms = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
        body["affinity"] = {"nodeAffinity": required}
    return {"spec": body, "status": {"phase": phase, "conditions": ready}}


def test_a_set_with_too_many_pods_is_seen() -> None:
    writes = Writes()
    writes.put("replicasets.apps", "s", spec={"replicas": 1})
    writes.put("pods", "a", "s", **pod("Failed"))
    writes.put("pods", "b", "s", **pod())
    with pytest.raises(Violation, match="2 live pods of a set that was to have at most 1"):
        writes.put("pods", "c", "s", **pod())


def test_a_roll_out_beyond_its_surge_is_seen() -> None:
    writes = Writes()
    strategy = {"rollingUpdate": {"maxSurge": "25%"}}
    writes.put("deployments.apps", "d", spec={"replicas": 4, "strategy": strategy})
    writes.put("replicasets.apps", "old", "d", spec={"replicas": 4})
    writes.put("replicasets.apps", "new", "d", spec={"replicas": 1})
    with pytest.raises(Violation, match="ask for 6 pods of at most 5"):
        writes.put("replicasets.apps", "new", "d", spec={"replicas": 2})


def test_a_scale_out_of_the_autoscalers_range_is_seen() -> None:
    writes = Writes()
    with pytest.raises(Violation, match="7 replicas, of 2 to 6"):
        writes.put("deployments.apps", "web", spec={"replicas": 7})


def test_a_member_without_its_disk_and_a_lost_disk_are_seen() -> None:
    writes = Writes()
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data-db-0"}}]
    with pytest.raises(Violation, match="made before its claims data-db-0"):
        writes.put("pods", "db-0", "db", **pod(volumes=volumes))
    writes.put("persistentvolumeclaims", "data-db-0", spec={})
    with pytest.raises(Violation, match="a claim that is retained was removed"):
        writes.drop("persistentvolumeclaims", "data-db-0")


def test_two_daemons_on_one_node_are_seen() -> None:
    writes = Writes()
    writes.put("pods", "a", "agent", "DaemonSet", **pod(node="n1"))
    writes.put("pods", "b", "agent", "DaemonSet", **pod(node="n2"))
    with pytest.raises(Violation, match="2 daemons for node n1"):
        writes.put("pods", "c", "agent", "DaemonSet", **pod(node="n1"))


def test_jobs_that_overlap_though_it_is_forbidden_are_seen() -> None:
    writes = Writes()
    writes.put("cronjobs.batch", "tick", spec={"concurrencyPolicy": "Forbid"})
    done = {"conditions": [{"type": "Complete", "status": "True"}]}
    writes.put("jobs.batch", "one", "tick", "CronJob", spec={}, status=done)
    writes.put("jobs.batch", "two", "tick", "CronJob", spec={})
    with pytest.raises(Violation, match="2 jobs at once"):
        writes.put("jobs.batch", "three", "tick", "CronJob", spec={})


def test_what_is_undone_is_named() -> None:
    writes = Writes()
    template = pod()
    status = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}
    writes.put("deployments.apps", "d", spec={"replicas": 1, "template": template}, status=status)
    writes.put("replicasets.apps", "s", "d", spec={"replicas": 1})
    assert writes.left() == ["deployment d: has 0 pods of 1, or old ones"]
    writes.put("pods", "p", "s", **pod())
    assert writes.left() == []
    writes.put("pods", "q", "gone", "ReplicaSet", **pod())
    assert writes.left() == ["pod q outlived its owner"]
    writes.drop("pods", "q")
    writes.put("statefulsets.apps", "db", spec={"replicas": 1}, status={"observedGeneration": 1})
    assert [text.split(":")[0] for text in writes.left()] == ["stateful set db", "stateful set db"]


def test_seeds_have_applications_and_they_come_to_rest() -> None:
    report = simulate(APPLICATIONS * 3, FaultRates.none())
    assert not report.violation
    _, actions = applications(3, 240.0)
    assert {a.verb for a in actions} == {"create", "change", "delete", "evict"}
    kinds = {a.resource.kind for a in actions if a.resource is not None}
    assert {"Deployment", "StatefulSet", "DaemonSet", "CronJob", "PodDisruptionBudget"} < kinds

"""Kinds whose pods stand nowhere as templates, user-declared kinds, and kinds that come and go."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
import yaml
from jobkindworlds import (
    NAMESPACE,
    POOL,
    TOLERATION,
    admitted,
    container,
    crd,
    finished,
    job,
    kind_world,
    template,
)

from glebe.kube import resources as r
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object, condition_is_true, get_condition
from glebe.kube.resources import Resource
from glebe.queueing.jobkinds.declared import declared
from glebe.queueing.jobkinds.parse import DeclarationError, parse_kinds
from glebe.queueing.jobkinds.registry import shipped
from glebe.queueing.jobkinds.trainjob import CLUSTER_RUNTIMES, RUNTIMES
from glebe.queueing.jobs import integrations
from glebe.queueing.jobs.construct import Priority, workload_for

KINDS = {kind.resource.kind: kind for kind in shipped()}


def sets(workload: Object) -> dict[str, int]:
    return {p["name"]: p["count"] for p in workload["spec"]["podSets"]}


async def test_a_trainjob_is_described_by_its_runtime() -> None:
    resource = KINDS["TrainJob"].resource
    runtime = {
        "apiVersion": CLUSTER_RUNTIMES.api_version,
        "kind": "ClusterTrainingRuntime",
        "metadata": {"name": "torch"},
        "spec": {
            "mlPolicy": {"numNodes": 1},
            "template": {
                "spec": {
                    "replicatedJobs": [
                        {
                            "name": "data",
                            "template": {
                                "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "dataset"}},
                                "spec": {"template": template(0)},
                            },
                        },
                        {
                            "name": "node",
                            "template": {
                                "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
                                "spec": {"template": {"spec": {"containers": [container(1, "node")]}}},
                            },
                        },
                    ]
                }
            },
        },
    }
    spec = {
        "runtimeRef": {"name": "torch"},
        "trainer": {"numNodes": 3, "resourcesPerNode": {"requests": {"cpu": "2", "nvidia.com/gpu": "4"}}},
    }
    async with kind_world() as w:
        for each in (resource, CLUSTER_RUNTIMES, RUNTIMES):
            await w.apply(r.CUSTOM_RESOURCE_DEFINITIONS, crd(each))
        made = await w.apply(resource, job(resource, "one", copy.deepcopy(spec)))
        assert made["spec"]["suspend"] is True
        await asyncio.sleep(5)
        assert await w.workloads() == []  # nobody knows yet what it is made of
        await w.client.create(CLUSTER_RUNTIMES, runtime)
        first = await w.workload(admitted)
        assert sets(first) == {"data": 1, "node": 3}
        await w.holds(12)
        started = await w.get(resource, "one", lambda o: o["spec"]["suspend"] is False)
        (patch,) = started["spec"]["runtimePatches"]
        assert patch["manager"] == "kueue.x-k8s.io/manager"
        jobs = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
        assert [j["name"] for j in jobs] == ["data", "node"]
        assert jobs[1]["template"]["spec"]["template"]["spec"] == {"nodeSelector": POOL, "tolerations": [TOLERATION]}
        await w.set_status(resource, "one", {"jobsStatus": [{"name": "node", "active": 1, "ready": 1}]})
        await w.evict(first)
        stopped = await w.get(resource, "one", lambda o: o["spec"]["suspend"] is True)
        assert "runtimePatches" in stopped["spec"]  # pods are there: not to be changed yet
        await w.set_status(resource, "one", {"jobsStatus": [{"name": "node", "active": 0}]})
        await w.free()
        restored = await w.get(resource, "one")
        assert restored["spec"] == {**spec, "suspend": True}
        await w.activate(first)
        await w.get(resource, "one", lambda o: o["spec"]["suspend"] is False)
        ended = {"conditions": [{"type": "Failed", "status": "True", "message": "out of memory"}]}
        await w.set_status(resource, "one", ended)
        end = get_condition(await w.workload(finished), "Finished") or {}
        assert (end["reason"], end["message"]) == ("Failed", "out of memory")


async def test_an_appwrapper_wraps_what_it_says_or_what_the_table_knows() -> None:
    resource = KINDS["AppWrapper"].resource
    wrapped = {"apiVersion": "x/v1", "kind": "Own", "spec": {"deep": {"pods": template(2)}}}
    pytorch = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "spec": {"pytorchReplicaSpecs": {"Worker": {"replicas": 2, "template": template(1)}}},
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": template(1)["spec"]}
    spec = {
        "components": [
            {"template": wrapped, "podSets": [{"path": "template.spec.deep.pods", "replicas": 3}]},
            {"template": pytorch},
            {"template": pod},
        ]
    }
    async with kind_world() as w:
        await w.apply(r.CUSTOM_RESOURCE_DEFINITIONS, crd(resource))
        await w.apply(resource, job(resource, "one", copy.deepcopy(spec)))
        first = await w.workload(admitted)
        assert sets(first) == {"one-0": 3, "one-1": 2, "one-2": 1}
        await w.holds(9)
        started = await w.get(resource, "one", lambda o: o["spec"]["suspend"] is False)
        told = [c["podSetInfos"][0] for c in started["spec"]["components"]]
        assert [t["nodeSelector"] for t in told] == [POOL] * 3
        assert [t["labels"]["kueue.x-k8s.io/podset"] for t in told] == ["one-0", "one-1", "one-2"]
        reserved = {"type": "QuotaReserved", "status": "True"}
        await w.set_status(resource, "one", {"conditions": [reserved, {"type": "PodsReady", "status": "True"}]})
        await w.workload(lambda o: condition_is_true(o, "PodsReady"))
        await w.evict(first)
        stopped = await w.get(resource, "one", lambda o: o["spec"]["suspend"] is True)
        assert stopped["spec"] == {**spec, "suspend": True}
        await w.set_status(resource, "one", {"phase": "Suspended", "conditions": []})
        await w.free()
        await w.activate(first)
        await w.get(resource, "one", lambda o: o["spec"]["suspend"] is False)
        deployed = {"type": "ResourcesDeployed", "status": "True"}
        await w.set_status(resource, "one", {"phase": "Failed", "conditions": [deployed]})
        await asyncio.sleep(5)
        assert not finished(await w.workload())  # its resources are still being deleted
        await w.set_status(resource, "one", {"phase": "Failed", "conditions": []})
        assert (get_condition(await w.workload(finished), "Finished") or {})["reason"] == "Failed"
        await w.free()


async def test_a_sparkapplication_speaks_of_roles() -> None:
    resource = KINDS["SparkApplication"].resource
    spec = {
        "driver": {"coreRequest": "1", "memory": "2g", "labels": {"mine": "yes"}},
        "executor": {
            "instances": 3,
            "cores": 4,
            "memory": "512m",
            "gpu": {"name": "nvidia.com/gpu", "quantity": 2},
            "nodeSelector": {"disk": "fast"},
        },
    }
    async with kind_world() as w:
        await w.apply(r.CUSTOM_RESOURCE_DEFINITIONS, crd(resource))
        await w.apply(resource, job(resource, "one", copy.deepcopy(spec)))
        waiting = await w.workload(lambda o: get_condition(o, "QuotaReserved"))
        assert sets(waiting) == {"driver": 1, "executor": 3}
        asked = waiting["spec"]["podSets"][1]["template"]["spec"]["containers"][0]["resources"]
        assert asked == {"requests": {"cpu": "4", "memory": "512Mi"}, "limits": {"nvidia.com/gpu": "2"}}
        first = await w.workload(admitted)
        await w.holds(6)
        started = await w.get(resource, "one", lambda o: o["spec"]["suspend"] is False)
        assert started["spec"]["driver"]["nodeSelector"] == POOL
        assert started["spec"]["driver"]["labels"]["mine"] == "yes"
        assert started["spec"]["driver"]["labels"]["kueue.x-k8s.io/podset"] == "driver"
        assert started["spec"]["executor"]["nodeSelector"] == {"disk": "fast", **POOL}
        assert started["spec"]["executor"]["tolerations"] == [TOLERATION]
        state = {"applicationState": {"state": "RUNNING"}, "executorState": {"a": "RUNNING", "b": "PENDING"}}
        await w.set_status(resource, "one", state)
        await w.workload(lambda o: get_condition(o, "PodsReady"))
        assert not condition_is_true(await w.workload(), "PodsReady")
        await w.set_status(resource, "one", {**state, "executorState": dict.fromkeys("abc", "RUNNING")})
        await w.workload(lambda o: condition_is_true(o, "PodsReady"))
        await w.evict(first)
        stopped = await w.get(resource, "one", lambda o: o["spec"]["suspend"] is True)
        assert stopped["spec"] == {**spec, "suspend": True}
        await w.set_status(resource, "one", {"applicationState": {"state": "SUSPENDED"}})
        await w.free()
        await w.activate(first)
        await w.get(resource, "one", lambda o: o["spec"]["suspend"] is False)
        await w.set_status(resource, "one", {"applicationState": {"state": "COMPLETED"}})
        assert (get_condition(await w.workload(finished), "Finished") or {})["reason"] == "Succeeded"


async def test_a_rayjob_that_is_refused_asks_for_nothing() -> None:
    resource = KINDS["RayJob"].resource
    head = {"template": {"spec": {"containers": [container(2)]}}}
    async with kind_world() as w:
        await w.apply(r.CUSTOM_RESOURCE_DEFINITIONS, crd(resource))
        await w.apply(resource, job(resource, "one", {"rayClusterSpec": {"headGroupSpec": head}}))
        await w.workload(admitted)
        await w.holds(2)
        await w.set_status(resource, "one", {"jobDeploymentStatus": "ValidationFailed"})
        await w.get(resource, "one", lambda o: o["spec"]["suspend"] is True)
        # as the operator sees it: nothing runs
        held = await w.workload(lambda o: (get_condition(o, "QuotaReserved") or {}).get("reason") == "OnHold")
        assert not held["status"].get("admission")
        await w.free()
        await w.set_status(resource, "one", {"jobDeploymentStatus": ""})
        await w.workload(admitted)


SIMULATION = Resource("physics.example.org", "v1", "simulations", "Simulation")
DECLARATION = """
apiVersion: physics.example.org/v1
kind: Simulation
suspend: spec.paused
podSets:
- {name: coordinator, template: spec.coordinator, count: 1}
- {each: spec.ranks, nameAt: id, template: pod, count: {product: [nodes, perNode]}}
finished:
- {field: status.phase, is: [Done], says: status.why, reason: Succeeded}
- {field: status.phase, is: [Broken], says: status.why, reason: Failed}
active: [{sum: ["status.ranks[].running"]}]
ready: [{cel: "object.status.ranks.all(r, r.running == r.wanted)"}]
"""


def configmap(**data: str) -> Object:
    meta = {"name": "glebe-job-kinds", "namespace": "glebe-system"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


async def test_a_user_adds_a_kind_with_a_few_lines() -> None:
    ranks = [{"id": "left", "nodes": 2, "perNode": 2, "pod": template(1)}, {"id": "right", "pod": template(2)}]
    spec = {"coordinator": template(0), "ranks": ranks}
    async with kind_world() as w:
        assert not any(kind.crd for kind in w.queue.kind_host.running)  # what is not there costs nothing
        await w.apply(r.CUSTOM_RESOURCE_DEFINITIONS, crd(SIMULATION))
        await w.apply(r.CONFIGMAPS, configmap(simulation=DECLARATION))
        await asyncio.sleep(5)
        made = await w.apply(SIMULATION, job(SIMULATION, "one", copy.deepcopy(spec)))
        assert made["spec"]["paused"] is True
        first = await w.workload(admitted)
        assert sets(first) == {"coordinator": 1, "left": 4, "right": 1}
        await w.holds(6)
        started = await w.get(SIMULATION, "one", lambda o: o["spec"]["paused"] is False)
        assert started["spec"]["ranks"][1]["pod"]["spec"]["nodeSelector"] == POOL
        await w.set_status(SIMULATION, "one", {"ranks": [{"running": 3, "wanted": 4}]})
        await w.workload(lambda o: (get_condition(o, "PodsReady") or {}).get("status") == "False")
        await w.set_status(SIMULATION, "one", {"ranks": [{"running": 4, "wanted": 4}]})
        await w.workload(lambda o: condition_is_true(o, "PodsReady"))
        await w.evict(first)
        stopped = await w.get(SIMULATION, "one", lambda o: o["spec"]["paused"] is True)
        assert stopped["spec"] == {**spec, "paused": True}
        await w.set_status(SIMULATION, "one", {"ranks": []})
        await w.free()
        await w.activate(first)
        await w.get(SIMULATION, "one", lambda o: o["spec"]["paused"] is False)
        await w.set_status(SIMULATION, "one", {"phase": "Broken", "why": "NaN"})
        end = get_condition(await w.workload(finished), "Finished") or {}
        assert (end["reason"], end["message"]) == ("Failed", "NaN")
        assert [k.resource.kind for k in w.queue.kind_host.running if k.crd] == ["Simulation"]
        await w.client.delete(r.CONFIGMAPS, "glebe-job-kinds", "glebe-system")
        await asyncio.sleep(5)
        assert not any(kind.crd for kind in w.queue.kind_host.running)


async def test_a_kind_is_picked_up_when_its_crd_appears_and_let_go_with_it() -> None:
    resource = KINDS["JAXJob"].resource
    async with kind_world() as w:

        def runs() -> bool:
            return KINDS["JAXJob"] in w.queue.kind_host.running

        assert not runs()
        await w.apply(r.CUSTOM_RESOURCE_DEFINITIONS, crd(resource))
        await asyncio.sleep(3)
        assert runs()
        await w.client.delete(r.CUSTOM_RESOURCE_DEFINITIONS, resource.group_resource)
        await asyncio.sleep(3)
        assert not runs()
        await w.apply(r.CUSTOM_RESOURCE_DEFINITIONS, crd(resource))
        spec = {"jaxReplicaSpecs": {"Worker": {"replicas": 2, "template": template(1)}}}
        await asyncio.sleep(3)
        await w.apply(resource, job(resource, "late", spec))
        await w.workload(admitted)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"suspend": None}, "suspend: is required"),
        ({"suspend": "spec..x"}, 'suspend: "spec..x" is not a path'),
        ({"kind": "lower"}, "kind: 'lower' is not possible here"),
        ({"shape": "ray"}, "shape: is for shipped kinds only"),
        ({"podSets": []}, "podSets: is required: where the pods' templates stand"),
        ({"active": None}, "active: is required: else quota would be given away while pods still run"),
        ({"podSets": [{"template": "a"}]}, "podSets[0].name: is required where each is not given"),
        ({"podSets": [{"name": "a", "count": 1}]}, "podSets[0].template: is required"),
        ({"podSets": [{"name": "a", "template": "a", "count": -1}]}, "podSets[0].count: must not be below 0"),
        ({"podSets": [{"name": "a", "template": "a", "counts": 1}]}, "podSets[0].counts: there is no such field"),
        (
            {"finished": [{"condition": "Done", "reason": "Won"}]},
            "finished[0].reason: must be one of Succeeded, Failed",
        ),
        ({"finished": [{"reason": "Failed"}]}, "finished[0]: must have one of condition, field, sum, all, not, cel"),
        ({"ready": [{"cel": "object.("}]}, "ready[0].cel: ERROR"),
        ({"ready": [{"field": "a"}]}, "ready[0].is: either is or isNot must have values"),
        ({"colour": "red"}, "colour: there is no such field"),
    ],
)
def test_what_is_wrong_with_a_declaration_is_named(change: dict[str, Any], fault: str) -> None:
    row = {k: v for k, v in {**yaml.safe_load(DECLARATION), **change}.items() if v is not None}
    with pytest.raises(DeclarationError) as error:
        parse_kinds(row)
    assert any(found.startswith(fault) for found in error.value.faults), error.value.faults


async def test_a_wrong_declaration_is_refused_and_a_right_one_is_not() -> None:
    async with kind_world() as w:
        bad = DECLARATION.replace("suspend: spec.paused", "suspend: ''")
        with pytest.raises(ApiError) as refused:
            await w.apply(r.CONFIGMAPS, configmap(good=DECLARATION, bad=bad))
        assert refused.value.code == 422
        assert "data[bad]" in refused.value.message
        assert "suspend" in refused.value.message
        await w.apply(r.CONFIGMAPS, configmap(good=DECLARATION))
        await w.apply(r.CONFIGMAPS, {**configmap(any="thing: ["), "metadata": {"name": "o", "namespace": NAMESPACE}})


def test_shipped_kinds_stay_as_they_are_and_faults_do_not_spread() -> None:
    clash = DECLARATION.replace("physics.example.org/v1", "jobset.x-k8s.io/v9").replace("Simulation", "JobSet")
    kinds, faults = declared(configmap(a=clash, b=DECLARATION, c=DECLARATION, d="- ["))
    assert [kind.origin for kind in kinds] == ["b"]
    assert faults[:2] == [
        "a: JobSet of jobset.x-k8s.io is known already",
        "c: Simulation of physics.example.org is declared by b",
    ]
    assert faults[2].startswith("d: this is not YAML")


def test_numbers_of_pods_come_from_where_the_table_says() -> None:
    jobset = KINDS["JobSet"]
    a: dict[str, Any] = {"name": "a", "template": {"spec": {"parallelism": 4, "completions": 9}}}
    spec = {"replicatedJobs": [a, {"name": "b"}]}
    views = integrations.pod_sets(jobset, {"metadata": {}, "spec": spec})
    assert [(v.name, v.count) for v in views] == [("a", 4), ("b", 1)]
    a["replicas"] = 0
    assert integrations.pod_sets(jobset, {"metadata": {}, "spec": spec})[0].count == 0


def test_ray_counts_what_its_operator_adds() -> None:
    spec = {
        "enableInTreeAutoscaling": True,
        "gcsFaultToleranceOptions": {},
        "headGroupSpec": {"template": {"spec": {"containers": [{"name": "ray", "image": "ray:2"}]}}},
    }
    cluster = {"metadata": {}, "spec": spec}
    (head,) = integrations.pod_sets(KINDS["RayCluster"], cluster)
    first, second = head.template["spec"]["containers"]
    assert first["resources"]["requests"] == {"cpu": "200m", "memory": "256Mi"}
    assert (second["name"], second["resources"]["requests"]["memory"]) == ("autoscaler", "512Mi")
    assert len(spec["headGroupSpec"]["template"]["spec"]["containers"]) == 1  # type: ignore[index]
    sidecar = {"metadata": {}, "spec": {"submissionMode": "SidecarMode", "rayClusterSpec": {"headGroupSpec": {}}}}
    (head,) = integrations.pod_sets(KINDS["RayJob"], sidecar)
    assert head.template["spec"]["containers"][0]["name"] == "ray-job-submitter"


def test_done_pods_are_given_back() -> None:
    indexed = {
        "spec": {"completionMode": "Indexed", "parallelism": 4, "completions": 10},
        "status": {"completedIndexes": "0-6", "failedIndexes": "6,8,x,30-40"},
    }
    assert integrations.reclaimable(KINDS["Job"], {"metadata": {}, **indexed}) == [{"name": "main", "count": 2}]
    spec = {"replicatedJobs": [{"name": "w", "replicas": 3, "template": {"spec": {"parallelism": 2}}}]}
    status = {"replicatedJobsStatus": [{"name": "w", "succeeded": 2}]}
    jobset = {"metadata": {}, "spec": spec, "status": status}
    assert integrations.reclaimable(KINDS["JobSet"], jobset) == [{"name": "w", "count": 4}]


def test_workloads_get_the_labels_of_their_jobs_that_the_configuration_names() -> None:
    made = job(KINDS["JobSet"].resource, "a", {"replicatedJobs": []}, team="red", other="x")
    made["metadata"]["uid"] = "u"
    workload = workload_for(KINDS["JobSet"], made, Priority(0), copied=("team", "missing"))
    assert {k: v for k, v in workload["metadata"]["labels"].items() if "/" not in k} == {"team": "red"}

"""Words of KAI, Volcano and native groups; pods that operators make for placed jobs."""

from __future__ import annotations

import asyncio
import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jobkindworlds import NAMESPACE, admitted, container, crd, finished, job, kind_world, template
from test_queueing_pods import pod, runs

from glebe.kube import resources as r
from glebe.kube.objects import Object, get_condition, owner_reference
from glebe.kube.resources import Resource
from glebe.queueing.jobkinds.registry import shipped
from glebe.queueing.jobs import foreign

KINDS = {kind.resource.kind: kind for kind in shipped()}
GROUP = "kueue.x-k8s.io/pod-group-name"
TOTAL = "kueue.x-k8s.io/pod-group-total-count"


def bare(name: str, **notes: Any) -> Object:
    """A pod that says nothing in Kueue's words."""
    made = pod(name, 1, 60, **notes)
    made["metadata"]["labels"] = {}
    return made


async def test_kai_queue_labels_and_fractions_are_understood() -> None:
    async with kind_world() as w:
        made = bare("half", **{"gpu-fraction": "0.5"})
        made["metadata"]["labels"] = {"kai.scheduler/queue": "main"}
        made["spec"]["schedulerName"] = "kai-scheduler"
        made["spec"]["containers"] = [container(0)]
        stored = await w.apply(r.PODS, made)
        assert stored["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "main"
        assert stored["spec"]["schedulerName"] == "default-scheduler"
        assert any("kai-scheduler is not here" in text for text in w.warnings)
        first = await w.workload(admitted)
        usage = first["status"]["admission"]["podSetAssignments"][0]["resourceUsage"]
        assert usage["glebe.dev/gpu-milli"] == "500"
        await w.all_pods(runs, 1)
        await w.workload(finished)
        await w.free()


async def test_a_job_may_name_its_queue_as_kai_or_volcano_would() -> None:
    async with kind_world() as w:
        spec = {"parallelism": 1, "completions": 1, "template": template(1, 20)}
        for name, labels, notes in (
            ("kai", {"kai.scheduler/queue": "main"}, {}),
            ("volcano", {}, {"scheduling.volcano.sh/queue-name": "main"}),
        ):
            made = job(r.JOBS, name, copy.deepcopy(spec))
            made["metadata"].update(labels=labels, annotations=notes)
            stored = await w.apply(r.JOBS, made)
            assert stored["spec"]["suspend"] is True
            done = await w.workload(finished, of=f"job-{name}")
            assert done["spec"]["queueName"] == "main"


async def test_a_volcano_group_is_a_group() -> None:
    async with kind_world() as w:
        await w.apply(r.CUSTOM_RESOURCE_DEFINITIONS, crd(foreign.VOLCANO_GROUPS))
        group = {"minMember": 2, "queue": "main"}
        meta = {"name": "gang", "namespace": NAMESPACE}
        kind = {"apiVersion": foreign.VOLCANO_GROUPS.api_version, "kind": "PodGroup"}
        await w.apply(foreign.VOLCANO_GROUPS, {**kind, "metadata": meta, "spec": group})
        for n in range(2):
            await asyncio.sleep(5)
            assert await w.workloads() == []
            made = bare(f"v-{n}", **{"scheduling.k8s.io/group-name": "gang"})
            made["spec"]["schedulerName"] = "volcano"
            stored = await w.apply(r.PODS, made)
            assert stored["metadata"]["labels"][GROUP] == "gang"
            assert stored["metadata"]["annotations"][TOTAL] == "2"
        await w.workload(admitted, of="gang")
        await w.all_pods(runs, 2)
        await w.workload(finished)


def test_native_groups_name_queue_and_number() -> None:
    group: Object = {
        "metadata": {"name": "g", "labels": {"kueue.x-k8s.io/queue-name": "main"}},
        "spec": {"schedulingPolicy": {"gang": {"minCount": 4}}},
    }
    made = bare("n")
    made["spec"]["schedulingGroup"] = {"podGroupName": "g"}
    assert foreign.concerns(made)

    def find(resource: Resource, name: str) -> Object | None:
        return group if (resource.plural, name) == ("podgroups", "g") else None

    foreign.translate(made, find)
    assert made["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "main", GROUP: "g"}
    assert made["metadata"]["annotations"][TOTAL] == "4"
    # the queue may stand on the Workload instead
    del group["metadata"]["labels"]
    group["spec"]["podGroupTemplateRef"] = {"workload": {"workloadName": "w"}}
    owner = {"metadata": {"labels": {"kueue.x-k8s.io/queue-name": "other"}}}
    again = bare("n")
    again["spec"]["schedulingGroup"] = {"podGroupName": "g"}
    foreign.translate(again, lambda r, n: owner if n == "w" else find(r, n))
    assert again["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "other"
    # a group that names no queue is none of ours
    lone = bare("n")
    lone["spec"]["schedulingGroup"] = {"podGroupName": "g"}
    foreign.translate(lone, find)
    assert lone["metadata"]["labels"] == {}


@pytest.mark.parametrize(
    ("notes", "milli"),
    [
        ({"gpu-fraction": "0.25"}, 250),
        ({"gpu-fraction": "0.3333", "gpu-fraction-num-devices": "2"}, 668),
        ({"gpu-fraction": "1.5"}, 0),
        ({"gpu-fraction": "half"}, 0),
        ({"gpu-memory": "4096"}, 1000),
        ({}, 0),
    ],
)
def test_fractions_as_quota_counts_them(notes: dict[str, str], milli: int) -> None:
    assert foreign.gpu_milli(notes) == milli


async def test_pods_that_an_operator_makes_for_a_placed_job_get_their_nodes() -> None:
    jobset = KINDS["JobSet"].resource
    async with kind_world(topology=True) as w:
        await w.apply(r.CUSTOM_RESOURCE_DEFINITIONS, crd(jobset))
        inner = template(4, 40, **{"kueue.x-k8s.io/podset-required-topology": "rack"})
        workers = {"name": "w", "replicas": 2, "template": {"spec": {"parallelism": 2, "template": inner}}}
        await asyncio.sleep(2)
        await w.apply(jobset, job(jobset, "set", {"replicatedJobs": [workers]}))
        first = await w.workload(admitted)
        request = first["spec"]["podSets"][0]["topologyRequest"]
        assert (request["subGroupCount"], request["subGroupIndexLabel"]) == (2, "jobset.sigs.k8s.io/job-index")
        started = await w.get(jobset, "set", lambda o: o["spec"]["suspend"] is False)
        made = started["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
        assert made["spec"]["schedulingGates"] == [{"name": "kueue.x-k8s.io/topology"}]
        for group in (1, 0):
            for index in (1, 0):
                if (group, index) == (0, 0):
                    await asyncio.sleep(10)
                    assert not any(runs(p) for p in await w.pods())  # three of four: the gang is not whole
                own = {
                    "jobset.sigs.k8s.io/job-index": str(group),
                    "batch.kubernetes.io/job-completion-index": str(index),
                }
                meta = {
                    "name": f"set-{group}-{index}",
                    "namespace": NAMESPACE,
                    "labels": {**made["metadata"]["labels"], **own},
                    "annotations": made["metadata"]["annotations"],
                    "ownerReferences": [owner_reference(started)],
                }
                await w.apply(r.PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": made["spec"]})
        found = await w.all_pods(runs, 4)
        nodes = {p["metadata"]["name"]: p["spec"]["nodeName"] for p in found}
        assert nodes == {"set-0-0": "gpu-00", "set-0-1": "gpu-00", "set-1-0": "gpu-01", "set-1-1": "gpu-01"}
        await w.holds(16)
        # what these pods hold is counted once: as many again fit beside them
        second = job(jobset, "next", {"replicatedJobs": [copy.deepcopy(workers)]})
        await w.apply(jobset, second)
        await w.workload(admitted, of="jobset-next")
        await w.set_status(jobset, "set", {"conditions": [{"type": "Completed", "status": "True"}]})
        ended = await w.workload(finished, of="jobset-set")
        assert (get_condition(ended, "Finished") or {})["message"] == "JobSet succeeded"


@pytest.mark.realtime
def test_a_native_group_stands_in_the_queue() -> None:
    """In a process of its own: which versions of the API are served is chosen once."""
    story = Path(__file__).with_name("nativegroupstory.py")
    done = subprocess.run([sys.executable, str(story)], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr

"""The admission policies that Glebe brings to other clusters: they do what its own server does."""

from __future__ import annotations

import base64
import json
from typing import Any

import yaml
from jobkindworlds import CRDS, NAMESPACE, container, crd, job, queue_object, template
from test_queueing_jobshapes import DECLARATION, SIMULATION

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import Object
from glebe.queueing.gatekeeping import policy
from glebe.queueing.gatekeeping.admission import review
from glebe.queueing.gatekeeping.declaredpolicies import bringing
from glebe.queueing.jobkinds.parse import parse_kinds
from glebe.queueing.jobkinds.registry import shipped

KINDS = {kind.resource.kind: kind for kind in shipped()}
GATES = [{"name": "kueue.x-k8s.io/admission"}, {"name": "kueue.x-k8s.io/topology"}]


async def server() -> Client:
    """A server with the policies and a LocalQueue ``default``, without Glebe's own admission."""
    api = ApiServer(MemoryStore(), Env.seeded(1), TypeRegistry())
    await api.start()
    client = Client(InProcessTransport(api.handle))
    await client.create(r.NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    path = CRDS / "kueue.x-k8s.io_localqueues.yaml"
    await client.create(r.CUSTOM_RESOURCE_DEFINITIONS, yaml.safe_load(path.read_text()))
    kinds = (policy.mutating_policies(), policy.mutating_bindings(), policy.VALIDATING_POLICIES)
    by_kind = {resource.kind: resource for resource in (*kinds, policy.VALIDATING_BINDINGS)}
    for obj in policy.objects():
        await client.create(by_kind[obj["kind"]], obj)
    return client


def unqueued(obj: Object) -> Object:
    obj["metadata"].pop("labels")
    return obj


async def test_jobs_of_all_kinds_are_suspended() -> None:
    client = await server()
    jobset, pytorch = KINDS["JobSet"].resource, KINDS["PyTorchJob"].resource
    for resource in (jobset, pytorch):
        await client.create(r.CUSTOM_RESOURCE_DEFINITIONS, crd(resource))
    made = await client.create(jobset, job(jobset, "a", {"replicatedJobs": []}))
    assert made["spec"]["suspend"] is True
    made = await client.create(pytorch, job(pytorch, "a", {"pytorchReplicaSpecs": {}}))
    assert made["spec"]["runPolicy"] == {"suspend": True}
    kept = {"pytorchReplicaSpecs": {}, "runPolicy": {"cleanPodPolicy": "All"}}
    made = await client.create(pytorch, job(pytorch, "b", kept))
    assert made["spec"]["runPolicy"] == {"cleanPodPolicy": "All", "suspend": True}
    free = await client.create(jobset, unqueued(job(jobset, "free", {"replicatedJobs": []})))
    assert "suspend" not in free["spec"]
    local = queue_object("LocalQueue", "default", {"clusterQueue": "main"})
    local["metadata"]["namespace"] = NAMESPACE
    await client.create(r.LOCAL_QUEUES, local)
    made = await client.create(jobset, unqueued(job(jobset, "default", {"replicatedJobs": []})))
    assert made["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "default"}
    assert made["spec"]["suspend"] is True
    # what belongs to a queued job is not queued beside it
    part = unqueued(job(r.JOBS, "part", {"template": template()}))
    part["metadata"]["ownerReferences"] = [
        {"apiVersion": jobset.api_version, "kind": "JobSet", "name": "a", "uid": "x", "controller": True}
    ]
    assert not (await client.create(r.JOBS, part))["spec"].get("suspend")


async def test_pods_and_those_that_make_them_are_held() -> None:
    client = await server()
    lws = KINDS["LeaderWorkerSet"].resource
    await client.create(r.CUSTOM_RESOURCE_DEFINITIONS, crd(lws))
    spec: dict[str, Any] = {"containers": [container()]}
    pod = await client.create(r.PODS, job(r.PODS, "p", spec))
    assert pod["spec"]["schedulingGates"] == GATES
    assert pod["metadata"]["labels"]["kueue.x-k8s.io/managed"] == "true"
    assert pod["metadata"]["finalizers"] == ["kueue.x-k8s.io/managed"]
    kai = job(r.PODS, "k", spec)
    kai["metadata"]["labels"] = {"kai.scheduler/queue": "main"}
    assert (await client.create(r.PODS, kai))["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "main"
    free = await client.create(r.PODS, unqueued(job(r.PODS, "free", spec)))
    assert "schedulingGates" not in free["spec"]
    app = {"metadata": {"labels": {"app": "a"}}, "spec": spec}
    serving = {"selector": {"matchLabels": {"app": "a"}}, "template": app}
    web = await client.create(r.DEPLOYMENTS, job(r.DEPLOYMENTS, "web", serving))
    meta = web["spec"]["template"]["metadata"]
    assert meta["labels"] == {
        "app": "a",
        "kueue.x-k8s.io/managed": "true",
        "kueue.x-k8s.io/queue-name": "main",
    }
    assert meta["annotations"] == {"kueue.x-k8s.io/pod-suspending-parent": "deployment"}
    data = await client.create(r.STATEFUL_SETS, job(r.STATEFUL_SETS, "db", {**serving, "serviceName": "db"}))
    assert data["spec"]["template"]["metadata"]["annotations"] == {
        "kueue.x-k8s.io/pod-suspending-parent": "statefulset"
    }
    groups = {"leaderWorkerTemplate": {"size": 2, "workerTemplate": {"spec": spec}}}
    made = await client.create(lws, job(lws, "l", groups))
    assert "leaderTemplate" not in made["spec"]["leaderWorkerTemplate"]
    notes = made["spec"]["leaderWorkerTemplate"]["workerTemplate"]["metadata"]["annotations"]
    assert notes["kueue.x-k8s.io/pod-group-serving"] == "true"
    # a pod of such a parent
    child = job(r.PODS, "child", spec)
    child["metadata"]["annotations"] = notes
    stored = await client.create(r.PODS, child)
    assert stored["spec"]["schedulingGates"] == GATES
    assert "finalizers" not in stored["metadata"]


def reviewed(obj: Object, plural: str, operation: str = "CREATE") -> list[dict[str, Any]] | None:
    """The patch with which the webhook answers; None when it leaves the object as it is."""
    group, _, version = obj["apiVersion"].rpartition("/")
    kind = {"group": group, "version": version, "kind": obj["kind"]}
    request = {"uid": "u", "operation": operation, "kind": kind, "object": obj, "userInfo": {"username": "ada"}}
    answer = review({"request": request}, lambda *_: None)["response"]
    assert answer["allowed"], answer
    return json.loads(base64.b64decode(answer["patch"])) if "patch" in answer else None


def test_the_webhook_does_the_same() -> None:
    spec: dict[str, Any] = {"containers": [container()]}
    pod = job(r.PODS, "p", spec)
    changes = {op["path"]: op["value"] for op in reviewed(pod, "pods") or ()}
    assert changes["/spec/schedulingGates"] == GATES
    assert changes["/metadata/finalizers"] == ["kueue.x-k8s.io/managed"]
    part = job(r.PODS, "part", spec)
    part["metadata"]["ownerReferences"] = [{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "controller": True}]
    assert reviewed(part, "pods") is None
    part["metadata"]["annotations"] = {"kueue.x-k8s.io/pod-suspending-parent": "statefulset"}
    assert reviewed(part, "pods")
    app = {"metadata": {"labels": {"app": "a"}}, "spec": spec}
    web = job(r.DEPLOYMENTS, "web", {"template": app})
    for operation in ("CREATE", "UPDATE"):
        (op,) = [o for o in reviewed(web, "deployments", operation) or () if o["path"].endswith("annotations")]
        assert op["value"] == {"kueue.x-k8s.io/pod-suspending-parent": "deployment"}
    jobset = KINDS["JobSet"].resource
    (op,) = [o for o in reviewed(job(jobset, "a", {}), "jobsets") or () if o["path"].startswith("/spec")]
    assert op == {"op": "add", "path": "/spec/suspend", "value": True}
    assert reviewed(unqueued(job(jobset, "a", {})), "jobsets") is None


async def test_policies_of_declared_kinds_come_and_go() -> None:
    client = await server()
    kinds = parse_kinds(yaml.safe_load(DECLARATION))
    await client.create(r.CUSTOM_RESOURCE_DEFINITIONS, crd(SIMULATION))

    async def version() -> str | None:
        return "v1"

    bring = bringing(client, version)

    async def is_suspended() -> bool:
        made = await client.create(SIMULATION, job(SIMULATION, "one", {"ranks": []}), dry_run=True)
        return bool(made["spec"].get("paused"))

    known = len((await client.list(policy.mutating_policies())).items)
    await bring(())
    assert not await is_suspended()
    for _ in range(2):
        await bring(kinds)
        assert await is_suspended()
    await bring(())
    assert not await is_suspended()
    assert len((await client.list(policy.mutating_policies())).items) == known

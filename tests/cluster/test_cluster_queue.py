"""The queue's story on real Kubernetes: its API server, Job controller and scheduler; only the kubelets are ours.

Needs kube-controller-manager and kube-scheduler beside kube-apiserver.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from kube_peer import TOKEN, Peer, assets, real_kubernetes

from glebe import queueing
from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time
from glebe.kube.errors import ApiError
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, condition_is_true
from glebe.queueing.gatekeeping import policy

pytestmark = [pytest.mark.cluster, pytest.mark.realtime]

CRDS = Path(queueing.__file__).parent.parent / "crds"
KUEUE = "kueue.x-k8s.io/v1beta2"


@contextmanager
def controllers(peer: Peer, folder: Path, data: Path, *more: str) -> Iterator[None]:
    """Kubernetes' own Job controller, garbage collector and scheduler against ``peer``, and ``more`` controllers."""
    config = data / "kubeconfig"
    cluster = {"server": peer.config.server, "insecure-skip-tls-verify": True}
    text = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "peer", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
        "contexts": [{"name": "peer", "context": {"cluster": "peer", "user": "admin"}}],
        "current-context": "peer",
    }
    config.write_text(yaml.safe_dump(text))
    common = (f"--kubeconfig={config}", "--leader-elect=false", "--secure-port=0")
    commands = (
        (
            "kube-controller-manager",
            *common,
            f"--controllers={','.join(('job-controller', 'garbage-collector-controller', *more))}",
        ),
        ("kube-scheduler", *common),
    )
    started: list[subprocess.Popen[bytes]] = []
    try:
        for program, *args in commands:
            if not (folder / program).exists():
                pytest.skip(f"needs {program} beside kube-apiserver")
            with (data / f"{program}.log").open("ab") as log:
                process = subprocess.Popen([str(folder / program), *args], stdout=log, stderr=log, cwd=data)
            started.append(process)
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


@asynccontextmanager
async def running(client: Client, env: Env) -> AsyncIterator[None]:
    """Glebe's queue against ``client``."""
    informers = Informers(client, env)
    async with asyncio.TaskGroup() as group:
        parts = queueing.controllers(client, informers, env)
        tasks = [group.create_task(part.run()) for part in parts]
        tasks.append(group.create_task(informers.run()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def until(what: Callable[[], Awaitable[Any]], limit: float = 45.0) -> Any:
    async with asyncio.timeout(limit):
        while True:
            if value := await what():
                return value
            await asyncio.sleep(0.1)


def queue_object(kind: str, name: str, spec: dict[str, Any], namespace: str = "") -> Object:
    meta = {"name": name, "namespace": namespace} if namespace else {"name": name}
    return {"apiVersion": KUEUE, "kind": kind, "metadata": meta, "spec": spec}


async def install(client: Client) -> None:
    for path in sorted(CRDS.glob("*.yaml")):
        await client.create(r.CUSTOM_RESOURCE_DEFINITIONS, yaml.safe_load(path.read_text()))

    async def served() -> bool:
        found = await client.list(r.CUSTOM_RESOURCE_DEFINITIONS)
        return all(condition_is_true(crd, "Established") for crd in found.items)

    await until(served)
    kinds = (policy.mutating_policies(), policy.mutating_bindings(), policy.VALIDATING_POLICIES)
    by_kind = {resource.kind: resource for resource in (*kinds, policy.VALIDATING_BINDINGS)}
    for obj in policy.objects():
        await client.create(by_kind[obj["kind"]], obj)


async def fleet(client: Client, count: int) -> None:
    for number in range(count):
        name = f"gpu-{number}"
        labels = {"kubernetes.io/hostname": name, "pool": "gpu", "rack": f"r{number // 2}"}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
        made = await client.create(r.NODES, node)
        resources = {"cpu": "64", "memory": "256Gi", "nvidia.com/gpu": "8", "pods": "110"}
        now = format_time(Env.system().clock.now())
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "", "lastTransitionTime": now}
        status = {"capacity": resources, "allocatable": resources, "conditions": [ready]}
        await client.update_status(r.NODES, {**made, "status": {**made["status"], **status}})
        await client.patch(r.NODES, name, {"spec": {"taints": None}})


async def queues(client: Client, gpus: int) -> None:
    levels = [{"nodeLabel": "rack"}, {"nodeLabel": "kubernetes.io/hostname"}]
    await client.create(r.TOPOLOGIES, queue_object("Topology", "fabric", {"levels": levels}))
    flavor = {"nodeLabels": {"pool": "gpu"}, "topologyName": "fabric"}
    await client.create(r.RESOURCE_FLAVORS, queue_object("ResourceFlavor", "gpu", flavor))
    quotas = [{"name": "nvidia.com/gpu", "nominalQuota": gpus}, {"name": "cpu", "nominalQuota": "100"}]
    names = [quota["name"] for quota in quotas]
    group = {"coveredResources": names, "flavors": [{"name": "gpu", "resources": quotas}]}
    spec = {"namespaceSelector": {}, "resourceGroups": [group]}
    await client.create(r.CLUSTER_QUEUES, queue_object("ClusterQueue", "all", spec))
    await client.create(r.LOCAL_QUEUES, queue_object("LocalQueue", "main", {"clusterQueue": "all"}, "default"))


def gang(name: str, pods: int) -> Object:
    asked = {"requests": {"cpu": "1"}, "limits": {"nvidia.com/gpu": "8"}}
    container = {"name": "m", "image": "train", "resources": asked}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"kueue.x-k8s.io/queue-name": "main"},
            "annotations": {"glebe.dev/expected-run-time": "10m"},
        },
        "spec": {
            "completionMode": "Indexed",
            "parallelism": pods,
            "completions": pods,
            "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
        },
    }


async def submit(client: Client, job: Object) -> None:
    """Create a job once the admission policy is in force (a new policy takes a moment)."""

    async def in_force() -> bool:
        seen = await client.create(r.JOBS, job, dry_run=True)
        return bool(seen["spec"].get("suspend"))

    await until(in_force)
    await client.create(r.JOBS, job)


async def bound(client: Client, job: str, count: int) -> dict[str, str]:
    """Pods by rank, once all of them have a node."""

    async def look() -> dict[str, str] | None:
        found = await client.list(r.PODS, "default", label_selector=f"batch.kubernetes.io/job-name={job}")
        rank = "batch.kubernetes.io/job-completion-index"
        nodes = {p["metadata"]["annotations"][rank]: p["spec"].get("nodeName", "") for p in found.items}
        return nodes if len(nodes) == count and all(nodes.values()) else None

    return await until(look)  # type: ignore[no-any-return]


async def finish(client: Client, job: str) -> None:
    """What the kubelets would say: every pod has succeeded."""
    found = await client.list(r.PODS, "default", label_selector=f"batch.kubernetes.io/job-name={job}")
    for pod in found.items:
        await client.patch(
            r.PODS, pod["metadata"]["name"], {"status": {"phase": "Succeeded"}}, "default", subresource="status"
        )


async def story(peer: Peer) -> None:
    client, env = peer.client(), Env.system()
    try:
        await peer.ready(client)
        await install(client)
        await fleet(client, 4)
        async with running(client, env):
            await queues(client, 32)
            await submit(client, gang("first", 4))
            assert await bound(client, "first", 4) == {str(i): f"gpu-{i}" for i in range(4)}
            await submit(client, gang("second", 2))

            async def forecast() -> Any:
                for workload in (await client.list(r.WORKLOADS, "default")).items:
                    if workload["metadata"]["ownerReferences"][0]["name"] == "second":
                        return (workload.get("status") or {}).get("forecast")
                return None

            waiting = await until(forecast)
            assert waiting["position"] == 1
            assert "startP50" in waiting
            pods = await client.list(r.PODS, "default", label_selector="batch.kubernetes.io/job-name=second")
            assert pods.items == []  # suspended: no pod, so nothing to gate yet
            await finish(client, "first")
            assert len(await bound(client, "second", 2)) == 2
            wrong = gang("wrong", 1)
            wrong["metadata"]["labels"]["kueue.x-k8s.io/max-exec-time-seconds"] = "0"
            with pytest.raises(ApiError, match="must be whole seconds above zero"):
                await client.create(r.JOBS, wrong)
    finally:
        await client.close()


async def test_the_story_on_real_kubernetes(tmp_path: Path) -> None:
    folder = assets()
    with real_kubernetes(tmp_path) as peer, controllers(peer, folder, tmp_path):
        await story(peer)

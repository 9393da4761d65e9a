"""Our controllers on our API server, and Kubernetes' own on its own: the same stories end in the same objects.

No container runs: a kubelet that only writes statuses serves both. Needs kube-controller-manager beside kube-apiserver.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from kube_peer import real_kubernetes, upstream

from glebe import workloads
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store.memory import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.informer import Informers
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import EVERY, Object
from glebe.kube.resources import (
    CONTROLLER_REVISIONS,
    CRON_JOBS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DAEMON_SETS,
    DEPLOYMENTS,
    EVENTS,
    JOBS,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    REPLICA_SETS,
    STATEFUL_SETS,
    Resource,
)
from glebe.workloads.autoscaling import controller as autoscaling

pytestmark = [pytest.mark.cluster, pytest.mark.realtime]

AUTOSCALERS = autoscaling.AUTOSCALERS
USAGE = Resource("metrics.k8s.io", "v1beta1", "pods", "PodMetrics")
SHOWN = (
    DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS, DAEMON_SETS, CRON_JOBS, JOBS, AUTOSCALERS, PERSISTENT_VOLUME_CLAIMS,
    CONTROLLER_REVISIONS, PODS,
)  # fmt: skip
CONTROLLERS = (
    "deployment-controller", "replicaset-controller", "statefulset-controller", "daemonset-controller",
    "cronjob-controller", "job-controller", "horizontal-pod-autoscaler-controller",
)  # fmt: skip
OLD = "2026-01-01T00:00:00Z"
UPSTREAM = (
    "kube-controller-manager",
    "--horizontal-pod-autoscaler-sync-period=2s",
    f"--controllers={','.join(CONTROLLERS)}",
)


@asynccontextmanager
async def ours() -> AsyncIterator[Client]:
    env = Env.system()
    server = ApiServer(MemoryStore(), env, TypeRegistry())
    await server.start()
    every = Client(InProcessTransport(server.handle), cluster=EVERY)
    informers = Informers(every, env)
    made = [
        c for c in workloads.controllers(every, informers, env) if c.name not in ("binder", "nodehealth", "node-ttl")
    ]
    tasks = [asyncio.create_task(informers.run()), *(asyncio.create_task(each.run()) for each in made)]
    try:
        yield every.for_cluster("")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.close()


async def kubelet(client: Client) -> None:
    """All pods run and are ready since long ago, but for those with an image that is broken."""
    while True:
        await asyncio.sleep(0.1)
        for pod in (await client.list(PODS)).items:
            try:
                await _step(client, pod)
            except ApiError as error:
                if error.code not in (404, 409):
                    raise


async def _step(client: Client, pod: Object) -> None:
    meta = pod["metadata"]
    if "deletionTimestamp" in meta:
        await client.delete(PODS, meta["name"], meta["namespace"], grace_period=0)
        return
    if (pod.get("status") or {}).get("startTime"):
        return
    ready = "False" if "broken" in pod["spec"]["containers"][0]["image"] else "True"
    condition = {"type": "Ready", "status": ready, "lastTransitionTime": OLD}
    status = {"phase": "Running", "startTime": OLD, "conditions": [condition]}
    await client.patch(PODS, meta["name"], {"status": status}, meta["namespace"], subresource="status")


class Script:
    """What one story does in its namespace, on one of the two."""

    def __init__(self, client: Client, namespace: str) -> None:
        self.client, self.namespace = client, namespace

    async def create(self, resource: Resource, name: str, **spec: Any) -> None:
        meta = {"name": name, "namespace": self.namespace}
        body = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta, "spec": spec}
        await self.client.create(resource, body)

    async def change(self, resource: Resource, name: str, patch: Object) -> None:
        await self.client.patch(resource, name, patch, self.namespace, kind="strategic")

    async def has(self, resource: Resource, name: str, **status: Any) -> None:
        """Wait until the status says so, of the present generation."""

        async def look() -> bool:
            found = await self.client.get(resource, name, self.namespace)
            now = found.get("status") or {}
            fresh = now.get("observedGeneration", found["metadata"].get("generation")) == found["metadata"].get(
                "generation"
            )
            return fresh and all(now.get(k, 0) == v for k, v in status.items())

        await until(look, f"{resource.plural} {name} {status}")

    async def says(self, resource: Resource, name: str, kind: str, reason: str) -> None:
        """Wait for a condition with a reason."""

        async def look() -> bool:
            found = (await self.client.get(resource, name, self.namespace)).get("status") or {}
            return any((c["type"], c.get("reason")) == (kind, reason) for c in found.get("conditions") or ())

        await until(look, f"{resource.plural} {name} {kind} {reason}")

    async def pods(self) -> list[Object]:
        return (await self.client.list(PODS, self.namespace)).items

    async def use(self, cpu: int) -> None:
        """Say what each pod uses."""
        for pod in await self.pods():
            usage = {"name": "main", "usage": {"cpu": f"{cpu}m"}}
            meta = {**pod["metadata"], "namespace": self.namespace}
            body = {
                "apiVersion": "metrics.k8s.io/v1beta1",
                "kind": "PodMetrics",
                "metadata": {k: meta[k] for k in ("name", "namespace", "labels") if k in meta},
                "timestamp": OLD,
                "window": "1s",
                "containers": [usage],
            }
            await self.client.apply(USAGE, body, field_manager="test", force=True)

    async def picture(self) -> Object:
        """All objects of the namespace when nothing has changed for a while, what differs by nature made equal."""
        last: Object = {}
        same = 0
        while same < 5:
            await asyncio.sleep(0.3)
            now = {r.plural: await self._all(r) for r in SHOWN}
            same, last = (same + 1 if now == last else 0), now
        return last

    async def _all(self, resource: Resource) -> list[Object]:
        found = (await self.client.list(resource, self.namespace)).items
        return sorted((normal(o, self.namespace) for o in found), key=lambda o: json.dumps(o, sort_keys=True))

    async def events(self) -> list[str]:
        every = (await self.client.list(EVENTS, self.namespace)).items
        found = [e for e in every if e["involvedObject"]["kind"] != "PersistentVolumeClaim"]  # binding is not compared
        texts = {
            f"{e['involvedObject']['kind']} {e['type']} {e['reason']} {equal(e['message'], self.namespace)}"
            for e in found
        }
        return sorted(texts)


_GONE = frozenset({
    "uid", "resourceVersion", "creationTimestamp", "managedFields", "lastTransitionTime", "lastUpdateTime",
    "lastProbeTime", "lastScaleTime", "startTime", "completionTime", "lastScheduleTime", "lastSuccessfulTime",
    "serviceAccount", "serviceAccountName", "tolerationSeconds",
    "controller-uid", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/cronjob-scheduled-timestamp",
    "deletionTimestamp",
})  # fmt: skip
_HASHES = (
    "pod-template-hash",
    "controller-revision-hash",
    "controller.kubernetes.io/hash",
    "currentRevision",
    "updateRevision",
)


def equal(text: str, namespace: str) -> str:
    text = text.replace(namespace, "NS").replace("(combined from similar events): ", "")
    text = re.sub(r"\b(web|set|agent|db|tick)-[a-z0-9]{6,10}-[a-z0-9]{5}\b", r"\1-H-x", text)
    text = re.sub(r"\b(web|set|agent|db|tick)-[a-z0-9]{6,10}\b", r"\1-H", text)
    return re.sub(r"\b(web|set|agent|tick)-[a-z0-9]{5}\b", r"\1-x", text)


def normal(obj: Any, namespace: str) -> Any:
    if isinstance(obj, list):
        return [normal(o, namespace) for o in obj]
    if isinstance(obj, dict):
        return {
            k: "H" if k in _HASHES else normal(v, namespace) for k, v in obj.items() if k not in _GONE and v is not None
        }
    return equal(obj, namespace) if isinstance(obj, str) else obj


async def until(what: Callable[[], Awaitable[Any]], words: str = "") -> Any:
    try:
        async with asyncio.timeout(90):
            while True:
                if value := await what():
                    return value
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"it did not come about: {words}") from None


def template(name: str, image: str = "app:1", **more: Any) -> Object:
    container = {"name": "main", "image": image, "resources": {"requests": {"cpu": "100m"}}}
    spec = {"containers": [container], "automountServiceAccountToken": False, **more}
    return {"metadata": {"labels": {"app": name}}, "spec": spec}


def selecting(name: str) -> Object:
    return {"selector": {"matchLabels": {"app": name}}, "template": template(name)}


def image(name: str) -> Object:
    return {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": name}]}}}}


# --- stories


async def deployment_rolls(s: Script) -> None:
    await s.create(DEPLOYMENTS, "web", replicas=3, **selecting("web"))
    await s.has(DEPLOYMENTS, "web", availableReplicas=3, updatedReplicas=3)
    for number in (2, 3):
        await s.change(DEPLOYMENTS, "web", image(f"app:{number}"))
        await s.has(DEPLOYMENTS, "web", availableReplicas=3, updatedReplicas=3, replicas=3)
    await s.change(DEPLOYMENTS, "web", image("app:1"))
    await s.has(DEPLOYMENTS, "web", availableReplicas=3, updatedReplicas=3, replicas=3)


async def deployment_is_stuck(s: Script) -> None:
    await s.create(DEPLOYMENTS, "web", replicas=4, progressDeadlineSeconds=4, **selecting("web"))
    await s.has(DEPLOYMENTS, "web", availableReplicas=4)
    await s.change(DEPLOYMENTS, "web", image("broken"))
    await s.has(DEPLOYMENTS, "web", updatedReplicas=2, replicas=5)
    await s.says(DEPLOYMENTS, "web", "Progressing", "ProgressDeadlineExceeded")


async def deployment_is_scaled_amid_a_roll_out(s: Script) -> None:
    await s.create(DEPLOYMENTS, "web", replicas=6, **selecting("web"))
    await s.has(DEPLOYMENTS, "web", availableReplicas=6)
    await s.change(DEPLOYMENTS, "web", image("broken"))
    await s.has(DEPLOYMENTS, "web", updatedReplicas=3)
    await s.change(DEPLOYMENTS, "web", {"spec": {"replicas": 12}})
    await s.has(DEPLOYMENTS, "web", replicas=15)


async def deployment_recreates_and_pauses(s: Script) -> None:
    await s.create(DEPLOYMENTS, "web", replicas=2, strategy={"type": "Recreate"}, **selecting("web"))
    await s.has(DEPLOYMENTS, "web", availableReplicas=2)
    await s.change(DEPLOYMENTS, "web", image("app:2"))
    await s.has(DEPLOYMENTS, "web", availableReplicas=2, updatedReplicas=2)
    await s.change(DEPLOYMENTS, "web", {"spec": {"paused": True, **image("app:3")["spec"]}})
    await s.change(DEPLOYMENTS, "web", {"spec": {"replicas": 3}})
    await s.has(DEPLOYMENTS, "web", availableReplicas=3)


async def replica_set_adopts_and_shrinks(s: Script) -> None:
    meta = {"name": "set-aaaaa", "generateName": "set-", "namespace": s.namespace}
    await s.client.create(
        PODS, {"apiVersion": "v1", "kind": "Pod", **template("set"), "metadata": {**meta, "labels": {"app": "set"}}}
    )
    await s.create(REPLICA_SETS, "set", replicas=4, **selecting("set"))
    await s.has(REPLICA_SETS, "set", availableReplicas=4)
    await s.change(REPLICA_SETS, "set", {"spec": {"replicas": 2}})
    await s.has(REPLICA_SETS, "set", availableReplicas=2, replicas=2)


async def stateful_set_in_order(s: Script) -> None:
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    await s.create(STATEFUL_SETS, "db", replicas=3, serviceName="db", volumeClaimTemplates=[claim], **selecting("db"))
    await s.has(STATEFUL_SETS, "db", availableReplicas=3)
    await s.change(
        STATEFUL_SETS, "db", {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 2}}, **image("app:2")["spec"]}}
    )
    await s.has(STATEFUL_SETS, "db", updatedReplicas=1, availableReplicas=3)
    await s.change(STATEFUL_SETS, "db", {"spec": {"replicas": 1}})
    await s.has(STATEFUL_SETS, "db", replicas=1, availableReplicas=1)


async def stateful_set_all_at_once(s: Script) -> None:
    spec = selecting("db")
    await s.create(
        STATEFUL_SETS, "db", replicas=3, serviceName="db", podManagementPolicy="Parallel", ordinals={"start": 4}, **spec
    )
    await s.has(STATEFUL_SETS, "db", availableReplicas=3)
    await s.change(STATEFUL_SETS, "db", image("app:2"))
    await s.has(STATEFUL_SETS, "db", updatedReplicas=3, availableReplicas=3)


async def daemon_set_rolls(s: Script) -> None:
    await s.create(DAEMON_SETS, "agent", **selecting("agent"))
    await s.has(DAEMON_SETS, "agent", numberAvailable=2)
    await s.change(DAEMON_SETS, "agent", image("app:2"))
    await s.has(DAEMON_SETS, "agent", numberAvailable=2, updatedNumberScheduled=2)


async def cron_job_waits_and_is_suspended(s: Script) -> None:
    job = {"spec": {"template": template("tick", restartPolicy="Never")}}
    await s.create(CRON_JOBS, "tick", schedule="0 0 1 1 *", suspend=True, jobTemplate=job)
    await s.create(CRON_JOBS, "tock", schedule="0 0 30 2 *", timeZone="Etc/UTC", jobTemplate=job)


async def autoscaler_without_metrics(s: Script) -> None:
    await s.create(DEPLOYMENTS, "web", replicas=1, **selecting("web"))
    await s.has(DEPLOYMENTS, "web", availableReplicas=1)
    await s.create(AUTOSCALERS, "web", **autoscaler())
    await s.says(AUTOSCALERS, "web", "ScalingActive", "FailedGetResourceMetric")


async def autoscaler_scales_up(s: Script) -> None:
    await s.create(DEPLOYMENTS, "web", replicas=2, **selecting("web"))
    await s.has(DEPLOYMENTS, "web", availableReplicas=2)
    await s.use(75)
    await s.create(AUTOSCALERS, "web", **autoscaler())
    await s.has(DEPLOYMENTS, "web", availableReplicas=3)
    await s.use(50)
    current = {"averageUtilization": 50, "averageValue": "50m"}
    await s.has(
        AUTOSCALERS, "web", currentMetrics=[{"type": "Resource", "resource": {"name": "cpu", "current": current}}]
    )


async def autoscaler_is_limited(s: Script) -> None:
    await s.create(DEPLOYMENTS, "web", replicas=2, **selecting("web"))
    await s.has(DEPLOYMENTS, "web", availableReplicas=2)
    await s.use(400)
    await s.create(AUTOSCALERS, "web", **autoscaler(maxReplicas=3))
    await s.has(DEPLOYMENTS, "web", availableReplicas=3)
    await s.use(400)
    await s.says(AUTOSCALERS, "web", "ScalingLimited", "TooManyReplicas")
    await s.says(AUTOSCALERS, "web", "AbleToScale", "ReadyForNewScale")


async def autoscaler_goes_down_by_its_rules(s: Script) -> None:
    await s.create(DEPLOYMENTS, "web", replicas=4, **selecting("web"))
    await s.has(DEPLOYMENTS, "web", availableReplicas=4)
    await s.use(5)
    rules = {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 600}]}
    await s.create(AUTOSCALERS, "web", **autoscaler(behavior={"scaleDown": rules}))
    await s.has(DEPLOYMENTS, "web", availableReplicas=3, replicas=3)
    await s.says(AUTOSCALERS, "web", "ScalingLimited", "ScaleDownLimit")
    await s.says(AUTOSCALERS, "web", "AbleToScale", "ReadyForNewScale")


async def autoscaler_of_nothing(s: Script) -> None:
    await s.create(AUTOSCALERS, "web", **autoscaler())
    await s.says(AUTOSCALERS, "web", "AbleToScale", "FailedGetScale")
    ref = {"apiVersion": "example.com/v1", "kind": "Nothing", "name": "n"}
    await s.create(AUTOSCALERS, "nothing", **autoscaler(scaleTargetRef=ref))
    await s.says(AUTOSCALERS, "nothing", "AbleToScale", "FailedGetScale")


async def autoscaler_of_custom_and_external_metrics(s: Script) -> None:
    await s.create(DEPLOYMENTS, "web", replicas=1, **selecting("web"))
    await s.has(DEPLOYMENTS, "web", availableReplicas=1)
    labels = {"selector": {"matchLabels": {"q": "a"}}}
    external = {"metric": {"name": "length", **labels}, "target": {"type": "AverageValue", "averageValue": "30"}}
    await s.create(AUTOSCALERS, "web", **autoscaler(metrics=[{"type": "External", "external": external}]))
    await s.says(AUTOSCALERS, "web", "ScalingActive", "FailedGetExternalMetric")
    of = {"kind": "Service", "name": "s", "apiVersion": "v1"}
    hits = {"metric": {"name": "hits"}, "describedObject": of, "target": {"type": "Value", "value": "20"}}
    pods = {"metric": {"name": "hits"}, "target": {"type": "AverageValue", "averageValue": "20"}}
    spec = autoscaler(metrics=[{"type": "Object", "object": hits}, {"type": "Pods", "pods": pods}])
    await s.client.delete(AUTOSCALERS, "web", s.namespace)
    await s.create(AUTOSCALERS, "web", **spec)
    await s.says(AUTOSCALERS, "web", "ScalingActive", "FailedGetObjectMetric")


def autoscaler(**spec: Any) -> Object:
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}
    return {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "minReplicas": 1,
        "maxReplicas": 8,
        "metrics": [{"type": "Resource", "resource": cpu}],
        **spec,
    }


STORIES = (
    deployment_rolls, deployment_is_stuck, deployment_is_scaled_amid_a_roll_out, deployment_recreates_and_pauses,
    replica_set_adopts_and_shrinks, stateful_set_in_order, stateful_set_all_at_once, daemon_set_rolls,
    cron_job_waits_and_is_suspended, autoscaler_without_metrics, autoscaler_scales_up, autoscaler_is_limited,
    autoscaler_goes_down_by_its_rules, autoscaler_of_nothing, autoscaler_of_custom_and_external_metrics,
)  # fmt: skip


async def prepare(client: Client) -> None:
    """Two nodes, and a kind that passes for the metrics API."""
    for name in ("n1", "n2"):
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        await client.create(NODES, node)
        ready = {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": OLD}]}
        await client.patch(NODES, name, {"status": ready}, subresource="status")
        await client.patch(NODES, name, {"spec": {"taints": None}})
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "pods.metrics.k8s.io",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": "metrics.k8s.io",
            "scope": "Namespaced",
            "names": {"plural": "pods", "singular": "pod", "kind": "PodMetrics", "listKind": "PodMetricsList"},
            "versions": [
                {"name": "v1beta1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}},
            ],
        },
    }
    await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition)

    async def served() -> bool:
        try:
            await client.list(USAGE)
        except ApiError:
            return False
        return True

    await until(served, "the metrics kind")


async def tell(client: Client, story: Callable[[Script], Awaitable[None]]) -> tuple[Script, Any]:
    script = Script(client, story.__name__.replace("_", "-"))
    await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": script.namespace}})
    try:
        await story(script)
    except AssertionError as error:
        return script, str(error)
    return script, await script.picture()


async def compare(mine: Client, theirs: Client, story: Callable[[Script], Awaitable[None]]) -> str:
    """Empty, or what differs."""
    told = await asyncio.gather(tell(mine, story), tell(theirs, story))
    events: list[Any] = []
    for _ in range(30):  # upstream's recorder holds events back when there are many
        events = [await script.events() for script, _ in told]
        if events[0] == events[1]:
            break
        await asyncio.sleep(0.5)
    text = difference(told[0][1], told[1][1]) + difference(events[0], events[1])
    return f"{story.__name__}:\n{text}" if text else ""


async def test_both_tell_the_same_stories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoscaling, "PERIOD", 2.0)
    with real_kubernetes(tmp_path) as peer:
        theirs = peer.client()
        await peer.ready(theirs)
        with upstream(peer, tmp_path, UPSTREAM):
            async with ours() as mine:
                kubelets = [asyncio.create_task(kubelet(client)) for client in (mine, theirs)]
                try:
                    await asyncio.gather(prepare(mine), prepare(theirs))
                    told = await asyncio.gather(*(compare(mine, theirs, story) for story in STORIES))
                finally:
                    for task in kubelets:
                        task.cancel()
                    await asyncio.gather(*kubelets, return_exceptions=True)
                    await theirs.close()
    different = [text for text in told if text]
    assert not different, "\n\n".join(different)


def difference(mine: Any, theirs: Any, path: str = "") -> str:
    """Where two structures differ, a line each."""
    if mine == theirs:
        return ""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        return "".join(difference(mine.get(k), theirs.get(k), f"{path}.{k}") for k in sorted({*mine, *theirs}))
    if isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
        return "".join(difference(a, b, f"{path}[{i}]") for i, (a, b) in enumerate(zip(mine, theirs, strict=True)))
    return f"  {path}\n    ours:   {mine}\n    theirs: {theirs}\n"

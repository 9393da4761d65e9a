"""Random load: a small fleet, two teams in one cohort, and jobs that come, fail, are cancelled and hold each other up.

Everything is plain Kubernetes manifests, as a user would write them; the seed decides all of it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from glebe.kube.objects import Object
from glebe.kube.resources import Resource
from glebe.platform.simulation import contest

NAMESPACES = ("team-a", "team-b")


@dataclass(frozen=True, slots=True)
class Action:
    """Something a user or the world does at ``at`` seconds."""

    at: float
    verb: str  # submit, cancel, fail-node, recover-node, crash, decide; create, change, delete, evict
    name: str = ""
    namespace: str = ""
    manifest: Object | None = None  # or the patch
    resource: Resource | None = None


@dataclass(frozen=True, slots=True)
class Load:
    fleet: dict[str, Any]
    queues: list[Object]
    actions: list[Action]
    queue_config: dict[str, Any] = field(default_factory=dict)


def generate(seed: int, *, jobs: int = 10, span: float = 240.0, crashes: int = 3, node_failures: int = 1) -> Load:
    """The load of one seed.

    :param span: seconds over which jobs are submitted.
    """
    rng = random.Random(f"load-{seed}")
    nodes = rng.choice((4, 6, 8))
    gpus = rng.choice((4, 8))
    fleet = _fleet(nodes, gpus)
    actions = [_submission(rng, number, nodes, gpus, span) for number in range(jobs)]
    submitted = [a for a in actions if a.verb == "submit"]
    _give_volumes(random.Random(f"volumes-{seed}"), submitted)
    cancelled = rng.sample(submitted, k=min(2, len(submitted)))
    actions.extend(Action(a.at + rng.uniform(1, 90), "cancel", a.name, a.namespace) for a in cancelled)
    for _ in range(crashes):
        part = rng.choice(("workloads", "queueing", "metering", "nodes"))
        actions.append(Action(rng.uniform(5, span * 1.5), "crash", part))
    for _ in range(node_failures):
        node = f"gpu-{rng.randrange(nodes):02d}"
        down = rng.uniform(5, span)
        actions.append(Action(down, "fail-node", node))
        actions.append(Action(down + rng.uniform(20, 200), "recover-node", node))
    policies = random.Random(f"policies-{seed}")
    queues = _queues(rng, nodes * gpus)
    contest.take_part(policies, queues, [a.manifest for a in submitted if a.manifest is not None])
    actions += [Action(at, verb, name) for at, verb, name in contest.decisions(policies, span)]
    actions.sort(key=lambda a: (a.at, a.verb, a.name))
    return Load(fleet, queues, actions, contest.configuration(policies))


def _give_volumes(rng: random.Random, submitted: list[Action]) -> None:
    """The pods of some jobs have a volume each, made on the node that they get and gone with them."""
    amount = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}}
    template = {"spec": {**amount, "storageClassName": "local-path"}}
    for action in rng.sample(submitted, k=min(3, len(submitted))):
        assert action.manifest is not None
        pod = action.manifest["spec"]["template"]["spec"]
        pod["volumes"] = [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]


def _fleet(nodes: int, gpus: int) -> dict[str, Any]:
    return {
        "apiVersion": "glebe.dev/v1alpha1",
        "kind": "Fleet",
        "pools": [
            {
                "name": "gpu",
                "count": nodes,
                "gpu": {"model": "h100-sxm5-80gb", "count": gpus},
                "cpu": "64",
                "memory": "512Gi",
                "topology": {"nodesPerRack": 2, "racksPerBlock": 2},
                "startDelay": "1s",
                "runTime": "30s",
            }
        ],
        "local": {"enabled": False},
    }


def _queues(rng: random.Random, total: int) -> list[Object]:
    share = rng.choice((total // 2, total // 4, total * 3 // 4))
    levels = ("topology.glebe.dev/block", "topology.glebe.dev/rack", "kubernetes.io/hostname")
    kueue = "kueue.x-k8s.io/v1beta2"
    objects: list[Object] = [
        {
            "apiVersion": kueue,
            "kind": "Topology",
            "metadata": {"name": "fabric"},
            "spec": {"levels": [{"nodeLabel": level} for level in levels]},
        },
        {
            "apiVersion": kueue,
            "kind": "ResourceFlavor",
            "metadata": {"name": "gpu"},
            "spec": {"nodeLabels": {"glebe.dev/pool": "gpu"}, "topologyName": "fabric"},
        },
    ]
    for name, quota in zip(NAMESPACES, (share, total - share), strict=True):
        strategy = rng.choice(("StrictFIFO", "BestEffortFIFO"))
        objects.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        objects.append(_cluster_queue(name, strategy, quota, rng.random() < 0.3))
        objects.append(
            {
                "apiVersion": kueue,
                "kind": "LocalQueue",
                "metadata": {"name": "main", "namespace": name},
                "spec": {"clusterQueue": name},
            }
        )
    return objects


def _cluster_queue(name: str, strategy: str, quota: int, limited: bool) -> Object:
    gpu_quota: dict[str, Any] = {"name": "nvidia.com/gpu", "nominalQuota": quota}
    if limited:
        gpu_quota["borrowingLimit"] = max(1, quota // 2)
    return {
        "apiVersion": "kueue.x-k8s.io/v1beta2",
        "kind": "ClusterQueue",
        "metadata": {"name": name},
        "spec": {
            "cohortName": "all",
            "queueingStrategy": strategy,
            "namespaceSelector": {},
            "resourceGroups": [
                {
                    "coveredResources": ["nvidia.com/gpu", "cpu"],
                    "flavors": [{"name": "gpu", "resources": [gpu_quota, {"name": "cpu", "nominalQuota": 512}]}],
                }
            ],
        },
    }


def _submission(rng: random.Random, number: int, nodes: int, gpus: int, span: float) -> Action:
    name = f"job-{number:02d}"
    namespace = rng.choice(NAMESPACES)
    pods = rng.choice((1, 1, 2, 2, 3, nodes // 2, nodes))
    per_pod = rng.choice((1, 2, gpus // 2, gpus, gpus))
    run_time = rng.randrange(5, 90)
    annotations = {"sim.glebe.dev/run-time": f"{run_time}s"}
    if rng.random() < 0.15:
        annotations["sim.glebe.dev/exit-code"] = "1"
    topology = rng.choice((None, "kueue.x-k8s.io/podset-preferred-topology", "kueue.x-k8s.io/podset-required-topology"))
    if topology:
        annotations[topology] = rng.choice(("topology.glebe.dev/rack", "topology.glebe.dev/block"))
    job: Object = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"kueue.x-k8s.io/queue-name": "main"},
            "annotations": {"glebe.dev/expected-run-time": f"{run_time}s"},
        },
        "spec": {
            "completionMode": "Indexed",
            "parallelism": pods,
            "completions": pods,
            "backoffLimit": rng.choice((0, 2)),
            "template": {
                "metadata": {"annotations": annotations},
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [
                        {
                            "name": "main",
                            "image": "train",
                            "command": ["train"],
                            "resources": {
                                "requests": {"cpu": "1", "nvidia.com/gpu": str(per_pod)},
                                "limits": {"nvidia.com/gpu": str(per_pod)},
                            },
                        }
                    ],
                },
            },
        },
    }
    return Action(round(rng.uniform(0, span), 3), "submit", name, namespace, job)

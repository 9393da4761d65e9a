"""Random applications beside the jobs: what teams run for ever, changed while everything fails.

A web application (Deployment, autoscaler, budget), a database (StatefulSet with disks), an agent on each node
(DaemonSet) and a CronJob. They are rolled, scaled, evicted; one Deployment is deleted. The seed decides all of it.
"""

from __future__ import annotations

import random
from typing import Any

from glebe.kube.objects import Object
from glebe.kube.resources import CRON_JOBS, DAEMON_SETS, DEPLOYMENTS, STATEFUL_SETS, Resource
from glebe.platform.simulation.load import Action

NAMESPACE = "apps"
AUTOSCALERS = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
LEAST, MOST = 2, 6
"""The autoscaler's range."""
CRON_STOPS = 300.0
"""When the CronJob is suspended, so that all may come to rest."""


def applications(seed: int, span: float) -> tuple[list[Object], list[Action]]:
    """What is there from the start (namespaces), and what happens within ``span`` seconds."""
    rng = random.Random(f"applications-{seed}")
    actions: list[Action] = []

    def at(low: float, high: float) -> float:
        return round(rng.uniform(low, high), 3)

    for resource, manifest in (
        (DEPLOYMENTS, _deployment("web", rng, rng.randint(LEAST, 4), f"{rng.choice((5, 50, 150))}%")),
        (AUTOSCALERS, _autoscaler()),
        (BUDGETS, _budget(rng)),
        (DEPLOYMENTS, _deployment("worker", rng, rng.randint(1, 5))),
        (DEPLOYMENTS, _deployment("passing", rng, 2)),
        (STATEFUL_SETS, _stateful_set(rng)),
        (DAEMON_SETS, _daemon_set(rng)),
        (CRON_JOBS, _cron_job(rng)),
    ):
        actions.append(Action(at(0, span / 4), "create", resource=resource, manifest=manifest))
    for number in range(2):
        for resource, name in (
            (DEPLOYMENTS, "web"),
            (DEPLOYMENTS, "worker"),
            (STATEFUL_SETS, "db"),
            (DAEMON_SETS, "agent"),
        ):
            if rng.random() < 0.8:
                actions.append(_change(at(span / 4, span), resource, name, _image(number)))
    for resource, name, most in ((DEPLOYMENTS, "worker", 6), (STATEFUL_SETS, "db", 3)):
        actions.append(_change(at(span / 4, span), resource, name, {"spec": {"replicas": rng.randint(0, most)}}))
        actions.append(_change(at(span, span * 1.4), resource, name, {"spec": {"replicas": rng.randint(1, most)}}))
    actions += [Action(at(span / 4, span * 1.4), "evict", str(rng.random()), NAMESPACE) for _ in range(6)]
    actions.append(Action(at(span / 2, span), "delete", "passing", NAMESPACE, resource=DEPLOYMENTS))
    actions.append(_change(CRON_STOPS, CRON_JOBS, "tick", {"spec": {"suspend": True}}))
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}], actions


def _change(at: float, resource: Resource, name: str, patch: Object) -> Action:
    return Action(at, "change", name, NAMESPACE, patch, resource)


def _image(number: int) -> Object:
    return {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": f"app:{number + 2}"}]}}}}


def _made(resource: Resource, name: str, spec: Object) -> Object:
    meta = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta, "spec": spec}


def _pods(name: str, rng: random.Random, annotations: dict[str, str], **more: Any) -> Object:
    container = {"name": "main", "image": "app:1", "resources": {"requests": {"cpu": "100m"}}, **more}
    notes = {"sim.glebe.dev/stop-time": rng.choice(("0s", "2s", "10s")), **annotations}
    meta = {"labels": {"app": name}, "annotations": notes}
    return {"metadata": meta, "spec": {"terminationGracePeriodSeconds": 20, "containers": [container]}}


def _deployment(name: str, rng: random.Random, replicas: int, usage: str = "50%") -> Object:
    surge, down = rng.choice(((1, 0), (0, 1), ("50%", "25%"), (2, 2)))
    spec: Object = {
        "replicas": replicas,
        "revisionHistoryLimit": 1,
        "minReadySeconds": rng.choice((0, 0, 3)),
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": down}},
        "selector": {"matchLabels": {"app": name}},
        "template": _pods(name, rng, {"sim.glebe.dev/cpu-usage": usage}),
    }
    return _made(DEPLOYMENTS, name, spec)


def _autoscaler() -> Object:
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}
    fast = {"stabilizationWindowSeconds": 15, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}]}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "minReplicas": LEAST,
        "maxReplicas": MOST,
        "metrics": [{"type": "Resource", "resource": cpu}],
        "behavior": {"scaleDown": fast},
    }
    return _made(AUTOSCALERS, "web", spec)


def _budget(rng: random.Random) -> Object:
    limit = rng.choice(({"minAvailable": 1}, {"maxUnavailable": 1}, {"minAvailable": "50%"}))
    return _made(BUDGETS, "web", {"selector": {"matchLabels": {"app": "web"}}, **limit})


def _stateful_set(rng: random.Random) -> Object:
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    spec: Object = {
        "serviceName": "db",
        "replicas": rng.randint(1, 3),
        "podManagementPolicy": rng.choice(("OrderedReady", "OrderedReady", "Parallel")),
        "selector": {"matchLabels": {"app": "db"}},
        "template": _pods("db", rng, {}, volumeMounts=[{"name": "data", "mountPath": "/data"}]),
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
    }
    return _made(STATEFUL_SETS, "db", spec)


def _daemon_set(rng: random.Random) -> Object:
    spec: Object = {
        "selector": {"matchLabels": {"app": "agent"}},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": rng.choice((1, "50%"))}},
        "template": _pods("agent", rng, {}),
    }
    return _made(DAEMON_SETS, "agent", spec)


def _cron_job(rng: random.Random) -> Object:
    pods = _pods("tick", rng, {"sim.glebe.dev/run-time": f"{rng.choice((5, 30, 90))}s"})
    pods["spec"]["restartPolicy"] = "Never"
    spec: Object = {
        "schedule": "* * * * *",
        "concurrencyPolicy": rng.choice(("Forbid", "Forbid", "Allow", "Replace")),
        "successfulJobsHistoryLimit": 2,
        "failedJobsHistoryLimit": 1,
        "jobTemplate": {"spec": {"backoffLimit": 20, "template": pods}},
    }
    return _made(CRON_JOBS, "tick", spec)

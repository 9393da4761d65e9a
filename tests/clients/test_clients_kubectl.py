"""The story with stock kubectl."""

from __future__ import annotations

import json
import shutil
import sys
from typing import Any

import pytest
from glebe_up import EXAMPLES, Up, until

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on PATH")

CONFIGMAP = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: people}
data: {who: kubectl}
"""
NAMESPACE = """\
apiVersion: v1
kind: Namespace
metadata: {name: lab}
---
apiVersion: v1
kind: Secret
metadata: {name: key, namespace: lab}
stringData: {a: b}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: lab}
spec:
  ports: [{port: 80, targetPort: 8080}]
  selector: {app: web}
"""
LOCAL_JOB = """\
apiVersion: batch/v1
kind: Job
metadata:
  name: hello
  labels: {kueue.x-k8s.io/queue-name: local}
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
      - name: main
        image: unused
        command: [PYTHON, -c, "import os; print('hello from', os.environ['WHO'])"]
        env:
        - name: WHO
          valueFrom: {configMapKeyRef: {name: people, key: who}}
        resources: {requests: {cpu: 100m, memory: 64Mi}}
"""


def kubectl(up: Up, *arguments: str, expect: int = 0, stdin: str | None = None) -> str:
    return up.run("kubectl", *arguments, expect=expect, stdin=stdin)


def objects(up: Up, *arguments: str) -> list[dict[str, Any]]:
    return list(json.loads(kubectl(up, "get", *arguments, "-o", "json"))["items"])


def test_nodes(up: Up) -> None:
    until("17 nodes are ready", lambda: kubectl(up, "get", "nodes", "--no-headers").count(" Ready ") == 17)
    described = kubectl(up, "describe", "node", "h100-00")
    assert "nvidia.com/gpu:" in described
    assert "topology.glebe.dev/rack=h100-rack-00" in described


def test_the_64_gpu_job_waits_with_a_forecast_and_then_runs(up: Up) -> None:
    kubectl(up, "apply", "-f", str(EXAMPLES / "queues.yaml"))
    again = kubectl(up, "apply", "-f", str(EXAMPLES / "queues.yaml"))
    assert again.count("unchanged") == len(again.splitlines()), again
    kubectl(up, "apply", "-f", str(EXAMPLES / "background.yaml"))
    until("the background runs", lambda: sum(j["status"].get("ready", 0) for j in objects(up, "jobs", "-A")) == 14)
    kubectl(up, "apply", "-f", str(EXAMPLES / "training-64gpu.yaml"))
    row = until("it has a forecast", lambda: _row_with_start(up))
    assert row[-2] == "WaitingForQuota"
    assert int(row[3 - 1]) == 2, "position"
    assert int(row[4 - 1]) == 48, "GPUs ahead"
    described = kubectl(up, "describe", "workloads", "-n", "team-a")
    assert "needs 64 GPUs" in described
    assert "Remedy:" in described
    assert "needs 64 GPUs" in kubectl(up, "get", "events", "-n", "team-a")
    kubectl(up, "wait", "--for=condition=complete", "job/train-64", "-n", "team-a", "--timeout=80s")
    pods = objects(up, "pods", "-n", "team-a", "-l", "batch.kubernetes.io/job-name=train-64")
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 8
    assert "simulated" in kubectl(up, "logs", pods[0]["metadata"]["name"], "-n", "team-a")
    kubectl(up, "delete", "-f", str(EXAMPLES / "training-64gpu.yaml"))
    gone = lambda: not objects(up, "pods", "-n", "team-a", "-l", "batch.kubernetes.io/job-name=train-64")  # noqa: E731
    until("its pods are gone", gone)


def _row_with_start(up: Up) -> list[str]:
    """NAME QUEUE POSITION GPUS-AHEAD START(P50) REASON AGE of the job, once it has a start."""
    lines = kubectl(up, "get", "workloads", "-n", "team-a", "--no-headers").splitlines()
    row = next((line.split() for line in lines if line.startswith("job-train-64")), [])
    return row if len(row) == 7 and row[4].endswith("Z") else []


def test_a_real_process_with_a_configmap(up: Up) -> None:
    kubectl(up, "apply", "-f", "-", stdin=CONFIGMAP)
    kubectl(up, "apply", "-f", "-", stdin=LOCAL_JOB.replace("PYTHON", sys.executable))
    kubectl(up, "wait", "--for=condition=complete", "job/hello", "--timeout=60s")
    assert kubectl(up, "logs", "job/hello") == "hello from kubectl\n"
    kubectl(up, "delete", "job/hello", "configmap/people")


def test_bad_input_is_refused_with_field_and_remedy(up: Up) -> None:
    unknown = LOCAL_JOB.replace("restartPolicy: Never", "restartPolicy: Never\n      nodeSelektor: {}")
    assert 'unknown field "spec.template.spec.nodeSelektor"' in kubectl(
        up, "apply", "--validate=strict", "-f", "-", expect=1, stdin=unknown
    )
    wrong = LOCAL_JOB.replace("spec:\n  template", "spec:\n  completions: many\n  template")
    assert "completions" in kubectl(up, "apply", "-f", "-", expect=1, stdin=wrong)
    negative = LOCAL_JOB.replace("spec:\n  template", "spec:\n  parallelism: -1\n  template")
    assert "spec.parallelism" in kubectl(up, "create", "-f", "-", expect=1, stdin=negative)
    classless = LOCAL_JOB.replace("queue-name: local", "queue-name: local, glebe.dev/class: nosuch")
    refused = kubectl(up, "create", "-f", "-", expect=1, stdin=classless)
    assert "glebe.dev/class" in refused
    assert "nosuch" in refused


def test_secrets_services_and_namespaces(up: Up) -> None:
    kubectl(up, "apply", "-f", "-", stdin=NAMESPACE)
    assert "key" in kubectl(up, "get", "secret,service", "-n", "lab")
    kubectl(up, "delete", "namespace", "lab", "--timeout=60s")
    assert "NotFound" in kubectl(up, "get", "namespace", "lab", expect=1)


def test_the_queue_kinds_are_found_by_every_name(up: Up) -> None:
    for name in ("clusterqueues", "localqueues", "resourceflavors", "cohorts", "workloads", "topologies", "cq", "lq"):
        kubectl(up, "get", name, "-A")
    assert "gpusAhead" in kubectl(up, "explain", "workload.status.forecast")

"""The story with the official Python client, and with kr8s."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from glebe_up import Up, until

kubernetes = pytest.importorskip("kubernetes")


def job(name: str, queue: str, command: list[str], gpus: int = 0, parallelism: int = 1) -> dict[str, Any]:
    resources: dict[str, Any] = {"requests": {"cpu": "100m", "memory": "64Mi"}}
    if gpus:
        resources["limits"] = {"nvidia.com/gpu": str(gpus)}
    container = {"name": "main", "image": "unused", "command": command, "resources": resources}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"kueue.x-k8s.io/queue-name": queue},
        },
        "spec": {
            "parallelism": parallelism,
            "completions": parallelism,
            "completionMode": "Indexed",
            "template": {
                "metadata": {"annotations": {"sim.glebe.dev/run-time": "2s"}},
                "spec": {"restartPolicy": "Never", "containers": [container]},
            },
        },
    }


def test_official_client(up: Up) -> None:
    api = kubernetes.config.new_client_from_config(config_file=str(up.kubeconfig))
    core, batch = kubernetes.client.CoreV1Api(api), kubernetes.client.BatchV1Api(api)
    custom = kubernetes.client.CustomObjectsApi(api)
    until("17 nodes", lambda: len(core.list_node().items) == 17)

    batch.create_namespaced_job("default", job("gang", "default", ["x"], gpus=8, parallelism=8))
    watch = kubernetes.watch.Watch()
    seen = []
    for event in watch.stream(batch.list_namespaced_job, "default", timeout_seconds=40):
        if event["object"].metadata.name == "gang":
            seen.append(event["object"])
            if event["object"].status.succeeded == 8:
                watch.stop()
    assert seen[0].spec.suspend is True
    assert seen[-1].spec.suspend is False
    until("it is complete", lambda: batch.read_namespaced_job_status("gang", "default").status.completion_time)
    workloads = custom.list_namespaced_custom_object("kueue.x-k8s.io", "v1beta2", "default", "workloads")["items"]
    mine = next(w for w in workloads if w["metadata"]["ownerReferences"][0]["name"] == "gang")
    assert mine["status"]["admission"]["clusterQueue"] == "default"

    batch.create_namespaced_job("default", job("real", "local", [sys.executable, "-c", "print(6 * 7)"]))
    until("it succeeded", lambda: batch.read_namespaced_job_status("real", "default").status.succeeded == 1)
    pods = core.list_namespaced_pod("default", label_selector="batch.kubernetes.io/job-name=real").items
    assert core.read_namespaced_pod_log(pods[0].metadata.name, "default") == "42\n"

    with pytest.raises(kubernetes.client.ApiException) as caught:
        batch.create_namespaced_job("default", job("real", "local", ["true"]))
    assert caught.value.status == 409
    for name in ("gang", "real"):
        batch.delete_namespaced_job(name, "default", propagation_policy="Foreground")
    until("all are gone", lambda: not core.list_namespaced_pod("default").items)


@pytest.mark.filterwarnings("ignore:Kubernetes version")
def test_kr8s(up: Up) -> None:
    kr8s = pytest.importorskip("kr8s")
    api = kr8s.api(kubeconfig=str(up.kubeconfig))
    assert len(list(api.get("nodes"))) == 17
    made = kr8s.objects.Job(job("kr8s", "local", [sys.executable, "-c", "print('kr8s')"]), api=api)
    made.create()
    made.wait("condition=Complete", timeout=60)
    pod = next(iter(api.get("pods", label_selector="batch.kubernetes.io/job-name=kr8s")))
    assert list(pod.logs()) == ["kr8s"]
    queues = [queue.name for queue in api.get("clusterqueues.kueue.x-k8s.io")]
    assert "default" in queues
    made.delete(propagation_policy="Foreground")

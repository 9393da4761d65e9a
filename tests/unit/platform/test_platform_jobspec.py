"""From a request to a Job and its Service."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from glebe.platform.jobspec import BadRequest, JobRequest, build, parse_env

REQUEST = JobRequest(
    name="train",
    command=["torchrun", "train.py"],
    queue="gpus",
    namespace="team-a",
    nodes=8,
    gpus_per_node=8,
    env={"EPOCHS": "3"},
    expected="20m..35m",
    max_time="4h",
    job_class="training",
    topology=("required", "rack"),
)


def test_job_is_an_indexed_gang_in_its_queue() -> None:
    _, job = build(REQUEST)
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 8, 8)
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert job["metadata"]["labels"]["glebe.dev/class"] == "training"
    assert job["metadata"]["labels"]["kueue.x-k8s.io/max-exec-time-seconds"] == "14400"
    assert job["metadata"]["annotations"] == {"glebe.dev/expected-run-time": "20m..35m"}
    topology = spec["template"]["metadata"]["annotations"]
    assert topology == {"kueue.x-k8s.io/podset-required-topology": "topology.glebe.dev/rack"}


def test_retries_are_counted_per_rank_and_lost_pods_are_no_failures() -> None:
    def rules(retries: int) -> dict[str, Any]:
        _, job = build(dataclasses.replace(REQUEST, retries=retries))
        assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"  # else no podFailurePolicy
        return {k: v for k, v in job["spec"].items() if k.startswith(("backoff", "maxFailed", "podFailure"))}

    lost = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert rules(3) == {"backoffLimitPerIndex": 3, "maxFailedIndexes": 0, "podFailurePolicy": {"rules": [lost]}}
    assert rules(0) == {"backoffLimit": 0, "podFailurePolicy": {"rules": [lost]}}


def test_rendezvous_names_rank_zero_of_the_headless_service() -> None:
    service, job = build(REQUEST)
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": "train"}
    assert service["spec"]["publishNotReadyAddresses"] is True
    pod = job["spec"]["template"]["spec"]
    assert pod["subdomain"] == service["metadata"]["name"]
    env = {entry["name"]: entry.get("value") or entry["valueFrom"] for entry in pod["containers"][0]["env"]}
    assert env["MASTER_ADDR"] == "train-0.train"
    assert env["MASTER_PORT"] == str(service["spec"]["ports"][0]["port"])
    assert (env["WORLD_SIZE"], env["NNODES"], env["GPUS_PER_NODE"], env["EPOCHS"]) == ("8", "8", "8", "3")
    path = {"fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}}
    assert env["RANK"] == env["NODE_RANK"] == env["PET_NODE_RANK"] == path


def test_an_empty_command_is_nothing_to_run() -> None:
    for command in ([], [""]):
        with pytest.raises(BadRequest, match="nothing to run"):
            build(dataclasses.replace(REQUEST, command=command))


def test_a_doubled_dollar_arrives_as_it_was_typed() -> None:
    _, job = build(dataclasses.replace(REQUEST, command=["sh", "-c", "echo $$ $HOME $(date)"], env={"P": "a$$b"}))
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["sh", "-c", "echo $$$$ $HOME $(date)"]  # Kubernetes makes $$ of $$$$
    assert {"name": "P", "value": "a$$$$b"} in container["env"]


def test_gpus_are_asked_for_and_limited() -> None:
    resources = build(REQUEST)[1]["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert resources["limits"] == {"nvidia.com/gpu": "8"}
    assert resources["requests"] == {"cpu": "32", "memory": "128Gi", "nvidia.com/gpu": "8"}


def test_without_gpus_there_is_no_limit() -> None:
    resources = build(JobRequest(name="cpu", command=["true"]))[1]["spec"]["template"]["spec"]["containers"][0]
    assert resources["resources"] == {"requests": {"cpu": "1", "memory": "1Gi"}}


def test_own_environment_wins() -> None:
    job = build(dataclasses.replace(REQUEST, env={"MASTER_PORT": "1234"}))[1]
    env = {e["name"]: e.get("value") for e in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["MASTER_PORT"] == "1234"


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"name": "Train_1"}, "--name"),
        ({"name": "x" * 63}, "--name"),
        ({"command": []}, "COMMAND"),
        ({"nodes": 0}, "--nodes"),
        ({"gpus_per_node": -1}, "--gpus-per-node"),
        ({"retries": -1}, "--retries"),
        ({"cpus_per_node": "many"}, "--cpus-per-node"),
        ({"memory_per_node": "-1Gi"}, "--memory"),
        ({"max_time": "tomorrow"}, "--max-time"),
        ({"max_time": "0s"}, "--max-time"),
        ({"expected": "35m..20m"}, "--expected"),
        ({"expected": "1m..2m..3m"}, "--expected"),
        ({"topology": ("nearby", "rack")}, "--topology"),
        ({"master_port": 0}, "--master-port"),
    ],
)
def test_bad_requests_name_the_flag_and_a_remedy(change: dict[str, object], flag: str) -> None:
    with pytest.raises(BadRequest) as caught:
        build(dataclasses.replace(REQUEST, **change))  # type: ignore[arg-type]
    assert caught.value.field == flag
    assert caught.value.remedy


def test_env_pairs() -> None:
    assert parse_env(["A=1", "B=x=y", "C="]) == {"A": "1", "B": "x=y", "C": ""}
    for wrong in ("A", "1A=2", "=x"):
        with pytest.raises(BadRequest):
            parse_env([wrong])

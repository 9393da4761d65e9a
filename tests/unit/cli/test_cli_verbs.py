"""The verbs, each against objects that stand for a moment in a job's life."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from glebe.cli.follow import follow
from glebe.cli.main import app
from glebe.kube import resources as r
from glebe.kube.objects import Object
from glebe.platform.jobspec import JobRequest, build
from glebe.queueing.gatekeeping.admission import QueueAdmission
from glebe.scheduling.model import Decision, Outcome, Reason

FORECAST = {
    "clusterQueue": "research",
    "position": 2,
    "gpusAhead": 16,
    "startP50": "2099-01-01T00:10:00Z",
    "startP90": "2099-01-01T02:20:00Z",
    "reason": "WaitingForQuota",
    "message": "64 GPUs are needed, 32 are free.",
    "remedy": "Ask for at most 4 nodes to start now.",
    "computedAt": "2026-01-01T00:00:02Z",
}
NEVER = {"reason": "ExceedsCapacity", "message": "256 GPUs are needed, the fleet has 128.", "remedy": "Ask for less."}


def submit(api: Any, name: str, forecast: dict[str, Any]) -> Object:
    job = api.create(r.JOBS, build(JobRequest(name=name, command=["true"], nodes=8, gpus_per_node=8))[1])
    workload = {
        "apiVersion": r.WORKLOADS.api_version,
        "kind": "Workload",
        "metadata": {
            "name": f"job-{name}",
            "namespace": "default",
            "ownerReferences": [
                {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "name": name,
                    "uid": job["metadata"]["uid"],
                    "controller": True,
                }
            ],
        },
        "spec": {
            "queueName": "default",
            "podSets": [{"name": "main", "count": 8, "template": job["spec"]["template"]}],
        },
    }
    api.create(r.WORKLOADS, workload, {"forecast": forecast})
    return job


def test_queue_answers_the_five_questions(api: Any, glebe: Any) -> None:
    submit(api, "train", FORECAST)
    result = glebe("queue")
    assert result.exit_code == 0
    header, row = result.stdout.splitlines()
    assert header.split()[:3] == ["POSITION", "JOB", "NAMESPACE"]
    assert row.split()[:6] == ["2", "train", "default", "default", "64", "16"]
    assert "in " in row
    assert "64 GPUs are needed, 32 are free." in row
    wide = glebe("queue", "-o", "wide").stdout
    assert "Ask for at most 4 nodes" in wide
    assert "WaitingForQuota" in wide


def test_why_and_queue_know_the_cluster_queue_of_a_waiting_job(api: Any, glebe: Any) -> None:
    submit(api, "train", FORECAST)
    assert "queue:         default -> research" in glebe("why", "train").stdout
    queue = {"apiVersion": r.CLUSTER_QUEUES.api_version, "kind": "ClusterQueue", "metadata": {"name": "research"}}
    api.create(r.CLUSTER_QUEUES, {**queue, "spec": {"namespaceSelector": {}, "resourceGroups": []}})
    assert json.loads(glebe("queue", "research", "-o", "json").stdout)[0]["name"] == "train"


def test_a_dry_run_says_once_what_it_says(api: Any, glebe: Any) -> None:
    def never(cluster: str, job: Object) -> Decision:
        return Decision("", Outcome.NEVER, Reason.QUEUE_NOT_FOUND, message)

    message = 'LocalQueue "default" does not exist in namespace "default"'

    plugin = QueueAdmission(oracle=never)
    api.server.admission = (*api.server.admission, plugin)
    arguments = ("run", "--name", "train", "--dry-run", "--", "true")
    result = glebe(*arguments)
    assert result.exit_code == 5
    assert result.stdout.startswith(f"train would never start: {message}")
    assert result.stderr == ""
    plugin.read = api.server.read
    assert glebe(*arguments).stderr == ""
    plugin.read = None
    plugin.oracle = lambda cluster, job: Decision("", Outcome.NEVER, Reason.MISCONFIGURED, "something else")
    assert "warning: the job will never start as things are: something else" in glebe(*arguments).stderr


def test_names_of_jobs_and_queues_are_completed(api: Any, glebe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("train", "trial", "other"):
        submit(api, name, FORECAST)
    meta = {"name": "gpus", "namespace": "default"}
    queue = {"apiVersion": r.LOCAL_QUEUES.api_version, "kind": "LocalQueue", "metadata": meta}
    api.create(r.LOCAL_QUEUES, {**queue, "spec": {"clusterQueue": "research"}})

    def complete(line: str) -> list[str]:
        monkeypatch.setenv("_GLEBE_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        result = CliRunner().invoke(app, [], prog_name="glebe", env=None)
        return list(result.stdout.split())

    assert complete("glebe why tr") == ["train", "trial"]
    assert complete("glebe run --queue g") == ["gpus"]
    assert complete("glebe queue ") == ["gpus"]
    assert complete("glebe cancel -n nowhere t") == []


def test_queue_tells_never_from_waiting(api: Any, glebe: Any) -> None:
    submit(api, "huge", NEVER)
    assert " never " in glebe("queue").stdout


def test_an_empty_queue_says_why(api: Any, glebe: Any) -> None:
    assert glebe("queue").stdout == "Nothing waits. 0 of 0 GPUs are free.\n"
    assert glebe("jobs").stdout == "No jobs in namespace default (-A looks everywhere).\n"
    assert glebe("nodes").stdout.startswith("No nodes: none has registered yet.")


def test_empty_answers_about_what_does_not_exist_are_errors(api: Any, glebe: Any) -> None:
    for verb in ("jobs", "queue"):
        result = glebe(verb, "-n", "nowhere")
        assert result.exit_code == 3
        assert 'there is no namespace "nowhere"' in result.stderr
    result = glebe("queue", "gpsu")
    assert result.exit_code == 3
    assert 'there is no queue "gpsu"' in result.stderr
    assert glebe("queue", "-A").exit_code == 0
    assert glebe("usage", "--day", "yesterday").exit_code == 2


def test_machine_formats(api: Any, glebe: Any) -> None:
    submit(api, "train", FORECAST)
    rows = json.loads(glebe("queue", "-o", "json").stdout)
    assert (rows[0]["name"], rows[0]["gpus_ahead"], rows[0]["start_p50"]) == ("train", 16, FORECAST["startP50"])
    assert yaml.safe_load(glebe("jobs", "-o", "yaml").stdout)[0]["state"] == "Waiting"
    assert glebe("jobs", "-o", "name").stdout == "train\n"


def test_why_explains_and_its_exit_code_says_never(api: Any, glebe: Any) -> None:
    submit(api, "train", FORECAST)
    submit(api, "huge", NEVER)
    waiting = glebe("why", "train")
    assert waiting.exit_code == 0
    for text in ("train (default): Waiting", "64 GPUs are needed, 32 are free. [WaitingForQuota]", "position:      2"):
        assert text in waiting.stdout
    never = glebe("why", "huge")
    assert never.exit_code == 5
    assert "Never starts" in never.stdout
    assert "Ask for less." in never.stdout


def test_why_names_the_ranks_that_failed(api: Any, glebe: Any) -> None:
    job = api.create(r.JOBS, build(JobRequest(name="train", command=["false"], nodes=2))[1])
    template = job["spec"]["template"]
    labels = {**template["metadata"]["labels"], "batch.kubernetes.io/job-completion-index": "1"}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "train-1-x", "namespace": "default", "labels": labels},
        "spec": template["spec"],
    }
    ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    container = {"name": "main", "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": ended}
    api.create(r.PODS, pod, {"phase": "Failed", "containerStatuses": [container]})
    assert "failed:\n  rank 1 (train-1-x): exit code 137, OOMKilled\n" in glebe("why", "train").stdout
    assert json.loads(glebe("why", "train", "-o", "json").stdout)["failures"][0]["rank"] == 1


def test_a_job_whose_time_is_over_has_stopped_and_nobody_waits_for_it(api: Any, glebe: Any) -> None:
    job = submit(api, "train", {})
    workload = api.get(r.WORKLOADS, "job-train", "default")
    message = "the workload ran for its maximum execution time of 5 s"
    evicted = {"type": "Evicted", "status": "True", "reason": "DeactivatedDueToMaximumExecutionTimeExceeded"}
    evicted |= {"message": message, "lastTransitionTime": "2026-01-01T00:00:05Z"}
    api.change(r.WORKLOADS, workload | {"spec": workload["spec"] | {"active": False}}, {"conditions": [evicted]})
    row = json.loads(glebe("jobs", "-o", "json").stdout)[0]
    assert (row["state"], row["reason"], row["message"]) == ("Stopped", "MaximumExecutionTimeExceeded", message)
    assert f"{message} [MaximumExecutionTimeExceeded]" in glebe("why", "train").stdout
    said: list[str] = []
    code = asyncio.run(asyncio.wait_for(follow(api.client, "default", job["metadata"]["name"], said.append), 10))
    assert code == 1
    assert said == [f"Stopped: {message}", "  it stays suspended; glebe cancel train removes it"]


@pytest.mark.parametrize("verb", ["why", "logs", "cancel"])
def test_unknown_jobs_are_not_found(api: Any, glebe: Any, verb: str) -> None:
    result = glebe(verb, "nobody")
    assert result.exit_code == 3
    assert "nobody" in result.stderr
    assert "try: glebe jobs -A" in result.stderr


def test_logs_of_a_waiting_job_say_that_it_waits(api: Any, glebe: Any) -> None:
    submit(api, "train", FORECAST)
    result = glebe("logs", "train")
    assert result.exit_code == 1
    assert "rank 0 of train has not started: Waiting" in result.stderr
    assert glebe("logs", "train", "--rank", "8").exit_code == 2


def test_run_detached_creates_job_and_service(api: Any, glebe: Any) -> None:
    arguments = ("run", "--name", "train", "--nodes", "2", "--gpus-per-node", "8", "-d", "--", "python", "train.py")
    result = glebe(*arguments)
    assert result.exit_code == 0, result.output
    assert "train is submitted to queue default of default: 2 pods, 16 GPUs, together" in result.stdout
    assert api.get(r.SERVICES, "train", "default")["spec"]["clusterIP"] == "None"
    job = api.get(r.JOBS, "train", "default")
    assert job["spec"]["template"]["spec"]["containers"][0]["command"] == ["python", "train.py"]
    again = glebe(*arguments)
    assert again.exit_code == 7
    assert 'jobs.batch "train" already exists' in again.stderr


def test_run_prints_what_scripts_need(api: Any, glebe: Any) -> None:
    assert glebe("run", "--name", "a", "-o", "name", "--", "true").stdout == "job.batch/a\n"
    assert json.loads(glebe("run", "--name", "b", "-o", "json", "--", "true").stdout)["metadata"]["name"] == "b"


def test_bad_flags_name_flag_and_remedy(api: Any, glebe: Any) -> None:
    result = glebe("run", "--name", "train", "--nodes", "-1", "--", "true")
    assert result.exit_code == 2
    assert result.stderr == "error: --nodes: -1 is too small\n  try: give 1 or more\n"
    assert glebe("run", "--name", "train").exit_code == 2
    assert glebe("jobs", "-o", "xml").exit_code == 2


def test_cancel_removes_job_and_service(api: Any, glebe: Any) -> None:
    glebe("run", "--name", "train", "-d", "--", "true")
    result = glebe("cancel", "train")
    assert result.exit_code == 0
    assert result.stdout.startswith("train is cancelled")
    assert glebe("jobs", "-o", "name").stdout == ""
    assert glebe("run", "--name", "train", "-d", "--", "true").exit_code == 0, "the name is free again"


def test_nodes_show_what_is_in_use(api: Any, glebe: Any) -> None:
    labels = {"glebe.dev/node-kind": "simulated", "topology.glebe.dev/rack": "rack-0", "nvidia.com/gpu.product": "H100"}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n0", "labels": labels}}
    ready = {"type": "Ready", "status": "True"}
    api.create(r.NODES, node, {"capacity": {"nvidia.com/gpu": "8"}, "conditions": [ready]})
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {
            "nodeName": "n0",
            "containers": [{"name": "c", "image": "x", "resources": {"limits": {"nvidia.com/gpu": "4"}}}],
        },
    }
    api.create(r.PODS, pod)
    lines = glebe("nodes").stdout.splitlines()
    assert lines[1].split() == ["n0", "Ready", "simulated", "4/8", "H100", "1", "rack-0"]
    assert lines[-1] == "1 node, 4 of 8 GPUs in use"

"""``glebe approve`` and ``glebe deny``: what waits for a person, and his answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from test_cli_verbs import submit

from glebe.kube import resources as r

KUEUE = "kueue.x-k8s.io/v1beta2"
SINCE = "2026-01-01T00:00:01Z"


def check(api: Any, name: str, controller: str = "glebe.dev/approval") -> None:
    made = {"apiVersion": KUEUE, "kind": "AdmissionCheck", "metadata": {"name": name}}
    api.create(r.ADMISSION_CHECKS, {**made, "spec": {"controllerName": controller}})


def asks(api: Any, job: str, *names: str) -> None:
    """The job's workload waits for these checks."""
    submit(api, job, {})
    workload = api.get(r.WORKLOADS, f"job-{job}", "default")
    open_checks = [{"name": n, "state": "Pending", "message": "", "lastTransitionTime": SINCE} for n in names]
    api.change(r.WORKLOADS, workload, {"admissionChecks": open_checks})


def states(api: Any, job: str) -> dict[str, tuple[str, str]]:
    listed = api.get(r.WORKLOADS, f"job-{job}", "default")["status"]["admissionChecks"]
    return {c["name"]: (c["state"], c["message"]) for c in listed}


def test_what_waits_for_a_person_is_listed_and_answered(api: Any, glebe: Any) -> None:
    assert glebe("approve").stdout == "Nothing waits for a person.\n"
    check(api, "boss")
    check(api, "nodes", "example.com/nodes")
    asks(api, "train", "boss", "nodes")
    (row,) = json.loads(glebe("approve", "-o", "json").stdout)
    assert (row["name"], row["check"], row["quota"]) == ("train", "boss", "not yet")
    assert "train" in glebe("approve", "-A").stdout
    done = glebe("approve", "train", "-m", "as agreed")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("train: boss approved as ")
    after = states(api, "train")
    assert after["nodes"] == ("Pending", ""), "what is not a person's is left alone"
    assert after["boss"][0] == "Ready"
    assert after["boss"][1].startswith("approved by ")
    assert after["boss"][1].endswith(": as agreed")
    assert glebe("approve").stdout == "Nothing waits for a person.\n"


def test_a_denial_says_why(api: Any, glebe: Any) -> None:
    check(api, "boss")
    asks(api, "train", "boss")
    assert glebe("deny", "train", "-m", "too much").exit_code == 0
    state, message = states(api, "train")["boss"]
    assert state == "Rejected"
    assert message.startswith("denied by ")
    assert message.endswith(": too much")


def test_one_of_several_checks_can_be_answered(api: Any, glebe: Any) -> None:
    check(api, "boss")
    check(api, "money")
    asks(api, "train", "boss", "money")
    assert glebe("approve", "train", "--check", "money").exit_code == 0
    assert {name: state for name, (state, _) in states(api, "train").items()} == {"boss": "Pending", "money": "Ready"}
    wrong = glebe("approve", "train", "--check", "money")
    assert wrong.exit_code == 2
    assert "open are: boss" in wrong.stderr


@pytest.mark.parametrize("verb", ["approve", "deny"])
def test_who_does_not_wait_cannot_be_answered(api: Any, glebe: Any, verb: str) -> None:
    assert glebe(verb, "nobody").exit_code == 3
    submit(api, "train", {})
    result = glebe(verb, "train")
    assert result.exit_code == 2
    assert "nothing of train waits for a person" in result.stderr

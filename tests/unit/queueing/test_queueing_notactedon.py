"""What Kueue's manifests ask for and nothing acts on is said: where it makes a difference, and only there."""

from __future__ import annotations

from typing import Any

import pytest

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store.memory import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.informer import Informers
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import Object, get_condition
from glebe.platform import bootstrap
from glebe.queueing.gatekeeping.admission import QueueAdmission
from glebe.queueing.jobs.integrations import for_kind
from glebe.queueing.notactedon import findings, job_findings
from glebe.queueing.telling.queuestatus import QueueStatus

UNUSUAL = {
    "namespaceSelector": {},
    "preemption": {"reclaimWithinCohort": "Any", "borrowWithinCohort": {"policy": "LowerPriority"}},
    "flavorFungibility": {"whenCanBorrow": "TryNextFlavor", "whenCanPreempt": "MayStopSearch"},
    "admissionChecksStrategy": {"admissionChecks": [{"name": "budget"}, {"name": "images"}]},
    "fairSharing": {"weight": 2},
    "concurrentAdmissionPolicy": {"migration": {"mode": "TryPreferredFlavors"}},
}
SAID = [
    "spec.concurrentAdmissionPolicy is accepted but not acted on yet",
]


def queue(spec: dict[str, Any]) -> Object:
    kind = r.CLUSTER_QUEUES
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "q"}, "spec": spec}


def test_values_that_ask_for_something_are_found() -> None:
    assert findings("ClusterQueue", queue(UNUSUAL)) == SAID
    workload = {"spec": {"podSets": [{"name": "a"}, {"name": "b", "minCount": 2}]}}
    assert findings("Workload", workload) == []


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"preemption": {"withinClusterQueue": "Never", "reclaimWithinCohort": "Never"}},
        {
            "preemption": None,
            "flavorFungibility": {"whenCanBorrow": "MayStopSearch", "whenCanPreempt": "TryNextFlavor"},
        },
        {"fairSharing": {"weight": "1"}, "admissionScope": {"admissionMode": "NoAdmissionFairSharing"}},
        {"admissionChecksStrategy": {"admissionChecks": []}, "concurrentAdmissionPolicy": {}},
    ],
)
def test_what_happens_anyway_is_not_spoken_of(spec: dict[str, Any]) -> None:
    assert findings("ClusterQueue", queue(spec)) == []


def test_jobs_are_looked_at_with_their_pods() -> None:
    integration = for_kind("batch/v1", "Job")
    assert integration is not None
    notes = {"kueue.x-k8s.io/job-completions-equal-parallelism": "true", "kueue.x-k8s.io/elastic-job": "false"}
    pods = {"metadata": {"annotations": {"kueue.x-k8s.io/podset-group-name": "g"}}}  # acted on
    assert job_findings(integration, {"metadata": {"annotations": notes}, "spec": {"template": pods}}) == [
        "metadata.annotations[kueue.x-k8s.io/job-completions-equal-parallelism]: true is accepted but not acted on yet",
    ]


async def test_the_server_warns_and_the_queue_says_it_as_long_as_it_is_so() -> None:
    env = Env.seeded(1)
    server = ApiServer(MemoryStore(), env, TypeRegistry(), admission=(QueueAdmission(),))
    await server.start()
    warnings: list[str] = []
    client = Client(InProcessTransport(server.handle))
    client.on_warning = warnings.append
    await bootstrap.install_crds(client)
    made = await client.create(r.CLUSTER_QUEUES, queue(UNUSUAL))
    assert warnings == SAID
    warnings.clear()
    await client.update(r.CLUSTER_QUEUES, {**made, "metadata": {**made["metadata"], "labels": {"a": "b"}}})
    assert warnings == [], "nothing that it says has changed"

    status = QueueStatus(client, Informers(client, env), env)
    made["status"] = status.cluster_queue(made)
    condition = get_condition(made, "NotActedOn") or {}
    assert (condition["status"], condition["reason"]) == ("True", "FieldsNotActedOn")
    assert condition["message"] == "; ".join(SAID)
    active = get_condition(made, "Active") or {}
    assert (active["status"], active["reason"]) == ("False", "AdmissionCheckNotFound")
    assert active["message"] == 'AdmissionCheck "budget" does not exist'
    none = {"spec": {"admissionChecksStrategy": None}}
    changed = await client.patch(r.CLUSTER_QUEUES, "q", none)
    assert warnings == SAID
    plain = {**changed, "spec": {"namespaceSelector": {}}, "status": made["status"]}
    assert get_condition({**plain, "status": status.cluster_queue(plain)}, "NotActedOn") is None
    await server.close()

"""From "8 nodes with 8 GPUs run this command" to Kubernetes objects: pure, no client.

A :class:`JobRequest` becomes an Indexed Job and the headless Service that gives its pods names. Every pod gets the
rendezvous environment that launchers expect: ``MASTER_ADDR``, ``MASTER_PORT``, ``WORLD_SIZE`` and ``RANK`` count
pods (one launcher each), ``NODE_RANK``, ``NNODES`` and ``GPUS_PER_NODE`` say the same in words, and the ``PET_``
variables are ``torchrun``'s own, so that ``torchrun train.py`` needs no flags.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from glebe.kube.duration import parse_duration
from glebe.kube.objects import Object
from glebe.kube.quantity import parse
from glebe.queueing import labels as names

RANK_ANNOTATION = names.COMPLETION_INDEX  # a label of the pod, too
JOB_NAME_LABEL = "batch.kubernetes.io/job-name"
GPU_RESOURCE = "nvidia.com/gpu"

#: Short names for the levels of Glebe's default topology; any other word is taken as a node label.
LEVELS = {
    "block": "topology.glebe.dev/block",
    "rack": "topology.glebe.dev/rack",
    "host": "kubernetes.io/hostname",
}
TOPOLOGY_ANNOTATIONS = {"required": names.REQUIRED_TOPOLOGY, "preferred": names.PREFERRED_TOPOLOGY}
DEFAULT_IMAGE = "python:3.11-slim"

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


class BadRequest(ValueError):
    """A request that cannot become a Job: which field, what is wrong with it, what would be right."""

    def __init__(self, field_name: str, problem: str, remedy: str) -> None:
        super().__init__(f"{field_name}: {problem}; {remedy}")
        self.field = field_name
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What ``glebe run`` was asked for. Quantities are Kubernetes quantities, durations like ``90s`` or ``1h30m``."""

    name: str
    command: Sequence[str]
    queue: str = "default"
    namespace: str = "default"
    nodes: int = 1
    gpus_per_node: int = 0
    cpus_per_node: str = ""
    memory_per_node: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    job_class: str = ""
    max_time: str = ""
    expected: str = ""
    topology: tuple[str, str] | None = None  # ("required" | "preferred", level)
    image: str = DEFAULT_IMAGE
    retries: int = 0  # restarts of each rank
    master_port: int = 29500


def build(request: JobRequest) -> list[Object]:
    """The Service and the Job, in the order in which to create them.

    :raises BadRequest: naming the flag that is wrong.
    """
    _check(request)
    return [_service(request), _job(request)]


def parse_env(pairs: Sequence[str]) -> dict[str, str]:
    """``["K=V", ...]`` as a mapping.

    :raises BadRequest: for a pair without ``=`` or with a name that no process could have.
    """
    out: dict[str, str] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not _ENV_NAME.fullmatch(name):
            raise BadRequest("--env", f"{pair!r} is not NAME=VALUE", "write for example --env EPOCHS=3")
        out[name] = value
    return out


def _service(request: JobRequest) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": request.name,
            "namespace": request.namespace,
            "labels": {"app.kubernetes.io/managed-by": "glebe"},
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,  # ranks meet before any of them is ready
            "selector": {JOB_NAME_LABEL: request.name},
            "ports": [{"name": "rendezvous", "port": request.master_port}],
        },
    }


def _job(request: JobRequest) -> Object:
    labels = {"app.kubernetes.io/managed-by": "glebe", names.QUEUE_NAME: request.queue}
    if request.job_class:
        labels[names.CLASS] = request.job_class
    if request.max_time:
        labels[names.MAX_EXEC_TIME] = str(max(1, int(parse_duration(request.max_time))))
    annotations = {names.EXPECTED_RUN_TIME: request.expected} if request.expected else {}
    pod_annotations: dict[str, str] = {}
    if request.topology:
        mode, level = request.topology
        pod_annotations[TOPOLOGY_ANNOTATIONS[mode]] = LEVELS.get(level, level)
    metadata: dict[str, Any] = {"name": request.name, "namespace": request.namespace, "labels": labels}
    if annotations:
        metadata["annotations"] = annotations
    template_metadata: dict[str, Any] = {"labels": {"app.kubernetes.io/name": request.name}}
    if pod_annotations:
        template_metadata["annotations"] = pod_annotations
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "completionMode": "Indexed",
            "completions": request.nodes,
            "parallelism": request.nodes,
            **_failure_rules(request.retries),
            "template": {
                "metadata": template_metadata,
                "spec": {
                    "subdomain": request.name,
                    "restartPolicy": "Never",
                    "containers": [_container(request)],
                },
            },
        },
    }


def _failure_rules(retries: int) -> dict[str, Any]:
    """What failed pods mean for the Job: each rank may fail ``retries`` times, and lost pods are nobody's failure.

    When one rank of a gang dies the others usually follow, so that counting pods would use up one retry, and double the
    waiting time, once for each rank. Counted per rank, one restart of the gang is one retry.
    """
    limits = {"backoffLimitPerIndex": retries, "maxFailedIndexes": 0} if retries else {"backoffLimit": 0}
    # drained, evicted, preempted or lost with its node: upstream marks all of these with this condition
    lost = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    return {**limits, "podFailurePolicy": {"rules": [lost]}}


def _container(request: JobRequest) -> dict[str, Any]:
    requests = {
        "cpu": request.cpus_per_node or str(max(1, 4 * request.gpus_per_node)),
        "memory": request.memory_per_node or f"{max(1, 16 * request.gpus_per_node)}Gi",
    }
    resources: dict[str, Any] = {"requests": requests}
    if request.gpus_per_node:
        resources["limits"] = {GPU_RESOURCE: str(request.gpus_per_node)}
        requests[GPU_RESOURCE] = str(request.gpus_per_node)
    return {
        "name": "main",
        "image": request.image,
        "command": [_literal(word) for word in request.command],
        "env": _environment(request),
        "resources": resources,
    }


def _literal(text: str) -> str:
    """Kubernetes reads ``$$`` as an escaped ``$``; a shell's own process id would never arrive."""
    return text.replace("$$", "$$$$")


def _environment(request: JobRequest) -> list[dict[str, Any]]:
    rank = {"valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{RANK_ANNOTATION}']"}}}
    master = f"{request.name}-0.{request.name}"
    port, nodes = str(request.master_port), str(request.nodes)
    processes = str(max(1, request.gpus_per_node))
    entries: dict[str, dict[str, Any]] = {
        "MASTER_ADDR": {"value": master},
        "MASTER_PORT": {"value": port},
        "WORLD_SIZE": {"value": nodes},
        "RANK": rank,
        "NODE_RANK": rank,
        "NNODES": {"value": nodes},
        "GPUS_PER_NODE": {"value": str(request.gpus_per_node)},
        "PET_MASTER_ADDR": {"value": master},
        "PET_MASTER_PORT": {"value": port},
        "PET_NNODES": {"value": nodes},
        "PET_NODE_RANK": rank,
        "PET_NPROC_PER_NODE": {"value": processes},
    }
    entries.update({name: {"value": _literal(value)} for name, value in request.env.items()})
    return [{"name": name, **body} for name, body in entries.items()]


def _check(request: JobRequest) -> None:
    # a pod is called NAME-INDEX-xxxxx and its host name NAME-INDEX must stay a DNS label
    longest = 63 - len(f"-{max(0, request.nodes - 1)}")
    if not _NAME.fullmatch(request.name) or len(request.name) > longest:
        raise BadRequest(
            "--name",
            f"{request.name!r} cannot be the name of a job",
            f"use lower-case letters, digits and '-', at most {longest} characters, for example train-7b",
        )
    if not request.command or not request.command[0]:
        raise BadRequest("COMMAND", "there is nothing to run", "put it after --, for example: -- python train.py")
    for flag, value, least in (
        ("--nodes", request.nodes, 1),
        ("--gpus-per-node", request.gpus_per_node, 0),
        ("--retries", request.retries, 0),
    ):
        if value < least:
            raise BadRequest(flag, f"{value} is too small", f"give {least} or more")
    if not 1 <= request.master_port <= 65535:
        raise BadRequest("--master-port", f"{request.master_port} is not a port", "give 1 to 65535")
    for flag, text in (("--cpus-per-node", request.cpus_per_node), ("--memory", request.memory_per_node)):
        if text:
            _check_quantity(flag, text)
    if request.max_time:
        _check_duration("--max-time", request.max_time)
    if request.expected:
        bounds = [_check_duration("--expected", part) for part in request.expected.split("..")]
        if len(bounds) > 2 or bounds != sorted(bounds):
            raise BadRequest(
                "--expected", f"{request.expected!r} is not a duration or a range", "write 20m, or 20m..35m"
            )
    if request.topology and request.topology[0] not in TOPOLOGY_ANNOTATIONS:
        raise BadRequest(
            "--topology", f"{request.topology[0]!r} is not a mode", "write --topology required rack, or preferred"
        )


def _check_quantity(flag: str, text: str) -> None:
    try:
        value = parse(text)
    except ValueError as error:
        raise BadRequest(flag, f"{text!r} is not a quantity", "write for example 500m, 4 or 64Gi") from error
    if value <= 0:
        raise BadRequest(flag, f"{text} is not positive", "ask for more than nothing, or leave the flag out")


def _check_duration(flag: str, text: str) -> float:
    try:
        seconds = float(parse_duration(text))
    except ValueError as error:
        raise BadRequest(flag, f"{text!r} is not a duration", "write for example 90s, 20m or 1h30m") from error
    if seconds <= 0:
        raise BadRequest(flag, f"{text!r} is not positive", "write for example 90s, 20m or 1h30m")
    return seconds

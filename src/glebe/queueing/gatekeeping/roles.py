"""Roles for people who use or run the queue, with Kueue's names and aggregation labels.

Source: kueue:config/components/rbac. ``kueue-batch-user-role`` and ``kueue-batch-admin-role`` collect what is labelled
for them; several are also part of Kubernetes' own ``view``, ``edit`` and ``admin``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from glebe.kube.objects import Object
from glebe.kube.resources import Resource

CLUSTER_ROLES = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)
_KUEUE, _VISIBILITY = "kueue.x-k8s.io", "visibility.kueue.x-k8s.io"
#: Label of all of them but the two that collect.
MARK = "rbac.kueue.x-k8s.io/role"
_READ = ["get", "list", "watch"]
_WRITE = ["create", "delete", "get", "list", "patch", "update", "watch"]
_EVERYBODY = ("admin", "edit", "view")


@dataclass(frozen=True, slots=True)
class _Row:
    """One role: what it is about and who has it beside the administrators of batch work."""

    name: str
    group: str
    resource: str
    verbs: Sequence[str]
    users: bool = False
    part_of: tuple[str, ...] = ()
    status: bool = True


_ROWS = (
    _Row("clusterqueue-editor", _KUEUE, "clusterqueues", _WRITE),
    _Row("clusterqueue-viewer", _KUEUE, "clusterqueues", _READ, part_of=("admin",)),
    _Row("cohort-editor", _KUEUE, "cohorts", _WRITE, status=False),
    _Row("cohort-viewer", _KUEUE, "cohorts", _READ, part_of=("admin",), status=False),
    _Row("localqueue-editor", _KUEUE, "localqueues", _WRITE),
    _Row("localqueue-viewer", _KUEUE, "localqueues", _READ, users=True, part_of=_EVERYBODY),
    _Row("resourceflavor-editor", _KUEUE, "resourceflavors", _WRITE, status=False),
    _Row("resourceflavor-viewer", _KUEUE, "resourceflavors", _READ, part_of=("admin",), status=False),
    _Row("topology-editor", _KUEUE, "topologies", _WRITE, status=False),
    _Row("topology-viewer", _KUEUE, "topologies", _READ, part_of=("admin",), status=False),
    _Row("workload-editor", _KUEUE, "workloads", _WRITE),
    _Row("workload-viewer", _KUEUE, "workloads", _READ, users=True, part_of=_EVERYBODY),
    _Row("job-editor", "batch", "jobs", _WRITE, users=True),
    _Row("job-viewer", "batch", "jobs", _READ, users=True),
    _Row("pending-workloads-cq-viewer", _VISIBILITY, "clusterqueues/pendingworkloads", _READ, False, _EVERYBODY, False),
    _Row("pending-workloads-lq-viewer", _VISIBILITY, "localqueues/pendingworkloads", _READ, True, _EVERYBODY, False),
)


def objects() -> list[Object]:
    """Every ClusterRole."""
    return [*(_collector(kind) for kind in ("batch-admin", "batch-user")), *map(_role, _ROWS)]


def _role(row: _Row) -> Object:
    rules: list[dict[str, Any]] = [
        {"apiGroups": [row.group], "resources": [row.resource], "verbs": list(row.verbs)},
        *([{"apiGroups": [row.group], "resources": [f"{row.resource}/status"], "verbs": ["get"]}] * row.status),
    ]
    marks = {MARK: row.name, "rbac.kueue.x-k8s.io/batch-admin": "true"}
    if row.users:
        marks["rbac.kueue.x-k8s.io/batch-user"] = "true"
    marks |= {f"rbac.authorization.k8s.io/aggregate-to-{role}": "true" for role in row.part_of}
    return {**_named(row.name), "rules": rules} | {"metadata": {"name": f"kueue-{row.name}-role", "labels": marks}}


def _collector(kind: str) -> Object:
    chosen = {"matchLabels": {f"rbac.kueue.x-k8s.io/{kind}": "true"}}
    return {**_named(kind), "aggregationRule": {"clusterRoleSelectors": [chosen]}, "rules": []}


def _named(name: str) -> Object:
    return {
        "apiVersion": CLUSTER_ROLES.api_version,
        "kind": CLUSTER_ROLES.kind,
        "metadata": {"name": f"kueue-{name}-role"},
    }

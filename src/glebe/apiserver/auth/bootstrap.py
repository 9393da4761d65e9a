"""The roles and bindings that every logical cluster has from its first moment, under upstream's names."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, Final

from glebe.apiserver.auth.rules import Rule
from glebe.kube.client import Client
from glebe.kube.errors import ApiError, is_already_exists
from glebe.kube.objects import Object
from glebe.kube.resources import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES

_GROUP = "rbac.authorization.k8s.io"
_READ = ("get", "list", "watch")
_WRITE = ("create", "delete", "deletecollection", "patch", "update")
_AGGREGATE = f"{_GROUP}/aggregate-to-"

EVERYTHING: Final[tuple[Rule, ...]] = (
    {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
    {"nonResourceURLs": ["*"], "verbs": ["*"]},
)

_VIEWED: dict[str, tuple[str, ...]] = {
    "": (
        "bindings", "configmaps", "endpoints", "events", "limitranges", "namespaces", "namespaces/status",
        "persistentvolumeclaims", "persistentvolumeclaims/status", "pods", "pods/log", "pods/status",
        "replicationcontrollers", "replicationcontrollers/scale", "replicationcontrollers/status", "resourcequotas",
        "resourcequotas/status", "serviceaccounts", "services", "services/status",
    ),
    "apps": (
        "controllerrevisions", "daemonsets", "daemonsets/status", "deployments", "deployments/scale",
        "deployments/status", "replicasets", "replicasets/scale", "replicasets/status", "statefulsets",
        "statefulsets/scale", "statefulsets/status",
    ),
    "autoscaling": ("horizontalpodautoscalers", "horizontalpodautoscalers/status"),
    "batch": ("cronjobs", "cronjobs/status", "jobs", "jobs/status"),
    "discovery.k8s.io": ("endpointslices",),
    "events.k8s.io": ("events",),
    "networking.k8s.io": ("ingresses", "ingresses/status", "networkpolicies"),
    "policy": ("poddisruptionbudgets", "poddisruptionbudgets/status"),
}  # fmt: skip
_EDITED: dict[str, tuple[str, ...]] = {
    "": (
        "configmaps", "events", "persistentvolumeclaims", "pods", "pods/attach", "pods/eviction", "pods/exec",
        "pods/portforward", "pods/proxy", "replicationcontrollers", "replicationcontrollers/scale", "secrets",
        "serviceaccounts", "services", "services/proxy",
    ),
    "apps": (
        "daemonsets", "deployments", "deployments/rollback", "deployments/scale", "replicasets", "replicasets/scale",
        "statefulsets", "statefulsets/scale",
    ),
    "autoscaling": ("horizontalpodautoscalers",),
    "batch": ("cronjobs", "jobs"),
    "coordination.k8s.io": ("leases",),
    "networking.k8s.io": ("ingresses", "networkpolicies"),
    "policy": ("poddisruptionbudgets",),
}  # fmt: skip


def _rules(resources: dict[str, tuple[str, ...]], verbs: Iterable[str]) -> list[Rule]:
    return [{"apiGroups": [g], "resources": list(names), "verbs": list(verbs)} for g, names in resources.items()]


def _role(name: str, rules: Iterable[Rule], *, into: str = "", collects: str = "") -> Object:
    labels = {"kubernetes.io/bootstrapping": "rbac-defaults"}
    if into:
        labels[_AGGREGATE + into] = "true"
    annotations = {f"{_GROUP}/autoupdate": "true"}
    role: Object = {"apiVersion": f"{_GROUP}/v1", "kind": "ClusterRole"}
    role["metadata"] = {"name": name, "labels": labels, "annotations": annotations}
    if collects:
        role["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {_AGGREGATE + collects: "true"}}]}
    role["rules"] = [dict(r) for r in rules]
    return role


def _binding(name: str, role: str, *groups: str) -> Object:
    meta = {
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {f"{_GROUP}/autoupdate": "true"},
    }
    subjects = [{"apiGroup": _GROUP, "kind": "Group", "name": g} for g in groups]
    reference = {"apiGroup": _GROUP, "kind": "ClusterRole", "name": role}
    return {
        "apiVersion": f"{_GROUP}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": meta,
        "roleRef": reference,
        "subjects": subjects,
    }


def _urls(*paths: str) -> list[Rule]:
    return [{"nonResourceURLs": list(paths), "verbs": ["get"]}]


def _creates(group: str, *resources: str) -> Rule:
    return {"apiGroups": [group], "resources": list(resources), "verbs": ["create"]}


def _node_rules() -> list[Rule]:
    def rule(group: str, verbs: Iterable[str], *resources: str) -> Rule:
        return {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}

    return [
        rule("", _READ, "services", "nodes", "pods", "configmaps", "secrets", "persistentvolumes"),
        rule("", ("create", "get", "list", "watch", "patch", "update", "delete"), "nodes"),
        rule("", ("patch", "update"), "nodes/status", "pods/status"),
        rule("", ("create", "delete"), "pods"),
        rule("", ("create",), "pods/eviction", "serviceaccounts/token"),
        rule("", ("create", "patch", "update"), "events"),
        rule("events.k8s.io", ("create", "patch", "update"), "events"),
        rule("coordination.k8s.io", ("create", "delete", "get", "patch", "update"), "leases"),
        rule("resource.k8s.io", ("create", "delete", "get", "list", "patch", "update", "watch"), "resourceslices"),
        _creates("authentication.k8s.io", "tokenreviews"),
        _creates("authorization.k8s.io", "subjectaccessreviews", "localsubjectaccessreviews"),
    ]


_QUEUE_VIEW: dict[str, tuple[str, ...]] = {
    "kueue.x-k8s.io": ("*",),
    "glebe.dev": ("*",),
}


@cache
def cluster_roles() -> dict[str, Object]:
    """The bootstrap ClusterRoles by name; shared, read only."""
    admin_rules: list[Rule] = [
        {"apiGroups": [_GROUP], "resources": ["roles", "rolebindings"], "verbs": [*_READ, *_WRITE]},
        _creates("authorization.k8s.io", "localsubjectaccessreviews"),
        _creates("", "serviceaccounts/token"),
    ]
    edit_rules = [*_rules(_EDITED, _WRITE), *_rules({"": ("secrets", "pods/exec", "pods/attach")}, _READ)]
    health = ("/healthz", "/livez", "/readyz", "/version", "/version/")
    found = ("/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*")
    roles = [
        _role("cluster-admin", EVERYTHING),
        _role("admin", (), collects="admin"),
        _role("edit", (), into="admin", collects="edit"),
        _role("view", (), into="edit", collects="view"),
        _role("system:aggregate-to-admin", admin_rules, into="admin"),
        _role("system:aggregate-to-edit", edit_rules, into="edit"),
        _role("system:aggregate-to-view", _rules(_VIEWED, _READ), into="view"),
        _role("glebe:queueing-viewer", _rules(_QUEUE_VIEW, _READ), into="view"),
        _role("system:discovery", _urls(*health, *found)),
        _role("system:public-info-viewer", _urls(*health)),
        _role(
            "system:basic-user",
            [
                _creates("authorization.k8s.io", "selfsubjectaccessreviews", "selfsubjectrulesreviews"),
                _creates("authentication.k8s.io", "selfsubjectreviews"),
            ],
        ),
        _role("system:node", _node_rules()),
        _role("system:auth-delegator", [
            _creates("authentication.k8s.io", "tokenreviews"),
            _creates("authorization.k8s.io", "subjectaccessreviews"),
        ]),
    ]  # fmt: skip
    return {role["metadata"]["name"]: role for role in roles}


@cache
def cluster_role_bindings() -> dict[str, Object]:
    """The bootstrap ClusterRoleBindings by name; shared, read only."""
    everyone, anonymous = "system:authenticated", "system:unauthenticated"
    bindings = [
        _binding("cluster-admin", "cluster-admin", "system:masters"),
        _binding("system:basic-user", "system:basic-user", everyone),
        _binding("system:discovery", "system:discovery", everyone),
        _binding("system:public-info-viewer", "system:public-info-viewer", everyone, anonymous),
        _binding("system:node", "system:node", "system:nodes"),
    ]
    return {b["metadata"]["name"]: b for b in bindings}


async def store_bootstrap_policy(client: Client) -> None:
    """Make the bootstrap objects visible in the API. The authorizer knows them even without that.

    :raises ApiError: a write is refused.
    """
    pairs: list[tuple[Any, Object]] = [(CLUSTER_ROLES, r) for r in cluster_roles().values()]
    pairs += [(CLUSTER_ROLE_BINDINGS, b) for b in cluster_role_bindings().values()]
    for resource, obj in pairs:
        try:
            await client.create(resource, obj)
        except ApiError as error:
            if not is_already_exists(error):
                raise

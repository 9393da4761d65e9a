"""The roles and bindings that every logical cluster has from its first moment, under upstream's names (1.36).

They are kept as one compact data file. A cluster holds none of them until somebody looks at its roles or bindings
(:mod:`.seeding`); until then the authorizer takes them from here, shared by all clusters.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import orjson

from glebe.apiserver.auth.rules import Rule
from glebe.kube.objects import Object

GROUP: Final = "rbac.authorization.k8s.io"
CLUSTER_ROLES: Final = f"clusterroles.{GROUP}"
CLUSTER_BINDINGS: Final = f"clusterrolebindings.{GROUP}"
ROLES: Final = f"roles.{GROUP}"
BINDINGS: Final = f"rolebindings.{GROUP}"
AUTOUPDATE: Final = "rbac.authorization.kubernetes.io/autoupdate"
AGGREGATE: Final = f"{GROUP}/aggregate-to-"
READ: Final = ["get", "list", "watch"]

_FILE = Path(__file__).with_name("bootstrap-policy.json")

#: Glebe's own addition to ``view``: the queue is as visible as the jobs that wait in it.
_OWN_ROLES: Final[dict[str, Any]] = {
    "glebe:queueing-viewer": {
        "rules": [[READ, ["kueue.x-k8s.io"], ["*"]], [READ, ["glebe.dev"], ["*"]]],
        "into": "view",
    }
}

EVERYTHING: Final[tuple[Rule, ...]] = (
    {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
    {"nonResourceURLs": ["*"], "verbs": ["*"]},
)

Address: TypeAlias = tuple[str, str]
"""(namespace, name)."""


@cache
def _data() -> tuple[dict[str, Any], str]:
    """The file's content and what it is known by."""
    raw = _FILE.read_bytes()
    data: dict[str, Any] = orjson.loads(raw)
    data["clusterRoles"] |= _OWN_ROLES
    return data, hashlib.sha256(raw + orjson.dumps(_OWN_ROLES)).hexdigest()[:16]


def version() -> str:
    """Changes whenever the policy does: what a cluster was given last is compared with it."""
    return _data()[1]


@cache
def policy() -> dict[str, dict[Address, Object]]:
    """All bootstrap objects by resource and address; shared, read only. Aggregated roles have their rules."""
    data, _ = _data()
    roles = {("", name): _cluster_role(name, spec) for name, spec in data["clusterRoles"].items()}
    for (_, name), role in roles.items():
        if into := data["clusterRoles"][name].get("collects"):
            role["rules"] = _collected(roles, into, {name})
    return {
        CLUSTER_ROLES: roles,
        CLUSTER_BINDINGS: {
            ("", n): _binding(("", n), "ClusterRole", b) for n, b in data["clusterRoleBindings"].items()
        },
        ROLES: {_address(key): _role(_address(key), rules) for key, rules in data["roles"].items()},
        BINDINGS: {_address(k): _binding(_address(k), "Role", b) for k, b in data["roleBindings"].items()},
    }


def cluster_roles() -> dict[str, Object]:
    """The bootstrap ClusterRoles by name; shared, read only."""
    return {name: role for (_, name), role in policy()[CLUSTER_ROLES].items()}


def _address(key: str) -> Address:
    namespace, _, name = key.partition("/")
    return namespace, name


def _meta(address: Address) -> Object:
    namespace, name = address
    meta: Object = {"name": name}
    if namespace:
        meta["namespace"] = namespace
    meta["labels"] = {"kubernetes.io/bootstrapping": "rbac-defaults"}
    meta["annotations"] = {AUTOUPDATE: "true"}
    return meta


def _rule(parts: list[list[str]]) -> Object:
    if len(parts) == 2:
        return {"verbs": parts[0], "nonResourceURLs": parts[1]}
    names = {"resourceNames": parts[3]} if len(parts) > 3 else {}
    return {"verbs": parts[0], "apiGroups": parts[1], "resources": parts[2], **names}


def _cluster_role(name: str, spec: dict[str, Any]) -> Object:
    role: Object = {"apiVersion": f"{GROUP}/v1", "kind": "ClusterRole", "metadata": _meta(("", name))}
    if into := spec.get("into"):
        role["metadata"]["labels"][AGGREGATE + into] = "true"
    if collects := spec.get("collects"):
        role["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {AGGREGATE + collects: "true"}}]}
    role["rules"] = [_rule(r) for r in spec["rules"]]
    return role


def _role(address: Address, rules: list[Any]) -> Object:
    kind = {"apiVersion": f"{GROUP}/v1", "kind": "Role"}
    return {**kind, "metadata": _meta(address), "rules": [_rule(r) for r in rules]}


def _binding(address: Address, role_kind: str, parts: list[str]) -> Object:
    role, *subjects = parts
    out: Object = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "RoleBinding" if address[0] else "ClusterRoleBinding",
        "metadata": _meta(address),
        "roleRef": {"apiGroup": GROUP, "kind": role_kind, "name": role},
    }
    if subjects:
        out["subjects"] = [_subject(s) for s in subjects]
    return out


def _subject(text: str) -> Object:
    kind, _, name = text.partition(":")
    if kind == "ServiceAccount":
        namespace, _, account = name.partition(":")
        return {"kind": kind, "name": account, "namespace": namespace}
    return {"kind": kind, "apiGroup": GROUP, "name": name}


def _collected(roles: dict[Address, Object], into: str, seen: set[str]) -> list[Rule]:
    """What an aggregated role holds: aggregates contain aggregates (admin > edit > view)."""
    out: list[Rule] = []
    for (_, name), role in sorted(roles.items()):
        labels = role["metadata"]["labels"]
        if name in seen or labels.get(AGGREGATE + into) != "true":
            continue
        seen.add(name)
        selectors = (role.get("aggregationRule") or {}).get("clusterRoleSelectors")
        if selectors:
            inner = next(iter(selectors[0]["matchLabels"])).removeprefix(AGGREGATE)
            out += [r for r in _collected(roles, inner, seen) if r not in out]
        else:
            out += [r for r in role["rules"] if r not in out]
    return out

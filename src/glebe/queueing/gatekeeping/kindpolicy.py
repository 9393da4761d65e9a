"""The rules of :mod:`.validation` for queues, cohorts and flavors as admission policies in CEL.

Policies, unlike the rules of a definition, have no bound on what an expression might cost: these compare every flavor
with every other.
"""

from __future__ import annotations

from typing import Any

from glebe.kube.objects import Object
from glebe.kube.resources import CLUSTER_QUEUES, COHORTS, RESOURCE_FLAVORS, Resource
from glebe.queueing.gatekeeping.policy import VALIDATING_BINDINGS, VALIDATING_POLICIES

_GROUPS = {"name": "groups", "expression": "object.?spec.?resourceGroups.orValue([])"}
_WEIGHT = {"name": "weight", "expression": "string(object.?spec.?fairSharing.?weight.orValue(1))"}
_COMMON = [
    (
        "variables.groups.all(g, g.coveredResources.all(r, g.coveredResources.filter(o, o == r).size() == 1 && "
        "variables.groups.filter(o, r in o.coveredResources).size() == 1))",
        "spec.resourceGroups: a resource stands in one group, once",
    ),
    (
        "variables.groups.all(g, g.flavors.all(f, "
        "variables.groups.filter(o, o.flavors.exists(p, p.name == f.name)).size() == 1))",
        "spec.resourceGroups: a flavor stands in one group",
    ),
    (
        "variables.groups.all(g, g.flavors.all(f, f.resources.map(q, q.name) == g.coveredResources))",
        "spec.resourceGroups: the resources of a flavor must match coveredResources, in their order",
    ),
    (
        "quantity(variables.weight).compareTo(quantity('0')) <= 0 || "
        "quantity(variables.weight).compareTo(quantity('1n')) > 0",
        "spec.fairSharing: when not 0, weight must be greater than 10^-9",
    ),
]
_QUEUE = [
    (
        "variables.groups.all(g, g.flavors.all(f, f.resources.all(q, !has(q.lendingLimit) || "
        "quantity(string(q.lendingLimit)).compareTo(quantity(string(q.nominalQuota))) <= 0)))",
        "spec.resourceGroups: lendingLimit must be less than or equal to the nominalQuota",
    ),
    (
        "variables.groups.map(g, g.flavors.size()).sum() <= 256 && "
        "variables.groups.map(g, g.coveredResources.size()).sum() <= 256",
        "spec.resourceGroups: all groups together have at most 256 flavors and cover at most 256 resources",
    ),
    (
        "variables.groups.all(g, g.flavors.size() * g.coveredResources.size() <= 512)",
        "spec.resourceGroups: a group has at most 512 quotas",
    ),
    (
        "object.?spec.?admissionChecksStrategy.?admissionChecks.orValue([]).all(c, !has(c.onFlavors) || "
        "c.onFlavors.all(n, variables.groups.exists(g, g.flavors.exists(f, f.name == n))))",
        "spec.admissionChecksStrategy: onFlavors must name flavors of the queue",
    ),
]
_FLAVOR = [
    (
        "object.?spec.?nodeTaints.orValue([]).all(t, "
        "object.spec.nodeTaints.filter(o, o.key == t.key && o.effect == t.effect).size() == 1)",
        "spec.nodeTaints: taints must be unique by key and effect pair",
    ),
]


def objects() -> list[Object]:
    """Policies and bindings."""
    rows: tuple[tuple[Resource, list[dict[str, str]], list[tuple[str, str]]], ...] = (
        (CLUSTER_QUEUES, [_GROUPS, _WEIGHT], [*_COMMON, *_QUEUE]),
        (COHORTS, [_GROUPS, _WEIGHT], _COMMON),
        (RESOURCE_FLAVORS, [], _FLAVOR),
    )
    return [obj for resource, variables, rules in rows for obj in _policy(resource, variables, rules)]


def _policy(resource: Resource, variables: list[dict[str, str]], rules: list[tuple[str, str]]) -> list[Object]:
    name = f"glebe-{resource.plural}"
    match = {
        "apiGroups": [resource.group],
        "apiVersions": [resource.version],
        "operations": ["CREATE", "UPDATE"],
        "resources": [resource.plural],
    }
    spec: dict[str, Any] = {
        "failurePolicy": "Fail",
        "matchConstraints": {"matchPolicy": "Equivalent", "resourceRules": [match]},
        "validations": [{"expression": rule, "message": message} for rule, message in rules],
    }
    if variables:
        spec["variables"] = variables
    policy: Object = {
        "apiVersion": VALIDATING_POLICIES.api_version,
        "kind": VALIDATING_POLICIES.kind,
        "metadata": {"name": name},
        "spec": spec,
    }
    binding: Object = {
        "apiVersion": VALIDATING_BINDINGS.api_version,
        "kind": VALIDATING_BINDINGS.kind,
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    }
    return [policy, binding]

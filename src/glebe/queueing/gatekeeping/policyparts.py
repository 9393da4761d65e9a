"""What admission policies are made of: their resources, and pieces of CEL that make JSON patches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from glebe.kube.objects import Object
from glebe.kube.resources import Resource
from glebe.queueing.jobkinds.registry import shipped

GROUP = "admissionregistration.k8s.io"
#: Served by Kubernetes 1.36 and later; ``v1beta1`` has the same fields and is served by 1.34 and 1.35.
VERSIONS = ("v1", "v1beta1")


def mutating_policies(version: str = "v1") -> Resource:
    return Resource(GROUP, version, "mutatingadmissionpolicies", "MutatingAdmissionPolicy", namespaced=False)


def mutating_bindings(version: str = "v1") -> Resource:
    return Resource(
        GROUP, version, "mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding", namespaced=False
    )


VALIDATING_POLICIES = Resource(
    GROUP, "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", namespaced=False
)
VALIDATING_BINDINGS = Resource(
    GROUP, "v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", namespaced=False
)


def not_a_part() -> str:
    """CEL: no object of a kind that queues know controls this one; then that one stands in the queue."""
    known = ", ".join(f'"{k.resource.api_version}/{k.resource.kind}"' for k in shipped())
    owners = "object.metadata.?ownerReferences.orValue([])"
    return f'!{owners}.exists(o, o.?controller.orValue(false) && (o.apiVersion + "/" + o.kind) in [{known}])'


def labelled(template: str, path: str, values: Iterable[tuple[str, str]], field: str = "labels") -> list[str]:
    """CEL for patches that set labels (or annotations) of a template: pairs of a key and CEL for its value."""
    meta = f"{template}.metadata"
    out = [unless(f"has({meta})", add(f'"{path}/metadata"', "{}"))]
    out.append(unless(f"has({meta}) && has({meta}.{field})", add(f'"{path}/metadata/{field}"', "{}")))
    out += [f"[{add(key(f'{path}/metadata/{field}/', name), value)}]" for name, value in values]
    return out


def gated(spec: str, path: str, names: Sequence[str]) -> str:
    """CEL for the patch that adds scheduling gates to a pod's spec."""
    gates, at = f"{spec}.schedulingGates", f"{path}/schedulingGates"
    first = add(f'"{at}"', "[" + ", ".join(f'{{"name": "{name}"}}' for name in names) + "]")
    more = []
    for name in names:
        has = f'{gates}.exists(g, g.name == "{name}")'
        one = add(f'"{at}/-"', f'{{"name": "{name}"}}')
        more.append(f"({has} ? [] : [{one}])")
    return f"(!has({gates}) ? [{first}] : ({' + '.join(more)}))"


def key(path: str, key: str) -> str:
    return f'"{path}" + jsonpatch.escapeKey("{key}")'


def add(path: str, value: str) -> str:
    return f'JSONPatch{{op: "add", path: {path}, value: {value}}}'


def unless(condition: str, operation: str) -> str:
    return f"({condition} ? [] : [{operation}])"


def match(rules: Iterable[tuple[str, str, str]], operations: Iterable[str]) -> dict[str, Any]:
    by_version: dict[tuple[str, str], list[str]] = {}
    for group, version, plural in rules:
        by_version.setdefault((group, version), []).append(plural)
    return {
        "resourceRules": [
            {"apiGroups": [group], "apiVersions": [version], "operations": list(operations), "resources": plurals}
            for (group, version), plurals in by_version.items()
        ]
    }


def mutating(
    version: str,
    name: str,
    rules: Iterable[tuple[str, str, str]],
    operations: Iterable[str],
    when: Mapping[str, str],
    patches: Sequence[str],
) -> Object:
    """A MutatingAdmissionPolicy; ``when``: conditions by name, all of which must hold."""
    resource = mutating_policies(version)
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "reinvocationPolicy": "IfNeeded",
            "matchConstraints": match(rules, operations),
            "matchConditions": [{"name": key, "expression": text} for key, text in when.items()],
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": text}} for text in patches],
        },
    }


def binding(version: str, name: str, more: Mapping[str, Any]) -> Object:
    resource = mutating_bindings(version)
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name},
        "spec": {"policyName": name, **more},
    }

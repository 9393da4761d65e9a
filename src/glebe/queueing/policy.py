"""Admission on a Kubernetes that is not embedded: the rules of :mod:`.jobadmission` as admission policies in CEL.

Two MutatingAdmissionPolicies: one for jobs that name a queue, one that sends the others to the LocalQueue ``default``
of their namespace where there is one. A ValidatingAdmissionPolicy refuses what must not be meant.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from glebe.kube.objects import Object
from glebe.kube.resources import LOCAL_QUEUES, Resource
from glebe.queueing import labels
from glebe.queueing.integrations import Integration, switched

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


def objects(version: str = "v1") -> list[Object]:
    """All policies and bindings; ``version`` is that of the mutating ones."""
    out: list[Object] = []
    for integration in switched():
        kind = integration.resource.plural
        named = f"object.metadata.?labels['{labels.QUEUE_NAME}'].orValue('') != ''"
        out.append(_policy(version, f"glebe-queue-{kind}", integration, named, suspend_and_gate(integration)))
        out.append(_binding(version, f"glebe-queue-{kind}", {}))
        default = _policy(
            version,
            f"glebe-default-queue-{kind}",
            integration,
            named.replace("!=", "=="),
            f"{default_queue()} + {suspend_and_gate(integration, 'params.metadata.name')}",
        )
        default["spec"]["paramKind"] = {"apiVersion": LOCAL_QUEUES.api_version, "kind": LOCAL_QUEUES.kind}
        out.append(default)
        param = {"paramRef": {"name": labels.DEFAULT_QUEUE, "parameterNotFoundAction": "Allow"}}
        out.append(_binding(version, f"glebe-default-queue-{kind}", param))
        out.extend(_validation(integration, named))
    return out


def suspend_and_gate(integration: Integration, queue: str = "") -> str:
    """CEL for the JSON patch that suspends a job and gates its pods; ``queue`` is CEL for the queue's name."""
    queue = queue or f'object.metadata.labels["{labels.QUEUE_NAME}"]'
    parts = [f'[JSONPatch{{op: "add", path: "/{"/".join(integration.suspend)}", value: true}}]']
    for source in integration.pod_sets if integration.gated else ():
        template, path = "object." + ".".join(source.template), "/" + "/".join(source.template)
        meta = f"{template}.metadata"
        parts.append(_unless(f"has({meta})", _add(f'"{path}/metadata"', "{}")))
        parts.append(_unless(f"has({meta}) && has({meta}.labels)", _add(f'"{path}/metadata/labels"', "{}")))
        for key, value in ((labels.POD_SET, f'"{source.name}"'), (labels.LOCAL_QUEUE, queue)):
            parts.append(f"[{_add(_key(f'{path}/metadata/labels/', key), value)}]")
        parts.append(_unless(f"has({meta}) && has({meta}.annotations)", _add(f'"{path}/metadata/annotations"', "{}")))
        by = _add(_key(f"{path}/metadata/annotations/", labels.SUBMITTED_BY), "request.userInfo.username")
        parts.append(_unless(f'{template}.?metadata.?annotations["{labels.SUBMITTED_BY}"].orValue("") != ""', by))
        gates, at = f"{template}.spec.schedulingGates", f"{path}/spec/schedulingGates"
        first = _add(f'"{at}"', f'[{{"name": "{labels.GATE}"}}]')
        more = _add(f'"{at}/-"', f'{{"name": "{labels.GATE}"}}')
        has = f'{gates}.exists(g, g.name == "{labels.GATE}")'
        parts.append(f"(!has({gates}) ? [{first}] : ({has} ? [] : [{more}]))")
    return "\n+ ".join(parts)


def default_queue() -> str:
    """CEL for the JSON patch that names the queue of a job that names none."""
    add = _add(_key("/metadata/labels/", labels.QUEUE_NAME), "params.metadata.name")
    return _unless("has(object.metadata.labels)", _add('"/metadata/labels"', "{}")) + f"\n+ [{add}]"


def _key(path: str, key: str) -> str:
    return f'"{path}" + jsonpatch.escapeKey("{key}")'


def _add(path: str, value: str) -> str:
    return f'JSONPatch{{op: "add", path: {path}, value: {value}}}'


def _unless(condition: str, operation: str) -> str:
    return f"({condition} ? [] : [{operation}])"


def _match(integration: Integration, operations: Iterable[str]) -> dict[str, Any]:
    resource = integration.resource
    rule = {
        "apiGroups": [resource.group],
        "apiVersions": [resource.version],
        "operations": list(operations),
        "resources": [resource.plural],
    }
    return {"resourceRules": [rule]}


def _policy(version: str, name: str, integration: Integration, when: str, patch: str) -> Object:
    resource = mutating_policies(version)
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "reinvocationPolicy": "IfNeeded",
            "matchConstraints": _match(integration, ("CREATE",)),
            "matchConditions": [{"name": "queue", "expression": when}],
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
        },
    }


def _binding(version: str, name: str, more: dict[str, Any]) -> Object:
    resource = mutating_bindings(version)
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name},
        "spec": {"policyName": name, **more},
    }


def _validation(integration: Integration, named: str) -> list[Object]:
    """Refusals that need nothing but the job itself.

    CEL cannot look up whether a class exists: on such a cluster the job waits, and its Workload and events say why.
    """
    name = f"glebe-queue-{integration.resource.plural}"
    old, new = (f"{o}.metadata.?labels['{labels.QUEUE_NAME}'].orValue('')" for o in ("oldObject", "object"))
    suspended = f"oldObject.?{'.?'.join(integration.suspend)}.orValue(false)"
    limit = f"object.metadata.?labels['{labels.MAX_EXEC_TIME}'].orValue('1')"
    rules = [
        {
            "expression": f"oldObject == null || {old} == {new} || {suspended}",
            "message": f"metadata.labels[{labels.QUEUE_NAME}]: the queue of a running job cannot change",
        },
        {
            "expression": f"{limit}.matches('^0*[1-9][0-9]*$')",
            "message": f'metadata.labels[{labels.MAX_EXEC_TIME}]: must be whole seconds above zero, e.g. "3600"',
        },
    ]
    policy: Object = {
        "apiVersion": VALIDATING_POLICIES.api_version,
        "kind": VALIDATING_POLICIES.kind,
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": _match(integration, ("CREATE", "UPDATE")),
            "matchConditions": [{"name": "queue", "expression": named}],
            "validations": rules,
        },
    }
    binding: Object = {
        "apiVersion": VALIDATING_BINDINGS.api_version,
        "kind": VALIDATING_BINDINGS.kind,
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    }
    return [policy, binding]

"""Admission on a Kubernetes that is not embedded: the rules of :mod:`.jobadmission` as admission policies in CEL.

Two MutatingAdmissionPolicies for each group of kinds with one switch: one for jobs that name a queue, one that sends
the others to the LocalQueue ``default`` of their namespace where there is one. A ValidatingAdmissionPolicy refuses what
must not be meant. Those for pods and for kinds that are held by their pods are in :mod:`.podpolicy`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from glebe.kube.objects import Object
from glebe.kube.resources import LOCAL_QUEUES
from glebe.queueing import labels
from glebe.queueing.gatekeeping import podpolicy
from glebe.queueing.gatekeeping.policyparts import (
    GROUP,
    VALIDATING_BINDINGS,
    VALIDATING_POLICIES,
    VERSIONS,
    add,
    binding,
    gated,
    key,
    labelled,
    match,
    mutating,
    mutating_bindings,
    mutating_policies,
    not_a_part,
    unless,
)
from glebe.queueing.jobs.integrations import Integration, switched

__all__ = [
    "GROUP",
    "VALIDATING_BINDINGS",
    "VALIDATING_POLICIES",
    "VERSIONS",
    "mutating_bindings",
    "mutating_policies",
    "objects",
]


@dataclass(frozen=True, slots=True)
class Group:
    """Kinds whose switch stands at the same place: one policy serves them all."""

    name: str
    kinds: tuple[Integration, ...]

    @property
    def first(self) -> Integration:
        return self.kinds[0]

    @property
    def rules(self) -> list[tuple[str, str, str]]:
        """(group, version, plural)."""
        return [(k.resource.group, k.resource.version, k.resource.plural) for k in self.kinds]


def groups(kinds: Iterable[Integration] | None = None) -> list[Group]:
    """The kinds with a switch, by its place; those whose pods are gated from birth alone."""
    found: dict[str, list[Integration]] = {}
    for kind in switched() if kinds is None else kinds:
        name = kind.resource.plural if kind.gated else "-".join(kind.suspend).lower()
        found.setdefault(name, []).append(kind)
    return [Group(name, tuple(members)) for name, members in found.items()]


def objects(version: str = "v1") -> list[Object]:
    """All policies and bindings; ``version`` is that of the mutating ones."""
    out: list[Object] = []
    for group in groups():
        out.extend(of_group(group, version))
    out.extend(podpolicy.objects(version))
    return out


def of_group(group: Group, version: str = "v1") -> list[Object]:
    """Those of one group of kinds."""
    named = f"object.metadata.?labels['{labels.QUEUE_NAME}'].orValue('') != ''"
    name, rules = f"glebe-queue-{group.name}", group.rules
    when = {"queue": named, "part": not_a_part()}
    out = [mutating(version, name, rules, ("CREATE",), when, [suspend_and_gate(group.first)])]
    out.append(binding(version, name, {}))
    unnamed = {**when, "queue": named.replace("!=", "==")}
    patch = f"{default_queue()} + {suspend_and_gate(group.first, 'params.metadata.name')}"
    default = mutating(version, f"glebe-default-queue-{group.name}", rules, ("CREATE",), unnamed, [patch])
    default["spec"]["paramKind"] = {"apiVersion": LOCAL_QUEUES.api_version, "kind": LOCAL_QUEUES.kind}
    out.append(default)
    param = {"paramRef": {"name": labels.DEFAULT_QUEUE, "parameterNotFoundAction": "Allow"}}
    out.append(binding(version, f"glebe-default-queue-{group.name}", param))
    out.extend(_validation(group, named))
    return out


def suspend_and_gate(integration: Integration, queue: str = "") -> str:
    """CEL for the JSON patch that suspends a job and gates its pods; ``queue`` is CEL for the queue's name."""
    queue = queue or f'object.metadata.labels["{labels.QUEUE_NAME}"]'
    parts = []
    for depth in range(2, len(integration.suspend)):
        parent = integration.suspend[:depth]
        parts.append(unless(f"has(object.{'.'.join(parent)})", add(f'"/{"/".join(parent)}"', "{}")))
    parts.append(f'[JSONPatch{{op: "add", path: "/{"/".join(integration.suspend)}", value: true}}]')
    for source in integration.pod_sets if integration.gated else ():
        template, path = "object." + ".".join(source.template), "/" + "/".join(source.template)
        parts.extend(labelled(template, path, ((labels.POD_SET, f'"{source.name}"'), (labels.LOCAL_QUEUE, queue))))
        meta = f"{template}.metadata"
        parts.append(unless(f"has({meta}) && has({meta}.annotations)", add(f'"{path}/metadata/annotations"', "{}")))
        by = add(key(f"{path}/metadata/annotations/", labels.SUBMITTED_BY), "request.userInfo.username")
        parts.append(unless(f'{template}.?metadata.?annotations["{labels.SUBMITTED_BY}"].orValue("") != ""', by))
        parts.append(gated(f"{template}.spec", f"{path}/spec", (labels.GATE,)))
    return "\n+ ".join(parts)


def default_queue() -> str:
    """CEL for the JSON patch that names the queue of a job that names none."""
    name = add(key("/metadata/labels/", labels.QUEUE_NAME), "params.metadata.name")
    return unless("has(object.metadata.labels)", add('"/metadata/labels"', "{}")) + f"\n+ [{name}]"


def _validation(group: Group, named: str) -> list[Object]:
    """Refusals that need nothing but the job itself.

    CEL cannot look up whether a class exists: on such a cluster the job waits, and its Workload and events say why.
    """
    name = f"glebe-queue-{group.name}"
    old, new = (f"{o}.metadata.?labels['{labels.QUEUE_NAME}'].orValue('')" for o in ("oldObject", "object"))
    suspended = f"oldObject.?{'.?'.join(group.first.suspend)}.orValue(false)"
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
            "matchConstraints": match(group.rules, ("CREATE", "UPDATE")),
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

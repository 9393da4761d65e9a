"""The schemas of ``kueue.x-k8s.io/v1beta1``, made out of those of v1beta2 by what differs.

Source: kueue:config/components/crd/bases. :mod:`glebe.queueing.versions` converts the objects.
"""

from __future__ import annotations

from typing import Any

from glebe.kube.crdgen import schema_of
from glebe.queueing.types.common import ATOMIC, OPEN, list_map
from glebe.queueing.types.queue import AdmissionShareStatus

Schema = dict[str, Any]

VERSION = "v1beta1"
WARNING = "kueue.x-k8s.io/v1beta1 is deprecated: use v1beta2"


def alike(schema: Schema) -> Schema:
    """Of kinds that are the same in both versions."""
    return schema


def cluster_queue(schema: Schema) -> Schema:
    spec, status = _properties(schema, "spec"), _properties(schema, "status")
    _rename(spec, "cohortName", "cohort")
    del spec["concurrentAdmissionPolicy"]
    strategy = spec["admissionChecksStrategy"]
    strategy.pop("required", None)
    checks = strategy["properties"]["admissionChecks"]
    checks.pop("minItems")
    spec["admissionChecks"] = {
        "description": "Checks for all flavors; admissionChecksStrategy says the same and more.",
        "type": "array",
        "items": checks["items"]["properties"]["name"],
    }
    fungibility = spec["flavorFungibility"]["properties"]
    fungibility["whenCanBorrow"]["enum"] = [*fungibility["whenCanBorrow"]["enum"], "Borrow"]
    fungibility["whenCanPreempt"]["enum"] = [*fungibility["whenCanPreempt"]["enum"], "Preempt"]
    _rules(schema["properties"]["spec"], {"cohortName": "cohort"}, without="concurrentAdmissionPolicy")
    status["pendingWorkloadsStatus"] = {"description": "Deprecated: see the visibility API.", "type": "object", **OPEN}
    _add_past_use(status)
    return schema


def cohort(schema: Schema) -> Schema:
    _add_past_use(_properties(schema, "status"))
    return schema


def local_queue(schema: Schema) -> Schema:
    status = _properties(schema, "status")
    _rename(status, "flavorsUsage", "flavorUsage")
    status["flavors"] = {
        "description": "Deprecated: see the ClusterQueue and its ResourceFlavors.",
        "type": "array",
        "maxItems": 64,
        "items": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"description": "The flavor.", "type": "string"}},
            **OPEN,
        },
        **list_map("name"),
    }
    return schema


def admission_check(schema: Schema) -> Schema:
    _properties(schema, "spec")["retryDelayMinutes"] = {
        "description": "Deprecated and without effect; it is not stored.",
        "type": "integer",
        "format": "int64",
        "default": 15,
    }
    return schema


def workload(schema: Schema) -> Schema:
    spec, status = _properties(schema, "spec"), _properties(schema, "status")
    del spec["preemptionGates"]
    del status["preemptionGates"]
    name = spec.pop("priorityClassRef")["properties"]["name"]
    spec["priorityClassName"] = {k: v for k, v in name.items() if k != "minLength"}
    spec["priorityClassSource"] = {
        "description": "Which kind of class priorityClassName names.",
        "type": "string",
        "default": "",
        "enum": ["kueue.x-k8s.io/workloadpriorityclass", "scheduling.k8s.io/priorityclass", ""],
    }
    schema["properties"]["spec"]["x-kubernetes-validations"] = [
        {
            "rule": "!has(self.priorityClassName) || has(self.priority)",
            "message": "priority is required with priorityClassName",
        }
    ]
    del spec["podSets"]["items"]["properties"]["topologyRequest"]["properties"][
        "podsetSliceRequiredTopologyConstraints"
    ]
    _rename(status, "accumulatedPastExecutionTimeSeconds", "accumulatedPastExexcutionTimeSeconds")
    assignments = status["admission"]["properties"]["podSetAssignments"]["items"]["properties"]
    assignments["topologyAssignment"] = _domains(assignments["topologyAssignment"])
    return schema


def _domains(assignment: Schema) -> Schema:
    values = {"type": "array", "minItems": 1, "maxItems": 16, "items": {"type": "string"}, **ATOMIC}
    domain = {
        "type": "object",
        "required": ["values", "count"],
        "properties": {
            "values": {"description": "The domain: one value per level.", **values},
            "count": {"description": "Pods in the domain.", "type": "integer", "format": "int32", "minimum": 1},
        },
    }
    return {
        "description": assignment["description"],
        "type": "object",
        "required": ["levels", "domains"],
        "properties": {
            "levels": assignment["properties"]["levels"],
            "domains": {"description": "The domains, in rank order.", "type": "array", "items": domain},
        },
    }


def _properties(schema: Schema, name: str) -> Schema:
    found: Schema = schema["properties"][name]["properties"]
    return found


def _rename(properties: Schema, old: str, new: str) -> None:
    properties[new] = properties.pop(old)


def _rules(schema: Schema, names: dict[str, str], without: str) -> None:
    kept = []
    for rule in schema["x-kubernetes-validations"]:
        if without not in rule["rule"]:
            for new, old in names.items():
                rule = {key: text.replace(new, old) for key, text in rule.items()}
            kept.append(rule)
    schema["x-kubernetes-validations"] = kept


def _add_past_use(status: Schema) -> None:
    status["fairSharing"]["properties"]["admissionFairSharingStatus"] = schema_of(AdmissionShareStatus)

"""``docs/reference/kinds``: one page per custom kind, from the structs that the code uses."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from docs_page import NOTE, cell, code, table
from glebe.kube.crdgen import Column, Kind, custom_resource_definition
from glebe.queueing.notactedon import NOT_ACTED_ON

#: Modules with a table ``KINDS`` of custom kinds.
KIND_TABLES = ("glebe.queueing.kinds", "glebe.metering.kinds")

#: Who makes objects of the kind, and a manifest where that is a person.
WRITTEN_BY: dict[str, str] = {
    "ClusterQueue": "Written by administrators.",
    "Cohort": "Written by administrators, and only where a cohort has quota of its own or a parent: naming a cohort in "
    "`spec.cohortName` of a ClusterQueue is enough to make it.",
    "LocalQueue": "Written by administrators, or by teams that may write in their namespace.",
    "ResourceFlavor": "Written by administrators.",
    "Topology": "Written by administrators.",
    "WorkloadPriorityClass": "Written by administrators. Jobs name it with the label `kueue.x-k8s.io/priority-class`.",
    "WorkloadClass": "Written by administrators. Jobs name it with the label `glebe.dev/class`.",
    "Workload": "Written by Glebe: one per queued job, owned by it. `spec.active` may be set by hand.",
    "AdmissionCheck": "Written by administrators. ClusterQueues name it in `spec.admissionChecksStrategy`.",
    "ProvisioningRequestConfig": "Written by administrators. An AdmissionCheck names it in `spec.parameters`.",
    "MultiKueueCluster": "The server says so when one is created.",
    "MultiKueueConfig": "The server says so when one is created.",
    "UsageReport": "Written by Glebe: one per UTC day. See [Accounting](../../accounting.md).",
}

EXAMPLES: dict[str, str] = {
    "ClusterQueue": """\
apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata: {name: team-a}
spec:
  cohortName: research
  queueingStrategy: BestEffortFIFO
  namespaceSelector:
    matchLabels: {team: a}
  resourceGroups:
  - coveredResources: [nvidia.com/gpu, cpu, memory]
    flavors:
    - name: h100
      resources:
      - {name: nvidia.com/gpu, nominalQuota: 64, borrowingLimit: 32, lendingLimit: 48}
      - {name: cpu, nominalQuota: "1536"}
      - {name: memory, nominalQuota: 16Ti}
""",
    "Cohort": """\
apiVersion: kueue.x-k8s.io/v1beta2
kind: Cohort
metadata: {name: research}
spec:
  parentName: company
  resourceGroups:                    # quota that belongs to nobody in particular
  - coveredResources: [nvidia.com/gpu]
    flavors:
    - name: h100
      resources: [{name: nvidia.com/gpu, nominalQuota: 16}]
""",
    "LocalQueue": """\
apiVersion: kueue.x-k8s.io/v1beta2
kind: LocalQueue
metadata: {name: gpus, namespace: team-a}
spec: {clusterQueue: team-a}
""",
    "ResourceFlavor": """\
apiVersion: kueue.x-k8s.io/v1beta2
kind: ResourceFlavor
metadata: {name: h100}
spec:
  nodeLabels: {nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3}
  topologyName: fabric
  tolerations: [{key: nvidia.com/gpu, operator: Exists}]
""",
    "Topology": """\
apiVersion: kueue.x-k8s.io/v1beta2
kind: Topology
metadata: {name: fabric}
spec:
  levels:
  - nodeLabel: topology.glebe.dev/block
  - nodeLabel: topology.glebe.dev/rack
  - nodeLabel: kubernetes.io/hostname
""",
    "AdmissionCheck": """\
apiVersion: kueue.x-k8s.io/v1beta2
kind: AdmissionCheck
metadata: {name: more-nodes}
spec:
  controllerName: kueue.x-k8s.io/provisioning-request
  parameters: {apiGroup: kueue.x-k8s.io, kind: ProvisioningRequestConfig, name: more-nodes}
""",
    "ProvisioningRequestConfig": """\
apiVersion: kueue.x-k8s.io/v1beta2
kind: ProvisioningRequestConfig
metadata: {name: more-nodes}
spec:
  provisioningClassName: check-capacity.autoscaling.x-k8s.io
  managedResources: [nvidia.com/gpu]
""",
    "WorkloadPriorityClass": """\
apiVersion: kueue.x-k8s.io/v1beta2
kind: WorkloadPriorityClass
metadata: {name: urgent}
value: 1000
description: Goes before everything else in its queue.
""",
    "WorkloadClass": """\
apiVersion: glebe.dev/v1alpha1
kind: WorkloadClass
metadata: {name: finetune}
spec:
  description: Fine-tuning runs of one to three hours.
  priority: 60
  expectedRunTime: {p50Seconds: 3600, p90Seconds: 10800}
""",
}


def kinds() -> list[Kind]:
    """Every custom kind, in the order of the tables."""
    return [kind for module in KIND_TABLES for kind in importlib.import_module(module).KINDS]


def path_of(kind: Kind) -> str:
    return f"docs/reference/kinds/{kind.resource.kind.lower()}.md"


def pages() -> dict[str, str]:
    return {path_of(kind): _page(kind) for kind in kinds()}


def _page(kind: Kind) -> str:
    resource = kind.resource
    schema = schema_of(kind)
    facts = [
        ("API version", code(resource.api_version)),
        ("served, too", ", ".join(code(f"{resource.group}/{older.name}") for older in kind.older)),
        ("resource", code(resource.plural)),
        ("scope", "namespaced" if resource.namespaced else "cluster"),
        ("short names", ", ".join(code(name) for name in kind.short_names)),
        ("categories", ", ".join(code(name) for name in kind.categories)),
    ]
    parts = [
        NOTE + f"# {resource.kind}\n",
        f"{cell(schema.get('description', ''))} {WRITTEN_BY[resource.kind]}\n",
        table(("", ""), ((name, value) for name, value in facts if value)),
    ]
    if resource.kind in EXAMPLES:
        parts.append(f"```yaml\n{EXAMPLES[resource.kind]}```\n")
    parts.append("## Fields\n")
    if _unused(resource.kind):
        parts.append(
            "Fields marked *not acted on* are accepted and stored, and have no effect yet. A manifest that asks for "
            "something by them gets a warning from the embedded server; queues also say it in the condition "
            "`NotActedOn`.\n"
        )
    rows = [_row(resource.kind, *field) for field in fields(schema)]
    parts.append(table(("field", "type", "", "meaning"), rows))
    rules = [*_rules(schema, "")]
    if rules:
        parts.append("## Rules between fields\n\nThe server refuses an object that breaks one of them.\n")
        parts.append(table(("at", "what the server says"), ((code(at or "."), cell(text)) for at, text in rules)))
    if kind.columns:
        parts.append("## Columns of `kubectl get`\n")
        parts.append(table(("column", "from", "shown"), (_column(column) for column in kind.columns)))
    return "\n".join(parts)


def schema_of(kind: Kind) -> dict[str, Any]:
    """The schema of the kind's CRD, without what every object has."""
    crd = custom_resource_definition(kind)
    schema: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    own = {name: part for name, part in schema["properties"].items() if name not in ("apiVersion", "kind", "metadata")}
    return {**schema, "properties": own}


Field = tuple[str, dict[str, Any], bool]


def fields(schema: dict[str, Any], path: str = "") -> Iterator[Field]:
    """(path, schema, required) of every field, parents first; ``[]`` stands for the items of a list."""
    inner = schema.get("items", schema)
    required = inner.get("required", ())
    for name, child in (inner.get("properties") or {}).items():
        at = f"{path}.{name}" if path else name
        yield at, child, name in required
        yield from fields(child, at + ("[]" if "items" in child else ""))


def _unused(kind: str) -> tuple[str, ...]:
    return tuple(unused.path for unused in NOT_ACTED_ON.get(kind, ()))


def _row(kind: str, path: str, schema: dict[str, Any], required: bool) -> tuple[str, str, str, str]:
    meaning = cell(schema.get("description", ""))
    partly = [unused for unused in NOT_ACTED_ON.get(kind, ()) if unused.acted_on]
    acted_on = path in {p for unused in partly for p in (unused.path, *(f"{unused.path}.{n}" for n in unused.acted_on))}
    under = any(path == unused or path.startswith((unused + ".", unused + "[]")) for unused in _unused(kind))
    if under and not acted_on:
        meaning += " *Not acted on.*"
    need = "required" if required else ""
    if schema.get("default") not in (None, ""):
        need = f"default {code(str(schema['default']))}"
    return code(path), type_of(schema), need, meaning


def type_of(schema: dict[str, Any]) -> str:
    """The type of a field in words."""
    if schema.get("x-kubernetes-int-or-string"):
        return "quantity"
    if "enum" in schema:
        return " or ".join(code(str(value)) for value in schema["enum"])
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"list of {type_of(schema['items'])}s".replace("strings", "texts")
    if kind == "object" and "additionalProperties" in schema:
        return f"map to {type_of(schema['additionalProperties'])}"
    if schema.get("format") == "date-time":
        return "time"
    return {"string": "text"}.get(kind, kind)


def _rules(schema: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for rule in schema.get("x-kubernetes-validations", ()):
        yield path, rule["message"]
    for name, child in (schema.get("properties") or {}).items():
        yield from _rules(child, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from _rules(schema["items"], path + "[]")


def _column(column: Column) -> tuple[str, str, str]:
    return cell(column.name), code(column.json_path), "with `-o wide`" if column.priority else ""

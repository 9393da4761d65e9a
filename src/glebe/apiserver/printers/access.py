"""Rights, certificates and admission."""

from __future__ import annotations

from typing import Any

from glebe.apiserver.printers.cells import NONE, Fill, Printer, Printers, age, name_of, spec_of, status_of
from glebe.kube.duration import format_duration
from glebe.kube.objects import Object


def _binding(obj: Object, now: float) -> list[Any]:
    ref = obj.get("roleRef") or {}
    by_kind: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for subject in obj.get("subjects") or ():
        name = subject.get("name", "")
        full = f"{subject.get('namespace', '')}/{name}" if subject.get("kind") == "ServiceAccount" else name
        by_kind.setdefault(subject.get("kind", ""), []).append(full)
    wide = [", ".join(by_kind[kind]) for kind in ("User", "Group", "ServiceAccount")]
    return [name_of(obj), f"{ref.get('kind')}/{ref.get('name')}", age(obj, now), *wide]


def _request(obj: Object, now: float) -> list[Any]:
    spec = spec_of(obj)
    kinds = [c.get("type") for c in status_of(obj).get("conditions") or ()]
    state = next((k for k in ("Denied", "Approved") if k in kinds), "Pending")
    if "Failed" in kinds:
        state += ",Failed"
    if status_of(obj).get("certificate"):
        state += ",Issued"
    seconds = spec.get("expirationSeconds")
    duration = format_duration(seconds) if seconds else NONE
    return [name_of(obj), age(obj, now), spec.get("signerName", ""), spec.get("username", ""), duration, state]


def _policy(field: str) -> Fill:
    def fill(obj: Object, now: float) -> list[Any]:
        param = spec_of(obj).get("paramKind")
        shown = f"{param.get('apiVersion')}/{param.get('kind')}" if param else "<unset>"
        return [name_of(obj), len(spec_of(obj).get(field) or ()), shown, age(obj, now)]

    return fill


def _policy_binding(obj: Object, now: float) -> list[Any]:
    spec = spec_of(obj)
    ref = spec.get("paramRef")
    shown = "<unset>"
    if ref:
        shown = f"{ref['namespace']}/{ref.get('name', '')}" if ref.get("namespace") else ref.get("name", "*")
    return [name_of(obj), spec.get("policyName", ""), shown, age(obj, now)]


def _count(field: str) -> Fill:
    return lambda obj, now: [name_of(obj), len(obj.get(field) or ()), age(obj, now)]


_CREATED: Printer = (
    ("Name", "Created At:date"),
    lambda obj, now: [name_of(obj), obj["metadata"].get("creationTimestamp")],
)
_BINDING = ("Name", "Role", "Age", "+Users", "+Groups", "+ServiceAccounts")
_ADMISSION = "admissionregistration.k8s.io"

#: group resource -> (columns, row)
PRINTERS: Printers = {
    "roles.rbac.authorization.k8s.io": _CREATED,
    "clusterroles.rbac.authorization.k8s.io": _CREATED,
    "rolebindings.rbac.authorization.k8s.io": (_BINDING, _binding),
    "clusterrolebindings.rbac.authorization.k8s.io": (_BINDING, _binding),
    "certificatesigningrequests.certificates.k8s.io": (
        ("Name", "Age", "SignerName", "Requestor", "RequestedDuration", "Condition"),
        _request,
    ),
    f"mutatingwebhookconfigurations.{_ADMISSION}": (("Name", "Webhooks:integer", "Age"), _count("webhooks")),
    f"validatingwebhookconfigurations.{_ADMISSION}": (("Name", "Webhooks:integer", "Age"), _count("webhooks")),
    f"mutatingadmissionpolicies.{_ADMISSION}": (
        ("Name", "Mutations:integer", "ParamKind", "Age"),
        _policy("mutations"),
    ),
    f"validatingadmissionpolicies.{_ADMISSION}": (
        ("Name", "Validations:integer", "ParamKind", "Age"),
        _policy("validations"),
    ),
    f"mutatingadmissionpolicybindings.{_ADMISSION}": (("Name", "PolicyName", "ParamRef", "Age"), _policy_binding),
    f"validatingadmissionpolicybindings.{_ADMISSION}": (("Name", "PolicyName", "ParamRef", "Age"), _policy_binding),
}

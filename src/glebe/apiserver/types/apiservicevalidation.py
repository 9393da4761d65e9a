"""Rules of APIServices (``kube-aggregator/pkg/apis/apiregistration/validation``)."""

from __future__ import annotations

from typing import Any

from glebe.kube import names as n
from glebe.kube.errors import Cause
from glebe.kube.objects import Object


def validate_api_service(obj: Object, old: Object | None) -> list[Cause]:
    """A group version, its priorities, and the service that answers for it (none: this server)."""
    spec: dict[str, Any] = obj.get("spec") or {}
    group, version = spec.get("group") or "", spec.get("version") or ""
    causes: list[Cause] = []
    wanted, name = f"{version}.{group}", obj["metadata"].get("name", "")
    if name != wanted:
        causes.append(n.invalid("metadata.name", name, f'must be `spec.version+"."+spec.group`: "{wanted}"'))
    if not group and version != "v1":
        causes.append(n.required("spec.group", "only v1 may have an empty group and it better be legacy kube"))
    if group:
        causes += [n.invalid("spec.group", group, fault) for fault in n.subdomain_faults(group)]
    causes += [n.invalid("spec.version", version, fault) for fault in n.label_1035_faults(version)]
    for field, most in (("groupPriorityMinimum", 20000), ("versionPriority", 1000)):
        value = spec.get(field) or 0
        if not 0 < value <= most:
            causes.append(n.invalid(f"spec.{field}", value, f"must be positive and less than {most}"))
    return causes + _service(spec)


def _service(spec: dict[str, Any]) -> list[Cause]:
    service, bundle, insecure = spec.get("service"), spec.get("caBundle"), spec.get("insecureSkipTLSVerify")
    causes: list[Cause] = []
    if service is None:
        if bundle:
            causes.append(
                n.invalid("spec.caBundle", f"{len(bundle)} bytes", "local APIServices may not have a caBundle")
            )
        if insecure:
            why = "local APIServices may not have insecureSkipTLSVerify"
            causes.append(n.invalid("spec.insecureSkipTLSVerify", True, why))
        return causes
    causes += [n.required(f"spec.service.{field}") for field in ("namespace", "name") if not service.get(field)]
    port = service.get("port", 443)
    if not 1 <= port <= 65535:
        why = "port is not valid: must be between 1 and 65535, inclusive"
        causes.append(n.invalid("spec.service.port", port, why))
    if insecure and bundle:
        causes.append(n.invalid("spec.insecureSkipTLSVerify", True, "may not be true if caBundle is present"))
    return causes

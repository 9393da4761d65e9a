"""Defaults of the kinds that are little more than their fields: autoscalers, flow control, devices, ingress classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from glebe.apiserver.types.filling import fill
from glebe.kube.objects import Object


def _spec(obj: Object) -> dict[str, Any]:
    spec: dict[str, Any] = obj.setdefault("spec", {})
    return spec


def _autoscaler(obj: Object) -> None:
    spec = _spec(obj)
    fill(spec, "minReplicas", 1)
    if obj.get("apiVersion") == "autoscaling/v1":
        notes = obj["metadata"].get("annotations") or {}
        if "autoscaling.alpha.kubernetes.io/metrics" not in notes:
            fill(spec, "targetCPUUtilizationPercentage", 80)
        return
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    if (behavior := spec.get("behavior")) is not None:
        up = fill(behavior, "scaleUp", {})
        fill(up, "stabilizationWindowSeconds", 0)
        _scaling(up, [{"type": "Pods", "value": 4}, {"type": "Percent", "value": 100}])
        _scaling(fill(behavior, "scaleDown", {}), [{"type": "Percent", "value": 100}])


def _scaling(rules: dict[str, Any], policies: list[dict[str, Any]]) -> None:
    fill(rules, "selectPolicy", "Max")
    if not rules.get("policies"):
        rules["policies"] = [{**policy, "periodSeconds": 15} for policy in policies]


def _flow_schema(obj: Object) -> None:
    spec = _spec(obj)
    if not spec.get("matchingPrecedence"):
        spec["matchingPrecedence"] = 1000


def _priority_level(obj: Object) -> None:
    spec = _spec(obj)
    if (exempt := spec.get("exempt")) is not None:
        fill(exempt, "nominalConcurrencyShares", 0)
        fill(exempt, "lendablePercent", 0)
    if (limited := spec.get("limited")) is not None:
        fill(limited, "nominalConcurrencyShares", 30)
        fill(limited, "lendablePercent", 0)
        queuing = (limited.get("limitResponse") or {}).get("queuing")
        if queuing is not None:
            for key, value in (("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)):
                queuing[key] = queuing.get(key) or value


def _ingress_class(obj: Object) -> None:
    parameters = (obj.get("spec") or {}).get("parameters")
    if parameters is not None:
        fill(parameters, "scope", "Cluster")


def _claim_devices(spec: dict[str, Any]) -> None:
    for request in (spec.get("devices") or {}).get("requests") or ():
        for wanted in (request.get("exactly"), *(request.get("firstAvailable") or ())):
            if wanted is None:
                continue
            if fill(wanted, "allocationMode", "ExactCount") == "ExactCount" and not wanted.get("count"):
                wanted["count"] = 1
            for toleration in wanted.get("tolerations") or ():
                fill(toleration, "operator", "Equal")


def _resource_claim(obj: Object) -> None:
    _claim_devices(_spec(obj))


def _resource_claim_template(obj: Object) -> None:
    _claim_devices(_spec(obj).setdefault("spec", {}))


def _api_service(obj: Object) -> None:
    service = (obj.get("spec") or {}).get("service")
    if service is not None:
        service.setdefault("port", 443)


DEFAULTERS: dict[tuple[str, str], Callable[[Object], None]] = {
    ("autoscaling", "HorizontalPodAutoscaler"): _autoscaler,
    ("networking.k8s.io", "IngressClass"): _ingress_class,
    ("flowcontrol.apiserver.k8s.io", "FlowSchema"): _flow_schema,
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"): _priority_level,
    ("resource.k8s.io", "ResourceClaim"): _resource_claim,
    ("resource.k8s.io", "ResourceClaimTemplate"): _resource_claim_template,
    ("apiregistration.k8s.io", "APIService"): _api_service,
}

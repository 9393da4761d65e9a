"""TaintNodesByCondition: a new node takes no pods before it is ready (``plugin/pkg/admission/nodetaint``)."""

from __future__ import annotations

from glebe.apiserver.admission.base import AdmissionAttributes, BuiltinPlugin
from glebe.apiserver.admission.tolerations import NOT_READY


class TaintNodesByCondition(BuiltinPlugin):
    """A new node takes no pods until its agent has said that it is ready (the node controller removes the taint)."""

    name = "TaintNodesByCondition"
    resources = frozenset({"nodes"})

    async def admit(self, a: AdmissionAttributes) -> None:
        if a.operation != "CREATE" or a.subresource or a.obj is None:
            return
        spec = a.obj.setdefault("spec", {})
        taints = spec.get("taints") or []
        if not any(t.get("key") == NOT_READY and t.get("effect") == "NoSchedule" for t in taints):
            spec["taints"] = [*taints, {"key": NOT_READY, "effect": "NoSchedule"}]

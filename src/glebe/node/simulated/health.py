"""How a simulated node is: ready or not, and which of its GPUs are broken; and the Node status that says so. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from glebe.gpu import xids
from glebe.kube.clock import format_time
from glebe.kube.objects import set_condition
from glebe.node.spec import GPU_RESOURCE, NodeSpec, node_status

GPU_PROBLEM: Final = "GPUProblem"
"""Condition type, as on real nodes: ``True`` while a GPU of the node is broken."""
XID_ERROR: Final = "XidCriticalError"


@dataclass(slots=True)
class Health:
    """``broken`` maps the number of a GPU to the XID that broke it; it is left out of the node's allocatable."""

    ready: bool = True
    broken: dict[int, int] = field(default_factory=dict)
    was_broken: bool = False

    def status(self, spec: NodeSpec, conditions: list[dict[str, Any]], now: float) -> dict[str, Any]:
        """The Node's status."""
        out = node_status(spec, conditions, now, ready=self.ready)
        self.was_broken = self.was_broken or bool(self.broken)
        if not self.was_broken:
            return out
        gpus = int(spec.capacity.get(GPU_RESOURCE, "0"))
        out["allocatable"][GPU_RESOURCE] = str(max(0, gpus - len(self.broken)))
        state = ("False", "GPUsHealthy", "all GPUs answer, and have reported no error")
        if self.broken:
            state = ("True", XID_ERROR, self._text())
        out["conditions"] = set_condition(out["conditions"], GPU_PROBLEM, *state, format_time(now))
        return out

    def _text(self) -> str:
        return "; ".join(f"GPU {number}: {xids.text(code)}" for number, code in sorted(self.broken.items()))

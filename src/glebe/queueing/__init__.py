"""The queue: Kueue-API controllers around the scheduling core, which alone decides."""

from glebe.queueing.assembly import Queueing, controllers
from glebe.queueing.planner import InlinePlanner, Planner, ProcessPlanner

__all__ = ["InlinePlanner", "Planner", "ProcessPlanner", "Queueing", "controllers"]

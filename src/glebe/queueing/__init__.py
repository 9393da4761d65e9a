"""The queue: Kueue-API controllers around the scheduling core, which alone decides.

``assembly`` has all of it, ``planner`` where the core runs. Nothing of them is imported here, so that a front end that
needs only ``labels`` does not load the core; the names in ``__all__`` are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glebe.queueing.assembly import Queueing, controllers
    from glebe.queueing.round.planner import InlinePlanner, Planner, ProcessPlanner

__all__ = ["InlinePlanner", "Planner", "ProcessPlanner", "Queueing", "controllers"]

_HOMES = {"Queueing": "assembly", "controllers": "assembly"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'planner')}"), name)

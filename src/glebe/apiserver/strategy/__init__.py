"""Strategies: what each kind does to its objects when they are written."""

from __future__ import annotations

from glebe.apiserver.strategy.base import Strategy
from glebe.apiserver.strategy.kinds import KINDS
from glebe.apiserver.types.registry import ResourceInfo


def strategy_for(info: ResourceInfo) -> Strategy:
    """The strategy of a resource; kept with the resource, so that it goes when a custom kind does."""
    kept: Strategy | None = info.__dict__.get("_strategy")
    if kept is None:
        kept = info.__dict__["_strategy"] = KINDS.get(info.group_resource, Strategy)(info)
    return kept


__all__ = ["Strategy", "strategy_for"]

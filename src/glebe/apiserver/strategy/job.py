"""batch/v1 Job."""

from __future__ import annotations

from glebe.apiserver.strategy.base import Strategy
from glebe.apiserver.types.registry import ResourceInfo
from glebe.kube.errors import Cause
from glebe.kube.objects import Object


class JobStrategy(Strategy):
    def __init__(self, info: ResourceInfo) -> None:
        super().__init__(info)
        self.default_orphans = True

    def validate_update(self, obj: Object, old: Object, subresource: str) -> list[Cause]:
        return []

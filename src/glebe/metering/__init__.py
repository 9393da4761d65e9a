"""The allocation ledger: who held which GPUs from when to when. A reader of reports need not load its controllers."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glebe.metering.controller import controllers

__all__ = ["controllers"]


def __getattr__(name: str) -> Any:
    if name != "controllers":
        raise AttributeError(name)
    from glebe.metering.controller import controllers

    return controllers

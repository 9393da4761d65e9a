"""The allocation ledger: who held which GPUs from when to when."""

from glebe.metering.controller import controllers

__all__ = ["controllers"]

"""``constraints`` of a claim: devices whose attribute is the same, or is different. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glebe.workloads.claims.pools import Device


class Constraint:
    """One constraint, with the values of the devices that were chosen so far."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.requests = frozenset(spec.get("requests") or ())
        self.same = spec.get("matchAttribute") is not None
        self.attribute = str(spec.get("matchAttribute") or spec.get("distinctAttribute") or "")
        self._values: list[tuple[str, Any]] = []

    @property
    def known(self) -> bool:
        """Whether it says anything that is understood."""
        return bool(self.attribute)

    def concerns(self, request: str, choice: str) -> bool:
        """Whether it is about devices of this request (and this one of its alternatives)."""
        return (
            not self.requests or request in self.requests or (bool(choice) and f"{request}/{choice}" in self.requests)
        )

    def add(self, device: Device) -> bool:
        """Take the device in, if that is allowed."""
        value = device.attribute(self.attribute)
        if value is None or not value[0]:
            return False
        if self.same and self._values and value != self._values[-1]:
            return False
        if not self.same and value in self._values:
            return False
        self._values.append(value)
        return True

    def remove(self) -> None:
        """Forget the device that was added last."""
        self._values.pop()

"""Devices that several claims may have at once, each a part of their capacity (KEP-5075). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from glebe.kube import quantity

Amounts = Mapping[str, Fraction]


def consumed(request: Mapping[str, Any], capacity: Mapping[str, Any]) -> dict[str, Fraction] | None:
    """What a request takes of a device with this ``capacity``, rounded up as the device's policies say.

    ``None``: it asks for what the device does not have, or a policy forbids the amount.
    """
    asked = (request.get("capacity") or {}).get("requests") or {}
    if any(name not in capacity for name in asked):
        return None
    taken: dict[str, Fraction] = {}
    for name, each in capacity.items():
        policy = each.get("requestPolicy")
        amount = _rounded(asked.get(name), each, policy)
        if policy is not None and _forbidden(amount, policy):
            return None
        taken[name] = amount
    return taken


def _rounded(asked: Any, capacity: Mapping[str, Any], policy: Mapping[str, Any] | None) -> Fraction:
    if asked is None:
        default = (policy or {}).get("default")
        return quantity.parse(capacity.get("value", "0") if default is None else default)
    amount = quantity.parse(asked)
    if policy is None:
        return amount
    reach = policy.get("validRange")
    if reach is not None and reach.get("min") is not None:
        low = quantity.parse(reach["min"])
        if amount < low or reach.get("step") is None:
            return max(amount, low)
        step = quantity.parse(reach["step"])
        return low + step * quantity.ceil((amount - low) / step)
    for value in policy.get("validValues") or ():
        if amount <= quantity.parse(value):
            return quantity.parse(value)
    return amount


def _forbidden(amount: Fraction, policy: Mapping[str, Any]) -> bool:
    if policy.get("default") is not None and amount == quantity.parse(policy["default"]):
        return False
    reach, values = policy.get("validRange"), policy.get("validValues") or ()
    if reach is not None:
        if reach.get("max") is not None and amount > quantity.parse(reach["max"]):
            return True
        if reach.get("step") is None:
            return False
        low = quantity.parse(reach.get("min", "0"))
        return (amount - low) % quantity.parse(reach["step"]) != 0
    return bool(values) and all(amount != quantity.parse(value) for value in values)


def fits(taken: Amounts, used: Amounts, whole: Amounts) -> bool:
    """Whether ``taken`` is left of ``whole`` when ``used`` is gone."""
    return all(used.get(name, Fraction(0)) + amount <= whole[name] for name, amount in taken.items())

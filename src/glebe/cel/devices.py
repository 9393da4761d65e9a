"""Selectors of devices: CEL over one device of a ResourceSlice (KEP-4381, ``k8s.io/dynamic-resource-allocation/cel``).

Kubernetes 1.36 with the gates that are on by default: attributes are bool, int, string or version; lists are not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from glebe.cel.budget import Budget, EvalError, OutOfBudget
from glebe.cel.environment import CompileError, Environment, Program
from glebe.cel.estimate import estimate
from glebe.cel.kubernetes import Quantity, parse_semver
from glebe.cel.types import Type
from glebe.cel.values import Defaulting, type_name
from glebe.kube import quantity

MOST_COST = 1_000_000
"""What a selector may cost, estimated and in fact (``CELSelectorExpressionMaxCost``)."""
LONGEST = 10 * 1024
"""Characters of a selector (``CELSelectorExpressionMaxLength``)."""
_DOMAIN, _ID, _DRIVER, _VALUE, _MOST = 63, 32, 63, 64, 32


class SelectorError(Exception):
    """The selector failed on a device, or cannot be used at all."""


class _Device:
    """The struct type of ``device``."""

    name = "kubernetes.DRADevice"

    def field(self, name: str) -> tuple[Type, str] | None:
        found = _fields().get(name)
        return None if found is None else (found, name)


def _map(key: int, value: Type) -> Type:
    return Type("map", (Type("string", largest=key), value), largest=_MOST)


@cache
def _fields() -> dict[str, Type]:
    attribute, amount = Type("dyn", largest=_VALUE), Type("quantity")
    return {
        "driver": Type("string", largest=_DRIVER),
        "allowMultipleAllocations": Type("bool", largest=1),
        "attributes": _map(_DOMAIN, _map(_ID, attribute)),
        "capacity": _map(_DOMAIN, _map(_ID, amount)),
    }


@cache
def environment() -> Environment:
    """Where selectors are compiled."""
    return Environment({"device": Type("object", struct=_Device())}, bind=True)


def compile_selector(text: str) -> Program:
    """The selector, remembered by its text.

    :raises CompileError: with upstream's words.
    """
    try:
        program = environment().compile(text)
    except CompileError as error:
        raise CompileError(f"compilation failed: {error}") from None
    if program.result.kind not in ("bool", "dyn", "free"):
        raise CompileError(f"must evaluate to bool or the unknown type, not {program.result}")
    return program


def most_cost(program: Program) -> int:
    """The most that one evaluation can cost."""
    return estimate(program.tree, program.checked)


@dataclass(frozen=True, slots=True)
class Device:
    """What a selector sees. ``values`` is made by :func:`device_value`."""

    values: Mapping[str, Any]


def device_value(driver: str, device: Mapping[str, Any]) -> Device:
    """A device of a slice of ``driver`` (``spec.devices[]`` of resource.k8s.io/v1).

    :raises SelectorError: an attribute has no value that is known here.
    """
    attributes, capacity = Defaulting(), Defaulting()
    for name, attribute in (device.get("attributes") or {}).items():
        domain, own = _qualified(name, driver)
        attributes.setdefault(domain, {})[own] = attribute_value(name, attribute)
    for name, amount in (device.get("capacity") or {}).items():
        domain, own = _qualified(name, driver)
        capacity.setdefault(domain, {})[own] = Quantity(quantity.parse(amount.get("value", "0")))
    return Device(
        {
            "device": {
                "driver": driver,
                "allowMultipleAllocations": bool(device.get("allowMultipleAllocations")),
                "attributes": attributes,
                "capacity": capacity,
            }
        }
    )


def _qualified(name: str, driver: str) -> tuple[str, str]:
    domain, slash, own = name.partition("/")
    return (domain, own) if slash else (driver, name)


def attribute_value(name: str, attribute: Mapping[str, Any]) -> Any:
    """The one value of an attribute, as CEL has it.

    :raises SelectorError: there is none.
    """
    for key in ("int", "bool", "string"):
        if attribute.get(key) is not None:
            return attribute[key]
    if attribute.get("version") is not None:
        try:
            return parse_semver(attribute["version"])
        except EvalError as error:
            raise SelectorError(f"attribute {name}: parse semantic version: {error}") from None
    raise SelectorError(f"attribute {name}: unsupported attribute value")


def matches(program: Program, device: Device) -> bool:
    """Whether the selector takes the device.

    :raises SelectorError: it failed, or cost too much.
    """
    try:
        value = program.evaluate_within(device.values, Budget(MOST_COST))
    except (EvalError, OutOfBudget) as error:
        raise SelectorError(str(error)) from None
    if type(value) is not bool:
        raise SelectorError(f"CEL result of type {type_name(value)} could not be converted to bool")
    return value


__all__ = [
    "LONGEST",
    "MOST_COST",
    "CompileError",
    "Device",
    "SelectorError",
    "attribute_value",
    "compile_selector",
    "device_value",
    "matches",
    "most_cost",
]

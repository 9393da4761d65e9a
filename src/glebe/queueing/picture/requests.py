"""What a pod counts as: its requests with what namespace and configuration add, and what forbids it. Pure.

As in Kueue before admission: overhead of its RuntimeClass, defaults of the namespace's LimitRanges, limits where no
request is given; then resources are left out or turned into others as the configuration says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType
from typing import Any

from glebe.kube.objects import Object
from glebe.kube.pods import requests_of
from glebe.kube.quantity import from_int, is_milli, to_int
from glebe.queueing.configuration import DEFAULT, Resources

_EMPTY: Mapping[str, Any] = MappingProxyType({})
ABOVE_LIMIT = "requests must not exceed its limits"
ABOVE_MAX = "requests must not be above the limitRange max"
BELOW_MIN = "requests must not be below the limitRange min"


@dataclass(frozen=True, slots=True)
class Summary:
    """All LimitRanges of one namespace for one type (Container, Pod), as one."""

    maximum: Mapping[str, int] = field(default_factory=lambda: _EMPTY)
    minimum: Mapping[str, int] = field(default_factory=lambda: _EMPTY)
    default: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)
    default_request: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)


NO_LIMITS = Summary()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What of a namespace and of the configuration matters to requests."""

    container: Summary = NO_LIMITS
    pod: Summary = NO_LIMITS
    overhead: Callable[[str], Mapping[str, Any]] = lambda name: _EMPTY  # of a RuntimeClass
    resources: Resources = DEFAULT.resources


PLAIN = Surroundings()


def summarize(ranges: Iterable[Object], kind: str) -> Summary:
    """The strictest bounds and the first defaults of all LimitRanges, in the order of their names."""
    maximum: dict[str, int] = {}
    minimum: dict[str, int] = {}
    default: dict[str, Any] = {}
    default_request: dict[str, Any] = {}
    for obj in sorted(ranges, key=lambda o: str(o["metadata"]["name"])):
        for item in (obj.get("spec") or {}).get("limits") or ():
            if item.get("type") != kind:
                continue
            for name, amount in (item.get("max") or {}).items():
                value = to_int(amount, name)
                maximum[name] = min(maximum.get(name, value), value)
            for name, amount in (item.get("min") or {}).items():
                minimum[name] = max(minimum.get(name, 0), to_int(amount, name))
            default = {**(item.get("default") or {}), **default}
            default_request = {**(item.get("defaultRequest") or {}), **default_request}
    return Summary(maximum, minimum, default, default_request)


def adjusted(spec: Mapping[str, Any], around: Surroundings) -> Mapping[str, Any]:
    """The pod's spec with what is not written in it; the same object where nothing is missing."""
    changes: dict[str, Any] = {}
    name = spec.get("runtimeClassName")
    if name and not spec.get("overhead") and (overhead := around.overhead(name)):
        changes["overhead"] = dict(overhead)
    if around.container.default or around.container.default_request:
        for kind in ("initContainers", "containers"):
            if spec.get(kind):
                changes[kind] = [_defaulted(c, around.container) for c in spec[kind]]
    if spec.get("resources") and (around.pod.default or around.pod.default_request):
        changes["resources"] = _defaulted(spec, around.pod)["resources"]
    return {**spec, **changes} if changes else spec


def _defaulted(container: Mapping[str, Any], limits: Summary) -> dict[str, Any]:
    given = container.get("resources") or {}
    filled = {
        **given,
        "limits": {**limits.default, **(given.get("limits") or {})},
        "requests": {**limits.default_request, **(given.get("requests") or {})},
    }
    return {**container, "resources": filled}


def counted(spec: Mapping[str, Any], around: Surroundings = PLAIN) -> dict[str, int]:
    """What one pod takes of quotas, by resource; zeros are named, too."""
    asked = requests_of(adjusted(spec, around), zeros=True)
    left_out = around.resources.exclude_resource_prefixes
    if left_out:
        asked = {name: amount for name, amount in asked.items() if not name.startswith(left_out)}
    return transformed(asked, around.resources)


def on_node(spec: Mapping[str, Any], around: Surroundings = PLAIN) -> dict[str, int]:
    """What one pod takes of its node: nothing is left out or turned into anything."""
    return requests_of(adjusted(spec, around), zeros=True)


def transformed(asked: dict[str, int], resources: Resources) -> dict[str, int]:
    """``asked`` with the outputs of the configuration's transformations, which add up and are not below zero."""
    by_input = {t.input: t for t in resources.transformations}
    if not any(name in by_input for name in asked):
        return asked
    kept: dict[str, int] = {}
    made: dict[str, Fraction] = {}
    for name, amount in asked.items():
        rule = by_input.get(name)
        if rule is None or rule.strategy == "Retain":
            kept[name] = amount
        if rule is None:
            continue
        units = _units(name, amount)
        if rule.multiply_by in asked:
            units *= _units(rule.multiply_by, asked[rule.multiply_by])
        for output, factor in rule.amounts().items():
            made[output] = made.get(output, Fraction(0)) + units * factor
    for name, total in made.items():
        kept[name] = kept.get(name, 0) + to_int(max(total, Fraction(0)), name)
    return dict(sorted(kept.items()))


def _units(name: str, amount: int) -> Fraction:
    return Fraction(amount, 1000) if is_milli(name) else Fraction(amount)


def problem(pod_sets: Sequence[Mapping[str, Any]], around: Surroundings = PLAIN) -> str:
    """Why such pods could never be made; empty when they could."""
    specs = [adjusted((p.get("template") or {}).get("spec") or {}, around) for p in pod_sets]
    above = [text for at, spec in enumerate(specs) for text in _above_limits(spec, f"spec.podSets[{at}].template.spec")]
    if above:
        return f"resources validation failed: {'; '.join(above)}"
    out = [
        text for at, spec in enumerate(specs) for text in _outside(spec, f"spec.podSets[{at}].template.spec", around)
    ]
    return f"resources didn't satisfy LimitRange constraints: {'; '.join(out)}" if out else ""


def _above_limits(spec: Mapping[str, Any], path: str) -> Iterable[str]:
    places = [(f"{path}.{kind}[{at}]", c) for kind in ("initContainers", "containers") for at, c in _items(spec, kind)]
    if spec.get("resources"):
        places.append((f"{path}.resources", spec))
    for where, holder in places:
        given = holder.get("resources") or {}
        limits = given.get("limits") or {}
        asked = given.get("requests") or {}
        over = sorted(n for n, a in asked.items() if n in limits and to_int(a, n) > to_int(limits[n], n))
        if over:
            yield f"{where}: Invalid value: [{' '.join(over)}]: {ABOVE_LIMIT}"


def _outside(spec: Mapping[str, Any], path: str, around: Surroundings) -> Iterable[str]:
    for kind in ("initContainers", "containers"):
        for at, container in _items(spec, kind):
            given = container.get("resources") or {}
            listed = [{n: to_int(a, n) for n, a in (given.get(k) or {}).items()} for k in ("requests", "limits")]
            least = {n: min(g[n] for g in listed if n in g) for g in listed for n in g}
            most = {n: max(g[n] for g in listed if n in g) for g in listed for n in g}
            yield from _bounds(f"{path}.{kind}[{at}]", least, most, around.container)
    total = requests_of(spec, zeros=True)
    yield from _bounds(path, total, total, around.pod)


def _bounds(where: str, least: Mapping[str, int], most: Mapping[str, int], limits: Summary) -> Iterable[str]:
    over = sorted(n for n, a in most.items() if n in limits.maximum and a > limits.maximum[n])
    if over:
        yield f"{where}: Invalid value: [{' '.join(over)}]: {ABOVE_MAX}"
    under = sorted(n for n, a in limits.minimum.items() if n in least and a > least[n])
    if under:
        yield f"{where}: Invalid value: [{' '.join(under)}]: {BELOW_MIN}"


def _items(spec: Mapping[str, Any], kind: str) -> Iterable[tuple[int, Mapping[str, Any]]]:
    return enumerate(spec.get(kind) or ())


def texts(amounts: Mapping[str, int]) -> dict[str, str]:
    """Amounts as quantities."""
    return {name: from_int(amount, name) for name, amount in amounts.items()}

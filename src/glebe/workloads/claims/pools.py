"""Which devices a node can use: ResourceSlices, read once and gathered into pools (KEP-4381, KEP-4815). Pure.

A pool counts when all slices of its newest generation are there; one that is not complete gives no devices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

from glebe.kube import quantity
from glebe.kube.nodes import term_matches
from glebe.kube.objects import Object

_REMEMBERED = 32  # selectors whose verdict each device knows


class DeviceId(NamedTuple):
    """What names a device in an allocation."""

    driver: str
    pool: str
    device: str

    def __str__(self) -> str:
        return "/".join(self)


class Counter(NamedTuple):
    """One counter of a pool: its set, and its name there."""

    group: str
    name: str


class BadSelector(Exception):
    """A selector of devices cannot be used, or not on this device."""


@dataclass(slots=True, eq=False)
class Device:
    """One device, with what was found out about it."""

    id: DeviceId
    body: Mapping[str, Any]
    slice: Mapping[str, Any]  # the spec
    consumes: Mapping[Counter, Fraction]
    capacity: Mapping[str, Fraction]
    shared: bool
    _value: Any = None
    _verdicts: dict[str, bool] = field(default_factory=dict)

    def matches(self, expression: str) -> bool:
        """Whether the selector takes it; remembered as long as the slice does not change.

        :raises BadSelector: it is none, or it failed.
        """
        known = self._verdicts.get(expression)
        if known is None:
            if len(self._verdicts) >= _REMEMBERED:
                self._verdicts.clear()
            known = self._verdicts[expression] = self._ask(expression)
        return known

    def _ask(self, expression: str) -> bool:
        from glebe.cel import devices as cel  # late: most clusters have no devices

        try:
            program = cel.compile_selector(expression)
            if self._value is None:
                self._value = cel.device_value(self.id.driver, self.body)
            return cel.matches(program, self._value)
        except cel.CompileError as error:
            raise BadSelector(f"CEL compile error: {error}") from None
        except cel.SelectorError as error:
            raise BadSelector(f"CEL runtime error: {error}") from None

    def attribute(self, name: str) -> tuple[str, Any] | None:
        """Kind and value of an attribute by its full name (``domain/name``)."""
        attributes = self.body.get("attributes") or {}
        found = attributes.get(name)
        if found is None:
            domain, slash, own = name.partition("/")
            if not slash or domain != self.id.driver:
                return None
            found = attributes.get(own)
        for kind in ("string", "int", "bool", "version"):
            if found and found.get(kind) is not None:
                return kind, found[kind]
        return None if found is None else ("", None)


@dataclass(slots=True, eq=False)
class Slice:
    """A ResourceSlice that was read."""

    name: str
    spec: Mapping[str, Any]
    devices: tuple[Device, ...]
    counters: Mapping[Counter, Fraction]

    @classmethod
    def of(cls, obj: Object) -> Slice:
        """:raises QuantityError: an amount is none."""
        spec = obj["spec"]
        counters = {
            Counter(group["name"], name): quantity.parse((counter or {}).get("value", "0"))
            for group in spec.get("sharedCounters") or ()
            for name, counter in (group.get("counters") or {}).items()
        }
        devices = tuple(_device(spec, body) for body in spec.get("devices") or ())
        return cls(obj["metadata"]["name"], spec, devices, counters)

    @property
    def pool(self) -> tuple[str, str]:
        return self.spec["driver"], self.spec["pool"]["name"]

    @property
    def generation(self) -> int:
        return int(self.spec["pool"].get("generation") or 0)

    @property
    def count(self) -> int:
        return int(self.spec["pool"].get("resourceSliceCount") or 0)

    @property
    def node(self) -> str:
        """The only node that can use it; ``""``: several."""
        return str(self.spec.get("nodeName") or "")

    def concerns(self, node: Object) -> bool:
        """Whether the node can use something of it."""
        spec = self.spec
        if spec.get("perDeviceNodeSelection"):
            return any(reaches(device.body, node) for device in self.devices)
        return reaches(spec, node)


def reaches(where: Mapping[str, Any], node: Object) -> bool:
    """Whether ``nodeName``, ``allNodes`` or ``nodeSelector`` mean this node."""
    if where.get("nodeName"):
        return bool(where["nodeName"] == node["metadata"]["name"])
    if where.get("allNodes"):
        return True
    selector = where.get("nodeSelector")
    return selector is not None and any(term_matches(t, node) for t in selector.get("nodeSelectorTerms") or ())


def _device(spec: Mapping[str, Any], body: Mapping[str, Any]) -> Device:
    consumes: dict[Counter, Fraction] = {}
    for group in body.get("consumesCounters") or ():
        for name, counter in (group.get("counters") or {}).items():
            key = Counter(group["counterSet"], name)
            consumes[key] = consumes.get(key, Fraction(0)) + quantity.parse((counter or {}).get("value", "0"))
    return Device(
        id=DeviceId(spec["driver"], spec["pool"]["name"], body["name"]),
        body=body,
        slice=spec,
        consumes=consumes,
        capacity={name: quantity.parse(c.get("value", "0")) for name, c in (body.get("capacity") or {}).items()},
        shared=bool(body.get("allowMultipleAllocations")),
    )


@dataclass(slots=True, eq=False)
class Pool:
    """What one pool has for one node. ``elsewhere`` are devices of other nodes that share its counters."""

    driver: str
    name: str
    devices: tuple[Device, ...] = ()
    elsewhere: tuple[Device, ...] = ()
    counters: Mapping[Counter, Fraction] = field(default_factory=dict)
    incomplete: bool = False
    invalid: str = ""

    @property
    def usable(self) -> bool:
        return not self.incomplete and not self.invalid

    def __str__(self) -> str:
        return f"{self.driver}/{self.name}"


class Shelf:
    """All ResourceSlices of a cluster, by where they are."""

    def __init__(self) -> None:
        self._slices: dict[str, Slice] = {}
        self._on: dict[str, dict[str, Slice]] = {}  # by node; "": several nodes
        self._of: dict[tuple[str, str], dict[str, Slice]] = {}  # by pool

    def put(self, obj: Object) -> None:
        """A slice appeared or changed.

        :raises QuantityError: an amount is none; the slice is not there then.
        """
        self.drop(obj["metadata"]["name"])
        read = Slice.of(obj)
        self._slices[read.name] = read
        self._on.setdefault(read.node, {})[read.name] = read
        self._of.setdefault(read.pool, {})[read.name] = read

    def drop(self, name: str) -> None:
        """A slice is gone."""
        old = self._slices.pop(name, None)
        if old is None:
            return
        for index, key in ((self._on, old.node), (self._of, old.pool)):
            held: dict[str, Slice] = index[key]  # type: ignore[index]
            del held[name]
            if not held:
                del index[key]  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self._slices)

    def nodes_of(self, driver: str, pool: str) -> set[str]:
        """The nodes that a pool has slices for; ``""``: several."""
        return {each.node for each in self._of.get((driver, pool), {}).values()}

    def pools(self, node: Object) -> list[Pool]:
        """Pools with something for the node, in the order in which devices are tried."""
        found: dict[tuple[str, str], list[Slice]] = {}
        own = self._on.get(node["metadata"]["name"], {})
        several = self._on.get("", {})
        for each in (*own.values(), *several.values()):
            if each.concerns(node):
                _newest(found.setdefault(each.pool, []), each)
        made = [self._pool(key, slices) for key, slices in found.items()]
        return sorted((p for p in made if p is not None), key=_order)

    def _pool(self, key: tuple[str, str], here: list[Slice]) -> Pool | None:
        generation, wanted = here[0].generation, here[0].count
        everywhere = list(self._of[key].values())
        if any(s.generation > generation for s in everywhere):
            return None  # what concerns this node is out of date
        everywhere = [s for s in everywhere if s.generation == generation]
        if len(everywhere) != wanted:
            return Pool(*key, incomplete=True)
        here.sort(key=lambda s: s.name)
        chosen = {s.name for s in here}
        others = [s for s in sorted(everywhere, key=lambda s: s.name) if s.name not in chosen]
        pool = Pool(
            *key,
            devices=tuple(d for s in here for d in s.devices),
            elsewhere=tuple(d for s in others for d in s.devices),
        )
        pool.counters, pool.invalid = _counters(everywhere)
        pool.invalid = pool.invalid or _fault(pool)
        return pool


def _newest(slices: list[Slice], one: Slice) -> None:
    """Keep those of the highest generation."""
    if slices and one.generation < slices[0].generation:
        return
    if slices and one.generation > slices[0].generation:
        slices.clear()
    slices.append(one)


def _counters(slices: Iterable[Slice]) -> tuple[dict[Counter, Fraction], str]:
    counters: dict[Counter, Fraction] = {}
    groups: set[str] = set()
    for each in slices:
        for group in each.spec.get("sharedCounters") or ():
            if group["name"] in groups:
                return {}, f"duplicate counter set name {group['name']}"
            groups.add(group["name"])
        counters.update(each.counters)
    return counters, ""


def _fault(pool: Pool) -> str:
    names: set[str] = set()
    groups = {counter.group for counter in pool.counters}
    for device in pool.devices:
        if device.id.device in names:
            return f"duplicate device name {device.id.device}"
        names.add(device.id.device)
    for device in (*pool.devices, *pool.elsewhere):
        for counter in device.consumes:
            if counter.group not in groups:
                return f"counter set {counter.group} not found"
            if counter not in pool.counters:
                return f"counter {counter.name} not found in counter set {counter.group}"
    return ""


def _order(pool: Pool) -> tuple[bool, str, str]:
    """Devices that are ready at once come before those that have to be got ready."""
    return any(d.body.get("bindingConditions") for d in pool.devices), pool.driver, pool.name

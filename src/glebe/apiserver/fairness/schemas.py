"""FlowSchemas and PriorityLevelConfigurations, compiled: which level and which flow a request belongs to.

Upstream: ``apiserver/pkg/util/flowcontrol/rule.go`` and KEP-1040.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from glebe.apiserver.request.routing import Route
from glebe.kube.objects import Object
from glebe.kube.transport import User

GROUP = "flowcontrol.apiserver.k8s.io"
SCHEMAS, LEVELS = f"flowschemas.{GROUP}", f"prioritylevelconfigurations.{GROUP}"
EXEMPT, CATCH_ALL = "exempt", "catch-all"
_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class Level:
    """What a PriorityLevelConfiguration allows."""

    name: str
    exempt: bool
    shares: float
    nominal: int
    """Seats of its own."""
    most: int
    """Seats with those that others lend."""
    rejects: bool
    """Nobody waits for a seat."""
    flow_waiting: int
    """Requests of one flow that may wait."""
    level_waiting: int


@dataclass(frozen=True, slots=True)
class Schema:
    """One FlowSchema."""

    name: str
    precedence: int
    level: str
    method: str
    rules: tuple[Object, ...] = field(hash=False)

    def matches(self, user: User, route: Route) -> bool:
        return any(_subjects(rule, user) and _asks(rule, route) for rule in self.rules)

    def flow(self, user: User, route: Route) -> str:
        """The distinguisher: which flow of the schema this is."""
        if self.method == "ByUser":
            return user.name
        return route.namespace if self.method == "ByNamespace" else ""


@dataclass(frozen=True, slots=True)
class Plan:
    """All of one cluster, in the order in which schemas are tried."""

    schemas: tuple[Schema, ...]
    levels: dict[str, Level]

    def find(self, user: User, route: Route) -> tuple[Schema, Level]:
        """Who is nobody's belongs to ``catch-all``."""
        for schema in self.schemas:
            level = self.levels.get(schema.level)
            if level is not None and schema.matches(user, route):
                return schema, level
        return _NOBODYS, self.levels[CATCH_ALL]


_NOBODYS = Schema(CATCH_ALL, 10_000, CATCH_ALL, "ByUser", ())


def compile_plan(schemas: Iterable[Object], levels: Iterable[Object], seats: int) -> Plan:
    """The plan of a cluster that has ``seats``."""
    found = {obj["metadata"]["name"]: obj for obj in levels}
    # The mandatory two are there whatever the store says.
    found.setdefault(EXEMPT, {"metadata": {"name": EXEMPT}, "spec": {"type": "Exempt"}})
    found.setdefault(CATCH_ALL, {"metadata": {"name": CATCH_ALL}, "spec": {"type": "Limited", "limited": _LAST}})
    total = sum(_shares(obj) for obj in found.values()) or 1
    nominal = {name: math.ceil(seats * _shares(obj) / total) for name, obj in found.items()}
    lent = {name: round(nominal[name] * _section(obj).get("lendablePercent", 0) / 100) for name, obj in found.items()}
    compiled = {name: _level(name, obj, nominal[name], sum(lent.values()) - lent[name]) for name, obj in found.items()}
    ordered = sorted((_schema(obj) for obj in schemas), key=lambda s: (s.precedence, s.name))
    return Plan(tuple(ordered), compiled)


_LAST: Object = {"nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"}}


def _section(obj: Object) -> Object:
    spec = obj["spec"]
    return spec.get("exempt" if spec.get("type") == "Exempt" else "limited") or {}


def _shares(obj: Object) -> int:
    default = 0 if obj["spec"].get("type") == "Exempt" else 30
    value = _section(obj).get("nominalConcurrencyShares")
    return default if value is None else int(value)


def _level(name: str, obj: Object, nominal: int, others_lend: int) -> Level:
    section = _section(obj)
    response = section.get("limitResponse") or {}
    queuing = response.get("queuing") or {}
    length = int(queuing.get("queueLengthLimit") or 50)
    limit = section.get("borrowingLimitPercent")
    borrowed = others_lend if limit is None else min(others_lend, round(nominal * limit / 100))
    return Level(
        name,
        obj["spec"].get("type") == "Exempt",
        float(max(1, _shares(obj))),
        nominal,
        nominal + borrowed,
        response.get("type") == "Reject",
        int(queuing.get("handSize") or 8) * length,
        int(queuing.get("queues") or 64) * length,
    )


def _schema(obj: Object) -> Schema:
    spec = obj["spec"]
    return Schema(
        obj["metadata"]["name"],
        int(spec.get("matchingPrecedence") or 1000),
        (spec.get("priorityLevelConfiguration") or {}).get("name", ""),
        (spec.get("distinguisherMethod") or {}).get("type", ""),
        tuple(spec.get("rules") or ()),
    )


def _subjects(rule: Object, user: User) -> bool:
    return any(_is(subject, user) for subject in rule.get("subjects") or ())


def _is(subject: Object, user: User) -> bool:
    kind = subject.get("kind")
    if kind == "User":
        return (subject.get("user") or {}).get("name") in ("*", user.name)
    if kind == "Group":
        name = (subject.get("group") or {}).get("name")
        return name == "*" or name in user.groups
    account = subject.get("serviceAccount") or {}
    prefix = f"{_ACCOUNT}{account.get('namespace', '')}:"
    return user.name.startswith(prefix) and account.get("name") in ("*", user.name[len(prefix) :])


def _asks(rule: Object, route: Route) -> bool:
    if route.resource:
        return any(_resource(r, route) for r in rule.get("resourceRules") or ())
    return any(_path(r, route) for r in rule.get("nonResourceRules") or ())


def _has(value: str, listed: Iterable[str] | None) -> bool:
    listed = listed or ()
    return "*" in listed or value in listed


def _resource(rule: Object, route: Route) -> bool:
    asked = f"{route.resource}/{route.subresource}" if route.subresource else route.resource
    if not (_has(route.verb, rule.get("verbs")) and _has(asked, rule.get("resources"))):
        return False
    if not _has(route.group, rule.get("apiGroups")):
        return False
    return _has(route.namespace, rule.get("namespaces")) if route.namespace else bool(rule.get("clusterScope"))


def _path(rule: Object, route: Route) -> bool:
    if not _has(route.verb, rule.get("verbs")):
        return False
    for url in rule.get("nonResourceURLs") or ():
        if url in ("*", route.path):
            return True
        prefix = url.removesuffix("*")
        if route.path.startswith(prefix if prefix.endswith("/") else prefix + "/"):
            return True
    return False

"""Reads rows of the table of job kinds, and says by name what is wrong with one. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from glebe.kube.resources import Resource
from glebe.queueing.jobkinds import model as m
from glebe.queueing.jobkinds.paths import Path, parse_path

REASONS = ("Succeeded", "Failed")
HELD_BY = ("each", "set", "groups")
#: Fields of a kind that only the table in the package may use: they name code.
INTERNAL = ("shape", "needs", "heldByPods", "gated", "crd")


class DeclarationError(ValueError):
    """What is wrong with a declaration: one fault per line, each with its field."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class _Faults(list[str]):
    """:param own: the package's own table is read: its expressions are compiled when they are needed."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.own = own


class _Reader:
    """Reads the fields of one map and collects faults."""

    def __init__(self, value: Any, where: str, faults: _Faults) -> None:
        self.faults = faults
        self.where = where
        self.value: Mapping[str, Any] = value if isinstance(value, dict) else {}
        self._seen: set[str] = set()
        if not isinstance(value, dict):
            self.fault("", "must be a map")

    def fault(self, name: str, why: str) -> None:
        place = f"{self.where}.{name}" if name and self.where else name or self.where
        self.faults.append(f"{place}: {why}" if place else why)

    def has(self, name: str) -> bool:
        return name in self.value

    def raw(self, name: str) -> Any:
        self._seen.add(name)
        return self.value.get(name)

    def text(self, name: str, *, required: bool = False, pattern: str = "") -> str:
        value = self.raw(name)
        if value is None:
            if required:
                self.fault(name, "is required")
            return ""
        if not isinstance(value, str) or not value or (pattern and not re.fullmatch(pattern, value)):
            self.fault(name, f"{value!r} is not possible here")
            return ""
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.fault(name, "must be true or false")
            return default
        return value

    def path(self, name: str, *, required: bool = False) -> Path:
        text = self.text(name, required=required)
        return self.parsed(name, text) if text else ()

    def parsed(self, name: str, text: Any) -> Path:
        try:
            return parse_path(text) if isinstance(text, str) else parse_path("")
        except ValueError as error:
            self.fault(name, str(error))
            return ()

    def paths(self, name: str) -> tuple[Path, ...]:
        return tuple(p for item in self.items(name) if (p := self.parsed(name, item)))

    def items(self, name: str) -> list[Any]:
        value = self.raw(name)
        if value is None:
            return []
        if not isinstance(value, list):
            self.fault(name, "must be a list")
            return []
        return value

    def children(self, name: str) -> list[_Reader]:
        """Readers of the maps of a list."""
        place = f"{self.where}.{name}" if self.where else name
        return [_Reader(item, f"{place}[{at}]", self.faults) for at, item in enumerate(self.items(name))]

    def close(self) -> None:
        for name in self.value:
            if name not in self._seen:
                self.fault(str(name), "there is no such field")


def parse_kinds(items: Any, *, origin: str = "", own: bool = False) -> tuple[m.JobKind, ...]:
    """All rows of a table.

    :param own: the package's own table, which may name code.
    :raises DeclarationError: with every fault of every row.
    """
    faults = _Faults(own)
    if isinstance(items, dict):
        items = [items]
    if not isinstance(items, list):
        raise DeclarationError(["must be a map (one kind) or a list of maps"])
    kinds = [
        _kind(_Reader(item, f"[{at}]" if len(items) > 1 else "", faults), origin, own) for at, item in enumerate(items)
    ]
    if faults:
        raise DeclarationError(faults)
    return tuple(kinds)


def _kind(r: _Reader, origin: str, own: bool) -> m.JobKind:
    if not own:
        for name in INTERNAL:
            if r.has(name):
                r.fault(name, "is for shipped kinds only")
    kind = m.JobKind(
        resource=_resource(r),
        suspend=r.path("suspend", required=not own),
        pod_sets=tuple(
            _pod_set(_Reader(p, f"{r.where}podSets[{i}]", r.faults)) for i, p in enumerate(r.items("podSets"))
        ),
        held_by_pods=r.text("heldByPods"),
        finished=tuple(
            _ending(_Reader(e, f"{r.where}finished[{i}]", r.faults)) for i, e in enumerate(r.items("finished"))
        ),
        active=_tests(r, "active"),
        ready=_tests(r, "ready"),
        ready_pods=r.paths("readyPods"),
        priority=r.paths("priority"),
        queue=r.paths("queue"),
        skip=_tests(r, "skip"),
        hold=_tests(r, "hold"),
        gated=r.flag("gated"),
        together=r.flag("together"),
        elastic=r.flag("elastic"),
        shape=r.text("shape"),
        needs=tuple(_resource(child) for child in r.children("needs")),
        crd=r.flag("crd", True),
        origin=origin or "shipped",
    )
    if not own:
        if not r.value.get("podSets"):
            r.fault("podSets", "is required: where the pods' templates stand")
        if not kind.active:
            r.fault("active", "is required: else quota would be given away while pods still run")
    names = [p.name for p in kind.pod_sets if not p.each]
    if len(names) != len(set(names)):
        r.fault("podSets", f"two of them have the same name: {', '.join(names)}")
    r.close()
    return kind


def _resource(r: _Reader) -> Resource:
    group_version = r.text("apiVersion", required=True, pattern=r"([a-z0-9.-]+/)?v[a-z0-9]+")
    group, _, version = group_version.rpartition("/")
    kind = r.text("kind", required=True, pattern="[A-Z][A-Za-z0-9]*")
    plural = r.text("plural", pattern="[a-z0-9-]+") or f"{kind.lower()}s"
    namespaced = r.flag("namespaced", True)
    if "needs[" in r.where:
        r.close()
    return Resource(group, version, plural, kind, namespaced)


def _pod_set(r: _Reader) -> m.PodSetRule:
    each = r.path("each")
    rule = m.PodSetRule(
        template=r.path("template", required=True),
        count=_count(r, "count") or m.Fixed(1),
        name=r.text("name", pattern="[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"),
        name_at=r.path("nameAt"),
        each=each,
        keys=tuple(str(k) for k in r.items("keys")),
        min_count=_count(r, "minCount"),
        scale=r.path("scale"),
        when=_tests(r, "when"),
        pod_index=r.text("podIndex"),
        group_index=r.text("groupIndex"),
        groups=_count(r, "groups"),
    )
    if not each and not rule.name:
        r.fault("name", "is required where each is not given")
    if not each and (rule.name_at or rule.keys):
        r.fault("nameAt" if rule.name_at else "keys", "only together with each")
    r.close()
    return rule


def _count(r: _Reader, name: str) -> m.Count | None:
    return _count_of(r, name, r.raw(name)) if r.has(name) else None


def _count_of(r: _Reader, name: str, value: Any) -> m.Count:
    kinds: dict[str, Callable[[tuple[m.Count, ...]], m.Count]] = {
        "least": m.Least,
        "most": m.Most,
        "product": m.Product,
    }
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            r.fault(name, "must not be below 0")
        return m.Fixed(value)
    if isinstance(value, str):
        return m.At(r.parsed(name, value))
    if isinstance(value, dict) and len(value) == 1:
        ((how, parts),) = value.items()
        if how in kinds and isinstance(parts, list) and parts:
            return kinds[how](tuple(_count_of(r, f"{name}.{how}", part) for part in parts))
    r.fault(name, "must be a number, a path, or one of least, most, product with a list of such")
    return m.Fixed(1)


def _tests(r: _Reader, name: str) -> tuple[m.Test, ...]:
    return tuple(_test(child, last=True) for child in r.children(name))


def _ending(r: _Reader) -> m.Ending:
    reason = r.text("reason", required=True)
    if reason and reason not in REASONS:
        r.fault("reason", f"must be one of {', '.join(REASONS)}")
    ending = m.Ending(_test(r), reason)
    r.close()
    return ending


def _test(r: _Reader, *, last: bool = False) -> m.Test:
    """:param last: the map holds nothing but the test."""
    for name, read in _TESTS.items():
        if r.has(name):
            test = read(r)
            break
    else:
        r.fault("", f"must have one of {', '.join(_TESTS)}")
        return m.FieldIs((), ())
    if last:
        r.close()
    return test


def _condition(r: _Reader) -> m.Test:
    return m.Condition(r.text("condition", required=True))


def _field(r: _Reader) -> m.Test:
    wants, avoids = r.items("is"), r.items("isNot")
    if bool(wants) == bool(avoids):
        r.fault("is", "either is or isNot must have values")
    path, says = r.path("field", required=True), r.path("says")
    return m.FieldIs(path, tuple(_plain(r, wants or avoids)), bool(wants), says)


def _plain(r: _Reader, values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        if isinstance(value, dict | list):
            r.fault("is", "values must be texts, numbers, true or false")
        else:
            yield value


def _sum(r: _Reader) -> m.Test:
    paths = r.paths("sum")
    if not paths:
        r.fault("sum", "must name at least one path")
    return m.Sum(paths, r.paths("reaches"))


def _cel(r: _Reader) -> m.Test:
    text = r.text("cel", required=True)
    test = m.Expression(text)
    if text and not r.faults.own:
        try:
            m.compile_expression(text)
        except ValueError as error:
            r.fault("cel", str(error))
    return test


def _all(r: _Reader) -> m.Test:
    parts = tuple(_test(child, last=True) for child in r.children("all"))
    if not parts:
        r.fault("all", "must have at least one test")
    return m.All(parts)


def _not(r: _Reader) -> m.Test:
    return m.Not(_test(_Reader(r.raw("not"), f"{r.where}.not", r.faults), last=True))


_TESTS: dict[str, Callable[[_Reader], m.Test]] = {
    "condition": _condition,
    "field": _field,
    "sum": _sum,
    "all": _all,
    "not": _not,
    "cel": _cel,
}

"""Which requests a registration is about: rules, scope, selectors, equivalent versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from glebe.apiserver.admission.base import AdmissionAttributes
from glebe.apiserver.types.registry import ResourceInfo, builtins
from glebe.kube import errors
from glebe.kube.objects import Object
from glebe.kube.selectors import LabelSelector

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer

Kind = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Match:
    """The version of the resource in which a registration wants to be asked; ``kind`` is (group, version, kind)."""

    info: ResourceInfo
    kind: Kind


class Matcher:
    """The matching part of a webhook or of a policy's ``matchConstraints`` (the same names in both).

    :param spec: ``rules`` or ``resourceRules``, ``excludeResourceRules``, ``matchPolicy``, ``namespaceSelector``,
        ``objectSelector``.
    """

    __slots__ = ("_equivalent", "_excluded", "_namespaces", "_objects", "_rules")

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self._rules: Sequence[Mapping[str, Any]] = spec.get("rules") or spec.get("resourceRules") or ()
        self._excluded: Sequence[Mapping[str, Any]] = spec.get("excludeResourceRules") or ()
        self._equivalent = spec.get("matchPolicy", "Equivalent") != "Exact"
        self._namespaces = LabelSelector.from_object(spec.get("namespaceSelector") or {})
        self._objects = LabelSelector.from_object(spec.get("objectSelector") or {})

    def match(self, server: ApiServer, a: AdmissionAttributes, *, anything: bool = False) -> Match | None:
        """None when the request is none of its business.

        :param anything: no rules at all mean every resource (bindings).
        :raises ApiError: the namespace whose labels decide is not there.
        """
        if a.info.group_resource != "namespaces" and not self._objects_match(a):
            return None
        found = self._resource(server, a, anything)
        if found is None:
            return None
        if not self._namespaces.empty and not self._namespace_matches(server, a):
            return None
        return found if self._objects_match(a) else None

    def _objects_match(self, a: AdmissionAttributes) -> bool:
        selector = self._objects
        return selector.empty or any(selector.matches(_labels(obj)) for obj in (a.obj, a.old) if obj is not None)

    def _namespace_matches(self, server: ApiServer, a: AdmissionAttributes) -> bool:
        about_namespace = a.info.group_resource == "namespaces"
        if about_namespace and not a.subresource and a.obj is not None:
            return self._namespaces.matches(_labels(a.obj))
        name = a.name if about_namespace else a.namespace
        if not name:
            return True  # cluster-scoped objects are never exempt
        namespace = server.read(a.cluster, "namespaces", "", name)
        if namespace is None:
            raise errors.not_found("", "namespaces", name)
        return self._namespaces.matches(_labels(namespace))

    def _resource(self, server: ApiServer, a: AdmissionAttributes, anything: bool) -> Match | None:
        if self._any(self._excluded, server, a) is not None:
            return None
        if anything and not self._rules:
            return Match(a.info, kind_of(a.info, a.subresource))
        return self._any(self._rules, server, a)

    def _any(self, rules: Sequence[Mapping[str, Any]], server: ApiServer, a: AdmissionAttributes) -> Match | None:
        if not rules:
            return None
        if any(_rule_matches(rule, a, a.info) for rule in rules):
            return Match(a.info, kind_of(a.info, a.subresource))
        if not self._equivalent:
            return None
        others = equivalents(server, a.cluster, a.info)
        for rule in rules if others else ():
            for info in others:
                if _rule_matches(rule, a, info):
                    return Match(info, kind_of(info, a.subresource))
        return None


def kind_of(info: ResourceInfo, subresource: str) -> Kind:
    """The kind of the request's body."""
    below = info.subresource(subresource) if subresource else None
    if below is not None and below.kind:
        return below.group, below.version, below.kind
    return info.group, info.version, info.kind


@cache
def _builtin_forms() -> dict[str, tuple[ResourceInfo, ...]]:
    forms: dict[str, tuple[ResourceInfo, ...]] = {}
    for info in builtins():
        forms[info.stored_as] = (*forms.get(info.stored_as, ()), info)
    return {name: infos for name, infos in forms.items() if len(infos) > 1}


def equivalents(server: ApiServer, cluster: str, info: ResourceInfo) -> tuple[ResourceInfo, ...]:
    """The other forms in which the same objects are served."""
    if not info.is_custom:
        return tuple(i for i in _builtin_forms().get(info.stored_as, ()) if i is not info)
    served = info.custom.served if info.custom is not None else ()
    return tuple(i for i in served if i.version != info.version)


def _rule_matches(rule: Mapping[str, Any], a: AdmissionAttributes, info: ResourceInfo) -> bool:
    return (
        _has(rule.get("operations"), a.operation)
        and _has(rule.get("apiGroups"), info.group)
        and _has(rule.get("apiVersions"), info.version)
        and _resource_named(rule.get("resources") or (), info.plural, a.subresource)
        and _in_scope(rule.get("scope") or "*", a, info)
        and (not rule.get("resourceNames") or a.name in rule["resourceNames"])
    )


def _has(values: Sequence[str] | None, value: str) -> bool:
    return values is not None and ("*" in values or value in values)


def _resource_named(names: Sequence[str], plural: str, subresource: str) -> bool:
    for name in names:
        resource, slash, below = name.partition("/")
        if resource not in ("*", plural):
            continue
        if (below in ("*", subresource)) if slash else not subresource:
            return True
    return False


def _in_scope(scope: str, a: AdmissionAttributes, info: ResourceInfo) -> bool:
    return scope == "*" or (scope == "Namespaced") == info.namespaced


def _labels(obj: Object) -> dict[str, str]:
    meta = obj.get("metadata")
    labels = meta.get("labels") if isinstance(meta, dict) else None
    return labels or {}

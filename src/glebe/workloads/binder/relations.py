"""What a pod asks of the pods around it: affinity, anti-affinity and topology spread, parsed. Pure.

Sources: core/v1 ``PodAffinityTerm`` and ``TopologySpreadConstraint``; KEPs 895, 2249, 3022, 3094, 3243, 3633.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from glebe.kube.selectors import IN, LabelSelector, Requirement, SelectorError

Labels = Mapping[str, str]
LabelsOf = Callable[[str], Labels]
"""Labels of a namespace."""


@dataclass(frozen=True, slots=True)
class Who:
    """Which pods are meant. ``living``: not those that are being deleted."""

    namespaces: frozenset[str]
    everywhere: LabelSelector | None  # namespaces by their labels, too
    selector: LabelSelector
    living: bool = False

    def matches(self, namespace: str, labels: Labels, labels_of: LabelsOf) -> bool:
        inside = namespace in self.namespaces or (
            self.everywhere is not None and self.everywhere.matches(labels_of(namespace))
        )
        return inside and self.selector.matches(labels)


@dataclass(frozen=True, slots=True)
class Term:
    """Near (or away from) some pods, in the domains of node label ``topology``."""

    topology: str
    who: Who


@dataclass(frozen=True, slots=True)
class Spread:
    """One topology spread constraint. ``own``: the pod counts itself."""

    topology: str
    who: Who
    own: bool
    max_skew: int
    min_domains: int
    honor_affinity: bool
    honor_taints: bool


@dataclass(frozen=True, slots=True)
class Relations:
    """All that one pod asks. ``likes`` are weighted terms, those of preferred anti-affinity with negative weights."""

    near: tuple[Term, ...] = ()
    apart: tuple[Term, ...] = ()
    likes: tuple[tuple[Term, int], ...] = ()
    spread: tuple[Spread, ...] = ()
    soft_spread: tuple[Spread, ...] = ()
    by_default: bool = False
    """Whether ``soft_spread`` is what pods get that say nothing."""

    @property
    def company_helps(self) -> bool:
        """Whether more pods can make a node fit that did not."""
        return bool(self.near or self.spread)


NONE: Final = Relations()


def relations_of(spec: Mapping[str, Any], namespace: str, labels: Labels) -> Relations:
    """What ``spec`` asks. Selectors that cannot be read select nothing."""
    affinity = spec.get("affinity") or {}
    constraints = spec.get("topologySpreadConstraints") or ()
    near, apart = affinity.get("podAffinity") or {}, affinity.get("podAntiAffinity") or {}
    if not (near or apart or constraints):
        return NONE
    return Relations(
        near=_terms(near, namespace, labels),
        apart=_terms(apart, namespace, labels),
        likes=(*_weighted(near, namespace, labels, 1), *_weighted(apart, namespace, labels, -1)),
        spread=_spread(constraints, "DoNotSchedule", namespace, labels),
        soft_spread=_spread(constraints, "ScheduleAnyway", namespace, labels),
    )


def _terms(affinity: Mapping[str, Any], namespace: str, labels: Labels) -> tuple[Term, ...]:
    terms = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
    return tuple(_term(t, namespace, labels) for t in terms)


def _weighted(affinity: Mapping[str, Any], namespace: str, labels: Labels, sign: int) -> list[tuple[Term, int]]:
    terms = affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    return [(_term(t["podAffinityTerm"], namespace, labels), sign * int(t.get("weight") or 0)) for t in terms]


def _term(term: Mapping[str, Any], namespace: str, labels: Labels) -> Term:
    named, by_labels = term.get("namespaces") or (), term.get("namespaceSelector")
    extra = [(IN, key) for key in term.get("matchLabelKeys") or ()]
    extra += [("NotIn", key) for key in term.get("mismatchLabelKeys") or ()]
    who = Who(
        frozenset(named or (() if by_labels is not None else (namespace,))),
        None if by_labels is None else _selector(by_labels),
        _with_own(_selector(term.get("labelSelector")), extra, labels),
    )
    return Term(term.get("topologyKey") or "", who)


def _spread(constraints: Sequence[Any], action: str, namespace: str, labels: Labels) -> tuple[Spread, ...]:
    found = []
    for each in constraints:
        if each.get("whenUnsatisfiable") != action:
            continue
        extra = [(IN, key) for key in each.get("matchLabelKeys") or ()]
        selector = _with_own(_selector(each.get("labelSelector")), extra, labels)
        own = selector.matches(labels)
        counted = LabelSelector(nothing=True) if selector.empty else selector  # upstream: {} counts nobody
        found.append(
            Spread(
                topology=each.get("topologyKey") or "",
                who=Who(frozenset((namespace,)), None, counted, living=True),
                own=own,
                max_skew=int(each.get("maxSkew") or 1),
                min_domains=int(each.get("minDomains") or 1),
                honor_affinity=each.get("nodeAffinityPolicy", "Honor") == "Honor",
                honor_taints=each.get("nodeTaintsPolicy", "Ignore") == "Honor",
            )
        )
    return tuple(found)


def _selector(selector: Mapping[str, Any] | None) -> LabelSelector:
    try:
        return LabelSelector.from_object(selector)
    except SelectorError:
        return LabelSelector(nothing=True)


def _with_own(selector: LabelSelector, keys: Sequence[tuple[str, str]], labels: Labels) -> LabelSelector:
    """Also: the same (or not the same) value as the pod itself has. The API server may have put it there before."""
    extra = [Requirement(key, operator, (labels[key],)) for operator, key in keys if key in labels]
    new = tuple(r for r in extra if r not in selector.requirements)
    return LabelSelector((*selector.requirements, *new)) if new and not selector.nothing else selector

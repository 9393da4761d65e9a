"""Which pods an autoscaler's target has, and which other autoscalers have them, too, at a cost that does not grow with
the square of their number.

Most selectors name a value of some label. Pods and selectors are looked up by it; only those few are compared fully.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from glebe.kube.objects import Object, labels_of
from glebe.kube.selectors import IN, LabelSelector

Pair = tuple[str, str]
_FRESH = 1.0
"""Seconds for which a namespace's pods are sorted once; autoscalers of one cluster come all at once."""


def handle(selector: LabelSelector) -> Pair | None:
    """A label and value without which nothing is selected, if there is one."""
    for term in selector.requirements:
        if term.operator == IN and len(term.values) == 1:
            return term.key, term.values[0]
    return None


class Pods:
    """The pods of namespaces, by labels."""

    def __init__(self, of: Callable[[str], list[Object]]) -> None:
        self._of = of
        self._sorted: dict[tuple[str, str], tuple[float, dict[str, list[Object]]]] = {}

    def selected(self, space: str, selector: LabelSelector, now: float) -> list[Object]:
        """The pods in ``space`` (see :func:`glebe.kube.pods.space`) that ``selector`` matches."""
        pair = handle(selector)
        near = self._of(space) if pair is None else self._with(space, *pair, now)
        return [pod for pod in near if selector.matches(labels_of(pod))]

    def _with(self, space: str, label: str, value: str, now: float) -> list[Object]:
        at, found = self._sorted.get((space, label), (float("-inf"), {}))
        if now - at >= _FRESH:
            for key in [k for k, (then, _) in self._sorted.items() if now - then >= _FRESH]:
                del self._sorted[key]
            found = {}
            for pod in self._of(space):
                found.setdefault(labels_of(pod).get(label, ""), []).append(pod)
            self._sorted[space, label] = (now, found)
        return found.get(value, [])


class Selectors:
    """The selectors of one namespace's autoscalers, by name."""

    def __init__(self) -> None:
        self._all: dict[str, LabelSelector] = {}
        self._by_pair: dict[Pair | None, dict[str, None]] = {}

    def __bool__(self) -> bool:
        return bool(self._all)

    def put(self, name: str, selector: LabelSelector) -> None:
        if self._all.get(name) == selector:
            return
        self.drop(name)
        self._all[name] = selector
        self._by_pair.setdefault(handle(selector), {})[name] = None

    def drop(self, name: str) -> None:
        old = self._all.pop(name, None)
        if old is not None:
            names = self._by_pair[handle(old)]
            del names[name]
            if not names:
                del self._by_pair[handle(old)]

    def rivals(self, name: str, pods: Iterable[Object]) -> list[str]:
        """The others that select one of ``pods``, by name."""
        found: set[str] = set()
        for pod in pods:
            labels = labels_of(pod)
            for pair in (None, *labels.items()):
                for other in self._by_pair.get(pair, ()):
                    if other != name and other not in found and self._all[other].matches(labels):
                        found.add(other)
        return sorted(found)

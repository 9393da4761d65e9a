"""The heads of what waits: of equal workloads only the first few can start in one cycle, so only they are looked at.

Workloads of one queue that differ in nothing but their age and name are one class, and of a class the oldest is always
first. A decision about the first ``each`` of every class is the decision about all, as long as no class was admitted to
the last one that was shown: what is decided after that is thrown away, and decided again with more of them.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields, replace

from glebe.scheduling.model import Decision, Outcome, Pending, Snapshot

#: How many of each class are shown to the core at first: this many, or as many as make so many in all.
FEW, _IN_ALL = 8, 1500
_OWN = ("key", "uid", "queued_at", "created_at", "variant_of")
_SHARED = tuple(f.name for f in fields(Pending) if f.name not in _OWN)

Place = tuple[float, float, str]


def _class_of(pending: Pending) -> str:
    """Equal for workloads that no policy tells apart but by age."""
    return repr([getattr(pending, name) for name in _SHARED])


def _place(pending: Pending) -> Place:
    return pending.queued_at, pending.created_at, pending.key


@dataclass(slots=True)
class _Class:
    places: list[Place]
    members: list[Pending]


class Heads:
    """Keeps the classes while workloads come and go; a change costs the logarithm of its class."""

    def __init__(self) -> None:
        self._classes: dict[str, _Class] = {}
        self._class_by_key: dict[str, str] = {}
        self._shown: dict[str, tuple[Pending, ...]] = {}  # by class, for the last number asked for
        self._each = 0
        self._all: tuple[Pending, ...] | None = None
        self._last: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self._class_by_key)

    def few(self) -> int:
        """How many of each class to look at first."""
        return max(1, min(FEW, _IN_ALL // max(1, len(self._classes))))

    def change(self, before: Pending | None, after: Pending | None) -> None:
        """A workload begins to wait (``before`` None), waits for something else, or ends waiting (``after`` None)."""
        if before is not None:
            self._remove(before)
        if after is not None:
            self._add(after)
        self._all = None

    def first(self, each: int) -> tuple[tuple[Pending, ...], frozenset[str]]:
        """The first ``each`` of every class; and the keys of the last ones shown of classes that have more."""
        if each != self._each:
            self._each = each
            self._shown.clear()
            self._all = None
        if self._all is None:
            last = []
            for name, found in self._classes.items():
                if name not in self._shown:
                    self._shown[name] = tuple(found.members[:each])
                if len(found.members) > each:
                    last.append(found.members[each - 1].key)
            self._all = tuple(p for shown in self._shown.values() for p in shown)
            self._last = frozenset(last)
        return self._all, self._last

    def _add(self, pending: Pending) -> None:
        name = _class_of(pending)
        found = self._classes.get(name)
        if found is None:
            found = self._classes[name] = _Class([], [])
        place = _place(pending)
        at = bisect_left(found.places, place)
        insort(found.places, place)
        found.members.insert(at, pending)
        self._class_by_key[pending.key] = name
        if at < self._each:
            self._shown.pop(name, None)

    def _remove(self, pending: Pending) -> None:
        name = self._class_by_key.pop(pending.key, None)
        if name is None:
            return
        found = self._classes[name]
        at = bisect_left(found.places, _place(pending))
        del found.places[at], found.members[at]
        if at < self._each:
            self._shown.pop(name, None)
        if not found.members:
            del self._classes[name]


def certain(
    decisions: Sequence[Decision], last: Collection[str], tree_of: Callable[[str], str]
) -> tuple[list[Decision], bool]:
    """Decisions that more of each class could not change, and whether there were others.

    :param last: as :meth:`Heads.first` gives it.
    :param tree_of: which workloads (by key) compete; one name for all if nodes are shared.
    """
    open_trees: set[str] = set()
    kept = []
    for decision in decisions:
        tree = tree_of(decision.key)
        if tree in open_trees and (decision.outcome is Outcome.ADMIT or decision.victims):
            continue
        kept.append(decision)
        if decision.outcome is Outcome.ADMIT and decision.key in last:
            open_trees.add(tree)
    return kept, bool(open_trees)


def roots(snapshot: Snapshot) -> dict[str, str]:
    """The root cohort above each queue (the queue itself if it has none); a cohort that is above itself is a root."""
    parents = {c.name: c.parent for c in snapshot.cohorts}
    found: dict[str, str] = {}
    for queue in snapshot.queues:
        name, seen = queue.cohort, set[str]()
        while name and name not in seen and parents.get(name):
            seen.add(name)
            name = parents[name]
        found[queue.name] = f"cohort {name}" if name else f"queue {queue.name}"
    return found


def shown(snapshot: Snapshot, pending: tuple[Pending, ...]) -> Snapshot:
    """The snapshot with only these waiting."""
    return replace(snapshot, pending=pending)

"""What is to be done about one object. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from glebe.workloads.garbage.graph import FOREGROUND, ORPHAN, Graph, Item


class OwnerState(Enum):
    SOLID = "solid"  # it is there (also while it ends in the background or we cannot tell)
    WAITING = "waiting"  # it is being deleted in the foreground and waits for its dependents
    ABSENT = "absent"  # surely gone


@dataclass(frozen=True, slots=True)
class Verdict:
    """``delete``: propagation policy or empty. ``drop_owners``: uids to remove from the owner references.
    ``drop_finalizer``: our finalizer has done its work. ``look_at``: uids of dependents to judge next. ``unblock``: no
    owner shall wait for it any more.
    """

    delete: str = ""
    drop_owners: frozenset[str] = frozenset()
    drop_finalizer: str = ""
    release: tuple[str, ...] = ()  # uids of dependents that shall forget this owner
    look_at: tuple[str, ...] = field(default=())
    unblock: bool = False
    reason: str = ""


NOTHING = Verdict()


def judge(graph: Graph, item: Item, owners: Mapping[str, OwnerState], *, complete: bool) -> Verdict:
    """The next thing to do about ``item``.

    :param owners: the state of each of its owners, by uid.
    :param complete: whether the graph holds everything (else nothing is concluded from a dependent's absence).
    """
    if item.orphaning:
        return _orphan(graph, item, complete)
    if item.in_foreground:
        return _foreground(graph, item, complete)
    if item.deleting or not item.owners:
        return NOTHING
    states = {o.uid: owners[o.uid] for o in item.owners}
    solid = [uid for uid, state in states.items() if state is OwnerState.SOLID]
    rest = frozenset(uid for uid, state in states.items() if state is not OwnerState.SOLID)
    if solid:
        return Verdict(drop_owners=rest, reason="other owners remain") if rest else NOTHING
    if OwnerState.WAITING in states.values():
        waits_for_itself = any(d.in_foreground for d in graph.dependents(item.uid, item.cluster))
        if waits_for_itself and any(o.blocks for o in item.owners):
            return Verdict(unblock=True, reason="a circle of owners would wait for itself")
        return Verdict(delete="Foreground", reason="its owner waits for it to go")
    return Verdict(delete=_policy(item), reason="none of its owners exists")


def _policy(item: Item) -> str:
    """An earlier wish about this object's own dependents stands in its finalizers."""
    if ORPHAN in item.finalizers:
        return "Orphan"
    return "Foreground" if FOREGROUND in item.finalizers else "Background"


def _orphan(graph: Graph, item: Item, complete: bool) -> Verdict:
    dependents = tuple(d.uid for d in graph.dependents(item.uid, item.cluster))
    if dependents:
        return Verdict(release=dependents, reason="its dependents shall stay")
    return Verdict(drop_finalizer=ORPHAN, reason="no dependent names it any more") if complete else NOTHING


def _foreground(graph: Graph, item: Item, complete: bool) -> Verdict:
    dependents = list(graph.dependents(item.uid, item.cluster))
    blocking = [d for d in dependents if any(o.uid == item.uid and o.blocks for o in d.owners)]
    look_at = tuple(d.uid for d in dependents if not d.deleting)
    if blocking or not complete:
        return Verdict(look_at=look_at)
    return Verdict(drop_finalizer=FOREGROUND, look_at=look_at, reason="no dependent blocks its deletion")

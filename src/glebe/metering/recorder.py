"""From what informers say to facts in the book and rows in the ledger. No I/O but the ledger's."""

from __future__ import annotations

from dataclasses import replace

from glebe.kube.objects import Object
from glebe.metering import facts
from glebe.metering.book import Book, Carry
from glebe.metering.intervals import DAY, Allocation, Point, day_of
from glebe.metering.ledger import Entry, Ledger

_KEEP_DAYS = 2


class Recorder:
    """Tells the book what happened. Every method may be called again with what was said before."""

    def __init__(self, ledger: Ledger | None, now: int) -> None:
        self.book = Book()
        self.ledger = ledger
        self.loaded = False  # the ledger knew something
        self._begin = now  # nodes that are older are owned from here on
        if ledger is None:
            return
        since = day_of(now) - (_KEEP_DAYS - 1) * DAY
        for node, point in ledger.points(since):
            self.loaded, self._begin = True, 0
            self.book.set_node(node, point)
        for entry in ledger.allocations(since):
            self.book.set_allocation(entry.node, entry.allocation)

    # --- nodes

    def node(self, node: Object, now: int) -> bool:
        """A node as it is now; whether that is news."""
        name, gpus = node["metadata"]["name"], facts.gpus_of_node(node)
        ready, since = facts.node_ready(node)
        known = self.book.node_state(name)
        if known is None:
            return self._new_node(name, gpus, ready, since, min(now, max(self._begin, facts.created_at(node))), now)
        at = now
        if known.gpus == gpus and known.ready != ready and since is not None:
            at = max(known.at, min(since, now))
        return self._point(name, Point(at, gpus, ready), now)

    def _new_node(self, name: str, gpus: int, ready: bool, since: int | None, begin: int, now: int) -> bool:
        """Owned from ``begin`` on; if its readiness changed after that, it was the other way before."""
        if since is not None and begin < since <= now:
            self._point(name, Point(begin, gpus, not ready), now)
            begin = since
        return self._point(name, Point(begin, gpus, ready), now)

    def carry(self, carry: Carry) -> None:
        """Continue from published sums, when there is no ledger to continue from."""
        self._begin = carry.at
        self.book.carry(carry)

    def node_gone(self, name: str, now: int) -> bool:
        """A node that is no longer there owns nothing."""
        return self._point(name, Point(now, 0, False), now)

    def _point(self, name: str, point: Point, now: int) -> bool:
        added = self.book.set_node(name, point)
        if added is not None and self.ledger is not None:
            self.ledger.add_point(name, added, now)
        return added is not None

    # --- pods

    def pod(self, pod: Object, job: Object | None, now: int) -> bool:
        """A pod as it is now; whether that is news."""
        node, uid = pod["spec"].get("nodeName"), pod["metadata"]["uid"]
        gpus = facts.gpus_of_pod(pod)
        if not node or gpus == 0:
            return False
        known = self.book.allocation(uid)
        end = facts.end_of(pod, now)
        if known is not None:
            if known.end is not None or end is None:
                return False  # ended for good, or nothing new
            new = replace(known, end=max(known.start, end.at))
        else:
            start = facts.bound_at(pod)
            start = min(now if start is None else start, now)
            closed = None if end is None else max(start, end.at)
            new = Allocation(uid, start, closed, gpus, facts.charge_of(pod, job))
        return self._allocation(node, pod["metadata"]["name"], new, now, end is not None and end.estimated)

    def pod_gone(self, pod: Object, now: int, *, estimated: bool = False) -> bool:
        """A pod that was deleted: it held its GPUs until now, or ``estimated``, if that was not seen, at the latest."""
        self.pod(pod, None, now)
        return self.end(pod["metadata"]["uid"], now, pod["metadata"]["name"], estimated=estimated)

    def end(self, uid: str, now: int, pod: str = "", *, estimated: bool) -> bool:
        """End an allocation that nobody can say the true end of, unless it has ended."""
        known = self.book.allocation(uid)
        if known is None or known.end is not None:
            return False
        node = self.book.node_of(uid)
        return self._allocation(node, pod, replace(known, end=max(known.start, now)), now, estimated)

    def _allocation(self, node: str, pod: str, new: Allocation[facts.Charge], now: int, estimated: bool) -> bool:
        changed = self.book.set_allocation(node, new)
        if changed and self.ledger is not None:
            self.ledger.add_allocation(Entry(node, pod, new, estimated), now)
        return changed

    def forget_old(self, now: int) -> None:
        """Free the memory of days that are closed for good."""
        self.book.forget_before(day_of(now) - (_KEEP_DAYS - 1) * DAY)

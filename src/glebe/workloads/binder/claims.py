"""Devices that pods claim (DRA, KEP-4381), as the binder's plug-in: upstream's ``DynamicResources``.

A node will do when devices for all of the pod's claims that have none can be found there. They are kept from the moment
the node is chosen, and written into the claims, with the pod as their consumer, before the pod is bound.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from glebe.kube.nodes import term_matches
from glebe.kube.objects import Object, is_deleting
from glebe.kube.resources import Resource
from glebe.workloads.binder.claims_ledger import Ledger
from glebe.workloads.binder.claims_writes import Writer, failure
from glebe.workloads.binder.needs import Needs
from glebe.workloads.binder.plugins import Bools, CannotPrepare, Quiet, Refusal, Surroundings
from glebe.workloads.claims import names
from glebe.workloads.claims.allocator import Found, allocate
from glebe.workloads.claims.names import CLAIMS, DEVICE_CLASSES, SLICES, allocation_of
from glebe.workloads.claims.requests import AllocationError

NOT_HERE: Final = "resourceclaim not available on the node"
NOT_ALL: Final = "cannot allocate all claims"
_ENOUGH = 100
"""Nodes that will do after which no further ones are looked at (upstream's ``minFeasibleNodesToFind``): each costs a
search."""
_WEIGHT: Final = 2.0
_KEPT = 64  # kinds of pods whose answers are remembered, one for each node


class Answer(NamedTuple):
    """What was found out about a node when its stamp and labels were these: why not, else how well."""

    stamp: int
    labels: Any
    text: str
    score: int


class Devices(Quiet):
    """The claims and devices of one logical cluster."""

    name = "DynamicResources"
    watches: ClassVar[tuple[Resource, ...]] = (SLICES, DEVICE_CLASSES, CLAIMS)

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._ledger = Ledger(around.find, around.every)
        self._writer = Writer(around.client, around.env, self._ledger)
        self._reserved: dict[str, list[tuple[str, str]]] = {}  # pod -> (path, uid) of claims that it gets devices for
        self._unsure: set[str] = set()  # pods for which an answer was lost
        self._answers: OrderedDict[str, dict[str, Answer]] = OrderedDict()

    # --- what is asked before a node is chosen

    def concerns(self, needs: Needs) -> bool:
        return bool(needs.devices)

    def gated(self, needs: Needs) -> bool:
        """A claim is still to be made from its template: there is nothing to say yet."""
        return any(d.template and not d.claim for d in needs.devices)

    def changed(self, resource: Resource, old: Object | None, new: Object | None) -> None:
        self._ledger.changed(resource, old, new)

    def objection(self, needs: Needs) -> str | None:
        self._ledger.settle(self._around.env.clock.now())
        for entry in needs.devices:
            path = f"{needs.namespace}/{entry.claim}"
            claim = self._ledger.claim(path)
            if claim is None:
                return f'resourceclaim.resource.k8s.io "{entry.claim}" not found'
            if is_deleting(claim):
                return f'resourceclaim "{entry.claim}" is being deleted'
            if allocation_of(claim) is None:
                if self._ledger.is_pending(claim["metadata"]["uid"]):
                    return f"resource claim {path} is in the process of being allocated"
                if (text := self._unknown_class(claim)) is not None:
                    return text
        return None

    def _unknown_class(self, claim: Object) -> str | None:
        for request in (claim["spec"].get("devices") or {}).get("requests") or ():
            options = request.get("firstAvailable") or [{**(request.get("exactly") or {}), "name": ""}]
            for option in options:
                name = option.get("deviceClassName") or ""
                if self._ledger.device_class(name) is None:
                    where = f"{request['name']}/{option['name']}" if option["name"] else request["name"]
                    return f"request {where}: device class {name} does not exist"
        return None

    def refusals(self, needs: Needs, among: Bools) -> Iterator[list[Refusal]]:
        claims = self._claims(needs)
        known = self._known(claims)
        fleet = self._around.fleet
        refused: dict[str, Bools] = {}
        good = 0
        for row in np.flatnonzero(among):
            name = fleet.names[row]
            reason = NOT_ALL if good >= _ENOUGH else self._reason(claims, known, fleet.node(name))
            if reason:
                refused.setdefault(reason, np.zeros(len(fleet.names), np.bool_))[row] = True
            else:
                good += 1
        yield [Refusal(refused[reason], reason, self.name, False) for reason in sorted(refused)]

    def score(self, needs: Needs, left: Bools) -> npt.NDArray[np.float64] | None:
        """Alternatives that are wanted more (as upstream), and nodes whose devices are used already (ours)."""
        known, fleet = self._known(self._claims(needs)), self._around.fleet
        ranks = np.zeros(len(fleet.names), np.float64)
        used = np.zeros(len(fleet.names), np.float64)
        for row in np.flatnonzero(left):
            name = fleet.names[row]
            if (answer := known.get(name)) is not None:
                ranks[row] = answer.score
            if (node := fleet.node(name)) is not None:
                used[row] = self._ledger.used(node)
        most = ranks.max(initial=0.0)
        return 100.0 * used + (_WEIGHT * np.floor(100.0 * ranks / most) if most else 0.0)

    def _claims(self, needs: Needs) -> list[Object]:
        found = (self._ledger.claim(f"{needs.namespace}/{entry.claim}") for entry in needs.devices)
        return [claim for claim in found if claim is not None]

    def _known(self, claims: Sequence[Object]) -> dict[str, Answer]:
        """Answers by node for claims that are alike."""
        key = orjson.dumps(
            [allocation_of(c) or c["spec"] for c in claims], option=orjson.OPT_PASSTHROUGH_SUBCLASS, default=tuple
        ).decode()
        known = self._answers.setdefault(key, {})
        self._answers.move_to_end(key)
        while len(self._answers) > _KEPT:
            self._answers.popitem(last=False)
        return known

    def _reason(self, claims: Sequence[Object], known: dict[str, Answer], node: Object | None) -> str:
        """Why the node will not do, or ``""``."""
        if node is None:
            return NOT_HERE
        name, labels = node["metadata"]["name"], node["metadata"].get("labels")
        stamp = self._ledger.stamp(name)
        answer = known.get(name)
        if answer is None or answer.stamp != stamp or answer.labels != labels:
            answer = known[name] = Answer(stamp, labels, *self._judge(claims, node))
        return answer.text

    def _judge(self, claims: Sequence[Object], node: Object) -> tuple[str, int]:
        """Why the node will not do, and how well it does."""
        if any(_elsewhere(allocation_of(claim), node) or failure(claim) is not None for claim in claims):
            return NOT_HERE, 0
        try:
            found = self._find(claims, node)
        except AllocationError as error:
            return str(error), 0
        return (NOT_ALL, 0) if found is None else ("", found.score)

    def _find(self, claims: Sequence[Object], node: Object) -> Found | None:
        """Allocations for the claims that have none (:func:`_open`)."""
        open_, ledger = _open(claims), self._ledger
        return allocate(open_, node, ledger.pools(node), ledger.taken, ledger.device_class, self._around.env.new_uid)

    # --- a node is chosen

    def reserve(self, uid: str, needs: Needs, node: str) -> str | None:
        body = self._around.fleet.node(node)
        claims = self._claims(needs)
        if body is None or len(claims) < len(needs.devices):
            return NOT_HERE
        try:
            found = self._find(claims, body)
        except AllocationError as error:
            return str(error)
        if found is None:
            return NOT_ALL
        chosen = list(zip(_open(claims), found.allocations, strict=True))
        self._reserved[uid] = [(_path(claim), claim["metadata"]["uid"]) for claim, _ in chosen]
        for claim, allocation in chosen:
            self._ledger.decide(claim["metadata"]["uid"], allocation)
        return None

    def unreserve(self, uid: str) -> None:
        unsure = uid in self._unsure
        self._unsure.discard(uid)
        for path, claim in self._reserved.pop(uid, ()):
            if unsure:
                self._ledger.doubt(path, claim, self._around.env.clock.now())
            else:
                self._ledger.withdraw(path, claim)

    async def prepare(self, pod: Object, node: str) -> bool:
        uid = pod["metadata"]["uid"]
        self._unsure.add(uid)  # before the write: the pod may go while nobody has answered
        try:
            ready = await self._writer.write(pod, names.names(pod))
        except CannotPrepare:
            self._unsure.discard(uid)
            raise
        self._unsure.discard(uid)
        return ready

    def bound(self, uid: str) -> None:
        self._reserved.pop(uid, None)
        self._unsure.discard(uid)

    def unhelped(self, objected: bool) -> str:
        return "no new claims to deallocate" if objected else "still not schedulable"

    async def rejected(self, pod: Object, needs: Needs) -> None:
        """The pod fits nowhere: a claim of its own that ties it to a node where it cannot go is freed (PostFilter)."""
        nodes = [n for name in self._around.fleet.names if (n := self._around.fleet.node(name)) is not None]
        for claim in self._claims(needs):
            allocation, others = allocation_of(claim), names.reserved_for(claim)
            if allocation is None or any(r.get("uid") != pod["metadata"]["uid"] for r in others):
                continue
            if failure(claim) is not None or any(_elsewhere(allocation, node) for node in nodes):
                await self._writer.free(claim)
                return

    def helps(self, needs: Needs, resource: Resource, old: Object | None, new: Object | None) -> bool:
        if resource is not CLAIMS:
            return new is not None
        if old is not None and allocation_of(old) is not None and (new is None or allocation_of(new) is None):
            return True
        meta = (new or old or {})["metadata"]
        if new is None or meta.get("namespace") != needs.namespace:
            return False
        if all(entry.claim != meta["name"] for entry in needs.devices):
            return False
        return old is None or old.get("status") != new.get("status")


def _open(claims: Sequence[Object]) -> list[Object]:
    """Those without devices, each once."""
    return list({c["metadata"]["uid"]: c for c in claims if allocation_of(c) is None}.values())


def _elsewhere(allocation: dict[str, Any] | None, node: Object) -> bool:
    selector = (allocation or {}).get("nodeSelector")
    return selector is not None and not any(term_matches(t, node) for t in selector.get("nodeSelectorTerms") or ())


def _path(claim: Object) -> str:
    return f"{claim['metadata']['namespace']}/{claim['metadata']['name']}"

"""The seam for what a pod needs besides amounts and company: volumes, devices.

A plug-in has a say in each step of a decision, as upstream's scheduler plug-ins have:

1. :meth:`Plugin.objection` (PreFilter): no node will do at present;
2. :meth:`Plugin.refusals` (Filter): these nodes will not do;
3. :meth:`Plugin.reserve` (Reserve): a node is chosen; from now on nobody else may get what this pod gets there;
4. :meth:`Plugin.prepare` (PreBind): what has to be written before the pod is bound; asked again until all is in place;
5. :meth:`Plugin.bound` or :meth:`Plugin.unreserve`: how it ended.

Steps 1 to 3 are synchronous and must neither wait nor write. Pods that no plug-in :meth:`Plugin.concerns` pay nothing.
One object serves one logical cluster; it is made with the cluster's first pod and dropped after its last, so that all
it knows must be readable from the API anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.objects import Object
from glebe.kube.resources import Resource
from glebe.workloads.binder.needs import Needs

if TYPE_CHECKING:
    from glebe.workloads.binder.fleet import Fleet

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Refusal:
    """``rows`` are refused by ``plugin``; where ``curable``, fewer pods there might help."""

    rows: Bools
    reason: str
    plugin: str
    curable: Bools | bool = True


class CannotPrepare(Exception):
    """What was reserved cannot be had after all: the pod is tried anew. The text is for the event."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a plug-in may use, all of one logical cluster.

    ``find(resource, "name" or "namespace/name")`` and ``every(resource)`` read the caches of :attr:`Plugin.watches`
    (and of pods and nodes); ``client`` writes there. ``fleet`` knows nodes by row and who is on them.
    """

    cluster: str
    client: Client
    env: Env
    fleet: Fleet
    find: Callable[[Resource, str], Object | None]
    every: Callable[[Resource], list[Object]]


class Plugin(Protocol):
    """See the module's text. ``name`` is upstream's name of the plug-in; ``watches``: of what the binder is to keep
    caches, over all clusters."""

    name: str
    watches: ClassVar[tuple[Resource, ...]]

    def __init__(self, around: Surroundings) -> None: ...

    def concerns(self, needs: Needs) -> bool:
        """Whether a pod with ``needs`` has anything to do with this plug-in. Cheap."""

    def objection(self, needs: Needs) -> str | None:
        """Why no node will do at present; the words are the pod's whole reason."""

    def refusals(self, needs: Needs, among: Bools) -> Iterator[list[Refusal]]:
        """What is refused, one list per filter, in order. Only rows in ``among`` (by ``fleet.names``) matter."""

    def reserve(self, uid: str, needs: Needs, node: str) -> str | None:
        """The pod shall go to ``node``: keep for it what it needs there. A text: it is not to be had."""

    def unreserve(self, uid: str) -> None:
        """It does not go there, or is gone. Also called for pods for which nothing was reserved."""

    async def prepare(self, pod: Object, node: str) -> bool:
        """Write what has to be there before the binding; whether all is. Asked again after each change of what the
        plug-in watches, and each second. Must bear repetition.

        :raises CannotPrepare: give it up.
        :raises ApiError, ConnectionLost: ask again.
        """

    def bound(self, uid: str) -> None:
        """The pod is bound."""

    def helps(self, needs: Needs, resource: Resource, old: Object | None, new: Object | None) -> bool:
        """Whether this change of something watched may let a pod fit that this plug-in refused."""

    def score(self, needs: Needs, left: Bools) -> npt.NDArray[np.float64] | None:
        """How well the rows of ``left`` do, weighted, 100 being a lot; ``None``: no opinion (Score)."""

    def gated(self, needs: Needs) -> bool:
        """Whether it is too early for a first attempt (PreEnqueue); the pod is not told anything."""

    def changed(self, resource: Resource, old: Object | None, new: Object | None) -> None:
        """Something that is watched changed; told before anybody is asked about it."""

    def unhelped(self, objected: bool) -> str:
        """What upstream's plug-in adds to the pod's reason when its PostFilter could not help.

        :param objected: no node was looked at.
        """

    async def rejected(self, pod: Object, needs: Needs) -> None:
        """The pod fits nowhere (PostFilter): what can be undone that keeps it from fitting?

        :raises ApiError, ConnectionLost: another time.
        """


class Quiet:
    """A base for plug-ins that need not be asked everything."""

    def unhelped(self, objected: bool) -> str:
        return ""

    def score(self, needs: Needs, left: Bools) -> npt.NDArray[np.float64] | None:
        return None

    def gated(self, needs: Needs) -> bool:
        return False

    def changed(self, resource: Resource, old: Object | None, new: Object | None) -> None:
        pass

    async def rejected(self, pod: Object, needs: Needs) -> None:
        pass

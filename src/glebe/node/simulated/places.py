"""Which logical clusters there are, for nodes that are to be in some or all of them.

The register of logical clusters cannot be watched. It is read again and again, at once when an object of a cluster
that was unknown is seen, and the less often the longer it is. Nobody who needs the root cluster alone pays for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

import orjson

from glebe.kube.client import Client
from glebe.kube.errors import ApiError
from glebe.kube.objects import EVERY, is_deleting
from glebe.kube.transport import ConnectionLost
from glebe.node.spec import ROOT

log = logging.getLogger("glebe.node")

_PERIOD = 2.0  # seconds between two looks
_EACH = 0.003  # and more for each cluster
_SOON = 0.1  # after a hint


class Places:
    """Follows the logical clusters among ``wanted`` (:data:`EVERY` for all), the root cluster excepted.

    :param came: called with the name of a cluster that is there, ``went`` when it is there no more.
    """

    def __init__(
        self, client: Client, wanted: Collection[str], came: Callable[[str], None], went: Callable[[str], None]
    ) -> None:
        self._client = client.for_cluster("")
        self._all = EVERY in wanted
        self._wanted = frozenset(wanted) - {EVERY, ROOT}
        self._came = came
        self._went = went
        self._known: dict[str, str] = {}  # name -> uid
        self._hint = asyncio.Event()
        self._complaint = ""

    @property
    def needed(self) -> bool:
        return self._all or bool(self._wanted)

    def hint(self, cluster: str) -> None:
        """Something lives in this cluster."""
        if cluster not in self._known and cluster != ROOT and (self._all or cluster in self._wanted):
            self._hint.set()

    async def run(self) -> None:
        """Look until cancelled; returns at once when there is nothing to look for."""
        while self.needed:
            try:
                await self._look()
                self._complaint = ""
            except (ApiError, ConnectionLost) as error:
                if str(error) != self._complaint:
                    self._complaint = str(error)
                    log.warning("cannot read which logical clusters there are: %s; will try again", error)
            try:
                async with asyncio.timeout(_PERIOD + _EACH * len(self._known)):
                    await self._hint.wait()
                    await asyncio.sleep(_SOON)
            except TimeoutError:
                pass
            self._hint.clear()

    async def _look(self) -> None:
        answer = await self._client.raw("GET", "/clusters")
        there = {
            item["metadata"]["name"]: item["metadata"]["uid"]
            for item in orjson.loads(answer.body).get("items") or ()
            if not is_deleting(item)
        }
        for name in [name for name, uid in self._known.items() if there.get(name) != uid]:
            del self._known[name]
            self._went(name)
        for name, uid in there.items():
            if name != ROOT and name not in self._known and (self._all or name in self._wanted):
                self._known[name] = uid
                self._came(name)

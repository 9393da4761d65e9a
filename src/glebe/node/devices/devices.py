"""Who has which GPUs of this machine: given when a pod starts, written down before they are used, never given twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from glebe.kube.objects import Object
from glebe.kube.pods import has_ended, requests_of
from glebe.node.contracts import AdmissionError
from glebe.node.devices.grants import Grant, share
from glebe.node.spec import GPU_RESOURCE

PATIENCE = 10.0
"""Seconds for which a pod waits for devices of a pod that is just ending."""
_LOOK = 0.1


class Devices:
    """The devices of one node.

    :param over: whether the containers of the pod with this uid have all ended; what such a pod has is free.
    """

    def __init__(self, count: int, over: Callable[[str], bool] = lambda _: False) -> None:
        self._pools: dict[str, tuple[str, ...]] = {GPU_RESOURCE: tuple(map(str, range(count)))}
        self._grants: dict[str, Grant] = {}
        self._over = over

    async def allocate(self, pod: Object) -> Grant:
        """Devices for the pod; the same again for a pod that has some.

        :raises AdmissionError: there are not enough, and nobody is about to leave.
        """
        uid = str(pod["metadata"]["uid"])
        if uid in self._grants:
            return self._grants[uid]
        if has_ended(pod):
            return Grant()
        waited = 0.0
        while True:
            try:
                grant = self._give(pod)
            except AdmissionError:
                if waited >= PATIENCE:
                    raise
                await asyncio.sleep(_LOOK)
                waited += _LOOK
                self._collect()
                continue
            self._grants[uid] = grant
            return grant

    def _give(self, pod: Object) -> Grant:
        spec = pod["spec"]
        taken = self._taken()
        resources: dict[str, tuple[str, ...]] = {}
        containers: dict[str, tuple[str, ...]] = {}
        for resource, pool in self._pools.items():
            wanted = requests_of(spec, resource).get(resource, 0)
            if not wanted:
                continue
            free = [i for i in pool if i not in taken]
            if len(free) < wanted:
                raise AdmissionError(
                    "UnexpectedAdmissionError",
                    f"Allocate failed due to requested number of devices unavailable for {resource}. "
                    f"Requested: {wanted}, Available: {len(free)}, which is unexpected",
                )
            resources[resource] = tuple(free[:wanted])
            _join(containers, share(spec, resource, resources[resource]))
        return Grant(resources, containers)

    def _taken(self) -> set[str]:
        return {i for grant in self._grants.values() for i in grant.ids}

    def _collect(self) -> None:
        for uid in [uid for uid in self._grants if self._over(uid)]:
            self._grants.pop(uid, None)

    def restore(self, uid: str, record: Any) -> Grant:
        """What an earlier process wrote down for the pod (:attr:`Grant.record`)."""
        grant = self._grants[uid] = Grant.of_record(record)
        return grant

    async def release(self, uid: str) -> None:
        """The pod needs nothing any more."""
        self._grants.pop(uid, None)


def _join(into: dict[str, tuple[str, ...]], more: Mapping[str, tuple[str, ...]]) -> None:
    for name, ids in more.items():
        into[name] = (*into.get(name, ()), *ids)

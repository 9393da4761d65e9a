"""Keeps a node's ResourceSlices, the DeviceClasses for them and its labels as they should be."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from glebe.kube.client import Client
from glebe.kube.errors import ApiError, is_already_exists, is_conflict, is_not_found
from glebe.kube.objects import Object, labels_of
from glebe.kube.resources import NODES
from glebe.kube.transport import ConnectionLost
from glebe.node.devices.slices import DEVICE_CLASSES, DRIVER, SLICES, classes, slices

log = logging.getLogger("glebe.node")
_RETRY = 5.0
_LOOK_EVERY = 60.0
"""Seconds after which the API is looked at though nothing has changed here: somebody may have removed something."""
_OURS = tuple(f"nvidia.com/{what}" for what in ("gpu.", "cuda.", "mig", "mps."))


class Publisher:
    """The pool of one node. ``want`` says what it should hold; ``run`` makes it so until cancelled."""

    def __init__(self, client: Client, node: str) -> None:
        self._client = client
        self._node = node
        self._wanted: list[Mapping[str, Any]] | None = None
        self._labels: Mapping[str, str] = {}
        self._news = asyncio.Event()
        self._told = False

    def want(self, devices: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> None:
        """These devices and labels, from now on."""
        if self._wanted is None or list(devices) != self._wanted or labels != self._labels:
            self._wanted, self._labels = list(devices), labels
            self._news.set()

    async def run(self) -> None:
        """Publish whenever it has changed; what fails is tried again."""
        complaint = ""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY if self._wanted else None):
                    await self._news.wait()
            self._news.clear()
            try:
                await self.publish()
                complaint = ""
            except (ApiError, ConnectionLost) as error:
                if str(error) != complaint:
                    complaint = str(error)
                    log.warning("cannot publish the GPUs of node %s: %s; will try again", self._node, error)
                self._news.set()
                await asyncio.sleep(_RETRY)

    async def publish(self) -> None:
        """Make the API say what is wanted now."""
        wanted = self._wanted or []
        if wanted:
            await self._classes()
        node = await self._client.get(NODES, self._node)
        await self._label(node)
        there = {s["metadata"]["name"]: s for s in await self._mine()}
        newest = max((int(s["spec"]["pool"]["generation"]) for s in there.values()), default=0)
        if _same(there, made := slices(self._node, node["metadata"]["uid"], wanted, max(newest, 1))):
            return
        made = slices(self._node, node["metadata"]["uid"], wanted, newest + 1)
        for each in made:
            await self._put(each, there.pop(each["metadata"]["name"], None))
        for old in there.values():
            try:
                await self._client.delete(SLICES, old["metadata"]["name"], uid=old["metadata"]["uid"])
            except ApiError as error:
                if not is_not_found(error) and not is_conflict(error):
                    raise

    async def _label(self, node: Object) -> None:
        """Labels of GPUs that were there earlier go."""
        have = labels_of(node)
        stale = {key: None for key in have if key.startswith(_OURS) and key not in self._labels}
        new = {key: value for key, value in self._labels.items() if have.get(key) != value}
        if stale or new:
            await self._client.patch(NODES, self._node, {"metadata": {"labels": {**new, **stale}}})

    async def _mine(self) -> list[Object]:
        chosen = f"spec.nodeName={self._node},spec.driver={DRIVER}"
        return list((await self._client.list(SLICES, field_selector=chosen)).items)

    async def _put(self, wanted: Object, old: Object | None) -> None:
        if old is None:
            await self._client.create(SLICES, wanted)
            return
        meta = {"resourceVersion": old["metadata"]["resourceVersion"], "uid": old["metadata"]["uid"]}
        await self._client.update(SLICES, {**wanted, "metadata": {**wanted["metadata"], **meta}})

    async def _classes(self) -> None:
        for each in classes():
            try:
                await self._client.create(DEVICE_CLASSES, each)
            except ApiError as error:
                if error.code == 403:  # an agent without that right; somebody else has to make them
                    if not self._told:
                        log.warning("DeviceClasses for the GPUs of node %s cannot be made: %s", self._node, error)
                    self._told = True
                    return
                if not is_already_exists(error):  # whoever changed one may have it so
                    raise


def _same(there: Mapping[str, Object], wanted: Sequence[Object]) -> bool:
    if len(there) != len(wanted):
        return False
    return all(_contains(there.get(each["metadata"]["name"], {}).get("spec"), each["spec"]) for each in wanted)


def _contains(have: Any, want: Any) -> bool:
    """Whether ``have`` is ``want``, apart from what the server adds (``timeAdded`` of taints)."""
    if isinstance(want, dict):
        return isinstance(have, dict) and all(_contains(have.get(key), value) for key, value in want.items())
    if isinstance(want, (list, tuple)):
        return (
            isinstance(have, (list, tuple))
            and len(have) == len(want)
            and all(_contains(h, w) for h, w in zip(have, want, strict=True))
        )
    return bool(have == want)

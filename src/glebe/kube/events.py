"""Events: what a component wants people to read in ``kubectl describe``.

Repetitions of one event are counted on one object (core/v1 ``Event`` with ``count``), so that a loop cannot fill the
store. Recording never raises and never holds anything up for long.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object, cluster_of
from glebe.kube.resources import EVENTS
from glebe.kube.transport import ConnectionLost

log = logging.getLogger("glebe.kube.events")

NORMAL: Final = "Normal"
WARNING: Final = "Warning"

_MAX_REMEMBERED = 4096
_MAX_MESSAGE = 1024  # bytes; upstream's limit
_TIMEOUT = 10.0  # seconds
_BURST = 25  # distinct new events about one object ...
_REFILL = 300.0  # ... and one more each so many seconds: upstream's spam filter


@dataclass(slots=True)
class _Seen:
    name: str
    count: int


@dataclass(slots=True)
class _Budget:
    tokens: float
    at: float


class EventRecorder:
    """Records events of one component, each in the cluster of the object that it is about.

    :param component: who says it, e.g. ``glebe-queueing``; ``host``: on which node, for agents of one.
    """

    def __init__(self, client: Client, env: Env, component: str, host: str = "") -> None:
        self._client = client
        self._env = env
        self._component = component
        self._source = {"component": component, **({"host": host} if host else {})}
        self._seen: OrderedDict[tuple[str, ...], _Seen] = OrderedDict()
        self._budgets: OrderedDict[str, _Budget] = OrderedDict()
        self.dropped = 0

    async def event(self, obj: Object, type: str, reason: str, message: str, field: str = "") -> None:
        """Say something about ``obj``. ``type`` is ``Normal`` or ``Warning``; ``reason`` one CamelCase word; ``field``
        the path of the part that it is about, e.g. ``spec.containers{name}``.

        Events about cluster-scoped objects go to namespace ``default``. Failures are logged; excess is dropped.
        """
        meta = obj["metadata"]
        text = message.encode()[:_MAX_MESSAGE].decode("utf-8", "ignore")
        namespace = meta.get("namespace") or "default"
        key = (cluster_of(obj), obj["kind"], namespace, meta["name"], meta.get("uid", ""), type, reason, text, field)
        client = self._client.at(key[0])
        try:
            async with asyncio.timeout(_TIMEOUT):
                if not await self._count_on(client, key, namespace):
                    await self._create(client, key, namespace, obj, type, reason, text, field)
        except (ApiError, ConnectionLost, TimeoutError) as error:
            self.dropped += 1
            log.debug("event %s about %s/%s was not recorded: %s", reason, namespace, meta["name"], error)
        except Exception:
            self.dropped += 1
            log.exception("event %s about %s/%s was not recorded", reason, namespace, meta["name"])

    async def _count_on(self, client: Client, key: tuple[str, ...], namespace: str) -> bool:
        """Count a repetition on the event there is; False when there is none (any more)."""
        seen = self._seen.get(key)
        if seen is None:
            return False
        self._seen.move_to_end(key)
        seen.count += 1
        patch = {"count": seen.count, "lastTimestamp": format_time(self._env.clock.now())}
        try:
            await client.patch(EVENTS, seen.name, patch, namespace)
        except ApiError as error:
            if error.code != 404:
                raise
            del self._seen[key]
            return False
        return True

    async def _create(
        self,
        client: Client,
        key: tuple[str, ...],
        namespace: str,
        obj: Object,
        type: str,
        reason: str,
        message: str,
        field: str,
    ) -> None:
        meta = obj["metadata"]
        if not self._afford(meta.get("uid") or f"{obj['kind']}/{namespace}/{meta['name']}"):
            self.dropped += 1
            return
        now = format_time(self._env.clock.now())
        name = f"{meta['name'][:200].rstrip('-.')}.{self._env.new_uid().replace('-', '')[:16]}"
        reference = {
            "apiVersion": obj["apiVersion"],
            "kind": obj["kind"],
            "name": meta["name"],
            "namespace": meta.get("namespace"),
            "uid": meta.get("uid"),
            "resourceVersion": meta.get("resourceVersion"),
            "fieldPath": field,
        }
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {field: value for field, value in reference.items() if value},
            "type": type,
            "reason": reason,
            "message": message,
            "source": self._source,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "reportingComponent": self._component,
            "reportingInstance": self._source.get("host", self._component),
        }
        await client.create(EVENTS, event)
        self._seen[key] = _Seen(name, 1)
        if len(self._seen) > _MAX_REMEMBERED:
            self._seen.popitem(last=False)

    def _afford(self, subject: str) -> bool:
        now = self._env.clock.now()
        budget = self._budgets.get(subject)
        if budget is None:
            budget = self._budgets[subject] = _Budget(float(_BURST), now)
            if len(self._budgets) > _MAX_REMEMBERED:
                self._budgets.popitem(last=False)
        budget.tokens = min(float(_BURST), budget.tokens + (now - budget.at) / _REFILL)
        budget.at = now
        if budget.tokens < 1.0:
            return False
        budget.tokens -= 1.0
        return True

"""Pods leave devices that got a taint with effect NoExecute (KEP-5055, upstream's device-taint-eviction controller).

Taints come from the drivers, in ResourceSlices. DeviceTaintRules are not read: their API is off by default.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time, parse_time
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_conflict, is_not_found
from glebe.kube.events import NORMAL, EventRecorder
from glebe.kube.informer import Informers
from glebe.kube.nodes import tolerates
from glebe.kube.objects import Object, ObjectKey, cluster_of, is_deleting, key_of, set_condition
from glebe.kube.pods import has_ended
from glebe.kube.resources import PODS
from glebe.workloads.claims.names import CLAIMS, SLICES, allocation_of, reserved_for
from glebe.workloads.claims.taken import results_of

_BY_POOL: Final = "pool"
_EVICTS: Final = "NoExecute"
_REASON: Final = "DeletionByDeviceTaintManager"
_MESSAGE: Final = "Device Taint manager: deleting due to NoExecute taint"


def _pools_of(claim: Object) -> list[str]:
    """Indexer: the pools that a claim has devices of."""
    place = cluster_of(claim)
    return list(dict.fromkeys(f"{place}/{r['driver']}/{r['pool']}" for r in results_of(allocation_of(claim))))


def _pool_of(slice_: Object) -> list[str]:
    spec = slice_["spec"]
    return [f"{cluster_of(slice_)}/{spec['driver']}/{spec['pool']['name']}"]


def tainted(slice_: Object | None) -> list[tuple[str, str, str, str]]:
    """The taints of a slice that make pods leave: device, key, value, since when."""
    return [
        (device["name"], taint["key"], taint.get("value") or "", taint.get("timeAdded") or "")
        for device in ((slice_ or {}).get("spec") or {}).get("devices") or ()
        for taint in device.get("taints") or ()
        if taint.get("effect") == _EVICTS
    ]


class TaintEviction:
    """One key per claim that is allocated."""

    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        self._client = client
        self._env = env
        self._events = EventRecorder(client, env, "device-taint-eviction")
        self._claims = informers.get(CLAIMS, indexers={_BY_POOL: _pools_of})
        self._slices = informers.get(SLICES, indexers={_BY_POOL: _pool_of})
        self._pods = informers.get(PODS)
        self._seen: dict[tuple[ObjectKey, str, str, str], float] = {}  # taints that do not say since when

    def controller(self) -> Controller:
        made = Controller("device-taint-eviction", self.reconcile, self._env)
        made.watch(self._claims, when=lambda _, new: new is not None and allocation_of(new) is not None)
        made.watch(self._slices, self._claims_of, when=lambda old, new: tainted(old) != tainted(new))
        return made

    def _claims_of(self, slice_: Object) -> Iterable[ObjectKey]:
        (pool,) = _pool_of(slice_)
        return [key_of(claim, self._claims.cluster) for claim in self._claims.store.by_index(_BY_POOL, pool)]

    async def reconcile(self, key: ObjectKey) -> Result | None:
        """Delete the claim's pods when it is time."""
        claim = self._claims.store.get(key)
        when = None if claim is None else self._when(key, claim)
        if claim is None or when is None:
            for known in [k for k in self._seen if k[0] == key]:
                del self._seen[known]
            return None
        now = self._env.clock.now()
        if when > now:
            return Result(requeue_after=when - now)
        for reference in reserved_for(claim):
            pod = self._pods.store.get(key._replace(name=str(reference.get("name"))))
            if pod is None or pod["metadata"]["uid"] != reference.get("uid") or is_deleting(pod) or has_ended(pod):
                continue
            if (pod.get("spec") or {}).get("nodeName"):
                await self._evict(key, pod)
        return None

    def _when(self, key: ObjectKey, claim: Object) -> float | None:
        """From when on the claim's pods have to leave; ``None``: they may stay."""
        times: list[float] = []
        for result in results_of(allocation_of(claim)):
            for taint in self._taints(key, result):
                since = self._since(key, result, taint)
                patience = _patience(result.get("tolerations") or (), taint)
                if patience is not None:
                    times.append(since + patience)
        return min(times, default=None)

    def _taints(self, key: ObjectKey, result: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        place = f"{key.cluster if self._claims.cluster != key.cluster else ''}/{result['driver']}/{result['pool']}"
        slices = self._slices.store.by_index(_BY_POOL, place)
        newest = max((int(s["spec"]["pool"].get("generation") or 0) for s in slices), default=0)
        for each in slices:
            if int(each["spec"]["pool"].get("generation") or 0) != newest:
                continue
            for device in each["spec"].get("devices") or ():
                if device["name"] == result["device"]:
                    yield from (t for t in device.get("taints") or () if t.get("effect") == _EVICTS)

    def _since(self, key: ObjectKey, result: Mapping[str, Any], taint: Mapping[str, Any]) -> float:
        if taint.get("timeAdded"):
            return parse_time(str(taint["timeAdded"]))
        name = (key, f"{result['pool']}/{result['device']}", str(taint["key"]), str(taint.get("value") or ""))
        return self._seen.setdefault(name, self._env.clock.now())

    async def _evict(self, key: ObjectKey, pod: Object) -> None:
        client, meta = self._client.at(key.cluster), pod["metadata"]
        name, space = meta["name"], meta["namespace"]
        await self._events.event(pod, NORMAL, "DeviceTaintManagerEviction", "Marking for deletion")
        old = (pod.get("status") or {}).get("conditions") or []
        now, generation = format_time(self._env.clock.now()), meta.get("generation")
        conditions = set_condition(old, "DisruptionTarget", "True", _REASON, _MESSAGE, now, generation)
        mine = [c for c in conditions if c["type"] == "DisruptionTarget"]
        body = {"metadata": {"uid": meta["uid"]}, "status": {"conditions": mine}}
        try:
            await client.patch(PODS, name, body, space, kind="strategic", subresource="status")
            await client.delete(PODS, name, space, uid=meta["uid"])
        except ApiError as error:
            if not is_not_found(error) and not is_conflict(error):
                raise


def _patience(tolerations: Iterable[Mapping[str, Any]], taint: Mapping[str, Any]) -> float | None:
    """Seconds for which the taint is tolerated; ``None``: for ever."""
    least: float | None = None
    for toleration in tolerations:
        if toleration.get("effect") != _EVICTS or not tolerates(toleration, taint):
            continue
        seconds = toleration.get("tolerationSeconds")
        if seconds is None:
            return None
        least = max(0.0, float(seconds)) if least is None else min(least, max(0.0, float(seconds)))
    return 0.0 if least is None else least


def build(client: Client, informers: Informers, env: Env) -> Controller:
    """The controller, for one cluster or (with a client over all) for all."""
    return TaintEviction(client, informers, env).controller()

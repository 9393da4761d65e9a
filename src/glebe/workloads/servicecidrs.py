"""Further ranges of Service addresses: ready once they are seen, kept while addresses need them.

After ``pkg/controller/servicecidrs``. The default range of a cluster, ``kubernetes``, is ready from its creation on.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import Any, Final

from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time, parse_time
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, cluster_of, is_deleting, key_of, labels_of, set_condition
from glebe.kube.resources import Resource

RANGES: Final = Resource("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", namespaced=False)
ADDRESSES: Final = Resource("networking.k8s.io", "v1", "ipaddresses", "IPAddress", namespaced=False)
FINALIZER: Final = "networking.k8s.io/service-cidr-finalizer"
DEFAULT: Final = "kubernetes"
MANAGED: Final = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io")
GRACE = 10.0
"""Seconds after its deletion for which a range stays: an address may just be being given out."""
BY_CLUSTER: Final = "service-ranges-by-cluster"
_READY = ("True", "", "Kubernetes Service CIDR is ready")
_BLOCKED = (
    "False",
    "Terminating",
    "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR",
)


def _cluster(obj: Object) -> list[str]:
    return [cluster_of(obj)]


class ServiceRanges:
    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        self._client = client
        self._env = env
        self._ranges = informers.get(RANGES, indexers={BY_CLUSTER: _cluster})
        self._addresses = informers.get(ADDRESSES, indexers={BY_CLUSTER: _cluster})

    def controller(self) -> Controller:
        controller = Controller("service-cidrs", self.reconcile, self._env)
        controller.watch(self._ranges, self._touched, when=lambda old, new: not _is_default(new or old or {}))
        controller.watch(self._addresses, self._ending, when=lambda old, new: new is None)
        return controller

    def _touched(self, obj: Object) -> Iterable[ObjectKey]:
        """The range itself, and those that end: another one may hold their addresses now."""
        yield key_of(obj, self._ranges.cluster)
        yield from self._ending(obj)

    def _ending(self, obj: Object) -> Iterable[ObjectKey]:
        for each in self._ranges.store.by_index(BY_CLUSTER, cluster_of(obj)):
            if is_deleting(each):
                yield key_of(each, self._ranges.cluster)

    async def reconcile(self, key: ObjectKey) -> Result | None:
        obj = self._ranges.store.get(key)
        if obj is None:
            return None
        try:
            if is_deleting(obj):
                return await self._end(key, obj)
            if FINALIZER not in (obj["metadata"].get("finalizers") or ()):
                await self._finalizers(key, obj, [*(obj["metadata"].get("finalizers") or ()), FINALIZER])
                return None  # its event brings us back
            await self._say(key, obj, _READY)
        except ApiError as error:
            if not is_not_found(error):
                raise
        return None

    async def _end(self, key: ObjectKey, obj: Object) -> Result | None:
        if self._is_needed(obj):
            await self._say(key, obj, _BLOCKED)
            return None
        left = parse_time(obj["metadata"]["deletionTimestamp"]) + GRACE - self._env.clock.now()
        if left > 0:
            return Result(requeue_after=left)
        finalizers = obj["metadata"].get("finalizers") or ()
        if FINALIZER in finalizers:
            await self._finalizers(key, obj, [f for f in finalizers if f != FINALIZER])
        return None

    def _is_needed(self, obj: Object) -> bool:
        """Whether an address that was given out is in no other range."""
        mine = _networks(obj)
        others = [
            network
            for each in self._ranges.store.by_index(BY_CLUSTER, cluster_of(obj))
            if each["metadata"]["name"] != obj["metadata"]["name"]
            for network in _networks(each)
        ]
        for item in self._addresses.store.by_index(BY_CLUSTER, cluster_of(obj)):
            if labels_of(item).get(MANAGED[0]) != MANAGED[1]:
                continue
            address = ip_address(item["metadata"]["name"])
            if any(address in network for network in mine) and not any(address in network for network in others):
                return True
        return False

    async def _finalizers(self, key: ObjectKey, obj: Object, finalizers: list[str]) -> None:
        meta = obj["metadata"]
        body = {"metadata": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"], "finalizers": finalizers}}
        await self._client.at(key.cluster).patch(RANGES, key.name, body)

    async def _say(self, key: ObjectKey, obj: Object, words: tuple[str, str, str]) -> None:
        status = obj.get("status") or {}
        now = format_time(self._env.clock.now())
        conditions = set_condition(status.get("conditions") or [], "Ready", *words, now)
        if conditions != status.get("conditions"):
            body = {**obj, "status": {**status, "conditions": conditions}}
            await self._client.at(key.cluster).update_status(RANGES, body)


def _is_default(obj: Object) -> bool:
    """Every cluster has one, and one write for each would be too many."""
    return bool(obj["metadata"]["name"] == DEFAULT) and not is_deleting(obj)


def _networks(obj: Object) -> list[Any]:
    out = []
    for text in (obj.get("spec") or {}).get("cidrs") or ():
        try:
            out.append(ip_network(text))
        except ValueError:
            continue
    return out


def build(client: Client, informers: Informers, env: Env) -> Controller:
    """The controller, of what ``client`` reads: one cluster, or all."""
    return ServiceRanges(client, informers, env).controller()

"""Keeps the graph up to date from informers on everything, and carries verdicts out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.informer import Informer, Informers
from glebe.kube.objects import EVERY, Object, ObjectKey, key_of
from glebe.kube.resources import CUSTOM_RESOURCE_DEFINITIONS, Resource
from glebe.workloads.discovery import deletable_resources, served_kinds
from glebe.workloads.garbage.graph import Graph, Item, Owner, item_of
from glebe.workloads.garbage.judge import OwnerState, Verdict, judge

DISCOVER = "discover"  # the key that stands for "look what kinds there are"; no uid reads so
SETTLE = 0.2
"""Seconds for which changes of custom kinds are gathered before discovery is asked once for all of them."""
REDISCOVER = 300.0
RETRY = 1.0
_DISCOVERY = ObjectKey("", "", DISCOVER)
_ABSENT_REMEMBERED = 10_000


class GarbageCollector:
    """The collector of what ``client`` reads: one cluster, or all of them (each for itself).

    An object is deleted only after the API itself said of each owner that it is gone (a uid never comes back), and
    only in the version in which its owners were read.
    """

    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        self._client = client
        self._informers = informers
        self._env = env
        self.graph = Graph()
        self._monitors: dict[str, Informer] = {}
        self._served: frozenset[str] = frozenset()
        self._kinds: dict[tuple[str, str], Resource] = {}  # (group, kind)
        self._absent: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._controller = Controller("garbage", self.reconcile, env, workers=4)

    def controller(self) -> Controller:
        crds = self._informers.get(CUSTOM_RESOURCE_DEFINITIONS)
        crds.add_handler(self._kinds_changed)
        self._controller.watch(crds, lambda _: ())
        self._controller.queue.add(_DISCOVERY)
        return self._controller

    def _kinds_changed(self, old: Object | None, new: Object | None) -> None:
        self._controller.queue.add_after(_DISCOVERY, SETTLE)

    def _look_at(self, uid: str, cluster: str) -> None:
        self._controller.queue.add(ObjectKey(cluster, "", uid))

    # --- the graph

    async def _discover(self) -> Result:
        served = await deletable_resources(self._client)
        self._served = frozenset(r.group_resource for r in served)
        for resource in served:
            self._kinds[resource.group, resource.kind] = resource
            if resource.group_resource not in self._monitors:
                informer = self._informers.get(resource)
                self._monitors[resource.group_resource] = informer
                informer.add_handler(self._handler(resource))
        return Result(requeue_after=REDISCOVER)

    def _handler(self, resource: Resource) -> Callable[[Object | None, Object | None], None]:
        cluster = self._client.cluster

        def handle(old: Object | None, new: Object | None) -> None:
            if new is not None:
                self._seen(item_of(resource, new, key_of(new, cluster).cluster))
            elif old is not None:
                self._gone(old["metadata"]["uid"], key_of(old, cluster).cluster)

        return handle

    def _seen(self, item: Item) -> None:
        old = self.graph.put(item)
        changed = old is None or (old.owners, old.deleting, old.finalizers) != (
            item.owners,
            item.deleting,
            item.finalizers,
        )
        if not changed:
            return
        if item.owners or item.in_foreground or item.orphaning:
            self._look_at(item.uid, item.cluster)
        self._wake_waiting_owners(item, old)

    def _gone(self, uid: str, cluster: str) -> None:
        self._remember_absent(uid, cluster)
        dependents = list(self.graph.dependents(uid, cluster))
        old = self.graph.drop(uid, cluster)
        for dependent in dependents:
            self._look_at(dependent.uid, cluster)
        self._wake_waiting_owners(None, old)

    def _wake_waiting_owners(self, *items: Item | None) -> None:
        for cluster, owner in [(item.cluster, o) for item in items if item for o in item.owners]:
            found = self.graph.get(owner.uid, cluster)
            if found is not None and (found.in_foreground or found.orphaning):
                self._look_at(owner.uid, cluster)

    # --- one object

    async def reconcile(self, key: ObjectKey) -> Result | None:
        if key == _DISCOVERY:
            return await self._discover()
        item = self.graph.get(key.name, key.cluster)
        if item is None:
            return None
        owners: dict[str, OwnerState] = {}
        if not item.deleting:
            owners = {owner.uid: await self._state(item, owner) for owner in item.owners}
        complete = self._is_complete()
        verdict = judge(self.graph, item, owners, complete=complete)
        await self._carry_out(item, verdict)
        waits = (item.in_foreground or item.orphaning) and not complete
        return Result(requeue_after=RETRY) if waits else None

    def _is_complete(self) -> bool:
        """Whether everything of every kind is in the graph. A kind that is no longer served need not have synced."""
        monitors = [m for name, m in self._monitors.items() if name in self._served]
        return bool(monitors) and all(m.has_synced for m in monitors)

    async def _state(self, item: Item, owner: Owner) -> OwnerState:
        found = self.graph.get(owner.uid, item.cluster)
        if found is not None:
            return OwnerState.WAITING if found.in_foreground else OwnerState.SOLID
        if (item.cluster, owner.uid) in self._absent:
            return OwnerState.ABSENT
        resource = await self._resource_of(item, owner)
        if resource is None or (resource.namespaced and not item.namespace):
            return OwnerState.SOLID  # a kind we do not know, or a reference that cannot be: never a reason to delete
        try:
            client = self._client.at(item.cluster)
            live = await client.get(resource, owner.name, item.namespace if resource.namespaced else None)
        except ApiError as error:
            if not is_not_found(error):
                raise
            return self._remember_absent(owner.uid, item.cluster)
        if live["metadata"]["uid"] != owner.uid:
            return self._remember_absent(owner.uid, item.cluster)
        return OwnerState.SOLID

    async def _resource_of(self, item: Item, owner: Owner) -> Resource | None:
        """The collection in which the owner would be; ``None`` for a kind that its cluster does not serve.

        Over all clusters that cluster itself is asked: in another one the kind may have another name or scope.
        """
        group, _, version = owner.api_version.rpartition("/")
        if self._client.cluster != EVERY:
            return self._kinds.get((group, owner.kind))
        for entry in await served_kinds(self._client.at(item.cluster), group, version):
            if entry["kind"] == owner.kind:
                return Resource(group, version, entry["name"], entry["kind"], bool(entry.get("namespaced")))
        return None

    def _remember_absent(self, uid: str, cluster: str) -> OwnerState:
        self._absent[cluster, uid] = None
        if len(self._absent) > _ABSENT_REMEMBERED:
            self._absent.popitem(last=False)
        return OwnerState.ABSENT

    # --- writes

    async def _carry_out(self, item: Item, verdict: Verdict) -> None:
        for uid in verdict.look_at:
            self._look_at(uid, item.cluster)
        for uid in verdict.release:
            dependent = self.graph.get(uid, item.cluster)
            if dependent is not None:
                await self._forget_owners(dependent, frozenset((item.uid,)))
        if verdict.drop_owners:
            await self._forget_owners(item, verdict.drop_owners)
        if verdict.unblock:
            await self._unblock(item)
        if verdict.drop_finalizer:
            rest = [f for f in item.finalizers if f != verdict.drop_finalizer]
            await self._patch(item, {"finalizers": rest})
        if verdict.delete:
            await self._delete(item, verdict.delete)

    async def _delete(self, item: Item, policy: str) -> None:
        """In this very version: a conflict (raised, so tried again) means that the cache will soon show more."""
        request = self._client.at(item.cluster).delete(
            item.resource,
            item.name,
            item.namespace or None,
            propagation=policy,
            uid=item.uid,
            resource_version=item.version or None,
        )
        await _gone_is_fine(request)

    async def _forget_owners(self, item: Item, uids: frozenset[str]) -> None:
        references = self._references(item)
        if references is not None:
            await self._patch(item, {"ownerReferences": [r for r in references if r["uid"] not in uids]})

    async def _unblock(self, item: Item) -> None:
        """The change is seen, and then the item is judged again."""
        references = self._references(item)
        if references is not None:
            await self._patch(item, {"ownerReferences": [{**r, "blockOwnerDeletion": False} for r in references]})

    def _references(self, item: Item) -> list[Object] | None:
        """The owner references as the cache has them; ``None`` when it has the item no more."""
        where = ObjectKey(item.cluster, item.namespace, item.name)
        live = self._monitors[item.resource.group_resource].store.get(where)
        if live is None or live["metadata"]["uid"] != item.uid:
            return None
        return list(live["metadata"].get("ownerReferences") or ())

    async def _patch(self, item: Item, metadata: Object) -> None:
        body = {"metadata": {"uid": item.uid, "resourceVersion": item.version, **metadata}}
        client = self._client.at(item.cluster)
        await _gone_is_fine(client.patch(item.resource, item.name, body, item.namespace or None))


async def _gone_is_fine(request: Awaitable[Object]) -> None:
    try:
        await request
    except ApiError as error:
        if not is_not_found(error):
            raise


def build(client: Client, informers: Informers, env: Env) -> Controller:
    """The garbage collector of what ``client`` reads: one cluster, or all."""
    return GarbageCollector(client, informers, env).controller()

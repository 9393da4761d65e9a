"""The end of a namespace: everything in it goes, then the namespace itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, cluster_of, is_deleting, set_condition
from glebe.kube.resources import NAMESPACES, PODS, Resource
from glebe.workloads.discovery import deletable_resources

FINALIZER = "kubernetes"
POLL = 1.0
"""Seconds between two looks at a namespace whose content takes its time (graceful pods, finalizers)."""


@dataclass(slots=True)
class Remains:
    """What is still in a namespace, and what went wrong on the way."""

    instances: Counter[str] = field(default_factory=Counter)  # by resource
    finalizers: Counter[str] = field(default_factory=Counter)
    undiscovered: str = ""
    failures: list[str] = field(default_factory=list)

    def add(self, resource: Resource, items: list[Object]) -> None:
        self.instances[f"{resource.plural}.{resource.group}"] += len(items)
        for item in items:
            self.finalizers.update(item["metadata"].get("finalizers") or ())


#: type -> (reason, message) while nothing is wrong, in upstream's words and order
_FINE = {
    "NamespaceDeletionDiscoveryFailure": ("ResourcesDiscovered", "All resources successfully discovered"),
    "NamespaceDeletionGroupVersionParsingFailure": ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
    "NamespaceDeletionContentFailure": (
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    "NamespaceContentRemaining": ("ContentRemoved", "All content successfully removed"),
    "NamespaceFinalizersRemaining": ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
}


def conditions_of(remains: Remains, old: list[Object], now: str) -> list[Object]:
    """The conditions that tell a user what an ending namespace waits for, in upstream's words."""
    wrong: dict[str, tuple[str, str]] = {}
    if remains.undiscovered:
        wrong["NamespaceDeletionDiscoveryFailure"] = ("DiscoveryFailed", remains.undiscovered)
    if remains.failures:
        text = f"Failed to delete all resource types, {len(remains.failures)} remaining: "
        wrong["NamespaceDeletionContentFailure"] = ("ContentDeletionFailed", text + ", ".join(sorted(remains.failures)))
    things = ", ".join(f"{r} has {n} resource instances" for r, n in sorted(remains.instances.items()) if n)
    if things:
        text = f"Some resources are remaining: {things}"
        wrong["NamespaceContentRemaining"] = ("SomeResourcesRemain", text)
    holders = ", ".join(f"{f} in {n} resource instances" for f, n in sorted(remains.finalizers.items()))
    if holders:
        text = f"Some content in the namespace has finalizers remaining: {holders}"
        wrong["NamespaceFinalizersRemaining"] = ("SomeFinalizersRemain", text)
    for kind, fine in _FINE.items():
        reason, message = wrong.get(kind, fine)
        old = set_condition(old, kind, "True" if kind in wrong else "False", reason, message, now)
    return old


class NamespaceController:
    """Acts on namespaces that are being deleted and still carry our finalizer."""

    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        self._client = client
        self._env = env
        self._namespaces = informers.get(NAMESPACES)

    def controller(self) -> Controller:
        controller = Controller("namespace", self.reconcile, self._env, workers=2)
        controller.watch(self._namespaces)
        return controller

    async def reconcile(self, key: ObjectKey) -> Result | None:
        namespace = self._namespaces.store.get(key)
        if namespace is None or not is_deleting(namespace):
            return None
        if FINALIZER not in ((namespace.get("spec") or {}).get("finalizers") or ()):
            return None
        remains = await self._empty(self._client.at(key.cluster), key.name)
        if remains.instances.total() or remains.undiscovered or remains.failures:
            await self._tell(namespace, remains)
            return Result(requeue_after=POLL)
        await self._finalize(namespace)
        return None

    async def _empty(self, client: Client, name: str) -> Remains:
        """Ask for the deletion of all content, and of nothing else while there are pods; what is left afterwards.

        Pods go first (KEP 5080): what they run under, such as network policies, must not be gone before them.
        """
        remains = Remains()
        try:
            resources = [r for r in await deletable_resources(client) if r.namespaced]
        except ApiError as error:
            remains.undiscovered = f"Discovery failed for some groups, 1 failing: {error.message}"
            resources = []
        await self._delete_all(client, PODS, name, remains)
        for resource in resources:
            if remains.instances["pods."]:
                break
            if resource.group_resource != PODS.group_resource:
                await self._delete_all(client, resource, name, remains)
        return remains

    async def _delete_all(self, client: Client, resource: Resource, name: str, remains: Remains) -> None:
        try:
            items = (await client.list_all(resource, name)).items
            if any(not is_deleting(item) for item in items):
                await client.delete_collection(resource, name, propagation="Background")
                items = (await client.list_all(resource, name)).items
        except ApiError as error:
            if error.code not in (404, 405):
                remains.failures.append(error.message)
            return
        remains.add(resource, items)

    async def _tell(self, namespace: Object, remains: Remains) -> None:
        status = namespace.get("status") or {}
        old = status.get("conditions") or []
        new = conditions_of(remains, old, format_time(self._env.clock.now()))
        if new == old:
            return
        patch = {"status": {"conditions": new}}
        try:
            client = self._client.at(cluster_of(namespace))
            await client.patch(NAMESPACES, namespace["metadata"]["name"], patch, subresource="status")
        except ApiError as error:
            if not is_not_found(error):
                raise

    async def _finalize(self, namespace: Object) -> None:
        rest = [f for f in namespace["spec"]["finalizers"] if f != FINALIZER]
        body = {**namespace, "spec": {**namespace["spec"], "finalizers": rest}}
        try:
            await self._client.update(NAMESPACES, body, subresource="finalize")
        except ApiError as error:
            if not is_not_found(error):
                raise


def build(client: Client, informers: Informers, env: Env) -> Controller:
    """The namespace controller of what ``client`` reads: one cluster, or all."""
    return NamespaceController(client, informers, env).controller()

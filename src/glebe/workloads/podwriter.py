"""Creates and deletes pods for an owner, so that what a lagging cache does not show yet is not done twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError, is_already_exists, is_not_found
from glebe.kube.events import NORMAL, WARNING, EventRecorder
from glebe.kube.informer import Informer
from glebe.kube.objects import Object, ObjectKey, controller_of
from glebe.kube.resources import PODS
from glebe.kube.transport import ConnectionLost
from glebe.workloads.expectations import Expectations
from glebe.workloads.owned import gone_is_fine

Tell = Callable[[str, str], str]


@dataclass(frozen=True, slots=True)
class Words:
    """Messages of events: of a pod's and its owner's name; the failures, of the error before these."""

    created: Tell = lambda pod, owner: f"Created pod: {pod}"
    deleted: Tell = lambda pod, owner: f"Deleted pod: {pod}"
    not_created: Callable[[str, str, str], str] = lambda error, pod, owner: f"Error creating: {error}"
    not_deleted: Callable[[str, str, str], str] = lambda error, pod, owner: f"Error deleting: {error}"


class PodWriter:
    """Pods of owners of one kind. Names are chosen by the caller: they make doubt resolvable."""

    def __init__(self, client: Client, pods: Informer, env: Env, recorder: EventRecorder, words: Words) -> None:
        self._client = client
        self._pods = pods
        self._recorder = recorder
        self._words = words
        self._expectations = Expectations(env.clock)

    def observed(self, owner: ObjectKey, old: Object | None, new: Object | None) -> None:
        """Tell every change of an owner's pods that the cache sees."""
        self._expectations.observed(owner, old, new)

    def forget(self, owner: ObjectKey) -> None:
        """The owner is gone."""
        self._expectations.forget(owner)

    def wait(self, owner: ObjectKey) -> float | None:
        """Seconds until something that was asked for becomes doubtful."""
        return self._expectations.wait(owner)

    async def settled(self, owner: ObjectKey) -> bool:
        """Whether the cache shows all that was asked for. Looks into the API for what is overdue."""
        for name in self._expectations.doubtful(owner):
            if owner._replace(name=name) in self._pods.store:
                self._expectations.created_not(owner, name)
                continue
            try:
                await self._client.at(owner.cluster).get(PODS, name, owner.namespace)
            except ApiError as error:
                if not is_not_found(error):
                    raise
                self._expectations.created_not(owner, name)
            else:
                self._expectations.creating(owner, name)  # it is there: wait for the cache
        return self._expectations.settled(owner)

    async def create(self, key: ObjectKey, owner: Object, pod: Object) -> None:
        """Create a pod; one of that name that exists already is looked at when the cache shows it."""
        name = str(pod["metadata"]["name"])
        self._expectations.creating(key, name)
        try:
            await self._client.at(key.cluster).create(PODS, pod)
        except ApiError as error:
            self._expectations.unsure(key, name)  # an error may come after the effect; the look-up is cheap
            if is_already_exists(error):
                if self._is_strange(key, name, owner):
                    self._expectations.created_not(key, name)
                    raise  # somebody else's pod has the name: look again, but ever more slowly
                return
            if 400 <= error.code < 500:
                self._expectations.created_not(key, name)  # refused for certain
            if _ends(error):
                return
            text = self._words.not_created(error.message, name, key.name)
            await self._recorder.event(owner, WARNING, "FailedCreate", text)
            raise
        except ConnectionLost:
            self._expectations.unsure(key, name)
            raise
        await self._recorder.event(owner, NORMAL, "SuccessfulCreate", self._words.created(name, key.name))

    def _is_strange(self, key: ObjectKey, name: str, owner: Object) -> bool:
        """Whether the cache shows a pod of that name that is not the owner's."""
        there = self._pods.store.get(key._replace(name=name))
        return there is not None and (controller_of(there) or {}).get("uid") != owner["metadata"].get("uid")

    async def delete(self, key: ObjectKey, owner: Object, pod: Object) -> None:
        """Delete this very pod."""
        name, uid = str(pod["metadata"]["name"]), str(pod["metadata"].get("uid", ""))
        self._expectations.deleting(key, uid)
        try:
            await gone_is_fine(self._client.at(key.cluster).delete(PODS, name, key.namespace, uid=uid))
        except BaseException as error:
            self._expectations.deleted_not(key, uid)
            if isinstance(error, ApiError):
                text = self._words.not_deleted(error.message, name, key.name)
                await self._recorder.event(owner, WARNING, "FailedDelete", text)
            raise
        await self._recorder.event(owner, NORMAL, "SuccessfulDelete", self._words.deleted(name, key.name))


def _ends(error: ApiError) -> bool:
    """Whether the namespace is on its way out: then every creation fails, and that is nobody's concern."""
    return any(c.get("reason") == "NamespaceTerminating" for c in error.details.get("causes") or ())

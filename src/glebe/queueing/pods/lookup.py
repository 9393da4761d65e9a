"""Finds the pods that stand in the queue together, and the keys of whom a change concerns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.informer import Informers
from glebe.kube.objects import EVERY, Object, ObjectKey, annotations_of, cluster_of, controller_of, key_of, labels_of
from glebe.queueing import labels
from glebe.queueing.jobkinds.model import JobKind
from glebe.queueing.jobkinds.paths import number, read
from glebe.queueing.jobs.construct import name_for, workload_name
from glebe.queueing.jobs.integrations import JobKinds, is_queued
from glebe.queueing.pods import gathering
from glebe.queueing.pods.gathering import Hold
from glebe.queueing.pods.holding import group_of, is_managed, parent_of, parent_word

GROUP_INDEX = "queueing/pod-group"
PARENT_INDEX = "queueing/pod-parent"


def group_index(pod: Object) -> Iterable[str]:
    name = group_of(pod) if is_managed(pod) and not parent_of(pod) else ""
    return (f"{cluster_of(pod)}/{pod['metadata']['namespace']}/{name}",) if name else ()


def parent_index(pod: Object) -> Iterable[str]:
    """Pods that a StatefulSet or a LeaderWorkerSet had queued: by the uid of the one, the name of the other."""
    parent = parent_of(pod)
    if not parent or parent == "deployment":
        return ()
    if name := labels_of(pod).get(gathering.LWS_NAME):
        return (f"{cluster_of(pod)}/{pod['metadata']['namespace']}/{name}",)
    owner = controller_of(pod)
    return (str(owner["uid"]),) if owner else ()


class Lookup:
    """Over shared informers."""

    def __init__(self, client: Client, informers: Informers, kinds: JobKinds) -> None:
        self._cluster = client.cluster
        self._informers = informers
        self._kinds = {kind.held_by_pods: kind for kind in kinds.all if kind.held_by_pods in ("set", "groups")}
        self._pod_kind = next(kind for kind in kinds.all if kind.resource == r.PODS)
        indexers = {GROUP_INDEX: group_index, PARENT_INDEX: parent_index}
        self._pods = informers.get(r.PODS, indexers=indexers).store

    def gather(self, key: ObjectKey) -> tuple[str, Hold] | None:
        """The name of their workload and what is to be known of them; None when nobody is there."""
        word, _, name = key.name.partition("/")
        where = key.cluster if self._cluster == EVERY else ""
        if word == "pod":
            pod = self._pods.get(key._replace(name=name))
            if pod is None or not is_managed(pod) or group_of(pod):
                return None
            return workload_name(self._pod_kind, pod), gathering.single(pod)
        if word == "group":
            pods = self._pods.by_index(GROUP_INDEX, f"{where}/{key.namespace}/{name}")
            return (name, gathering.group(pods)) if pods else None
        return self._of_owner(key, where, word, name)

    def _of_owner(self, key: ObjectKey, where: str, word: str, name: str) -> tuple[str, Hold] | None:
        kind = self._kinds[word]
        name, _, index = name.partition("/")
        owner = self._informers.get(kind.resource).store.get(key._replace(name=name))
        if owner is None or not is_queued(owner, kind):
            return None
        if word == "set":
            pods = self._pods.by_index(PARENT_INDEX, owner["metadata"]["uid"])
            return workload_name(kind, owner), gathering.stateful(kind, owner, pods)
        found = self._pods.by_index(PARENT_INDEX, f"{where}/{key.namespace}/{name}")
        pods = [p for p in found if labels_of(p).get(gathering.LWS_GROUP, "0") == index]
        if int(index) >= self.groups(owner):
            return None
        return name_for(kind, owner, f"{name}-{index}"), gathering.leader_worker(kind, owner, pods, index)

    def keys_of_pod(self, pod: Object) -> Iterator[ObjectKey]:
        """Who is concerned by a change of ``pod``."""
        if not is_managed(pod):
            return
        key, parent = key_of(pod, self._cluster), parent_of(pod)
        if parent and parent == parent_word(self._kinds["set"]):
            if owner := controller_of(pod):
                yield key._replace(name=f"set/{owner['name']}")
        elif parent and parent == parent_word(self._kinds["groups"]):
            own = labels_of(pod)
            yield key._replace(name=f"groups/{own.get(gathering.LWS_NAME, '')}/{own.get(gathering.LWS_GROUP, '0')}")
        elif group := group_of(pod):
            yield key._replace(name=f"group/{group}")
        else:
            yield key._replace(name=f"pod/{key.name}")

    def keys_of_owner(self, kind: JobKind, owner: Object) -> Iterator[ObjectKey]:
        """Of a StatefulSet or a LeaderWorkerSet."""
        key = key_of(owner, self._cluster)
        if kind.held_by_pods == "set":
            yield key._replace(name=f"set/{key.name}")
            return
        for index in range(self.groups(owner)):
            yield key._replace(name=f"groups/{key.name}/{index}")

    @staticmethod
    def groups(owner: Object) -> int:
        """How many groups a LeaderWorkerSet has; while it is rolled over with a surge, those as well."""
        wanted = number(read(owner, ("spec", "replicas")))
        wanted = 1 if wanted is None else wanted
        there = number(read(owner, ("status", "replicas"))) or 0
        surge = read(owner, ("spec", "rolloutStrategy", "rollingUpdateConfiguration", "maxSurge"), 0)
        updated = number(read(owner, ("status", "updatedReplicas"))) or 0
        return max(wanted, there) if surge and updated < wanted else wanted

    def keys_of_workload(self, workload: Object) -> Iterator[ObjectKey]:
        """Whose workload it is."""
        key = key_of(workload, self._cluster)
        notes = annotations_of(workload)
        if owner := notes.get(labels.OWNER_NAME):
            kind = notes.get(labels.OWNER_KIND, "").rpartition("Kind=")[2]
            if kind == self._kinds["set"].resource.kind:
                yield key._replace(name=f"set/{owner}")
            elif kind == self._kinds["groups"].resource.kind:
                index = notes.get(labels.COMPONENT_INDEX)
                yield key._replace(name=f"groups/{owner}/{index}")
        elif notes.get(labels.GROUP_WORKLOAD) == "true":
            yield key._replace(name=f"group/{key.name}")
        elif (ref := controller_of(workload)) and ref["kind"] == "Pod":
            yield key._replace(name=f"pod/{ref['name']}")

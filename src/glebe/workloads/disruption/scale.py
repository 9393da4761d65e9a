"""How many pods the controllers of some pods want to have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from glebe.kube.client import Client
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.objects import Object, controller_of
from glebe.kube.resources import Resource
from glebe.workloads.discovery import scalable, served_kinds

REPLICA_SETS = Resource("apps", "v1", "replicasets", "ReplicaSet")
_KNOWN = {
    ("", "ReplicationController"): Resource("", "v1", "replicationcontrollers", "ReplicationController"),
    ("apps", "ReplicaSet"): REPLICA_SETS,
    ("apps", "Deployment"): Resource("apps", "v1", "deployments", "Deployment"),
    ("apps", "StatefulSet"): Resource("apps", "v1", "statefulsets", "StatefulSet"),
}


class NoScale(Exception):
    """It cannot be said how many pods there should be; the message tells why."""


async def expected_scale(client: Client, namespace: str, pods: Iterable[Object]) -> tuple[int, list[str]]:
    """(sum over the pods' controllers, names of pods that have none).

    :raises NoScale: a controller has no scale, or is not there.
    """
    scales: dict[str, int] = {}
    unmanaged = []
    seen: set[str] = set()
    for pod in pods:
        owner = controller_of(pod)
        if owner is None:
            unmanaged.append(pod["metadata"]["name"])
        elif owner["uid"] not in seen:
            seen.add(owner["uid"])
            found = await _scale_of(client, namespace, owner)
            if found is None:
                raise NoScale(f'found no controllers for pod "{pod["metadata"]["name"]}"')
            scales[found[0]] = found[1]
    return sum(scales.values()), unmanaged


async def _scale_of(client: Client, namespace: str, owner: dict[str, Any]) -> tuple[str, int] | None:
    """(uid, replicas) of a controller, or of the Deployment behind it."""
    group, _, version = owner["apiVersion"].rpartition("/")
    resource = _KNOWN.get((group, owner["kind"]))
    if resource is None:
        return await _custom(client, namespace, owner, group, version)
    obj = await _get(client, resource, owner, namespace)
    if obj is None:
        return None
    above = controller_of(obj) if resource is REPLICA_SETS else None
    if above is not None and above["kind"] == "Deployment":
        return await _scale_of(client, namespace, above)
    return obj["metadata"]["uid"], int(obj["spec"].get("replicas", 1))


async def _custom(
    client: Client, namespace: str, owner: dict[str, Any], group: str, version: str
) -> tuple[str, int] | None:
    for entry in await served_kinds(client, group, version):
        if entry["kind"] != owner["kind"]:
            continue
        resource = Resource(group, version, entry["name"], entry["kind"], bool(entry.get("namespaced")))
        if not await scalable(client, resource):
            raise NoScale(f"{resource.group_resource} does not implement the scale subresource")
        obj = await _get(client, resource, owner, namespace, subresource="scale")
        return None if obj is None else (obj["metadata"]["uid"], int((obj.get("spec") or {}).get("replicas", 0)))
    raise NoScale(f'no matches for kind "{owner["kind"]}" in version "{owner["apiVersion"]}"')


async def _get(
    client: Client, resource: Resource, owner: dict[str, Any], namespace: str, subresource: str | None = None
) -> Object | None:
    try:
        obj = await client.get(resource, owner["name"], namespace, subresource=subresource)
    except ApiError as error:
        if is_not_found(error):
            return None
        raise
    return obj if obj["metadata"].get("uid") == owner["uid"] else None

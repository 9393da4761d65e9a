"""The thing that is scaled, through its ``scale`` subresource, whatever its kind."""

from __future__ import annotations

import orjson

from glebe.kube.client import Client
from glebe.kube.errors import ApiError, is_conflict
from glebe.kube.objects import Object
from glebe.kube.resources import DEPLOYMENTS, REPLICA_SETS, REPLICATION_CONTROLLERS, STATEFUL_SETS, Resource
from glebe.kube.transport import ConnectionLost
from glebe.workloads.discovery import served_kinds

_KNOWN = {(r.group, r.kind): r for r in (DEPLOYMENTS, REPLICA_SETS, REPLICATION_CONTROLLERS, STATEFUL_SETS)}
_ATTEMPTS = 5


class NoTarget(Exception):
    """There is no such thing, or it has no scale; the message is upstream's."""


async def resource_of(client: Client, group: str, kind: str) -> Resource:
    """Where objects of a kind are served.

    :raises NoTarget: nowhere.
    """
    known = _KNOWN.get((group, kind))
    if known is not None:
        return known
    for version in await _versions(client, group):
        for entry in await served_kinds(client, group, version):
            if entry["kind"] == kind:
                return Resource(group, version, entry["name"], kind, bool(entry.get("namespaced")))
    raise NoTarget(f'no matches for kind "{kind}" in group "{group}"')


async def _versions(client: Client, group: str) -> list[str]:
    """The preferred one first."""
    if not group:
        return ["v1"]
    try:
        body = orjson.loads((await client.raw("GET", f"/apis/{group}")).body)
    except ApiError as error:
        if error.code == 404:
            return []
        raise NoTarget(error.message) from error
    versions = [v["version"] for v in body.get("versions") or ()]
    first = (body.get("preferredVersion") or {}).get("version")
    return sorted(versions, key=lambda v: v != first)


async def read_scale(client: Client, ref: Object, namespace: str) -> tuple[Resource, Object]:
    """The kind of what ``ref`` (``spec.scaleTargetRef``) names, and its Scale.

    :raises NoTarget: it cannot be had.
    """
    api_version = str(ref.get("apiVersion", ""))
    if api_version.count("/") > 1:
        raise NoTarget(f"unexpected GroupVersion string: {api_version}")
    try:
        resource = await resource_of(client, api_version.rpartition("/")[0], ref["kind"])
        return resource, await client.get(resource, ref["name"], namespace, subresource="scale")
    except ApiError as error:
        raise NoTarget(error.message) from error
    except ConnectionLost as error:
        raise NoTarget(str(error)) from error


async def write_scale(client: Client, resource: Resource, scale: Object, replicas: int) -> None:
    """Set the number of replicas; others' changes in between do not matter.

    :raises NoTarget: it was refused.
    """
    meta = scale["metadata"]
    for attempt in range(_ATTEMPTS):
        try:
            body = {**scale, "spec": {**(scale.get("spec") or {}), "replicas": replicas}}
            await client.update(resource, body, subresource="scale")
            return
        except ApiError as error:
            if not is_conflict(error) or attempt == _ATTEMPTS - 1:
                raise NoTarget(error.message) from error
        except ConnectionLost as error:
            raise NoTarget(str(error)) from error
        try:
            scale = await client.get(resource, meta["name"], meta["namespace"], subresource="scale")
        except (ApiError, ConnectionLost) as error:
            raise NoTarget(str(error)) from error

"""Which resources a control plane serves, for the controllers that treat all kinds alike."""

from __future__ import annotations

import orjson

from glebe.kube.client import Client
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object
from glebe.kube.resources import Resource

# Nothing is gained by collecting these, and some exist in two groups.
_SKIPPED = frozenset({"events", "events.events.k8s.io", "componentstatuses", "bindings"})


async def deletable_resources(client: Client) -> list[Resource]:
    """Every resource that can be listed, watched and deleted, in its group's preferred version, ordered by name.

    A group whose discovery fails is an error: who deletes "everything" must know what there is.

    :raises ApiError: discovery is refused.
    """
    out: list[Resource] = []
    for path, group, version in await _group_versions(client):
        try:
            listing = await _get(client, path)
        except ApiError as error:
            if error.code == 404:
                continue  # the group went away in between
            raise
        for entry in listing.get("resources") or ():
            resource = Resource(group, version, entry["name"], entry["kind"], bool(entry.get("namespaced")))
            if "/" in entry["name"] or resource.group_resource in _SKIPPED:
                continue
            if {"list", "watch", "delete"} <= set(entry.get("verbs") or ()):
                out.append(resource)
    return sorted(out, key=lambda r: r.group_resource)


async def _group_versions(client: Client) -> list[tuple[str, str, str]]:
    out = [("/api/v1", "", "v1")]
    for group in (await _get(client, "/apis")).get("groups") or ():
        version = (group.get("preferredVersion") or group["versions"][0])["version"]
        out.append((f"/apis/{group['name']}/{version}", group["name"], version))
    return out


async def served_kinds(client: Client, group: str, version: str) -> list[Object]:
    """The collections (not subresources) of one group and version; none when it is not served."""
    path = f"/apis/{group}/{version}" if group else f"/api/{version}"
    try:
        listing = await _get(client, path)
    except ApiError as error:
        if error.code == 404:
            return []
        raise
    return [entry for entry in listing.get("resources") or () if "/" not in entry["name"]]


async def scalable(client: Client, resource: Resource) -> bool:
    """Whether the kind has a ``scale`` subresource."""
    path = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    listing = await _get(client, path)
    return any(entry["name"] == f"{resource.plural}/scale" for entry in listing.get("resources") or ())


async def _get(client: Client, path: str) -> Object:
    response = await client.raw("GET", path)
    body: Object = orjson.loads(response.body)
    return body

"""The two writes a node makes to a pod: its status, and the final deletion."""

from __future__ import annotations

from typing import Any

from glebe.kube.client import Client
from glebe.kube.errors import ApiError, is_conflict, is_not_found
from glebe.kube.objects import Object
from glebe.kube.resources import PODS


async def write_status(client: Client, pod: Object, status: dict[str, Any]) -> bool:
    """Write ``status`` to this very pod; ``False`` when it is gone (or another took its name).

    :raises ApiError: any other refusal.
    """
    meta = pod["metadata"]
    patch = {"metadata": {"uid": meta["uid"]}, "status": status}
    try:
        await client.patch(PODS, meta["name"], patch, meta["namespace"], kind="strategic", subresource="status")
    except ApiError as error:
        if is_not_found(error) or is_conflict(error):
            return False
        raise
    return True


async def finish_deletion(client: Client, pod: Object) -> None:
    """Remove a pod whose deletion was asked for and whose containers have ended."""
    meta = pod["metadata"]
    try:
        await client.delete(PODS, meta["name"], meta["namespace"], grace_period=0, uid=meta["uid"])
    except ApiError as error:
        if not (is_not_found(error) or is_conflict(error)):
            raise

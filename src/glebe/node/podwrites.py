"""The two writes a node makes to a pod: its status, and the final deletion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from glebe.kube.client import Client
from glebe.kube.errors import ApiError, is_conflict, is_not_found
from glebe.kube.objects import Object
from glebe.kube.pods import ENDED, has_ended
from glebe.kube.resources import PODS

_TRIES = 5


async def write_status(client: Client, pod: Object, make: Callable[[Object], dict[str, Any]]) -> bool:
    """Write the status that ``make`` gives for the pod as it is now; ``False`` when this very pod is gone.

    ``make`` sees conditions that others wrote in the meantime, and keeps them: the write is locked by resourceVersion
    and repeated on the newer pod after a conflict. A pod that somebody else has ended (its node was thought dead) never
    runs again: what its node, which may not have heard of it yet, says of containers that go on is not written.

    :raises ApiError: any other refusal.
    """
    meta = pod["metadata"]
    name, namespace, uid = meta["name"], meta["namespace"], meta["uid"]
    for last in (False,) * (_TRIES - 1) + (True,):
        lock = {"uid": uid, "resourceVersion": pod["metadata"]["resourceVersion"]}
        status = make(pod)
        if has_ended(pod) and status["phase"] not in ENDED:
            return True
        patch = {"metadata": lock, "status": status}
        try:
            await client.patch(PODS, name, patch, namespace, kind="merge", subresource="status")
            return True
        except ApiError as error:
            if is_not_found(error):
                return False
            if last or not is_conflict(error):
                raise
        try:
            pod = await client.get(PODS, name, namespace)
        except ApiError as error:
            if is_not_found(error):
                return False
            raise
        if pod["metadata"]["uid"] != uid:
            return False
    return False


async def finish_deletion(client: Client, pod: Object) -> None:
    """Remove a pod whose deletion was asked for and whose containers have ended."""
    meta = pod["metadata"]
    try:
        await client.delete(PODS, meta["name"], meta["namespace"], grace_period=0, uid=meta["uid"])
    except ApiError as error:
        another = is_conflict(error) and "uid" in error.message.lower()  # any other conflict is to be tried again
        if not (is_not_found(error) or another):
            raise

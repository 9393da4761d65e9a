"""Plans of consolidation for a cluster as it is: the same snapshot as the queue's, read once, nothing written."""

from __future__ import annotations

import asyncio

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.queueing.picture.snapshot import WATCHED, SnapshotBuilder
from glebe.scheduling.consolidate import Bounds, Consolidation, consolidations


async def plans(client: Client, env: Env, bounds: Bounds, most: int) -> list[Consolidation]:
    """At most ``most`` plans.

    :raises ApiError: when the API cannot be read.
    """
    lists = await asyncio.gather(*(client.list_all(resource) for resource in WATCHED))
    builder = SnapshotBuilder(client.cluster)
    for resource, found in zip(WATCHED, lists, strict=True):
        for item in found.items:
            builder.change(resource, None, item)
    return consolidations(builder.snapshot(), env.clock.now(), bounds, most=most)

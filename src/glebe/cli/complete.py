"""Completion of names in the shell: asks the server briefly and is silent about everything that goes wrong."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from glebe.cli.command import Session

if TYPE_CHECKING:
    from glebe.kube.resources import Resource

_SECONDS = 2.0  # a shell that hangs on Tab is worse than one that completes nothing


def job_names(context: typer.Context, incomplete: str) -> list[str]:
    """Jobs of the namespace."""
    from glebe.kube import resources as r

    return _names(context, incomplete, r.JOBS)


def queue_names(context: typer.Context, incomplete: str) -> list[str]:
    """LocalQueues of the namespace."""
    from glebe.kube import resources as r

    return _names(context, incomplete, r.LOCAL_QUEUES)


def all_queue_names(context: typer.Context, incomplete: str) -> list[str]:
    """LocalQueues of the namespace and ClusterQueues."""
    from glebe.kube import resources as r

    return _names(context, incomplete, r.LOCAL_QUEUES, r.CLUSTER_QUEUES)


def _names(context: typer.Context, incomplete: str, *resources: Resource) -> list[str]:
    kubeconfig, chosen, cluster, namespace = (
        str(context.params.get(name) or "") for name in ("kubeconfig", "context", "cluster", "namespace")
    )
    session = Session(kubeconfig, chosen, cluster, namespace)
    try:
        found = asyncio.run(_ask(session, resources))
    except Exception:  # no server, no rights, a broken kubeconfig: the command itself says it better
        return []
    return sorted(name for name in found if name.startswith(incomplete))


async def _ask(session: Session, resources: tuple[Resource, ...]) -> set[str]:
    async with asyncio.timeout(_SECONDS), session.connect() as client:
        lists = [
            await client.list_all(resource, session.namespace if resource.namespaced else None)
            for resource in resources
        ]
    return {str(item["metadata"]["name"]) for found in lists for item in found.items}

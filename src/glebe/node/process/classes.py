"""The RuntimeClasses that a process node brings along."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from glebe.kube.client import Client
from glebe.kube.errors import ApiError, is_already_exists
from glebe.kube.resources import RUNTIME_CLASSES
from glebe.kube.transport import ConnectionLost
from glebe.node.containers.containers import ANY_IMAGE, NATIVE

log = logging.getLogger("glebe.node")


async def offer(client: Client, handlers: Iterable[str]) -> None:
    """Make the classes ``process`` and, where images can run, ``container``; those that are there are left alone."""
    usable = set(handlers)
    for name in (NATIVE, ANY_IMAGE):
        if name not in usable:
            continue
        body = {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "glebe"}},
            "handler": name,
        }
        try:
            await client.create(RUNTIME_CLASSES, body)
        except (ApiError, ConnectionLost) as error:
            if not is_already_exists(error):
                log.warning("RuntimeClass %s could not be made: %s", name, error)

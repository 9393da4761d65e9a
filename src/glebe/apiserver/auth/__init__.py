"""Who asks, and what they may: keys and certificates, authentication, role-based access control, reviews."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from glebe.kube.objects import Object

Read: TypeAlias = Callable[[str, str, str, str], Object | None]
"""``(cluster, group_resource, namespace, name)`` -> the stored object, read only."""


class Lookup(Protocol):
    """How this room reads stored objects (the API server itself provides it)."""

    def read(self, cluster: str, group_resource: str, namespace: str, name: str) -> Object | None: ...

    def read_all(self, cluster: str, group_resource: str, namespace: str | None = None) -> list[Object]: ...

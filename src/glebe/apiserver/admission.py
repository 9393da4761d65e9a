"""The seam for admission: plugins that change or refuse objects before they are stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from glebe.apiserver.types.registry import ResourceInfo
from glebe.kube.objects import Object
from glebe.kube.transport import User


@dataclass(slots=True)
class AdmissionAttributes:
    """What is about to happen. ``obj`` (None for DELETE) may be changed in place; ``old`` must not be."""

    operation: str
    """CREATE, UPDATE or DELETE."""
    cluster: str
    info: ResourceInfo
    subresource: str
    namespace: str
    name: str
    obj: Object | None
    old: Object | None
    user: User
    dry_run: bool
    warn: Callable[[str], None]


class AdmissionPlugin(Protocol):
    """Runs after defaulting and before validation."""

    async def admit(self, a: AdmissionAttributes) -> None:
        """Change ``a.obj`` in place, or raise :class:`glebe.kube.errors.ApiError` to refuse."""
        ...

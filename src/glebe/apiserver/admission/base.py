"""The seam for admission: plugins that change or refuse objects before they are stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from glebe.apiserver.types.registry import ResourceInfo
from glebe.kube.objects import Object
from glebe.kube.transport import User


@dataclass(slots=True)
class AdmissionAttributes:
    """What is about to happen. ``obj`` (None for DELETE) may be changed in place; ``old`` must not be."""

    operation: str
    """CREATE, UPDATE, DELETE or CONNECT."""
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
    options: Object = field(default_factory=dict)
    """The request's CreateOptions, UpdateOptions, PatchOptions or DeleteOptions, as webhooks are told."""
    annotate: Callable[[str, str], None] = lambda key, value: None
    """Notes something for the audit log."""
    afterwards: list[Callable[[bool], None]] = field(default_factory=list)
    """Called once when the request is over, with whether the write was stored: who took something gives it back."""


class AdmissionPlugin(Protocol):
    """Runs after defaulting and before validation, in the order of ``ApiServer.admission``; may change the object."""

    async def admit(self, a: AdmissionAttributes) -> None:
        """Change ``a.obj`` in place, or raise :class:`glebe.kube.errors.ApiError` to refuse."""
        ...


class ValidatingPlugin(Protocol):
    """Runs after validation, right before the object is stored, in the order of ``ApiServer.validating``."""

    async def validate(self, a: AdmissionAttributes) -> None:
        """Raise :class:`glebe.kube.errors.ApiError` to refuse. ``a.obj`` must not be changed any more."""
        ...
